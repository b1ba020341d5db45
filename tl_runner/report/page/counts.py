"""What figures are made of: counts of predictions. Pure functions of arrays."""

from math import log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # as `evaluation.scores.BINS`: the page shows the bins that the calibration error was summed over


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(C, C) counts; a row is a true class, a column a predicted one. labels, predicted: (n,) in 0 … C − 1."""
    cells = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Each row of a confusion matrix as shares of its true class; NaN where no row is of that class."""
    total = counts.sum(-1, keepdims=True)
    return np.divide(counts.astype(np.float64), total, out=np.full(counts.shape, np.nan), where=total > 0)


def reliability(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = BINS) -> NDArray[np.float64]:
    """(bins, 3): rows, their summed confidence max_c p_c and their hits, by equal intervals of the confidence.

    Interval b holds b/bins < confidence ≤ (b + 1)/bins (Guo et al., ICML 2017). probabilities (n, C), labels (n,).
    """
    confidence = probabilities.astype(np.float64).max(-1)
    of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    hits = probabilities.argmax(-1) == labels
    columns = (np.ones(len(of)), confidence, hits)
    return np.stack([np.bincount(of, weights=column, minlength=bins) for column in columns], -1).astype(np.float64)


def binned_calibration_error(table: NDArray[np.float64]) -> float:
    """Σ_b |hits_b − summed confidence_b| / n of a reliability table (bins, 3)."""
    return float(np.abs(table[:, 2] - table[:, 1]).sum() / table[:, 0].sum())


def mean_and_deviation(values: NDArray[Any] | list[float]) -> tuple[float, float, int]:
    """Mean, standard deviation (n − 1; NaN for one value) and n of the values that are numbers; mean NaN for none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return np.nan, np.nan, 0
    return float(finite.mean()), float(finite.std(ddof=1)) if len(finite) > 1 else np.nan, len(finite)


def ends(mean: float, deviation: float) -> tuple[float, float]:
    """mean ∓ deviation; the mean twice where one value has no deviation."""
    width = deviation if np.isfinite(deviation) else 0.0
    return mean - width, mean + width


def decades(values: list[float]) -> float:
    """Over how many powers of ten positive values go; 0 where one of them is not positive."""
    return log10(max(values) / min(values)) if values and min(values) > 0 else 0.0
