"""How much each source row should weigh so that the source looks like the target: w(x) ≈ p_t(x) / p_s(x).

Pure functions of the rows: source (n, d) and target (m, d) float tensors -> weights (n,), finite, none below 0, in any
scale (`Pair.weighted` brings them to mean 1). With `others` (k, d), source rows that the estimate does not see, their
weights follow: (n + k,), in the same scale.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tl_runner.functional.logistic import cross_fit, fit_logistic, split_stratified_folds
from tl_runner.functional.losses import squared_distances

CHUNK = 1024  # rows of a block of distances
MOST = 50  # of log-odds: e^50 is as good as infinite, and finite
NEAR = 0.1  # of the mean distance: what `inverse` adds to it, so that a row that is in both domains weighs finitely

Mode = Literal["inverse", "rbf", "count", "distance"]


def nearest_rows(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row to the nearest of the others, and which that is: (n,) and (n,)."""
    found = [squared_distances(chunk, others).min(-1) for chunk in rows.split(CHUNK)]
    return torch.cat([least.values for least in found]).sqrt(), torch.cat([least.indices for least in found])


def by_distance(
    source: Tensor, target: Tensor, mode: Mode = "rbf", bandwidth: float = 1.0, others: Tensor | None = None
) -> Tensor:
    """A function of d_i = min_j ‖x_i − x_j^t‖, the distance of a source row to the nearest target row.

    `inverse`: 1/(d_i + 0.1 · mean d). `rbf`: exp(−½ (d_i / (bandwidth · median d))²). `count`: 1 + the number of target
    rows to which x_i is the nearest source row (Loog 2012). `distance`: d_i itself, as introductory articles write it,
    which favours *far* rows: it is here to be compared with, not to be used. Mean and median are the source's; `count`
    counts `others` among themselves.
    """
    if mode == "count":
        sides = [source] if others is None else [source, others]
        return 1.0 + torch.cat([nearest_rows(target, rows)[1].bincount(minlength=len(rows)) for rows in sides])
    seen, _ = nearest_rows(source, target)
    distance = seen if others is None else torch.cat([seen, nearest_rows(others, target)[0]])
    if mode == "distance":
        return distance
    if mode == "inverse":
        return 1 / (distance + (NEAR * seen.mean()).clamp_min(1e-12))
    return torch.exp(-0.5 * (distance / (bandwidth * seen.median()).clamp_min(1e-12)).square())


def density_ratio(
    source: Tensor,
    target: Tensor,
    seed: int,
    C: float = 1.0,  # noqa: N803
    folds: int = 5,
    others: Tensor | None = None,
) -> Tensor:
    """P(t|x) / P(s|x) · n/m by a classifier that tells the domains apart (Bickel, Brückner & Scheffer 2009).

    See `log_odds` for the classifier, `C` and `folds`; that of `others` is fitted on all rows of both domains.
    """
    n, m = len(source), len(target)
    weights = ratio(log_odds(source, target, seed, C, folds), n)
    if others is None:
        return weights
    of_others = fit_logistic(*_by_domain(source, target), 2, C / source.shape[-1]).logits(others)[:, 0]
    return torch.cat([weights, of_others.clamp(max=MOST).exp() * n / m])


def ratio(log_odds: Tensor, n: int) -> Tensor:
    """The weights (n,) of the source's rows by the log-odds (n + m,) of `log_odds`."""
    return log_odds[:n].clamp(max=MOST).exp() * n / (len(log_odds) - n)


def log_odds(source: Tensor, target: Tensor, seed: int, C: float = 1.0, folds: int = 5) -> Tensor:  # noqa: N803
    """log P(t|x) − log P(s|x) of all rows (n + m,), the source's first, by a logistic regression of the domain.

    Cross-fitted: a row's log-odds come from a classifier that did not see it, fitted on the other `folds` − 1 of
    `folds` parts; n, m ≥ folds. `C` is the prior variance of the log-odds: that of each coefficient, scikit-learn's
    inverse regularisation, is C/d, on columns scaled to deviation 1. With C for each, hundreds of columns tell any two
    domains apart, and weights rest on a row or two.
    """
    x, is_target = _by_domain(source, target)
    fold_of = _split_folds(source.shape[-2], target.shape[-2], folds, seed % 2**32)
    return cross_fit(x, is_target, 2, C / x.shape[-1], fold_of)[..., 0]


@lru_cache(maxsize=8)
def _split_folds(n: int, m: int, folds: int, seed: int) -> Tensor:
    """The fold of each of n + m rows: the same at every evaluation of a run."""
    is_target = np.repeat([0, 1], [n, m])
    return torch.from_numpy(split_stratified_folds(is_target, folds, seed))


def _by_domain(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """All rows, the source's first, and whether each is the target's."""
    is_target = torch.cat([torch.zeros(source.shape[-2]), torch.ones(target.shape[-2])])
    return torch.cat([source, target], -2).double(), is_target.long()


def effective_rows(weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w²: how many rows of equal weight would leave an average as uncertain (Kish 1965)."""
    weights = weights.double()
    return (weights.sum().square() / weights.square().sum()).float()
