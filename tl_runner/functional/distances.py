"""Distances of two domains as pure functions of their rows, (…, n, d) and (…, m, d) -> (…), to train on or to report.

All are 0 where both sides have the same rows, and have a gradient.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from tl_runner.functional import losses

PROJECTIONS = 256  # of the sliced Wasserstein distance
LENGTH_FLOOR = 1e-8  # of a mean at the origin, which has no direction


def sliced_wasserstein2(source: Tensor, target: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> Tensor:
    """mean_u W₂²(⟨s,u⟩, ⟨t,u⟩) over seeded unit vectors u, the same at every call (Bonneel et al., JMIV 2015).

    In one dimension W₂² is ∫(Q_s(q) − Q_t(q))² dq of the quantile functions, exact also for n ≠ m. A shift of all rows
    by δ is about ‖δ‖²/d. In float32; by sorting, in time n·log n.
    """
    with torch.autocast(source.device.type, enabled=False):
        width, device = source.shape[-1], source.device
        directions = torch.nn.functional.normalize(losses.normal(width, projections, device, seed), dim=0)
        sorted_source = (source.float() @ directions).sort(-2).values
        sorted_target = (target.float() @ directions).sort(-2).values
        mass, of_source, of_target = _matched(source.shape[-2], target.shape[-2], device)
        gaps = sorted_source[..., of_source, :] - sorted_target[..., of_target, :]
        return (mass[:, None] * gaps.square()).sum(-2).mean(-1)


@lru_cache(maxsize=8)
def _matched(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """How n and m sorted rows are matched in one dimension: the mass of each piece, and its row on either side.

    The pieces end where a quantile function steps, at i/n and j/m; counted in n·m parts they are whole numbers.
    """
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    mass = ends.diff(prepend=torch.zeros(1, dtype=torch.long)).float() / (n * m)
    last = ends - 1
    return mass.to(device), (last // m).to(device), (last // n).to(device)


def cosine_distance(source: Tensor, target: Tensor) -> Tensor:
    """1 − cos of the angle between the mean rows: from 0 to 2, blind to lengths and spread; 1 for a mean of 0."""
    means = source.float().mean(-2), target.float().mean(-2)
    return 1.0 - torch.cosine_similarity(*means, dim=-1, eps=LENGTH_FLOOR)


Distance = Literal["mmd", "coral", "wasserstein", "cosine"]
DISTANCES: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "mmd": losses.mmd2,
    "coral": losses.coral,
    "wasserstein": sliced_wasserstein2,
    "cosine": cosine_distance,
}
