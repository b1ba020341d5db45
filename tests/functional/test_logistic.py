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
from tl_runner.functional.logistic import choose_class, cross_fit, fit_logistic, split_folds, split_stratified_folds


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
        (40, 130, 3, 1.0, 1.0),  # so many columns that no curvature is inverted
        (300, 12, 3, 1e3, 1.0),  # so little penalty that its steps are solved in float64
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
    assert (choose_class(found.logits(x)).numpy() == known.predict(scaled)).all()


def log_odds_of(logits: torch.Tensor) -> torch.Tensor:
    """Logits but for what all classes share, which means nothing; those of two classes as they are."""
    return logits if logits.shape[-1] == 1 else logits - logits.mean(-1, keepdim=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_stack_is_its_problems_alone_and_a_row_without_weight_is_no_row(classes):
    """Of other sizes, easy and hard to fit, so that each ends at its own step; a row that is left out is far away."""
    sizes, gaps = (80, 120, 150), (0.0, 1.0, 6.0)
    x, y, w = torch.full((3, 150, 9), 1e3), torch.zeros(3, 150, dtype=torch.long), torch.zeros(3, 150)
    for i, (n, gap) in enumerate(zip(sizes, gaps, strict=True)):
        (x[i, :n], y[i, :n]), w[i, :n] = rows(n, 9, classes, gap), torch.rand(n) + 0.5
    stack = log_odds_of(fit_logistic(x, y, classes, 0.5, w).logits(x))
    for i, n in enumerate(sizes):
        alone = fit_logistic(x[i, :n], y[i, :n], classes, 0.5, w[i, :n])
        # both end at a derivative of 1e-9 a row, which leaves less than this
        torch.testing.assert_close(stack[i, :n], log_odds_of(alone.logits(x[i, :n])), rtol=0, atol=1e-6)
        same = fit_logistic(x[[i, i, i]], y[[i, i, i]], classes, 0.5, w[[i, i, i]]).logits(x[[i, i, i]])
        assert torch.equal(log_odds_of(same)[i], stack[i])  # the others neither move it nor keep it from ending


def test_a_class_without_rows_gets_no_share_and_changes_nothing():
    x, y = rows(150, 6, 3, 1.0)
    some = 2 * y - (y == 2).long()  # classes 0, 2 and 3 of four
    fitted, renumbered = fit_logistic(x, some, 4, 1.0), fit_logistic(x, y, 3, 1.0)
    p = fitted.logits(x).softmax(-1)
    assert (p[:, 1] == 0).all()
    torch.testing.assert_close(p[:, [0, 2, 3]], renumbered.logits(x).softmax(-1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("far", [1.0, 1e5])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_cross_fit_is_a_fit_of_the_other_rows_for_each_fold(classes, far):
    """With a column that is constant but in one fold, a class that is in one fold alone, and a row that may be far."""
    x, y = rows(160, 8, classes, 1.0)
    x[5] *= far
    fold_of = torch.from_numpy(split_folds(160, 5, 0))
    x[:, 1] = (torch.arange(160) == int((fold_of == 3).long().argmax())).float()
    y[(y == 4) & (fold_of != 2)] = 3
    w = torch.rand(160, generator=torch.Generator().manual_seed(2)) + 0.5
    found = cross_fit(x, y, classes, 0.3, fold_of, w)
    for fold in range(5):
        fitted, held_out = fold_of != fold, fold_of == fold
        alone = fit_logistic(x[fitted], y[fitted], classes, 0.3, w[fitted]).logits(x[held_out])
        shares, expected = found[held_out].softmax(-1), alone.softmax(-1)
        if classes == 2:
            shares, expected = found[held_out], alone
        torch.testing.assert_close(shares, expected, rtol=1e-6, atol=1e-6)
    stack = cross_fit(torch.stack([x, -x]), torch.stack([y, y]), classes, 0.3, fold_of, w)
    torch.testing.assert_close(stack[0].softmax(-1), found.softmax(-1), rtol=0, atol=1e-7)
    torch.testing.assert_close(stack[1].softmax(-1), found.softmax(-1), rtol=0, atol=1e-7)


def test_the_derivative_at_the_fit_is_0_also_of_columns_that_follow_from_each_other():
    """By autograd, of the loss as it is written, on the columns scaled by hand."""
    x, y = rows(200, 6, 3, 3.0)
    x = torch.cat([x, x[:, 1:] + 1e-4 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))], 1).double()
    found = fit_logistic(x, y, 3, 2.0)
    scaled = torch.from_numpy(StandardScaler().fit_transform(x.numpy()))
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    loss = 0.5 * weight.square().sum() + 2.0 * torch.nn.functional.cross_entropy(
        scaled @ weight + bias, y, reduction="sum"
    )
    slopes = torch.autograd.grad(loss, (weight, bias))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-8 * 2.0 * 200


def test_separable_rows_have_a_finite_fit():
    x = torch.cat([torch.randn(30, 4) - 50, torch.randn(30, 4) + 50])
    found = fit_logistic(x, torch.arange(60) // 30, 2, 1e6)
    assert torch.isfinite(found.weight).all() and (choose_class(found.logits(x)) == torch.arange(60) // 30).all()


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
