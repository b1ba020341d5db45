"""How much each source row should weigh so that the source looks like the target: w(x) ≈ p_t(x) / p_s(x).

Pure functions of the rows: source (n, d) and target (m, d) float tensors -> weights (n,), finite, none below 0, in any
scale (`Pair.weighted` brings them to mean 1).
"""

from typing import Literal

import torch
from torch import Tensor

from tl_runner.losses import squared_distances

CHUNK = 1024  # rows of a block of distances
NEAR = 0.1  # of the mean distance: what `inverse` adds to it, so that a row that is in both domains weighs finitely

Mode = Literal["inverse", "rbf", "count", "distance"]


def nearest(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row to the nearest of the others, and which that is: (n,) and (n,)."""
    found = [squared_distances(chunk, others).min(-1) for chunk in rows.split(CHUNK)]
    return torch.cat([least.values for least in found]).sqrt(), torch.cat([least.indices for least in found])


def by_distance(source: Tensor, target: Tensor, mode: Mode = "rbf", bandwidth: float = 1.0) -> Tensor:
    """A function of d_i = min_j ‖x_i − x_j^t‖, the distance of a source row to the nearest target row.

    `inverse`: 1/(d_i + 0.1 · mean d). `rbf`: exp(−½ (d_i / (bandwidth · median d))²). `count`: 1 + the number of target
    rows to which x_i is the nearest source row (Loog 2012). `distance`: d_i itself, the founding articles' literal
    form, which favours *far* rows: it is here to be compared with, not to be used.
    """
    if mode == "count":
        _, owner = nearest(target, source)
        return 1.0 + torch.bincount(owner, minlength=len(source))
    distance, _ = nearest(source, target)
    if mode == "distance":
        return distance
    if mode == "inverse":
        return 1 / (distance + (NEAR * distance.mean()).clamp_min(1e-12))
    return torch.exp(-0.5 * (distance / (bandwidth * distance.median()).clamp_min(1e-12)).square())


def density_ratio(source: Tensor, target: Tensor, seed: int, C: float = 1.0, folds: int = 5) -> Tensor:  # noqa: N803
    """P(t|x) / P(s|x) · n/m by a classifier that tells the domains apart (Bickel, Brückner & Scheffer 2009).

    See `log_odds` for the classifier, `C` and `folds`.
    """
    return ratio(log_odds(source, target, seed, C, folds), len(source))


def ratio(log_odds: Tensor, n: int) -> Tensor:
    """The weights (n,) of the source's rows by the log-odds (n + m,) of `log_odds`."""
    return log_odds[:n].clamp(max=50).exp() * n / (len(log_odds) - n)  # e^50 is as good as infinite, and finite


def log_odds(source: Tensor, target: Tensor, seed: int, C: float = 1.0, folds: int = 5) -> Tensor:  # noqa: N803
    """log P(t|x) − log P(s|x) of all rows (n + m,), the source's first, by a logistic regression of the domain.

    Cross-fitted: a row's log-odds come from a classifier that did not see it, fitted on the other `folds` − 1 of
    `folds` parts; n, m ≥ folds. `C` is the prior variance of the log-odds: that of each coefficient, scikit-learn's
    inverse regularisation, is C/d, on columns scaled to deviation 1. With C for each, hundreds of columns tell any two
    domains apart, and weights rest on a row or two.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, m = len(source), len(target)
    x = torch.cat([source, target]).double().numpy()
    is_target = torch.cat([torch.zeros(n), torch.ones(m)]).long().numpy()
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    regression = LogisticRegression(C=C / source.shape[1], max_iter=5000, solver="newton-cg")
    classifier = make_pipeline(StandardScaler(), regression)
    return torch.as_tensor(cross_val_predict(classifier, x, is_target, cv=parts, method="decision_function"))


def effective_rows(weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w²: how many rows of equal weight would leave an average as uncertain (Kish 1965)."""
    weights = weights.double()
    return (weights.sum().square() / weights.square().sum()).float()
