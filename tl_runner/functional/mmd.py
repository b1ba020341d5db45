"""The maximum mean discrepancy under sums of RBF kernels, and what is a sum of such kernels as it is.

Rows are (…, n, d) of the source and (…, m, d) of the target; a distance is one scalar per leading index. Half
precision is raised to float32, float64 stays.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.functional.losses import normal, raise_precision

MMD_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
WIDTH_FLOOR = 1e-6  # collapsed features are at distance zero: the kernel must stay finite
FREQUENCIES = 512  # of the random Fourier features: the standard error of a kernel value is below 1/√1024
Estimator = Literal["biased", "unbiased", "linear", "rff"]


class RBF(NamedTuple):
    """k(a, b) = Σ_s exp(−‖a−b‖² / (s·width)), a sum over the scales s.

    Without a `width` it is the mean of ‖a−b‖² over the pairs of different rows, and carries no gradient.
    """

    scales: Sequence[float] = MMD_SCALES
    width: float | None = None


def mmd2(
    source: Tensor, target: Tensor, scales: Sequence[float] = MMD_SCALES, estimator: Estimator = "biased"
) -> Tensor:
    """Squared maximum mean discrepancy under a sum of RBF kernels k(a, b) = Σ_s exp(−‖a−b‖² / (s·width)): see `RBF`.

    width is the mean of ‖a−b‖² over the pairs of different rows of the joint batch, without gradient.
    `biased` is the V-statistic mean k_ss + mean k_tt − 2 mean k_st ≥ 0; `unbiased`, the U-statistic, leaves
    each row's kernel with itself out of the first two means: its expectation is 0 when both sides have one
    distribution, so single values may be negative. `linear` takes each pair of rows once, see `_linear_mmd2`: unbiased
    too, and of a larger variance. `rff` is `biased` by random Fourier features, see `_fourier_mmd2`. Both take time
    linear in n. Gretton et al., JMLR 2012; Long et al., ICML 2015; Rahimi & Recht, NeurIPS 2007.

    (…, n, d), (…, m, d) -> (…). `unbiased` and `linear` need n, m ≥ 2. `biased` and `unbiased` have no second
    derivative: see `sum_kernels`.
    """
    n, m = source.shape[-2], target.shape[-2]
    if estimator in ("unbiased", "linear") and min(n, m) < 2:
        raise ValueError(f"the {estimator} MMD needs at least 2 rows a side, got {n} and {m}")
    if estimator == "linear":
        return _linear_mmd2(source, target, scales)
    if estimator == "rff":
        return _fourier_mmd2(source, target, scales)
    weigh = weigh_pairs_unbiased if estimator == "unbiased" else weigh_pairs
    return sum_kernels([(source, target)], weigh(n, m, source), [RBF(scales)])


def weigh_pairs(n: int, m: int, like: Tensor) -> Tensor:
    """w (n+m, n+m) with Σ_ij w_ij k_ij = mean k_ss + mean k_tt − 2 mean k_st, in the precision of `like`, raised."""
    signed = like.new_full((n + m,), 1.0 / n, dtype=torch.promote_types(like.dtype, torch.float32))
    signed[n:] = -1.0 / m
    return signed[:, None] * signed


def weigh_pairs_unbiased(n: int, m: int, like: Tensor) -> Tensor:
    """The same for means of k_ss and k_tt that leave out each row's kernel with itself; n, m ≥ 2."""
    weights = weigh_pairs(n, m, like)
    weights[:n, :n] *= n / (n - 1)
    weights[n:, n:] *= m / (m - 1)
    return weights.fill_diagonal_(0.0)


def sum_kernels(pairs: Sequence[tuple[Tensor, Tensor]], weights: Tensor, kernels: Sequence[RBF]) -> Tensor:
    """Σ_ij w_ij Π_l k_l(a_li, a_lj), a_l the joint rows of the l-th pair: source (…, n, d_l), target (…, m, d_l).

    Returns (…). `weights` is symmetric, (…, n+m, n+m), and carries no gradient. Nothing of the size (n, m, d) is made.
    There is no second derivative: who asks for one gets a `UserError`. Works under `torch.vmap` and `torch.func.grad`.
    """
    sides = [side for pair in pairs for side in pair]
    rows = weights.shape[-1]
    return _KernelSum.run(kernels, False, weights.detach().expand(*sides[0].shape[:-2], rows, rows), *sides)[0]


class _KernelSum(torch.autograd.Function):
    """The sum, with its gradient in closed form: 4·(W − diag(W·1))·A, a graph's Laplacian times the rows A.

    W = w ⊙ ∂k_l/∂‖a−b‖² ⊙ the other kernels, negated, is found in the forward, where the kernels are at hand. Of the
    Laplacian (n+m, n+m) and the gradient (n+m, d) the smaller one is kept, and nothing else but the rows themselves.
    It is an output beside the value, for only inputs and outputs may be saved under `torch.func`; so the backward
    sees whoever differentiates the gradient, too.
    """

    @classmethod
    def run(cls, kernels: Sequence[RBF], wanted: bool, weights: Tensor, *sides: Tensor) -> tuple[Tensor, ...]:
        # the rows may want a gradient at a level of torch.func that is further in than this one
        wanted = wanted or (torch.is_grad_enabled() and any(side.requires_grad for side in sides))
        return cls.apply(kernels, wanted, weights, *sides)

    @staticmethod
    def forward(kernels: Sequence[RBF], wanted: bool, weights: Tensor, *sides: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(weights.device.type, enabled=False):
            joint = [_join(*pair) for pair in _pair(sides)]
            factors = [_evaluate(kernel, rows, wanted) for kernel, rows in zip(kernels, joint, strict=True)]
            value = math.prod((factor.values for factor in factors), start=weights).sum((-2, -1))
            if not wanted:
                return (value,)
            laplacians = [_differentiate(i, factors, weights) for i in range(len(factors))]
            pairs = zip(laplacians, joint, strict=True)
            return value, *(laplacian if _is_wide(rows) else laplacian @ rows for laplacian, rows in pairs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        sides, kept = inputs[3:], output[1:]
        ctx.rows = [side.shape[-2] for side in sides[:2]]
        ctx.set_materialize_grads(False)
        again = [side if kept and _is_wide(*pair) else None for pair in _pair(sides) for side in pair]
        ctx.save_for_backward(*kept, *again)

    @staticmethod
    def backward(ctx: Any, of_value: Tensor, *of_kept: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if any(gradient is not None for gradient in of_kept):
            raise UserError(
                "a distance by kernels has no second derivative here: mmd has one with estimator=linear or rff"
            )
        found: list[Tensor] = []
        with torch.autocast(of_value.device.type, enabled=False):
            saved = ctx.saved_tensors
            kept, again = saved[: len(of_kept)], saved[len(of_kept) :]
            for factor, (source, target) in zip(kept, _pair(again), strict=True):
                gradient = of_value[..., None, None] * factor
                gradient = gradient if source is None else gradient @ _join(source, target)
                found += gradient.split(ctx.rows, dim=-2)
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *(side if needs else None for side, needs in zip(found, needed, strict=True))

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[Any, ...], kernels: Sequence[RBF], wanted: bool, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        stacked = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        found = _KernelSum.run(kernels, wanted, *stacked)
        return found, (0,) * len(found)


def _pair(sides: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(sides[::2], sides[1::2], strict=True))


def _is_wide(*sides: Tensor) -> bool:
    return sum(side.shape[-2] for side in sides) < sides[0].shape[-1]


def _join(source: Tensor, target: Tensor) -> Tensor:
    joint = raise_precision(torch.cat([source, target], dim=-2))
    return joint.sub_(joint.mean(-2, keepdim=True))


class _Evaluated(NamedTuple):
    """A kernel of all pairs of rows (…, n, n), and where wanted width · −∂k/∂‖a−b‖², with the width (…, 1, 1)."""

    values: Tensor
    slopes: Tensor | None
    width: Tensor | float


def rbf(joint: Tensor, scales: Sequence[float] = MMD_SCALES) -> Tensor:
    """The kernel `RBF` of all pairs of rows, without gradient; (…, n, d) -> (…, n, n), n ≥ 2."""
    with torch.no_grad(), torch.autocast(joint.device.type, enabled=False):
        joint = raise_precision(joint)
        return _evaluate(RBF(scales), joint - joint.mean(-2, keepdim=True), False).values


def _evaluate(kernel: RBF, centred: Tensor, wanted: bool) -> _Evaluated:
    """By the Gram matrix, whose rounding grows with the lengths of the rows: they must be centred."""
    gram = centred @ centred.mT
    norms = gram.diagonal(dim1=-2, dim2=-1)  # so that a row is at distance exactly 0 from itself
    distances = (norms[..., :, None] + norms[..., None, :]).sub_(gram, alpha=2.0).clamp_min_(0.0)
    del gram, norms  # before the next matrices are made: for the peak
    width: Tensor | float | None = kernel.width
    if width is None:
        rows = centred.shape[-2]
        width = distances.sum((-2, -1), keepdim=True).div_(rows * (rows - 1)).clamp_min_(WIDTH_FLOOR)
    values = slopes = power = None
    before = math.inf
    for scale in sorted(kernel.scales, reverse=True):
        half, exponent = math.frexp(before / scale)
        if power is None or half != 0.5:
            power = (distances / (-scale * width)).exp_()
        else:  # e^(−2ᵏx) is e^(−x) squared k times: cheaper than to ask for it, to the same digits
            for _ in range(exponent - 1):
                power.square_()
        before = scale
        values = power.clone() if values is None else values.add_(power)
        if wanted:
            slopes = power / scale if slopes is None else slopes.add_(power, alpha=1.0 / scale)
    assert values is not None
    return _Evaluated(values, slopes, width)


def _differentiate(i: int, factors: Sequence[_Evaluated], weights: Tensor) -> Tensor:
    """L with L·A = the gradient of Σ_ij w_ij Π_l k_l by the rows A of the i-th factor, (…, n, n)."""
    slopes, width = factors[i].slopes, factors[i].width
    assert slopes is not None
    slopes.mul_(weights).mul_(4.0 / width)
    for other in (*factors[:i], *factors[i + 1 :]):
        slopes.mul_(other.values)
    slopes.diagonal(dim1=-2, dim2=-1).sub_(slopes.sum(-1))
    return slopes


def _width(joint: Tensor) -> Tensor:
    """The mean of ‖a−b‖² over the pairs of different rows in linear time: 2/(n−1) · Σ_i ‖a_i − mean‖²; no gradient."""
    centred = (joint - joint.mean(-2, keepdim=True)).detach()
    return (2.0 * centred.square().sum((-2, -1)) / (joint.shape[-2] - 1)).clamp_min(WIDTH_FLOOR)


def _linear_mmd2(source: Tensor, target: Tensor, scales: Sequence[float]) -> Tensor:
    """mean_i h(x_2i, y_2i, x_2i+1, y_2i+1), h = k(x,x') + k(y,y') − k(x,y') − k(x',y) (Gretton et al. 2012, lemma 14).

    Rows are paired in the order of the batch; of the longer side, those beyond the shorter one are left out.
    """
    source, target = raise_precision(source), raise_precision(target)
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
        joint = raise_precision(torch.cat([source, target], dim=-2))
        waves_of = normal(joint.shape[-1], FREQUENCIES, joint.device).to(joint.dtype)
        # near 0, where cosines and sines keep their digits; k knows no origin
        projected = (joint - joint.mean(-2, keepdim=True).detach()) @ waves_of
        n, width = source.shape[-2], _width(joint)[..., None, None]
        found = []
        for scale in scales:
            angles = projected * (2.0 / (scale * width)).sqrt()
            waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
            gap = waves[..., :n, :].mean(-2) - waves[..., n:, :].mean(-2)
            found.append(gap.square().sum(-1) / FREQUENCIES)
        return torch.stack(found).sum(0)
