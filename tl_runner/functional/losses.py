"""The mathematics of transfer as pure functions of tensors: no state, no configuration, no classes of models.

Features are (…, n, d): any leading batch dimensions, n rows, d columns. Distances between two sets of rows
return one scalar per leading index, so that stacked runs can share them.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.rng import Rng

MMD_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
WIDTH_FLOOR = 1e-6  # collapsed features are at distance zero: the kernel must stay finite
FREQUENCIES = 512  # of the random Fourier features: the standard error of a kernel value is below 1/√1024
Estimator = Literal["biased", "unbiased", "linear", "rff"]


class _Labelled(Protocol):
    @property
    def y(self) -> Tensor: ...
    @property
    def w(self) -> Tensor | None: ...


def supervised(head: nn.Module, labelled: Mapping[Any, _Labelled], features: Iterable[Tensor]) -> dict[str, Tensor]:
    """The loss of each labelled stream of a batch, under the stream's name: mean_i w_i · loss_i, see `row_losses`.

    `labelled` is `Batch.labelled`; `features` gives the (n, d) features of the same streams in the same order.
    The weights have mean 1 over all rows, not over a batch, so the mean of batches is that of the whole set.
    """
    pairs = zip(labelled.items(), features, strict=True)
    return {name: _weighted_mean(head(rows_features), rows) for (name, rows), rows_features in pairs}


def _weighted_mean(outputs: Tensor, rows: _Labelled) -> Tensor:
    if rows.w is None:
        return mean_loss(outputs, rows.y)
    return (rows.w * row_losses(outputs, rows.y)).mean()


def mean_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean of `row_losses`."""
    return F.cross_entropy(outputs, y) if not y.is_floating_point() else F.mse_loss(outputs.float()[:, 0], y)


def row_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """The loss (n,) of each row's outputs (n, k) by its label y (n,).

    Cross-entropy of logits where labels are class numbers; the squared error of the one output where they are
    quantities.
    """
    if y.is_floating_point():
        return (outputs.float()[:, 0] - y).square()
    return F.cross_entropy(outputs, y, reduction="none")


def ramp(progress: float) -> float:
    """2/(1+exp(−10p)) − 1: grows from 0 to 1 over the fraction p of training done (Ganin et al. 2016)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


Schedule = Literal["ramp", "linear", "constant", "cosine"]


def scheduled(schedule: Schedule, progress: float) -> float:
    """How much of its weight a term has at this fraction of training: `ramp`, `linear` (p itself), `constant` (1).

    `cosine` is ½ − ½cos(min(π, 2πp)), which grows to 1 over the first half of training (Berthelot et al. 2022).
    """
    cosine = 0.5 - 0.5 * math.cos(min(math.pi, 2 * math.pi * progress))
    return {"ramp": ramp(progress), "linear": progress, "constant": 1.0, "cosine": cosine}[schedule]


def extended(features: Tensor) -> Tensor:
    """(f, 1) / ‖(f, 1)‖ of each row, the 1 for a head's bias; (…, n, d) -> (…, n, d + 1)."""
    return F.normalize(torch.cat([features, features.new_ones(*features.shape[:-1], 1)], -1), dim=-1)


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


def rbf(joint: Tensor, scales: Sequence[float] = MMD_SCALES) -> Tensor:
    """k(a, b) = Σ_s exp(−‖a−b‖² / (s·width)) of all pairs of rows, (…, n, d) -> (…, n, n); n ≥ 2.

    width is the mean of ‖a−b‖² over the pairs of different rows, without gradient.
    """
    distances = squared_distances(joint, joint)
    rows = joint.shape[-2]
    distances = distances * _off_diagonal(distances)  # a row is at distance exactly 0 from itself; the Gram form is not
    width = (distances.sum((-2, -1)) / (rows * (rows - 1))).clamp_min(WIDTH_FLOOR).detach()
    kernel = sum(torch.exp(distances / (-scale * width[..., None, None])) for scale in scales)
    assert isinstance(kernel, Tensor)
    return kernel


def _off_diagonal(square: Tensor) -> Tensor:
    return ~torch.eye(square.shape[-1], dtype=torch.bool, device=square.device)


def mmd2_of(kernel: Tensor, n: int, unbiased: bool = False) -> Tensor:
    """Squared MMD by the kernel of the joint rows, of which the first n are the source's; (…, n+m, n+m) -> (…)."""
    m = kernel.shape[-1] - n
    between = kernel[..., :n, n:].mean((-2, -1))
    if not unbiased:
        return kernel[..., :n, :n].mean((-2, -1)) + kernel[..., n:, n:].mean((-2, -1)) - 2.0 * between
    kernel = kernel * _off_diagonal(kernel)
    within_source = kernel[..., :n, :n].sum((-2, -1)) / (n * (n - 1))
    within_target = kernel[..., n:, n:].sum((-2, -1)) / (m * (m - 1))
    return within_source + within_target - 2.0 * between


def mmd2(
    source: Tensor, target: Tensor, scales: Sequence[float] = MMD_SCALES, estimator: Estimator = "biased"
) -> Tensor:
    """Squared maximum mean discrepancy under a sum of RBF kernels k(a, b) = Σ_s exp(−‖a−b‖² / (s·width)): see `rbf`.

    width is the mean of ‖a−b‖² over the pairs of different rows of the joint batch, without gradient.
    `biased` is the V-statistic mean k_ss + mean k_tt − 2 mean k_st ≥ 0; `unbiased`, the U-statistic, leaves
    each row's kernel with itself out of the first two means: its expectation is 0 when both sides have one
    distribution, so single values may be negative. `linear` takes each pair of rows once, see `_linear_mmd2`: unbiased
    too, and of a larger variance. `rff` is `biased` by random Fourier features, see `_fourier_mmd2`. Both take time
    linear in n. Gretton et al., JMLR 2012; Long et al., ICML 2015; Rahimi & Recht, NeurIPS 2007.

    (…, n, d), (…, m, d) -> (…). `unbiased` and `linear` need n, m ≥ 2.
    """
    n, m = source.shape[-2], target.shape[-2]
    if estimator in ("unbiased", "linear") and min(n, m) < 2:
        raise ValueError(f"the {estimator} MMD needs at least 2 rows a side, got {n} and {m}")
    if estimator == "linear":
        return _linear_mmd2(source, target, scales)
    if estimator == "rff":
        return _fourier_mmd2(source, target, scales)
    return mmd2_of(rbf(torch.cat([source, target], dim=-2), scales), n, estimator == "unbiased")


def _width(joint: Tensor) -> Tensor:
    """The mean of ‖a−b‖² over the pairs of different rows in linear time: 2/(n−1) · Σ_i ‖a_i − mean‖²; no gradient."""
    centred = (joint - joint.mean(-2, keepdim=True)).detach()
    return (2.0 * centred.square().sum((-2, -1)) / (joint.shape[-2] - 1)).clamp_min(WIDTH_FLOOR)


def _linear_mmd2(source: Tensor, target: Tensor, scales: Sequence[float]) -> Tensor:
    """mean_i h(x_2i, y_2i, x_2i+1, y_2i+1), h = k(x,x') + k(y,y') − k(x,y') − k(x',y) (Gretton et al. 2012, lemma 14).

    Rows are paired in the order of the batch; of the longer side, those beyond the shorter one are left out.
    """
    source, target = source.float(), target.float()
    width = _width(torch.cat([source, target], dim=-2))[..., None]
    rows = min(source.shape[-2], target.shape[-2]) // 2 * 2
    (x, y), (x_, y_) = ([side[..., first:rows:2, :] for side in (source, target)] for first in (0, 1))

    def k(a: Tensor, b: Tensor) -> Tensor:
        distances = (a - b).square().sum(-1)
        return torch.stack([torch.exp(distances / (-scale * width)) for scale in scales]).sum(0)

    return (k(x, x_) + k(y, y_) - k(x, y_) - k(x_, y)).mean(-1)


def _fourier_mmd2(source: Tensor, target: Tensor, scales: Sequence[float]) -> Tensor:
    """Σ_s ‖mean φ_s(x) − mean φ_s(y)‖² with φ_s(a) = [cos aΩ_s, sin aΩ_s]/√D, so that E φ_s(a)·φ_s(b) = k_s(a, b).

    Ω_s = √(2/(s·width)) · Ω, Ω (d, D) standard normal: the same at every call with d columns, so a run is one again.
    """
    with torch.autocast(source.device.type, enabled=False):
        source, target = source.float(), target.float()
        joint = torch.cat([source, target], dim=-2)
        # near 0, where cosines and sines keep their digits; k knows no origin
        projected = (joint - joint.mean(-2, keepdim=True).detach()) @ normal(joint.shape[-1], FREQUENCIES, joint.device)
        n, width = source.shape[-2], _width(joint)[..., None, None]
        found = []
        for scale in scales:
            angles = projected * (2.0 / (scale * width)).sqrt()
            waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
            gap = waves[..., :n, :].mean(-2) - waves[..., n:, :].mean(-2)
            found.append(gap.square().sum(-1) / FREQUENCIES)
        return torch.stack(found).sum(0)


@lru_cache(maxsize=8)
def normal(rows: int, columns: int, device: torch.device, seed: int = 0) -> Tensor:
    """(rows, columns) of standard normal numbers, the same wherever they are asked for."""
    return torch.randn(rows, columns, generator=Rng(seed).generator()).to(device)


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


def row_entropy(probabilities: Tensor) -> Tensor:
    """−Σ p log p of each row in nats, with 0 log 0 = 0, and no gradient there, where it is infinite; (…, C) -> (…)."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return (torch.special.entr(probabilities.clamp_min(tiny)) * (probabilities > 0)).sum(-1)


def uncertainty(logits: Tensor) -> Tensor:
    """`row_entropy` of the softmax, by its logarithms: it has a gradient where a probability is 0 in float32.

    (…, C) -> (…).
    """
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def certainty(probabilities: Tensor) -> Tensor:
    """1 + exp(−H(p)) of each row, brought to mean 1 and without gradient; (…, n, C) -> (…, n)."""
    weights = 1.0 + torch.exp(-row_entropy(probabilities.detach()))
    return weights / weights.mean(-1, keepdim=True)


def logit_information(logits: Tensor) -> Tensor:
    """H(mean p) − mean H(p), p the softmax of each row: what a prediction says of the class, in nats; (…, n, C) -> (…).

    Large where predictions are sure and all classes are predicted (Bridle et al. 1991; Krause et al. 2010).
    """
    log_p = logits.float().log_softmax(-1)
    log_mean = log_p.logsumexp(-2) - math.log(log_p.shape[-2])
    return -(log_mean.exp() * log_mean).sum(-1) - uncertainty(logits).mean(-1)


def predicted_classes(logits: Tensor) -> Tensor:
    """exp H(mean softmax): how many classes are predicted in effect, from 1 (collapse) to C; (…, n, C) -> (…)."""
    return row_entropy(logits.float().softmax(-1).mean(-2)).exp()


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -ctx.strength * gradient, None


def reverse(x: Tensor, strength: float = 1.0) -> Tensor:
    """Gradient reversal: the identity forward, −strength × the gradient backward (Ganin & Lempitsky 2015)."""
    return _Reverse.apply(x, strength)
