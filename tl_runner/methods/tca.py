"""Transfer component analysis: components on which the domains differ little (TCA)."""

from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tl_runner.errors import check_range
from tl_runner.functional.mmd import WIDTH_FLOOR
from tl_runner.methods.closed_form import ClosedForm, Move, rank, sample_rows
from tl_runner.models.heads import Fitted, InverseRegularisation, Kernel, NumberOfNeighbours, build_linear
from tl_runner.options import NoEffect


class TCA(ClosedForm):
    """A head on transfer components K W; W has the largest tr((Wᵀ A W)⁻¹ Wᵀ K H K W), A = K L K + mu·I.

    K (n + m, n + m) is the kernel of both domains' training rows, H centres, tr(Wᵀ K L K W) is the squared distance of
    the domains' means (MMD²): on the components the rows differ, and the domains little. The columns of W are the
    leading eigenvectors of A⁻¹ K H K, scaled to Wᵀ A W = I. `linear` is K = X Xᵀ, whose components are a linear map of
    features; `rbf` is exp(−‖a − b‖²/width), width the mean of ‖a − b‖² over the pairs of different rows, computed from
    at most `rows` rows of each domain. Pan, Tsang, Kwok & Yang, IEEE TNN 2011.
    """

    def __init__(
        self,
        dimensions: int = 10,
        mu: float = 1.0,
        kernel: Literal["linear", "rbf"] = "linear",
        rows: Annotated[int, NoEffect("kernel", "linear")] = 1000,
        head: Fitted = "auto",
        C: InverseRegularisation = 1.0,  # noqa: N803
        k: NumberOfNeighbours = 5,
    ):
        super().__init__(head, C, k)
        check_range(1, dimensions=dimensions)
        check_range(2, rows=rows)
        check_range(1e-9, mu=mu)
        self.dimensions, self.mu, self.rows = dimensions, mu, rows
        self.kernel: Literal["linear", "rbf"] = kernel

    def align(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        if self.kernel == "linear":
            matrix = linear_components(source, target, self.dimensions, self.mu)
            return None, build_linear(matrix.T.numpy(), np.zeros(matrix.shape[1]))
        source, target = sample_rows(source, self.rows, seed, "source"), sample_rows(target, self.rows, seed, "target")
        return None, rbf_components(source, target, self.dimensions, self.mu)


def linear_components(source: Tensor, target: Tensor, dimensions: int, mu: float) -> Tensor:
    """P = Xᵀ W (d, c) of float64 rows (n, d), (m, d): x ↦ x P are TCA's components of the kernel X Xᵀ."""
    left, values, axes = torch.linalg.svd(torch.cat([source, target]), full_matrices=False)
    kept = rank(values)
    left, values, axes = left[:, :kept], values[:kept], axes[:kept]
    return axes.T * values @ find_leading(left, values.square(), len(source), dimensions, mu)


def rbf_components(source: Tensor, target: Tensor, dimensions: int, mu: float) -> Kernel:
    """TCA's components of the kernel exp(−‖a − b‖²/width), as a module (…, d) -> (…, c)."""
    joint = torch.cat([source, target])
    distances = torch.cdist(joint, joint).square()
    width = (distances.sum() / (len(joint) * (len(joint) - 1))).clamp_min(WIDTH_FLOOR)
    values, vectors = torch.linalg.eigh(torch.exp(-distances / width))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = rank(values)
    weight = vectors[:, :kept] @ find_leading(vectors[:, :kept], values[:kept], len(source), dimensions, mu)
    return Kernel(joint.float(), weight.float(), width.float())


def find_leading(left: Tensor, values: Tensor, n: int, dimensions: int, mu: float) -> Tensor:
    """A (r, c), W = left · A: the leading components of K = left · diag(values) · leftᵀ, n source rows first.

    No direction outside of `left` (n + m, r) has a share in K W, so the eigenproblem is one of r, not of n + m, rows.
    """
    mapped = left * values  # K · left
    gap = mapped[:n].mean(0) - mapped[n:].mean(0)
    centred = mapped - mapped.mean(0)
    lower = torch.linalg.cholesky(torch.outer(gap, gap) + mu * torch.eye(len(values), dtype=values.dtype))
    half = torch.linalg.solve_triangular(lower, centred.T, upper=False)
    vectors, _, _ = torch.linalg.svd(half, full_matrices=False)
    return torch.linalg.solve_triangular(lower.T, vectors[:, :dimensions], upper=True)
