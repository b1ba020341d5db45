"""Closed-form alignment of the domains' covariances (CORAL)."""

import torch
from torch import Tensor, nn

from tl_runner.errors import check_range
from tl_runner.methods.closed_form import ClosedForm, Move, affine_map
from tl_runner.models.heads import Fitted, InverseRegularisation, NumberOfNeighbours


class CoralLinear(ClosedForm):
    """Recoloured source features, z = (x − μ_s)(C_s + ridge·I)^(−½) (C_t + ridge·I)^(½) + μ_t, then a head on them.

    C are the domains' covariances, μ their means. Sun, Feng & Saenko, AAAI 2016 (CORAL), with ridge 1 and means of 0.
    """

    def __init__(
        self,
        ridge: float = 1.0,
        head: Fitted = "auto",
        C: InverseRegularisation = 1.0,  # noqa: N803
        k: NumberOfNeighbours = 5,
    ):
        super().__init__(head, C, k)
        check_range(1e-9, ridge=ridge)
        self.ridge = ridge

    def align(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        return affine_map(recolouring(source, target, self.ridge), source, target), None


def recolouring(source: Tensor, target: Tensor, ridge: float) -> Tensor:
    """A = (C_s + ridge·I)^(−½) (C_t + ridge·I)^(½), of float64 rows (n, d) and (m, d) -> (d, d).

    Aᵀ (C_s + ridge·I) A = C_t + ridge·I.
    """
    return power(ridge_covariance(source, ridge), -0.5) @ power(ridge_covariance(target, ridge), 0.5)


def ridge_covariance(rows: Tensor, ridge: float) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1) + ridge * torch.eye(rows.shape[1], dtype=rows.dtype)


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.pow(exponent) @ vectors.T
