"""Logistic regression by truncated Newton steps: what the diagnosis and the domain classifier are fitted with.

It is scikit-learn's `LogisticRegression` on standardised columns, fitted closer to the optimum, without the two seconds
that a process spends on importing that library. In float64 on the CPU.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEPS, INNER, HALVINGS = 100, 500, 30  # the most that are taken, of each kind
TOLERANCE = 1e-8  # of the largest derivative of the loss per row


class Logistic(NamedTuple):
    """logits = (x − mean)/scale · weight + bias: (n, d) -> (n, K), or (n, 1) of two classes, the second's log-odds."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        return (x.double() - self.mean) / self.scale @ self.weight + self.bias

    def predict(self, x: Tensor) -> Tensor:
        """The number of the class of each row."""
        logits = self.logits(x)
        return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def fit_logistic(x: Tensor, y: Tensor, classes: int, C: float, weights: Tensor | None = None) -> Logistic:  # noqa: N803
    """The minimum of ½‖W‖² + C Σ_i w_i · CE(W x_i + b, y_i) over rows (n, d) with labels (n,) below `classes` ≥ 2.

    The columns are brought to mean 0 and deviation 1 first, constant ones to 0. Of two classes the first's logit is 0.
    """
    mean, scale = standardise(x := x.double())
    x = torch.cat([(x - mean) / scale, torch.ones(len(x), 1, dtype=torch.double)], 1)  # the last column is the bias's
    w = torch.ones(len(x), dtype=torch.double) if weights is None else weights.double()
    onehot = torch.nn.functional.one_hot(y.long(), classes).double()
    free = onehot[:, 1:] if classes == 2 else onehot
    penalised = torch.cat([torch.ones(x.shape[1] - 1, 1), torch.zeros(1, 1)]).double()
    theta = torch.zeros(x.shape[1], free.shape[1], dtype=torch.double)

    def loss(theta: Tensor) -> Tensor:
        ce = (w * (_normaliser(x @ theta, classes) - (x @ theta * free).sum(1))).sum()
        return 0.5 * (penalised * theta).square().sum() + C * ce

    for _ in range(STEPS):
        p = _probabilities(x @ theta, classes)
        gradient = penalised * theta + C * x.T @ (w[:, None] * (p - free))
        if gradient.abs().max() <= TOLERANCE * C * w.sum():
            break

        def curve(v: Tensor, p: Tensor = p) -> Tensor:
            r = x @ v
            return penalised * v + C * x.T @ (w[:, None] * p * (r - (p * r).sum(1, keepdim=True)))

        step, before = _solve(curve, gradient), loss(theta)
        slope, length = (gradient * step).sum(), 1.0
        for _ in range(HALVINGS):
            if loss(theta - length * step) <= before - 1e-4 * length * slope + 1e-12 * before.abs():
                break
            length /= 2
        theta = theta - length * step
    return Logistic(mean, scale, theta[:-1], theta[-1])


def standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the deviation of each column, 1 for that of a constant one."""
    mean, var = x.mean(0), x.var(0, unbiased=False)
    eps = torch.finfo(x.dtype).eps
    constant = var <= len(x) * eps * var + (len(x) * mean * eps).square()
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


def _normaliser(logits: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.softplus(logits[:, 0]) if classes == 2 else logits.logsumexp(1)


def _probabilities(logits: Tensor, classes: int) -> Tensor:
    return logits.sigmoid() if classes == 2 else logits.softmax(1)


def _solve(curve: Callable[[Tensor], Tensor], gradient: Tensor) -> Tensor:
    """The Newton step by conjugate gradients, as exact as the gradient is small."""
    x, rest = torch.zeros_like(gradient), gradient.clone()
    direction, size = rest.clone(), rest.square().sum()
    enough = size * min(0.25, float(size.sqrt())) ** 2
    for _ in range(INNER):
        if size <= enough or size == 0:
            break
        bent = curve(direction)
        rate = size / (direction * bent).sum()
        x, rest = x + rate * direction, rest - rate * bent
        size, before = rest.square().sum(), size
        direction = rest + size / before * direction
    return x
