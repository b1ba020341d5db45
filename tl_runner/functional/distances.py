"""Distances of two domains as pure functions of their rows, (…, n, d) and (…, m, d) -> (…), to train on or to report.

All are 0 where both sides have the same rows, and have a gradient.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from tl_runner.functional import losses
from tl_runner.functional.losses import raise_precision
from tl_runner.functional.mmd import mmd2

PROJECTIONS = 256  # of the sliced Wasserstein distance
LENGTH_FLOOR = 1e-8  # of a mean at the origin, which has no direction


def sliced_wasserstein2(source: Tensor, target: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> Tensor:
    """mean_u W₂²(⟨s,u⟩, ⟨t,u⟩) over seeded unit vectors u, the same at every call (Bonneel et al., JMIV 2015).

    In one dimension W₂² is ∫(Q_s(q) − Q_t(q))² dq of the quantile functions, exact also for n ≠ m. A shift of all rows
    by δ is about ‖δ‖²/d. In float32 at least; by sorting, in time n·log n.
    """
    with torch.autocast(source.device.type, enabled=False):
        source, target = raise_precision(source), raise_precision(target)
        normal = losses.normal(source.shape[-1], projections, source.device, seed).to(source.dtype)
        directions = torch.nn.functional.normalize(normal, dim=0)
        quantiles = (source @ directions).sort(-2).values, (target @ directions).sort(-2).values
        n, m = source.shape[-2], target.shape[-2]
        if n == m:  # the i-th row of one side is matched with the i-th of the other
            return (quantiles[0] - quantiles[1]).square().mean((-2, -1))
        mass, of_source, of_target = _match_quantiles(n, m, source.device)
        gaps = quantiles[0].index_select(-2, of_source) - quantiles[1].index_select(-2, of_target)
        return (mass[:, None] * gaps.square()).sum(-2).mean(-1) / (n * m)


def _match_quantiles(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """How n and m sorted rows are matched in one dimension: n·m times the mass of each piece, its row on either side.

    The pieces end where a quantile function steps, at i/n and j/m. Where both step at once a piece has no mass: to
    leave it out would mean to wait for the device to count them.
    """
    ends = torch.cat([torch.arange(m, n * m + 1, m, device=device), torch.arange(n, n * m + 1, n, device=device)])
    ends = ends.sort().values
    last = ends - 1
    return ends.diff(prepend=ends.new_zeros(1)), last // m, last // n


def cosine_distance(source: Tensor, target: Tensor) -> Tensor:
    """1 − cos of the angle between the mean rows: from 0 to 2, blind to lengths and spread; 1 for a mean of 0."""
    means = raise_precision(source).mean(-2), raise_precision(target).mean(-2)
    return 1.0 - torch.cosine_similarity(*means, dim=-1, eps=LENGTH_FLOOR)


Distance = Literal["mmd", "coral", "wasserstein", "cosine"]
DISTANCES: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "mmd": mmd2,
    "coral": losses.coral,
    "wasserstein": sliced_wasserstein2,
    "cosine": cosine_distance,
}
