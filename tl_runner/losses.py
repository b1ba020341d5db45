"""The mathematics of transfer as pure functions of tensors: no state, no configuration, no classes of models.

Features are (…, n, d): any leading batch dimensions, n rows, d columns. Distances between two sets of rows
return one scalar per leading index, so that stacked runs can share them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MMD_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
WIDTH_FLOOR = 1e-6  # collapsed features are at distance zero: the kernel must stay finite


class _Labelled(Protocol):
    @property
    def y(self) -> Tensor: ...
    @property
    def w(self) -> Tensor | None: ...


def supervised(head: nn.Module, labelled: Mapping[Any, _Labelled], features: Iterable[Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of each labelled stream of a batch, under the stream's name: mean_i w_i · CE_i.

    `labelled` is `Batch.labelled`; `features` gives the (n, d) features of the same streams in the same order.
    The weights have mean 1 over all rows, not over a batch, so the mean of batches is that of the whole set.
    """
    pairs = zip(labelled.items(), features, strict=True)
    return {name: _weighted_mean(head(rows_features), rows) for (name, rows), rows_features in pairs}


def _weighted_mean(logits: Tensor, rows: _Labelled) -> Tensor:
    if rows.w is None:
        return F.cross_entropy(logits, rows.y)
    return (rows.w * F.cross_entropy(logits, rows.y, reduction="none")).mean()


def ramp(progress: float) -> float:
    """2/(1+exp(−10p)) − 1: grows from 0 to 1 over the fraction p of training done (Ganin et al. 2016)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


Schedule = Literal["ramp", "linear", "constant"]


def scheduled(schedule: Schedule, progress: float) -> float:
    """How much of its weight a term has at this fraction of training: `ramp`, `linear` (p itself), `constant` (1)."""
    return {"ramp": ramp(progress), "linear": progress, "constant": 1.0}[schedule]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖², (…, n, d) and (…, m, d) -> (…, n, m), in float32.

    By the Gram matrix, ‖a‖² + ‖b‖² − 2ab: a (n, m, d) tensor of differences would not fit. The rows are
    centred first, which leaves distances alone and keeps the cancellation small when features lie far from 0.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        centre = a.mean(-2, keepdim=True).detach()
        a, b = a - centre, b - centre
        gram = a @ b.mT
        return (a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2.0 * gram).clamp_min(0.0)


def mmd2(
    source: Tensor,
    target: Tensor,
    scales: Sequence[float] = MMD_SCALES,
    estimator: Literal["biased", "unbiased"] = "biased",
) -> Tensor:
    """Squared maximum mean discrepancy under a sum of RBF kernels k(a, b) = Σ_s exp(−‖a−b‖² / (s·width)).

    width is the mean of ‖a−b‖² over the pairs of different rows of the joint batch, without gradient.
    `biased` is the V-statistic mean k_ss + mean k_tt − 2 mean k_st ≥ 0; `unbiased`, the U-statistic, leaves
    each row's kernel with itself out of the first two means: its expectation is 0 when both sides have one
    distribution, so single values may be negative. Gretton et al., JMLR 2012; Long et al., ICML 2015.

    (…, n, d), (…, m, d) -> (…). `unbiased` needs n, m ≥ 2.
    """
    n, m = source.shape[-2], target.shape[-2]
    if estimator == "unbiased" and min(n, m) < 2:
        raise ValueError(f"the unbiased MMD needs at least 2 rows a side, got {n} and {m}")
    joint = torch.cat([source, target], dim=-2)
    distances = squared_distances(joint, joint)
    rows = n + m
    off_diagonal = ~torch.eye(rows, dtype=torch.bool, device=joint.device)
    distances = distances * off_diagonal  # a row is at distance exactly 0 from itself; the Gram form is not exact
    width = (distances.sum((-2, -1)) / (rows * (rows - 1))).clamp_min(WIDTH_FLOOR).detach()
    kernel = sum(torch.exp(distances / (-scale * width[..., None, None])) for scale in scales)
    assert isinstance(kernel, Tensor)
    between = kernel[..., :n, n:].mean((-2, -1))
    if estimator == "biased":
        return kernel[..., :n, :n].mean((-2, -1)) + kernel[..., n:, n:].mean((-2, -1)) - 2.0 * between
    kernel = kernel * off_diagonal
    within_source = kernel[..., :n, :n].sum((-2, -1)) / (n * (n - 1))
    within_target = kernel[..., n:, n:].sum((-2, -1)) / (m * (m - 1))
    return within_source + within_target - 2.0 * between


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance of the columns, (…, n, d) -> (…, d, d), in float32; n ≥ 2."""
    with torch.autocast(features.device.type, enabled=False):
        centred = features.float() - features.float().mean(-2, keepdim=True)
        return centred.mT @ centred / (features.shape[-2] - 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s − C_t‖²_F / (4d²), the distance of the covariances (Sun & Saenko 2016); (…, n, d), (…, m, d) -> (…)."""
    gap = covariance(source) - covariance(target)
    return gap.square().sum((-2, -1)) / (4 * source.shape[-1] ** 2)


def domainbed_coral(source: Tensor, target: Tensor) -> Tensor:
    """mean((μ_s−μ_t)²) + mean((C_s−C_t)²), the form of Gulrajani & Lopez-Paz 2021; (…, n, d), (…, m, d) -> (…)."""
    means = (source.float().mean(-2) - target.float().mean(-2)).square().mean(-1)
    return means + (covariance(source) - covariance(target)).square().mean((-2, -1))


def entropy(probabilities: Tensor) -> Tensor:
    """−Σ p log p of each row in nats, with 0 log 0 = 0; (…, C) -> (…)."""
    return torch.special.entr(probabilities).sum(-1)


def information(logits: Tensor) -> Tensor:
    """H(mean p) − mean H(p), p the softmax of each row: how much a row tells of its class, in nats; (…, n, C) -> (…).

    Large where predictions are sure and all classes are predicted (Bridle et al. 1991; Krause et al. 2010).
    """
    probabilities = logits.float().softmax(-1)
    return entropy(probabilities.mean(-2)) - entropy(probabilities).mean(-1)


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return -ctx.strength * gradient, None


def reverse(x: Tensor, strength: float = 1.0) -> Tensor:
    """Gradient reversal: the identity forward, −strength × the gradient backward (Ganin & Lempitsky 2015)."""
    return _Reverse.apply(x, strength)
