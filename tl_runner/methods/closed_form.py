"""Closed-form feature alignment: features of a frozen source model are aligned at once, then a head is fitted to them.

The head learns from the aligned source rows, and from granted target rows where there are some, each weighing the same.
It is one of `models.heads.fit_head`: logistic, svm (`C`), knn (`k`) or ncm. Nothing is trained by the loop. What moves
source rows is in the pair that `prepare` returns, what all rows then go through is in the model: the recorded source
accuracy is that of aligned rows. The features are the source model's; `pretrain=none backbone=identity` makes them the
inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tl_runner.core import Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.functional.losses import WIDTH_FLOOR
from tl_runner.models.features import freeze_features, gather_rows, move_source
from tl_runner.models.heads import IDLE, Fitted, Kernel, affine, fit_head
from tl_runner.rng import chance_of

Move = Callable[[Tensor], Tensor]
TINY = 1e-10  # of the largest singular value: a direction below it is none


class ClosedForm(Method, ABC):
    """A head on aligned features; a subclass says what aligns them."""

    needs = frozenset({"source", "target"})
    start = "source"
    once = True
    idle = IDLE

    def __init__(self, head: Fitted, C: float, k: int):  # noqa: N803
        super().__init__()
        within(1e-9, C=C)
        within(1, k=k)
        self.head: Fitted = head
        self.C, self.k = C, k

    @abstractmethod
    def aligned(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        """Of training rows (n, d) and (m, d), float64: what moves source rows, and what all rows then go through."""

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        model, pair = freeze_features(model, pair)
        source, labels = pair.labelled_source
        move, project = self.aligned(gather_rows(source.train).double(), gather_rows(pair.target.train).double(), seed)
        if move:
            pair = move_source(pair, move)
            source, _ = pair.labelled_source
        x, y = gather_rows(source.train), labels.train.cpu()
        if pair.granted is not None:
            x, y = torch.cat([x, gather_rows(pair.granted.x)]), torch.cat([y, pair.granted.y.cpu()])
        with torch.no_grad():
            head = fit_head(
                self.head, x if project is None else project(x), y, len(model.classes), self.C, self.k, seed
            )
        model.head = head if project is None else nn.Sequential(project, head)  # what all rows go through is part of it
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()


class CoralLinear(ClosedForm):
    """Recoloured source features, z = (x − μ_s)(C_s + ridge·I)^(−½) (C_t + ridge·I)^(½) + μ_t, then a head on them.

    C are the domains' covariances, μ their means. Sun, Feng & Saenko, AAAI 2016 (CORAL), with ridge 1 and means of 0.
    """

    def __init__(self, ridge: float = 1.0, head: Fitted = "logistic", C: float = 1.0, k: int = 5):  # noqa: N803
        super().__init__(head, C, k)
        within(1e-9, ridge=ridge)
        self.ridge = ridge

    def aligned(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        return affine_map(recolouring(source, target, self.ridge), source, target), None


def affine_map(matrix: Tensor, source: Tensor, target: Tensor) -> Move:
    """x ↦ (x − μ_s) · matrix + μ_t, with the means of these rows."""
    before, after = source.mean(0), target.mean(0)

    def move(x: Tensor) -> Tensor:
        return (x - before.to(x)) @ matrix.to(x) + after.to(x)

    return move


def recolouring(source: Tensor, target: Tensor, ridge: float) -> Tensor:
    """A = (C_s + ridge·I)^(−½) (C_t + ridge·I)^(½), of float64 rows (n, d) and (m, d) -> (d, d).

    Aᵀ (C_s + ridge·I) A = C_t + ridge·I.
    """
    return power(covariance(source, ridge), -0.5) @ power(covariance(target, ridge), 0.5)


def covariance(rows: Tensor, ridge: float) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1) + ridge * torch.eye(rows.shape[1], dtype=rows.dtype)


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.pow(exponent) @ vectors.T


class SubspaceAlignment(ClosedForm):
    """A head on principal coordinates, the source's turned to the target's: (x_s − μ_s) P_s P_sᵀ P_t, (x_t − μ_t) P_t.

    P_s, P_t (d, dimensions) are the domains' principal axes; M = P_sᵀ P_t is the map with the least ‖P_s M − P_t‖_F.
    Fernando, Habrard, Sebban & Tuytelaars, ICCV 2013.
    """

    def __init__(self, dimensions: int = 10, head: Fitted = "logistic", C: float = 1.0, k: int = 5):  # noqa: N803
        super().__init__(head, C, k)
        within(1, dimensions=dimensions)
        self.dimensions = dimensions

    def aligned(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        of_source, of_target = principal_axes(source, self.dimensions), principal_axes(target, self.dimensions)
        # Source rows move to (x − μ_s) P_s P_sᵀ + μ_t, so that one projection (x − μ_t) P_t serves both domains.
        move = affine_map(of_source @ of_source.T, source, target)
        return move, affine(of_target.T.numpy(), -(target.mean(0) @ of_target).numpy())


def principal_axes(rows: Tensor, dimensions: int) -> Tensor:
    """The directions of most variance, (d, c) orthonormal, of rows (n, d); c is `dimensions`, or the rank if less."""
    _, values, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return axes[: min(dimensions, rank(values))].T


def rank(values: Tensor) -> int:
    """How many of these singular values, in falling order, are not 0; one at least."""
    return max(1, int((values > TINY * values[0]).sum()))


class TCA(ClosedForm):
    """A head on transfer components K W; W has the largest tr((Wᵀ A W)⁻¹ Wᵀ K H K W), A = K L K + mu·I.

    K (n + m, n + m) is the kernel of both domains' training rows, H centres, tr(Wᵀ K L K W) is the squared distance of
    the domains' means (MMD²): on the components the rows differ, and the domains little. The columns of W are the
    leading eigenvectors of A⁻¹ K H K, scaled to Wᵀ A W = I. `linear` is K = X Xᵀ, whose components are a linear map of
    features; `rbf` is exp(−‖a − b‖²/width), width the mean of ‖a − b‖² over the pairs of different rows, computed from
    at most `rows` rows of each domain. Pan, Tsang, Kwok & Yang, IEEE TNN 2011.
    """

    idle = IDLE | {"rows": ("kernel", {"linear"})}

    def __init__(
        self,
        dimensions: int = 10,
        mu: float = 1.0,
        kernel: Literal["linear", "rbf"] = "linear",
        rows: int = 1000,
        head: Fitted = "logistic",
        C: float = 1.0,  # noqa: N803
        k: int = 5,
    ):
        super().__init__(head, C, k)
        within(1, dimensions=dimensions)
        within(2, rows=rows)
        within(1e-9, mu=mu)
        self.dimensions, self.mu, self.rows = dimensions, mu, rows
        self.kernel: Literal["linear", "rbf"] = kernel

    def aligned(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        if self.kernel == "linear":
            matrix = linear_components(source, target, self.dimensions, self.mu)
            return None, affine(matrix.T.numpy(), np.zeros(matrix.shape[1]))
        source, target = some(source, self.rows, seed, "source"), some(target, self.rows, seed, "target")
        return None, rbf_components(source, target, self.dimensions, self.mu)


def linear_components(source: Tensor, target: Tensor, dimensions: int, mu: float) -> Tensor:
    """P = Xᵀ W (d, c) of float64 rows (n, d), (m, d): x ↦ x P are TCA's components of the kernel X Xᵀ."""
    left, values, axes = torch.linalg.svd(torch.cat([source, target]), full_matrices=False)
    kept = rank(values)
    left, values, axes = left[:, :kept], values[:kept], axes[:kept]
    return axes.T * values @ leading(left, values.square(), len(source), dimensions, mu)


def rbf_components(source: Tensor, target: Tensor, dimensions: int, mu: float) -> Kernel:
    """TCA's components of the kernel exp(−‖a − b‖²/width), as a module (…, d) -> (…, c)."""
    joint = torch.cat([source, target])
    distances = torch.cdist(joint, joint).square()
    width = (distances.sum() / (len(joint) * (len(joint) - 1))).clamp_min(WIDTH_FLOOR)
    values, vectors = torch.linalg.eigh(torch.exp(-distances / width))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = rank(values)
    weight = vectors[:, :kept] @ leading(vectors[:, :kept], values[:kept], len(source), dimensions, mu)
    return Kernel(joint.float(), weight.float(), width.float())


def leading(left: Tensor, values: Tensor, n: int, dimensions: int, mu: float) -> Tensor:
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


def some(rows: Tensor, limit: int, seed: int, name: str) -> Tensor:
    """At most so many of the rows, drawn at random."""
    with chance_of(seed, "rows", name):
        return rows[torch.randperm(len(rows))[:limit]]
