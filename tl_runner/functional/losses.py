"""The mathematics of transfer as pure functions of tensors: no state, no configuration, no classes of models.

Features are (…, n, d): any leading batch dimensions, n rows, d columns. Distances between two sets of rows
return one scalar per leading index, so that stacked runs can share them.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.rng import Rng


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
    quantities. In float32 at least, and to the bit `F.cross_entropy`, of operators that `torch.vmap` knows.
    """
    if y.is_floating_point():
        return (outputs.float()[:, 0] - y).square()
    return -raise_precision(outputs).log_softmax(-1).gather(-1, y[..., None])[..., 0]


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


def raise_precision(x: Tensor) -> Tensor:
    """x in float32 if its own precision is less: float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖², (…, n, d) and (…, m, d) -> (…, n, m), in float32 at least.

    By the Gram matrix, ‖a‖² + ‖b‖² − 2ab: a (n, m, d) tensor of differences would not fit. The rows are
    centred first, which leaves distances alone and keeps the cancellation small when features lie far from 0.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = raise_precision(a), raise_precision(b)
        centre = a.mean(-2, keepdim=True).detach()
        a, b = a - centre, b - centre
        gram = a @ b.mT
        return (a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2.0 * gram).clamp_min(0.0)


@lru_cache(maxsize=8)
def normal(rows: int, columns: int, device: torch.device, seed: int = 0) -> Tensor:
    """(rows, columns) of standard normal numbers, the same wherever they are asked for."""
    return torch.randn(rows, columns, generator=Rng(seed).generator()).to(device)


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance of the columns, (…, n, d) -> (…, d, d), in float32 at least; n ≥ 2."""
    with torch.autocast(features.device.type, enabled=False):
        features = raise_precision(features)
        centred = features - features.mean(-2, keepdim=True)
        return centred.mT @ centred / (features.shape[-2] - 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s − C_t‖²_F / (4d²), the distance of the covariances (Sun & Saenko 2016); (…, n, d), (…, m, d) -> (…)."""
    gap = covariance(source) - covariance(target)
    return gap.square().sum((-2, -1)) / (4 * source.shape[-1] ** 2)


def domainbed_coral(source: Tensor, target: Tensor) -> Tensor:
    """mean((μ_s−μ_t)²) + mean((C_s−C_t)²), the form of Gulrajani & Lopez-Paz 2021; (…, n, d), (…, m, d) -> (…)."""
    means = (raise_precision(source).mean(-2) - raise_precision(target).mean(-2)).square().mean(-1)
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
