"""How large the errors of a predicted quantity are on a target without labels: weighted residuals of source rows."""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from statistics import NormalDist
from typing import NamedTuple

from torch import Tensor

LEVEL = 0.90  # of the interval


class EstimatedRMSE(NamedTuple):
    """An estimated root mean squared error and its interval, beside the same of rows that all weigh 1."""

    value: float
    low: float
    high: float
    unweighted: float


def weighted_rmse(residuals: Tensor, weights: Tensor) -> EstimatedRMSE:
    """√(Σ w r² / Σ w) of residuals (n,) and weights (n,) that are not all 0 (Sugiyama et al., JMLR 2007).

    The interval is of the weighted mean m of r² as a ratio estimate, with the variance Σ w²(r² − m)² / (Σ w)² (Owen
    2013, ch. 9): it holds the chance of which rows were drawn, and knows nothing of wrong weights.
    """
    squares, w = residuals.double().square(), weights.double()
    mean = (w * squares).sum() / w.sum()
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * (w * (squares - mean)).square().sum().sqrt() / w.sum()
    low, high = (mean - half).clamp_min(0.0), mean + half
    return EstimatedRMSE(*(value.sqrt().item() for value in (mean, low, high, squares.mean())))
