"""Logistic regression by truncated Newton steps: what the diagnosis and the domain classifier are fitted with.

It is scikit-learn's `LogisticRegression` on standardised columns, fitted closer to the optimum, without the two seconds
that a process spends on importing that library. On the CPU, in float64 but for the inside of a step.

Problems that share rows, such as the folds of a cross-fit, are one product of matrices: a fold leaves rows out by the
weight 0, and what it standardises by is taken off the product, see `_Rows`.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEPS, INNER, HALVINGS = 100, 500, 30  # the most that are taken, of each kind
TOLERANCE = 1e-9  # of the largest derivative of the loss per row
ROUGH = 1e-2  # the same, of the fit to all rows at which the folds start
LOOSEST, CLOSEST = 0.25, 1e-4  # of the gradient that the solver of a Newton step may leave; float32 has seven digits
SINGLE = 1e6  # up to this condition of the curvature, and ratio of variances, float32 solves steps

DENSE = 400  # columns, about, up to which a class's curvature is inverted


class Logistic(NamedTuple):
    """logits = (x − mean)/scale · weight + bias: (…, n, d) -> (…, n, K), or (…, n, 1) of two classes, the second's."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        scaled = (x.double() - self.mean[..., None, :]) / self.scale[..., None, :]
        return scaled @ self.weight + self.bias[..., None, :]


class _Rows(NamedTuple):
    """The n rows that P problems share, each problem with its own means and deviations: (x_i − m)/s, the last column 1.

    No problem has a copy of them: coefficients are divided by s before the product, and θ m / s is taken off after it.
    """

    x: Tensor  # (…, n, d)
    mean: Tensor  # (…, P, 1, d), 0 of the last column
    scale: Tensor  # (…, P, 1, d), 1 of the last column

    def push(self, theta: Tensor) -> Tensor:
        """θ (x_i − m)/s: (…, P, K, d) -> (…, P, K, n)."""
        theta = theta / self.scale
        product = (theta.flatten(-3, -2) @ self.x.mT).unflatten(-2, theta.shape[-3:-1])
        return product - (theta * self.mean).sum(-1, keepdim=True)

    def pull(self, rows: Tensor) -> Tensor:
        """Σ_i r_i (x_i − m)/s: (…, P, K, n) -> (…, P, K, d)."""
        product = (rows.flatten(-3, -2) @ self.x).unflatten(-2, rows.shape[-3:-1])
        return product.addcmul(rows.sum(-1, keepdim=True), self.mean, value=-1) / self.scale

    def to(self, dtype: torch.dtype) -> "_Rows":
        return _Rows(*(each.to(dtype) for each in self))


class _Problems(NamedTuple):
    """min_θ ½ Σ a θ² + Σ_i w_i · CE(θ x_i, y_i), θ (…, P, K, d), of P problems, K = 1 of two classes.

    A class that no row of a problem has gets no share there.
    """

    rows: _Rows
    a: Tensor  # (d,), the penalty of each column: 0 of the bias, else 1
    w: Tensor  # (…, P, 1, n)
    observed: Tensor  # (…, P, K, d): Σ_i w_i x_i of the rows of each class
    absent: Tensor  # (…, P, K, 1)


def choose_class(logits: Tensor) -> Tensor:
    """The number of the class of each row, (…, n), of logits (…, n, K), or (…, n, 1) of two classes."""
    return (logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)


def fit_logistic(x: Tensor, y: Tensor, classes: int, C: float, weights: Tensor | None = None) -> Logistic:  # noqa: N803
    """The minimum of ½‖W‖² + C Σ_i w_i · CE(W x_i + b, y_i) over rows (…, n, d) with labels (…, n) below `classes` ≥ 2.

    The columns are brought to mean 0 and deviation 1 first, constant ones to 0. Of two classes the first's logit is 0.
    Rows of weight 0 are left out of everything; of those that stay, two classes at least must have one. Each problem
    of a stack ends by itself: it has the fit that it has alone.
    """
    mean, scale = standardise(x := x.double())
    w = torch.ones(x.shape[:-1], dtype=torch.double) if weights is None else weights.double()
    problems = _share_rows((x - mean[..., None, :]) / scale[..., None, :], y, classes, C * w[..., None, :])
    theta = _minimise(problems, torch.zeros_like(problems.observed), TOLERANCE)
    own = problems.rows
    bias = theta[..., -1] - (theta / own.scale * own.mean).sum(-1)
    bias = bias.masked_fill(problems.absent[..., 0], -torch.inf)
    return Logistic(mean, scale, (theta / own.scale)[..., 0, :, :-1].mT, bias[..., 0, :])


def cross_fit(
    x: Tensor,
    y: Tensor,
    classes: int,
    C: float,  # noqa: N803
    fold_of: Tensor,
    weights: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """The logits (…, n, K) of each row by the `fit_logistic` of the rows of all other folds, numbered 0, 1, … in (n,).

    The folds start at the fit of all rows, which lies near each of theirs, and end at a `tolerance` of the largest
    derivative of the loss per row.
    """
    mean, scale = standardise(x := x.double())
    w = torch.ones(x.shape[:-1], dtype=torch.double) if weights is None else weights.double()
    fitted = fold_of != torch.arange(int(fold_of.max()) + 1)[:, None]
    x, w = (x - mean[..., None, :]) / scale[..., None, :], C * w[..., None, :] * fitted
    problems, together = (_share_rows(x, y, classes, each) for each in (w, w.mean(-2, keepdim=True)))
    start = _minimise(together, torch.zeros_like(together.observed), ROUGH)
    theta = _minimise(problems, start.where(~problems.absent, 0.0), tolerance)
    logits = _logits(problems, theta)
    return logits.gather(-3, fold_of.expand(*logits.shape[:-3], 1, *logits.shape[-2:]))[..., 0, :, :].mT


def standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the deviation (…, d) of each column of rows (…, n, d), 1 for that of a constant one.

    Raises `ValueError` where a number is not finite: no fit would be one.
    """
    mean = x.mean(-2)
    if not mean.isfinite().all():
        raise ValueError("logistic regression of rows that are not all finite numbers")
    var = (x - mean[..., None, :]).square().mean(-2)  # three times as fast as torch.var down the columns
    rounding = x.shape[-2] * torch.finfo(x.dtype).eps
    constant = var <= rounding * var + (rounding * mean).square()
    return mean, torch.where(constant, 1.0, var.sqrt())


def split_folds(n: int, folds: int, seed: int) -> np.ndarray:
    """The fold of each of n rows, (n,): as scikit-learn's `KFold(folds, shuffle=True)` has it."""
    order, found = np.arange(n), np.empty(n, dtype=int)
    np.random.RandomState(seed).shuffle(order)
    for fold, rows in enumerate(np.array_split(order, folds)):
        found[rows] = fold
    return found


def split_stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row by its label 0, 1, …: each label evenly, as scikit-learn's `StratifiedKFold` has it."""
    shuffle, ordered, found = np.random.RandomState(seed), np.sort(labels), np.empty(len(labels), dtype=int)
    for label in range(labels.max() + 1):
        sizes = [int((ordered[fold::folds] == label).sum()) for fold in range(folds)]
        of_label = np.arange(folds).repeat(sizes)
        shuffle.shuffle(of_label)
        found[labels == label] = of_label
    return found


def _share_rows(x: Tensor, y: Tensor, classes: int, w: Tensor) -> _Problems:
    """The problems of weights (…, P, n) over standardised rows (…, n, d) with labels (…, n).

    Each standardises by the rows that it weighs.
    """
    seen = (w != 0).double()
    seen /= seen.sum(-1, keepdim=True)
    mean, square = seen @ x, seen @ x.square()
    var = square - mean.square()
    constant = var <= x.shape[-2] * torch.finfo(x.dtype).eps * square
    scale = torch.where(constant, 1.0, var).sqrt()
    rows = _Rows(
        F.pad(x, (0, 1), value=1.0), F.pad(mean, (0, 1))[..., None, :], F.pad(scale, (0, 1), value=1.0)[..., None, :]
    )
    labels = torch.arange(1, 2) if classes == 2 else torch.arange(classes)
    of_class = (y[..., None, :] == labels[:, None])[..., None, :, :]
    observed, a = rows.pull(w[..., None, :] * of_class), torch.ones(rows.x.shape[-1], dtype=torch.double)
    a[-1] = 0
    return _Problems(rows, a, w[..., None, :], observed, (observed[..., -1:] == 0) & (classes > 2))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each problem: (…, P, 1, 1)."""
    return (a * b).sum((-2, -1), keepdim=True)


def _logits(problems: _Problems, theta: Tensor) -> Tensor:
    return problems.rows.push(theta).masked_fill(problems.absent, -torch.inf)


def _normaliser(logits: Tensor) -> Tensor:
    """log Σ_k exp of the logits (…, K, n), where the first of two classes has 0: (…, 1, n)."""
    return F.softplus(logits) if logits.shape[-2] == 1 else logits.logsumexp(-2, keepdim=True)


def _minimise(problems: _Problems, theta: Tensor, tolerance: float) -> Tensor:
    """Newton's steps from θ, halved until the loss falls; a problem that is done stays where it is."""
    rows, a, w, observed, _ = problems
    total = w.sum(-1, keepdim=True)

    def measure(theta: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        normaliser = _normaliser(logits)
        return 0.5 * _dot(a * theta, theta) - _dot(observed, theta) + _dot(w, normaliser), normaliser

    logits = _logits(problems, theta)
    loss, normaliser = measure(theta, logits)
    solver = _prepare(problems, (logits - normaliser).exp())
    for _ in range(STEPS):
        p = (logits - normaliser).exp()
        gradient = a * theta + rows.pull(w * p) - observed
        steepness = gradient.abs().amax((-2, -1), keepdim=True) / total
        going = steepness > tolerance
        if not going.any():
            break
        step = _solve(solver, p, gradient, steepness.clamp(CLOSEST, LOOSEST), going)
        along, slope, length = rows.push(step), _dot(gradient, step), going.double()
        found, normaliser = measure(theta - length * step, logits - length * along)
        for _ in range(HALVINGS):
            falls = found <= loss - 1e-4 * length * slope + 1e-12 * loss.abs()
            if falls.all():
                break
            length = torch.where(falls, length, length / 2)
            found, normaliser = measure(theta - length * step, logits - length * along)
        theta, logits, loss = theta - length * step, logits - length * along, found
    return theta


class _Solver(NamedTuple):
    """What the inside of Newton's steps needs, in the precision that it is solved in."""

    rows: _Rows
    a: Tensor
    w: Tensor
    inverse: Tensor  # (…, K, d, d); (…, 1, K, d) of a diagonal


def _prepare(problems: _Problems, p: Tensor) -> _Solver:
    """The preconditioner of each class: the inverse of a + Σ_i w_i p_i (1 − p_i) x_i x_iᵀ, a mean over the problems.

    The sum is the curvature but for the terms between classes, and it stays that of the first probabilities p.
    """
    rows, a, w, *_ = problems
    largest = rows.x.shape[-1] * w.sum(-1).max()  # eigenvalue of the curvature, about; the least is about 1
    dtype = torch.float if largest < SINGLE and rows.scale.min().square() * SINGLE > 1 else torch.double
    rows, a, w, p = rows.to(dtype), a.to(dtype), w.to(dtype), p.to(dtype)
    x, weights = rows.x, (w * p * (1 - p)).mean(-3)
    if not _inverse_pays(x):
        return _Solver(rows, a, w, 1 / (weights @ x.square() + a)[..., None, :, :])
    curvature = torch.stack([(x.mT * each[..., None, :]) @ x for each in weights.unbind(-2)], -3)
    diagonal = curvature.diagonal(dim1=-2, dim2=-1)
    diagonal += a
    diagonal += torch.finfo(dtype).eps * diagonal.sum(-1, keepdim=True)
    return _Solver(rows, a, w, torch.cholesky_inverse(torch.linalg.cholesky(curvature)))


def _inverse_pays(x: Tensor) -> bool:
    """Whether n d² + d³ operations a class, for an inverse, are fewer than those of the steps that it saves."""
    n, d = x.shape[-2:]
    return d + d**2 / n <= DENSE


def _solve(solver: _Solver, p: Tensor, gradient: Tensor, share: Tensor, going: Tensor) -> Tensor:
    """The Newton step by preconditioned conjugate gradients, until so small a share of the gradient is left."""
    rows, a, w, inverse = solver
    dtype, dense = w.dtype, _inverse_pays(rows.x)
    p, unit = p.to(dtype), gradient.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    wp = w * p

    def precondition(rest: Tensor) -> Tensor:
        return (rest.transpose(-3, -2) @ inverse).transpose(-3, -2) if dense else rest * inverse

    rest = (gradient / unit).to(dtype)
    step, direction = torch.zeros_like(rest), precondition(rest)
    size = _dot(rest, direction)
    enough = size * share.to(dtype).square()
    for _ in range(INNER):
        going = going & (size > enough)
        if not going.any():
            break
        moved = rows.push(direction)
        bent = rows.pull(wp * (moved - (p * moved).sum(-2, keepdim=True))).addcmul(a, direction)
        rate = torch.where(going, size / _dot(direction, bent), 0.0)
        step, rest = step.addcmul(rate, direction), rest.addcmul(rate, bent, value=-1)
        steepest = precondition(rest)
        size, before = _dot(rest, steepest), size
        direction = steepest.addcmul(torch.where(going, size / before, 0.0), direction)
    return step.double() * unit
