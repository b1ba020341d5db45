"""Transferability scores: how well a network that was trained elsewhere suits labelled rows, before any training.

Pure functions of features or predictions and labels, computed in float64; of all of them more is better. They measure
a labelled sample. The caller decides whose labels these are.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import math

import torch
from torch import Tensor

from tl_runner.errors import UserError

TINY = 1e-300  # in place of a probability of 0 that is divided by or whose logarithm weighs 0
DECADES = (-12, 8)  # of the noise against the largest squared singular value, between which the evidence is maximised
PER_DECADE = 10
FOLDS = 5  # of cross-fitting
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of squared weights, against squared errors summed over the rows
THIRDS = 48  # (2/3)^48 of the bracket is left, 1e-9 in the logarithm


def leep(predictions: Tensor, labels: Tensor) -> float:
    """Log expected empirical prediction (Nguyen et al., ICML 2020): (1/n) Σ_i log Σ_z P̂(y_i|z) θ(x_i)_z, in nats.

    predictions θ (n, Z): a source model's probabilities of its own classes z; labels y (n,): the task's. P̂(y|z) is
    that of the joint distribution P̂(y, z) = (1/n) Σ_{i: y_i = y} θ(x_i)_z. At most 0, which it is where the source's
    classes tell the task's for sure; for predictions of 0 and 1 it is `nce`.
    """
    theta = predictions.double().cpu()
    y, classes = _numbered(labels, theta)
    joint = torch.zeros(classes, theta.shape[1], dtype=torch.double).index_add(0, y, theta)
    given = joint / joint.sum(0).clamp_min(TINY)  # P̂(y|z); a class that is never predicted weighs 0 below
    return (given[y] * theta).sum(1).log().mean().item()


def nce(source_labels: Tensor, labels: Tensor) -> float:
    """Negative conditional entropy −Ĥ(Y|Z) = Σ_{y,z} P̂(y, z) log P̂(y|z), in nats (Tran et al., ICCV 2019).

    source_labels z (n,): what the source has for, or a source model predicts on, the same rows; labels y (n,). P̂ are
    the frequencies. Between −log C and 0.
    """
    z, sources = _numbered(source_labels, source_labels)
    y, classes = _numbered(labels, source_labels)
    counts = torch.bincount(y * sources + z, minlength=classes * sources).view(classes, sources).double()
    joint = counts / len(y)
    given = joint / joint.sum(0).clamp_min(TINY)
    return torch.special.xlogy(joint, given).sum().item()


def logme(features: Tensor, labels: Tensor) -> float:
    """The largest log evidence of a linear model of the labels, in nats a row (LogME; You et al., JMLR 2022).

    For each class a column y of 0 and 1, or the one column of a quantity: y = F w + noise with w ~ N(0, I/α) and noise
    ~ N(0, I/β), so that y ~ N(0, (I + FFᵀ/λ)/β), λ = α/β. (1/n) max_{α,β} log p(y|F), the mean over the columns; of
    classes those that occur. For each λ the best 1/β is q(λ)/n with q = yᵀ(I + FFᵀ/λ)⁻¹y, which leaves a search along
    log λ: on a grid, then within its best bracket; the paper's fixed-point steps go to the same place, or to a lower
    peak. features F (n, d), labels (n,), whole numbers of classes or floating-point ones of a quantity. λ is at least
    1e-12 of F's largest squared singular value: a perfect fit is then finite. Neither columns nor labels are centred,
    as in the paper.
    """
    f = features.double().cpu()
    columns = _list_columns(labels, f)
    left, singular, _ = torch.linalg.svd(f, full_matrices=False)
    onto = (left.T @ columns).square()  # (r, C): of y, along each direction
    beside = (columns.square().sum(0) - onto.sum(0)).clamp_min(0.0)  # (C,): ‖y‖² that no direction reaches
    power = singular.square()
    power = power / power.max().clamp_min(TINY)
    n = len(columns)

    def evidence(log_noise: Tensor) -> Tensor:
        """By log λ (g, C) or (g, 1), λ in units of the largest squared singular value: (g, C)."""
        found = []
        for row in log_noise:
            kept = 1.0 / (1.0 + power[:, None] / row.exp())  # λ/(λ+σ²), (r, C) or (r, 1)
            q = (onto * kept).sum(0) + beside
            found.append(-0.5 * ((2 * math.pi * q / n).log() + 1.0 - kept.log().sum(0) / n))
        return torch.stack(found)

    low, high = (decade * math.log(10) for decade in DECADES)
    grid = torch.linspace(low, high, (DECADES[1] - DECADES[0]) * PER_DECADE + 1, dtype=torch.double)
    best = evidence(grid[:, None]).argmax(0).clamp(1, len(grid) - 2)
    lower, upper = grid[best - 1], grid[best + 1]
    for _ in range(THIRDS):
        third = (upper - lower) / 3
        one, two = evidence(torch.stack([lower + third, upper - third]))
        lower, upper = torch.where(one < two, lower + third, lower), torch.where(one < two, upper, upper - third)
    return evidence(((lower + upper) / 2)[None]).mean().item()


def h_score(features: Tensor, labels: Tensor, shrink: bool = True) -> float:
    """tr(cov(f)⁻¹ cov(E[f|y])): how far apart the classes lie, as the features scatter (Bao et al., ICIP 2019).

    features (n, d), labels (n,). From 0 to C − 1, where the features tell the classes linearly for sure; covariances
    are divided by n. Without `shrink` it is the paper's, by the pseudo-inverse: an invertible linear map of the
    features changes nothing, and with n ≤ d it is C − 1 whatever the features. `shrink` (Ibrahim et al., ECML 2022)
    shrinks cov(f) by Ledoit & Wolf's share a, to (1 − a) cov(f) + a · tr(cov(f))/d · I, and cov(E[f|y]) by the same to
    (1 − a) cov(E[f|y]): few rows then do not flatter it.
    """
    f = features.double().cpu()
    y, classes = _numbered(labels, f)
    f = f - f.mean(0)
    n, d = f.shape
    counts = torch.bincount(y).double()
    means = torch.zeros(classes, d, dtype=torch.double).index_add(0, y, f) / counts[:, None]
    between = means * (counts / n).sqrt()[:, None]  # (C, d): betweenᵀ·between = cov(E[f|y])
    scatter = f.T @ f / n
    spread = scatter.trace().item() / d
    if spread <= 0:
        return 0.0
    if not shrink:
        return (between @ torch.linalg.pinv(scatter, hermitian=True) @ between.T).trace().item()
    from sklearn.covariance import ledoit_wolf_shrinkage

    share = max(float(ledoit_wolf_shrinkage(f.numpy(), assume_centered=True)), 1e-9)  # which keeps it invertible
    scatter = (1 - share) * scatter + share * spread * torch.eye(d, dtype=torch.double)
    solved = torch.cholesky_solve(between.T, torch.linalg.cholesky(scatter))
    return (1 - share) * (between @ solved).trace().item()


def linear_error(features: Tensor, labels: Tensor) -> float | None:
    """The share of rows that a linear classifier gets wrong which was fitted to others, in 5 parts; from 0 to 1.

    Ridge regression of classes as −1 and 1 on columns of mean 0 and deviation 1, with the one of `PENALTIES` that is
    best at leaving one out: a logistic regression takes ten times as long. None where a part leaves one class to fit.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = features.double().cpu().numpy(), labels.cpu().numpy()
    if len(y) < FOLDS:
        return None
    wrong = 0
    for fitted, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        if len(set(y[fitted].tolist())) < 2:
            return None
        classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
        wrong += int((classifier.fit(x[fitted], y[fitted]).predict(x[held_out]) != y[held_out]).sum())
    return wrong / len(y)


def _list_columns(labels: Tensor, rows: Tensor) -> Tensor:
    """The labels (n,) as columns (n, C) float64: of 0 and 1 for each class that occurs, or one of the quantity."""
    if not labels.is_floating_point():
        return torch.nn.functional.one_hot(*_numbered(labels, rows)).double()
    if len(labels) != len(rows) or not len(labels):
        raise ValueError(f"{len(rows)} rows need a label each, got {len(labels)}")
    return labels.double().cpu()[:, None]


def _numbered(labels: Tensor, rows: Tensor) -> tuple[Tensor, int]:
    """The labels (n,) as the positions of the classes that occur, on the CPU, and how many occur."""
    if len(labels) != len(rows) or not len(labels):
        raise ValueError(f"{len(rows)} rows need a label each, got {len(labels)}")
    present, numbers = labels.cpu().unique(return_inverse=True)
    return numbers, len(present)


def admit(labels: Tensor) -> None:
    """Raises `UserError` where the labels are of one class, or one value: nothing can be told from them."""
    if len(labels.unique()) < 2:
        same = "have all the same value" if labels.is_floating_point() else "are all of one class"
        raise UserError(f"the labelled rows {same}: transferability needs two or more")
