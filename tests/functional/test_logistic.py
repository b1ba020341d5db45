"""Logistic regression against scikit-learn's, fitted as closely, and the folds against scikit-learn's."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tl_runner.functional.divergence import wilson_interval
from tl_runner.functional.importance import log_odds
from tl_runner.functional.logistic import fit_logistic, split_folds, split_stratified_folds


def rows(n: int, d: int, classes: int, gap: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    y = torch.randint(classes, (n,), generator=generator)
    moves = torch.randn(classes, d, generator=generator)
    x = torch.randn(n, d, generator=generator) * 3 + gap * moves[y] + 5
    x[:, 0] = 3.0  # a constant column
    return x, y


@pytest.mark.parametrize(
    ("n", "d", "classes", "C", "gap"),
    [
        (300, 12, 2, 1.0, 1.0),
        (200, 60, 2, 1 / 60, 5.0),
        (60, 90, 2, 1.0, 0.0),
        (300, 12, 3, 0.1, 1.0),
        (200, 20, 7, 10.0, 2.0),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learns(n, d, classes, C, gap, weighted):  # noqa: N803
    x, y = rows(n, d, classes, gap)
    w = torch.rand(n, generator=torch.Generator().manual_seed(1)) * 2 if weighted else None
    found = fit_logistic(x, y, classes, C, w)
    scaled = StandardScaler().fit_transform(x.double().numpy())
    known = LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=10_000)
    known.fit(scaled, y.numpy(), sample_weight=None if w is None else w.double().numpy())
    expected, logits = known.decision_function(scaled), found.logits(x).numpy()
    if classes == 2:
        np.testing.assert_allclose(logits[:, 0], expected, atol=2e-5)
    else:  # logits are the same but for what all classes share
        np.testing.assert_allclose(
            logits - logits.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=2e-5
        )
    assert (found.predict(x).numpy() == known.predict(scaled)).all()


def test_separable_rows_have_a_finite_fit():
    x = torch.cat([torch.randn(30, 4) - 50, torch.randn(30, 4) + 50])
    found = fit_logistic(x, torch.arange(60) // 30, 2, 1e6)
    assert torch.isfinite(found.weight).all() and (found.predict(x) == torch.arange(60) // 30).all()


@pytest.mark.parametrize(("n", "folds"), [(100, 5), (103, 5), (17, 4)])
def test_folds_are_scikit_learns(n, folds):
    plain, even, y = np.empty(n, int), np.empty(n, int), np.r_[np.zeros(n // 3, int), np.ones(n - n // 3, int)]
    for fold, (_, held_out) in enumerate(KFold(folds, shuffle=True, random_state=3).split(y)):
        plain[held_out] = fold
    for fold, (_, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=3).split(y, y)):
        even[held_out] = fold
    assert (split_folds(n, folds, 3) == plain).all() and (split_stratified_folds(y, folds, 3) == even).all()


def test_the_domain_classifier_is_cross_fitted_as_scikit_learn_does_it():
    source, target = torch.randn(40, 3), torch.randn(50, 3) + 0.5
    x, y = torch.cat([source, target]).double().numpy(), np.r_[np.zeros(40, int), np.ones(50, int)]
    expected = np.empty(90)
    for fitted, held_out in StratifiedKFold(5, shuffle=True, random_state=9).split(x, y):
        scaler = StandardScaler().fit(x[fitted])
        known = LogisticRegression(C=2.0 / 3, solver="newton-cg", tol=1e-10).fit(scaler.transform(x[fitted]), y[fitted])
        expected[held_out] = known.decision_function(scaler.transform(x[held_out]))
    np.testing.assert_allclose(log_odds(source, target, seed=9, C=2.0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (40, 40), (13, 40), (511, 1000)])
def test_wilsons_interval_is_scipys(hits, n):
    known = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((known.low, known.high), abs=1e-12)
