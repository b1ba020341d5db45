"""Transferability scores against closed forms, double loops and a direct maximisation of the evidence."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from tl_runner.errors import UserError
from tl_runner.functional.transferability import admit, h_score, leep, linear_error, logme, nce


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictions(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(n, classes, generator=chance(seed), dtype=torch.double)).softmax(1)


def some_labels(n: int, classes: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(classes, (n,), generator=chance(seed))


def test_leep_is_its_definition_summed_row_by_row():
    theta, y = predictions(40, 4), some_labels(40, 3)
    total = 0.0
    for i in range(40):
        inner = 0.0
        for z in range(4):
            joint = sum(theta[j, z].item() for j in range(40) if y[j] == y[i]) / 40
            marginal = sum(theta[j, z].item() for j in range(40)) / 40
            inner += joint / marginal * theta[i, z].item()
        total += math.log(inner)
    assert leep(theta, y) == pytest.approx(total / 40, abs=1e-12)


def test_leep_is_at_most_0_and_0_where_the_sources_classes_tell_the_tasks():
    assert all(leep(predictions(30, 5, seed), some_labels(30, 3, seed + 1)) < 0 for seed in range(20))
    z = some_labels(60, 6)
    assert leep(torch.eye(6)[z], z // 2) == 0.0  # every source class lies in one class of the task
    assert leep(torch.eye(6)[z], some_labels(60, 3, 2)) < -0.1


def test_leep_of_predictions_that_say_nothing_is_minus_the_entropy_of_the_labels():
    y = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert leep(torch.full((4, 5), 0.2), y) == pytest.approx(-entropy, abs=1e-7)  # 0.2 in float32


def test_leep_of_sure_predictions_is_nce():
    z, y = some_labels(80, 5, 2), some_labels(80, 4, 3)
    assert leep(torch.eye(7)[z], y) == pytest.approx(nce(z, y), abs=1e-12)  # two classes are never predicted


def test_leep_is_bounded_by_any_choice_of_source_labels():
    """log Σ_z P̂(y|z) θ_z ≥ log P̂(y|z_i) + log θ_{z_i}: the proof of property 2 of the paper, with LEEP's own P̂.

    As the paper states it, with NCE's P̂ of the hard labels, it is no inequality: it fails on some such draws.
    """
    for seed in range(20):
        theta, y = predictions(30, 4, seed), some_labels(30, 3, seed + 50)
        z = theta.argmax(1)
        onehot = torch.nn.functional.one_hot(y, 3).double()
        given = (onehot.T @ theta) / theta.sum(0)
        bound = given[y, z].log().mean() + theta.gather(1, z[:, None]).log().mean()
        assert leep(theta, y) >= bound.item()


def test_nce_by_its_contingency_table():
    z = torch.tensor([0] * 6 + [1] * 4)
    y = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 1, 1])
    by_hand = 0.5 * math.log(5 / 6) + 0.1 * math.log(1 / 6) + 0.4 * math.log(1 / 2)
    assert nce(z, y) == pytest.approx(by_hand, abs=1e-12)
    assert nce(y, z) != pytest.approx(by_hand, abs=1e-3)  # whose labels are given does matter
    assert nce(y + 7, y) == 0.0
    assert nce(torch.zeros(10), y) == pytest.approx(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))


def direct_evidence(f: np.ndarray, y: np.ndarray) -> float:
    """(1/n) max log N(y; 0, FFᵀ/α + I/β) over α, β, by SciPy's density and simplex, from several starts."""
    n = len(y)

    def negative(logs: np.ndarray) -> float:
        a, b = np.exp(np.clip(logs, -30, 30))
        return -multivariate_normal(np.zeros(n), f @ f.T / a + np.eye(n) / b).logpdf(y) / n

    starts = [(0.0, 0.0), (4.0, 1.0), (-3.0, 3.0)]
    options = {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 2000}
    return max(-minimize(negative, start, method="Nelder-Mead", options=options).fun for start in starts)


@pytest.mark.parametrize(("n", "d"), [(24, 4), (12, 20)], ids=["more rows", "more columns"])
def test_logme_is_the_maximum_of_the_evidence(n, d):
    y = some_labels(n, 3, 5)
    f = torch.randn(n, d, generator=chance(6), dtype=torch.double)
    f[:, 0] += 1.5 * y
    f *= torch.logspace(-1, 1, d, dtype=torch.double)
    each = [direct_evidence(f.numpy(), (y == c).double().numpy()) for c in range(3)]
    assert logme(f, y) == pytest.approx(float(np.mean(each)), abs=1e-7)


@pytest.mark.parametrize(("n", "d"), [(24, 4), (12, 20)], ids=["more rows", "more columns"])
def test_logme_of_a_quantity_is_the_maximum_of_the_evidence_of_its_values(n, d):
    f = torch.randn(n, d, generator=chance(6), dtype=torch.double)
    y = f[:, 0] - 2 * f[:, 1] + 0.5 * torch.randn(n, generator=chance(16), dtype=torch.double) + 0.2
    assert logme(f, y) == pytest.approx(direct_evidence(f.numpy(), y.numpy()), abs=1e-7)
    assert logme(f, 10 * y) == pytest.approx(logme(f, y) - math.log(10), abs=1e-7)  # a density, of another unit
    assert logme(f, y) > logme(f, y[torch.randperm(n, generator=chance(17))])
    with pytest.raises(ValueError, match="need a label each"):
        logme(f, y[1:])


def test_logme_of_features_that_say_nothing_is_the_evidence_of_noise_alone():
    """All features 0: y ~ N(0, I/β), at its best −½(log(2π Σy²/n) + 1), the mean over the classes."""
    y = torch.tensor([0, 0, 0, 1])
    by_hand = np.mean([-0.5 * (math.log(2 * math.pi * share) + 1) for share in (0.75, 0.25)])
    assert logme(torch.zeros(4, 3), y) == pytest.approx(by_hand, abs=1e-12)


def test_logme_knows_no_rotation_no_scale_no_order_and_no_name_of_a_class():
    f, y = torch.randn(30, 6, generator=chance(7), dtype=torch.double), some_labels(30, 3, 8)
    f[:, 0] += y
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=chance(9), dtype=torch.double))
    order = torch.randperm(30, generator=chance(10))
    assert logme((f @ rotation * 37)[order], 5 - y[order]) == pytest.approx(logme(f, y), abs=1e-9)


def test_logme_is_higher_where_features_tell_more_and_finite_where_they_tell_all():
    y = some_labels(60, 3, 11)
    noise = torch.randn(60, 3, generator=chance(12), dtype=torch.double)
    exact = torch.eye(3, dtype=torch.double)[y]
    found = [logme(exact + spread * noise, y) for spread in (0.0, 0.1, 0.5, 2.0)]
    assert found == sorted(found, reverse=True) and math.isfinite(found[0])


def exact_gaussians(mean: np.ndarray, root: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows at ±mean + root·e, where the e have exactly mean 0 and covariance I: the sample is its distribution."""
    d = len(mean)
    e = math.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    rows = np.concatenate([e @ root.T + mean, e @ root.T - mean])
    return torch.from_numpy(rows), torch.tensor([0] * (2 * d) + [1] * (2 * d))


def test_h_score_of_two_gaussians_is_s_over_1_plus_s():
    """cov(f) = Σ + μμᵀ and cov(E[f|y]) = μμᵀ, so that H = s/(1 + s) with s = μᵀΣ⁻¹μ."""
    mean, root = np.array([1.0, -0.5, 2.0]), np.array([[2.0, 0, 0], [0.3, 1, 0], [-1, 0.2, 0.5]])
    s = mean @ np.linalg.solve(root @ root.T, mean)
    assert h_score(*exact_gaussians(mean, root), shrink=False) == pytest.approx(s / (1 + s), abs=1e-12)


def test_h_score_knows_no_invertible_linear_map():
    f, y = torch.randn(50, 4, generator=chance(13), dtype=torch.double), some_labels(50, 3, 14)
    change = torch.randn(4, 4, generator=chance(15), dtype=torch.double)
    assert h_score(f @ change + 3, y, shrink=False) == pytest.approx(h_score(f, y, shrink=False), abs=1e-9)
    twice = torch.cat([f, f @ change], 1)  # of rank 4 in 8 columns
    assert h_score(twice, y, shrink=False) == pytest.approx(h_score(f, y, shrink=False), abs=1e-9)


def test_h_score_by_numpy_with_ledoit_and_wolfs_covariance():
    f, y = torch.randn(40, 6, generator=chance(16), dtype=torch.double), some_labels(40, 3, 17)
    f[:, 1] += 2 * y
    fitted = LedoitWolf().fit(f.numpy())
    means = np.stack([f[y == c].mean(0).numpy() for c in y])
    between = (1 - fitted.shrinkage_) * np.cov(means.T, bias=True)
    assert 0.01 < fitted.shrinkage_ < 0.9
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ between)
    assert h_score(f, y) == pytest.approx(expected, abs=1e-10)
    plain = np.trace(np.linalg.pinv(np.cov(f.numpy().T, bias=True)) @ np.cov(means.T, bias=True))
    assert h_score(f, y, shrink=False) == pytest.approx(plain, abs=1e-10)


def test_shrinking_keeps_few_rows_from_flattering_noise():
    f, y = torch.randn(20, 50, generator=chance(18), dtype=torch.double), some_labels(20, 3, 19)
    assert h_score(f, y, shrink=False) == pytest.approx(2.0, abs=1e-9)  # C − 1, by chance alone
    assert h_score(f, y) < 0.5
    assert h_score(torch.ones(20, 50), y) == 0.0


def test_the_linear_error_is_of_rows_that_were_not_fitted():
    """Noise in more columns than rows is fitted without error, and other rows are right by chance alone."""
    y = some_labels(90, 3, 20)
    noise = torch.randn(90, 200, generator=chance(21), dtype=torch.double)
    chance_alone = linear_error(noise, y)
    assert chance_alone is not None and abs(chance_alone - 2 / 3) < 3 * math.sqrt(2 / 9 / 90)  # three standard errors
    apart = noise[:, :3] * 0.01 + torch.eye(3, dtype=torch.double)[y]
    assert linear_error(apart, y) == 0.0
    apart[:9] = 1 - apart[:9]  # on the other side of all
    few = linear_error(apart, y)
    assert few is not None and 9 / 90 <= few < 0.3


def test_the_linear_error_is_none_where_there_is_too_little_to_fit():
    assert linear_error(torch.randn(4, 2), torch.tensor([0, 1, 0, 1])) is None
    assert linear_error(torch.randn(6, 2), torch.tensor([0, 0, 0, 0, 0, 1])) is None


def test_what_can_not_be_scored_is_refused():
    with pytest.raises(UserError, match="are all of one class"):
        admit(torch.zeros(5, dtype=torch.long))
    with pytest.raises(UserError, match="have all the same value"):
        admit(torch.full((5,), 0.3))
    admit(torch.tensor([0, 1]))
    admit(torch.tensor([0.3, 0.4]))
    for score in (leep, logme, h_score, nce):
        with pytest.raises(ValueError, match="need a label each, got 2"):
            score(torch.ones(3, 2), torch.tensor([0, 1]))
