"""How good predictions are: of classes, in [0, 1]; of quantities, in their unit or by R² and rank correlation."""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import torch
from torch import Tensor

Metrics = dict[str, int | float]
BINS = 15  # of equal width, for the calibration error
ERRORS = ("mae", "rmse")  # scores that are better where they are lower


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of rows whose most probable class, of probabilities (n, C), is their label."""
    return (probabilities.argmax(-1) == labels.cpu()).double().mean().item()


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b |rows in b|/n · |accuracy_b − confidence_b| (Guo et al., ICML 2017).

    probabilities (n, C), labels (n,); b runs over `bins` equal intervals of the confidence max_c p_c.
    """
    confidence, predicted = probabilities.double().max(-1)
    gap = (predicted == labels.cpu()).double() - confidence
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return torch.zeros(bins, dtype=torch.double).index_add(0, bin_of, gap).abs().sum().item() / len(gap)


def rates(predicted: Tensor, labels: Tensor) -> Metrics:
    """accuracy, balanced and macro_f1 of predicted classes (n,), each in [0, 1].

    balanced: the mean accuracy of the classes that occur. macro_f1: the mean of 2·right/(predicted + true) over the
    classes that occur or are predicted.
    """
    predicted, labels = predicted.cpu(), labels.cpu()
    classes = int(torch.cat([predicted, labels]).max()) + 1
    right, true, said = (
        torch.bincount(rows, minlength=classes).double() for rows in (labels[predicted == labels], labels, predicted)
    )
    occurs, either = true > 0, true + said > 0
    return {
        "accuracy": (predicted == labels).double().mean().item(),
        "balanced": (right[occurs] / true[occurs]).mean().item(),
        "macro_f1": (2 * right / (true + said))[either].mean().item(),
    }


def measure_errors(predicted: Tensor, values: Tensor, weights: Tensor | None = None) -> Metrics:
    """r2, mae, rmse and spearman of predicted quantities (n,) against the true values (n,), in float64.

    r2 = 1 − Σ(y − ŷ)²/Σ(y − ȳ)²: 1 is perfect, 0 as good as saying the mean ȳ of these rows, below 0 worse than that;
    0 where all values are equal. mae is the mean of |y − ŷ|, rmse the root of the mean of (y − ŷ)², both in the unit of
    the values. spearman is the correlation of the ranks, equal values sharing the mean of theirs; 0 where either side
    is constant. `weights` (n,) weigh the rows in all but spearman.
    """
    predicted, values = predicted.double().cpu(), values.double().cpu()
    w = torch.ones_like(values) if weights is None else weights.double().cpu()
    w = w / w.sum()
    gap = values - predicted
    squared = (w * gap.square()).sum()
    spread = (w * (values - (w * values).sum()).square()).sum()
    return {
        "r2": (1 - squared / spread).item() if values.max() > values.min() else 0.0,
        "mae": (w * gap.abs()).sum().item(),
        "rmse": squared.sqrt().item(),
        "spearman": correlation(rank_values(predicted), rank_values(values)),
    }


def rank_values(values: Tensor) -> Tensor:
    """The ranks 1 … n of values (n,), float64; equal values share the mean of their ranks."""
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[which]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two vectors (n,); 0 where either is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    length = (a.square().sum() * b.square().sum()).sqrt()
    return ((a * b).sum() / length).item() if length > 0 else 0.0
