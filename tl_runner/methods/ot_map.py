"""Feature alignment by optimal transport: frozen source features are taken to the target's, then a head is fitted."""

import logging

import numpy as np
import torch
from torch import Tensor, nn

from tl_runner.errors import UserError, check_range
from tl_runner.functional.importance import nearest_rows
from tl_runner.functional.mmd import WIDTH_FLOOR
from tl_runner.methods.closed_form import ClosedForm, Move, sample_rows
from tl_runner.models.heads import Fitted, InverseRegularisation, NumberOfNeighbours

log = logging.getLogger(__name__)

FAR, OFF = 1e-3, 0.05  # of all mass: warn above the first, refuse a plan above the second


class OTMap(ClosedForm):
    """Source features where an optimal transport plan takes them, z_i = Σ_j γ_ij x_j / Σ_j γ_ij, then a head on them.

    γ is the plan of least Σ γ_ij ‖x_i − x_j‖² between training rows of source and target, each of the same mass; with
    `entropy` > 0 of that − entropy · (mean cost) · H(γ). It is computed from at most `rows` rows of each domain; any
    other source row moves as the nearest of those does (Ferradans et al. 2014). Courty, Flamary, Tuia & Rakotomamonjy,
    IEEE TPAMI 2017, without their class regulariser; the plan by POT (Flamary et al., JMLR 2021).
    """

    def __init__(
        self,
        entropy: float = 0.0,
        rows: int = 1000,
        head: Fitted = "auto",
        C: InverseRegularisation = 1.0,  # noqa: N803
        k: NumberOfNeighbours = 5,
    ):
        super().__init__(head, C, k)
        check_range(0, 100, entropy=entropy)
        check_range(2, rows=rows)
        self.entropy, self.rows = entropy, rows

    def align(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        source, target = sample_rows(source, self.rows, seed, "source"), sample_rows(target, self.rows, seed, "target")
        return move_along(source, transport_source(source, target, self.entropy)), None


def transport_source(source: Tensor, target: Tensor, entropy: float) -> Tensor:
    """Where the barycentric map of the plan takes each source row, (n, d); float64 rows (n, d), (m, d)."""
    plan = transport_plan(source, target, entropy)
    return plan @ target / plan.sum(1, keepdim=True)


def transport_plan(source: Tensor, target: Tensor, entropy: float) -> Tensor:
    """γ (n, m), rows of sum 1/n, columns of sum 1/m. Warns, or raises `UserError`, without convergence."""
    import ot

    cost = torch.cdist(source, target).square()
    cost = (cost / cost.mean().clamp_min(WIDTH_FLOOR)).numpy()
    n, m = cost.shape
    masses = np.full(n, 1 / n), np.full(m, 1 / m)
    if entropy == 0:
        found = ot.emd(*masses, cost, numItermax=10_000_000)
    else:
        found = ot.sinkhorn(*masses, cost, entropy, method="sinkhorn_log", numItermax=2000, stopThr=1e-7, warn=False)
    plan = np.asarray(found)
    off = max(abs(plan.sum(axis) - wanted).sum() for axis, wanted in zip((1, 0), masses, strict=True))
    if not off < OFF:
        raise UserError(
            f"no transport plan was found with method.entropy={entropy:g}, {off:.0%} of the mass is not where it should"
            " be: 0 is the exact plan, 0.01 and more are found, and fewer method.rows are easier"
        )
    if off > FAR:
        log.warning("ot_map: the transport plan is not quite the optimal one: %.1e of the mass is off", off)
    return torch.as_tensor(plan)


def move_along(rows: Tensor, moved: Tensor) -> Move:
    """x ↦ x + the shift of the nearest of the rows (n, d), which moved (n, d)."""

    def move(x: Tensor) -> Tensor:
        _, of = nearest_rows(x, rows.to(x))
        return x + (moved - rows).to(x)[of]

    return move
