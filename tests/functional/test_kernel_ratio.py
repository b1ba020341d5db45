"""Kernel estimates of density ratios: against exact ratios, and against loops and general solvers in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from support.densities import MOVE, gaussians, rank_correlation
from torch import Tensor

from tl_runner.functional import kernel_ratio
from tl_runner.functional.kernel_ratio import kliep, kmm, mixture, rulsif, ulsif
from tl_runner.methods.kliep import KLIEP
from tl_runner.methods.kmm import KMM
from tl_runner.methods.rulsif import RULSIF
from tl_runner.methods.ulsif import ULSIF

SIZES = [(1501, 700), pytest.param(4007, 1501, marks=pytest.mark.slow)]  # n, m
DRAWS = 20
ALPHA = 0.1


Estimate = Callable[[Tensor, Tensor, int], Tensor]


def judged(estimate: Estimate, n: int, m: int) -> tuple[float, float, float]:
    """Means over the draws: rank correlation with the exact ratio, weighted source mean, mean of the target sample."""
    found = []
    for draw in range(DRAWS):
        source, target = gaussians(n, m, draw)
        weights = estimate(source, target, draw).double().numpy()
        assert weights.shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all()
        x = source[:, 0].double().numpy()
        mean = (weights * x).sum() / weights.sum()
        found.append((rank_correlation(weights, np.exp(MOVE * x - MOVE**2 / 2)), mean, float(target.mean())))
    correlation, mean, of_target = np.mean(found, 0)
    return float(correlation), float(mean), float(of_target)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_exact_ratio_ulsif(n, m):
    correlation, mean, of_target = judged(ulsif, n, m)
    assert correlation > 0.95 and abs(mean - of_target) < 0.03


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_exact_ratio_kliep(n, m):
    correlation, mean, of_target = judged(kliep, n, m)
    assert correlation > 0.95 and abs(mean - of_target) < 0.03


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_exact_ratio_kmm(n, m):
    """Of kmm only means are promised, no ranks."""
    _, mean, of_target = judged(lambda source, target, _: kmm(source, target), n, m)
    assert abs(mean - of_target) < 0.03


def relative(x: np.ndarray) -> np.ndarray:
    ratio = np.exp(MOVE * x - MOVE**2 / 2)
    return ratio / (ALPHA * ratio + 1 - ALPHA)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_exact_ratio_rulsif(n, m):
    """The relative ratio grows with the plain one: the ranks are the same, the mean is another."""
    x = np.linspace(-9, 9, 20001)
    density = np.exp(-(x**2) / 2) * relative(x)
    expected = (x * density).sum() / density.sum()
    assert expected == pytest.approx(0.606, abs=5e-4)
    correlation, mean, _ = judged(rulsif, n, m)
    assert correlation > 0.95 and abs(mean - expected) < 0.03


def test_relative_weights_are_the_relative_ratio_itself():
    source, target = gaussians(4007, 1501, 0)
    x = source[:, 0].double().numpy()
    assert np.abs(rulsif(source, target, 0).numpy() - relative(x)).mean() < 0.1  # the plain ratio is off by .13
    assert rulsif(source, target, 0, alpha=0.5).max() < 2.2  # 1/α, and what a fit goes beyond it


def plain(n: int = 30, m: int = 20, d: int = 3, away: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), away + torch.randn(m, d, generator=generator)


def kernel(a: Tensor, b: Tensor, width: float) -> np.ndarray:
    """exp(−‖a_i − b_j‖² / 2σ²), σ = width · the median distance of two rows of both domains (`median`)."""
    return np.array([[math.exp(-(math.dist(x, y) ** 2) / (2 * width**2)) for y in b.tolist()] for x in a.tolist()])


def median(source: Tensor, target: Tensor) -> float:
    rows = [*source.tolist(), *target.tolist()]
    between = sorted(math.dist(x, y) for i, x in enumerate(rows) for y in rows[:i])
    return between[(len(between) - 1) // 2]  # torch's: the lower of two


@pytest.fixture
def one_choice(monkeypatch):
    """σ = 1.5 median distances and λ = 0.01, and nothing else to choose."""
    monkeypatch.setattr(kernel_ratio, "WIDTHS", (1.5,))
    monkeypatch.setattr(kernel_ratio, "RIDGES", (0.01,))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.7])
def test_rulsif_is_its_closed_form(alpha, one_choice):
    source, target = plain()
    width = 1.5 * median(source, target)
    phi_s, phi_t = kernel(source, target, width), kernel(target, target, width)  # all 20 target rows are centres
    second = sum(alpha * np.outer(row, row) / 20 for row in phi_t) + sum(
        (1 - alpha) * np.outer(row, row) / 30 for row in phi_s
    )
    theta = np.linalg.inv(second + 0.01 * np.eye(20)) @ phi_t.mean(0)
    expected = np.maximum(phi_s @ theta, 0)
    np.testing.assert_allclose(rulsif(source, target, 0, alpha).numpy(), expected, rtol=1e-3, atol=1e-4)
    if alpha == 0:
        assert torch.equal(ulsif(source, target, 0), rulsif(source, target, 0, 0.0))


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("WIDTHS", 1.5, 0.01), ("WIDTHS", 1.5, 100.0), ("RIDGES", 0.01, 1e3)]
)
@pytest.mark.parametrize("estimate", [ulsif, rulsif, kliep])
def test_held_out_rows_choose(estimate, name, good, bad, one_choice, monkeypatch):
    """Of a sensible value and a ruinous one the sensible one; on the rows of the fit the narrowest wins."""
    source, target = gaussians(300, 90, 0)  # every target row is a centre
    expected = estimate(source, target, 0)
    for order in ((good, bad), (bad, good)):
        monkeypatch.setattr(kernel_ratio, name, order)
        torch.testing.assert_close(estimate(source, target, 0), expected)


def test_a_ridge_too_small_is_not_chosen(one_choice, monkeypatch):
    """Kernels as narrow as the rows are apart and next to no ridge: by heart on the rows of the fit."""
    source, target = plain(40, 40)
    monkeypatch.setattr(kernel_ratio, "WIDTHS", (0.2,))
    expected = ulsif(source, target, 0)
    monkeypatch.setattr(kernel_ratio, "RIDGES", (1e-9, 0.01))
    torch.testing.assert_close(ulsif(source, target, 0), expected)


def test_the_mixture_is_the_likeliest():
    """Against Lagrange's conditions, and a general solver that is told the constraint."""
    ratios = np.random.default_rng(0).lognormal(size=(40, 6))
    shares = mixture(torch.tensor(ratios)).numpy()
    assert shares.sum() == pytest.approx(1) and (shares >= 0).all()
    slopes = (ratios / (ratios @ shares)[:, None]).mean(0)
    assert (slopes < 1 + 1e-3).all() and np.abs(slopes[shares > 1e-6] - 1).max() < 1e-3
    other = minimize(
        lambda s: -np.log(ratios @ s).mean(), np.full(6, 1 / 6), method="SLSQP", bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda s: s.sum() - 1}, options={"ftol": 1e-12},
    )  # fmt: skip
    np.testing.assert_allclose(shares, other.x, atol=1e-3)
    assert np.abs(shares - 1 / 6).max() > 0.05  # it did move from where it set out


def test_kliep_is_the_likeliest_of_mean_1(one_choice):
    source, target = plain()
    width = 1.5 * median(source, target)
    phi_s, phi_t = kernel(source, target, width), kernel(target, target, width)
    of_source = phi_s.mean(0)
    other = minimize(
        lambda a: -np.log(phi_t @ a).mean(), np.full(20, 1 / of_source.sum()), method="SLSQP", bounds=[(0, None)] * 20,
        constraints={"type": "eq", "fun": lambda a: of_source @ a - 1}, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    weights = kliep(source, target, 0).numpy()
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights, phi_s @ other.x, atol=0.02)


@pytest.mark.parametrize(
    ("away", "bound", "binds"), [(0.5, 1000.0, None), (0.5, 1.2, "bound"), (9.0, 1000.0, "least"), (0.5, 1e-9, None)]
)
def test_kmm_is_the_least_of_its_quadratic_form(away, bound, binds):
    source, target = plain(16, 9, away=away)
    width = 0.7 * median(source, target)
    gram, kappa = kernel(source, source, width), 16 / 9 * kernel(source, target, width).sum(1)

    def loss(w: np.ndarray) -> float:
        return float(0.5 * w @ gram @ w - kappa @ w)

    weights = kmm(source, target, 0.7, bound).numpy()
    assert (weights >= 0).all() and (weights <= bound).all()
    if bound < 1:
        return  # no sum of 4 can be reached; it ends all the same
    sums = [{"type": "ineq", "fun": lambda w: w.sum() - 4}, {"type": "ineq", "fun": lambda w: 28 - w.sum()}]
    other = minimize(
        loss, np.ones(16), method="SLSQP", bounds=[(0, bound)] * 16, constraints=sums, options={"ftol": 1e-12}
    )
    near = 0.02 if binds == "least" else 1e-4  # where the sum is held it may be passed by a hundredth
    assert loss(weights) == pytest.approx(other.fun, rel=near)
    assert (weights.max() > 1.19) == (binds == "bound") or bound == 1000
    assert (weights.sum() < 4.1) == (binds == "least") and weights.sum() > 3.9


def test_kmm_matches_the_means_of_the_kernels():
    source, target = gaussians(1501, 700, 0)
    weights = kmm(source, target).double()
    assert (weights > 0).double().mean() > 0.95  # no block of rows is left over
    width = median(source[::10], target[::10])
    some = torch.linspace(-2, 2, 9)[:, None]
    matched = (kernel(some, source, width) * weights.numpy()).mean(1)
    np.testing.assert_allclose(matched, kernel(some, target, width).mean(1), atol=0.01)


ESTIMATES = {
    "ulsif": ulsif,
    "rulsif": rulsif,
    "kliep": kliep,
    "kmm": lambda source, target, seed: kmm(source, target),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_units_do_not_matter(name):
    source, target = gaussians(200, 150, 0)
    weights, scaled = (ESTIMATES[name](c * source + c, c * target + c, 0) for c in (1.0, 1024.0))
    torch.testing.assert_close(weights / weights.mean(), scaled / scaled.mean(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_same_seed_gives_the_same_weights_whatever_was_drawn(name):
    source, target = gaussians(200, 150, 0)
    weights = ESTIMATES[name](source, target, 2**62 + 5)
    torch.rand(3)
    assert torch.equal(weights, ESTIMATES[name](source, target, 2**62 + 5))


@pytest.mark.parametrize("name", ["ulsif", "rulsif", "kliep"])
def test_fewer_centres_are_others(name):
    source, target = gaussians(200, 150, 0)
    assert not torch.equal(ESTIMATES[name](source, target, 0), ESTIMATES[name](source, target, 0, centres=2))


@pytest.mark.parametrize("name", ESTIMATES)
def test_weights_are_finite_where_all_rows_are_one(name):
    same = torch.ones(12, 2)
    weights = ESTIMATES[name](same, same[:7].clone(), 0)
    torch.testing.assert_close(weights / weights.mean(), torch.ones_like(weights))


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("away", [20.0, 1e6])
def test_weights_are_finite_where_the_domains_are_worlds_apart(name, away):
    source, target = gaussians(100, 80, 0)
    weights = ESTIMATES[name](source, target + away, 0)
    assert torch.isfinite(weights).all() and (weights >= 0).all()


@pytest.mark.parametrize("name", ESTIMATES)
def test_rows_in_order_weigh_as_rows_in_disorder(name):
    """Parts are drawn at random: rows that come sorted are no other rows.

    The matrix of kmm is nearly singular, so that rounding decides among many weights that are as good as optimal.
    """
    source, target = gaussians(1000, 700, 0)
    order = source[:, 0].argsort()
    weights, other = ESTIMATES[name](source, target, 0), ESTIMATES[name](source[order], target.sort(0).values, 0)
    assert rank_correlation(weights[order].numpy(), other.numpy()) > (0.9 if name == "kmm" else 0.95)


def test_a_methods_options_reach_its_estimate():
    source, target = gaussians(60, 40, 0)
    for method, expected in (
        (ULSIF(5, 3), ulsif(source, target, 1, 5, 3)),
        (RULSIF(0.4, 5, 3), rulsif(source, target, 1, 0.4, 5, 3)),
        (KLIEP(5, 3), kliep(source, target, 1, 5, 3)),
        (KMM(0.3, 1.5), kmm(source, target, 0.3, 1.5)),
    ):
        assert torch.equal(method.weights(source, target, 1), expected)
