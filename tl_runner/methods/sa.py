"""Closed-form alignment of the domains' principal axes (subspace alignment)."""

import torch
from torch import Tensor, nn

from tl_runner.errors import check_range
from tl_runner.methods.closed_form import ClosedForm, Move, affine_map, rank
from tl_runner.models.heads import Fitted, InverseRegularisation, NumberOfNeighbours, build_linear


class SubspaceAlignment(ClosedForm):
    """A head on principal coordinates, the source's turned to the target's: (x_s − μ_s) P_s P_sᵀ P_t, (x_t − μ_t) P_t.

    P_s, P_t (d, dimensions) are the domains' principal axes; M = P_sᵀ P_t is the map with the least ‖P_s M − P_t‖_F.
    Fernando, Habrard, Sebban & Tuytelaars, ICCV 2013.
    """

    def __init__(
        self,
        dimensions: int = 10,
        head: Fitted = "auto",
        C: InverseRegularisation = 1.0,  # noqa: N803
        k: NumberOfNeighbours = 5,
    ):
        super().__init__(head, C, k)
        check_range(1, dimensions=dimensions)
        self.dimensions = dimensions

    def align(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        of_source, of_target = principal_axes(source, self.dimensions), principal_axes(target, self.dimensions)
        # Source rows move to (x − μ_s) P_s P_sᵀ + μ_t, so that one projection (x − μ_t) P_t serves both domains.
        move = affine_map(of_source @ of_source.T, source, target)
        return move, build_linear(of_target.T.numpy(), -(target.mean(0) @ of_target).numpy())


def principal_axes(rows: Tensor, dimensions: int) -> Tensor:
    """The directions of most variance, (d, c) orthonormal, of rows (n, d); c is `dimensions`, or the rank if less."""
    _, values, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return axes[: min(dimensions, rank(values))].T
