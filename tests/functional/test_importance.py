"""Weights of source rows, against exact ratios and plain loops."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from support.densities import MOVE, gaussians, rank_correlation

from tl_runner.functional.importance import by_distance, density_ratio, effective_rows, nearest_rows, ratio


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (1501, 700), (4007, 1501)])
def test_exact_ratio_density_ratio(n, m):
    """Averaged over 20 draws: in one draw even the exact weights miss the target's mean by .1 now and then."""
    correlations, misses = [], []
    for draw in range(20):
        source, target = gaussians(n, m, draw)
        weights = density_ratio(source, target, seed=draw).double().numpy()
        assert np.isfinite(weights).all() and (weights >= 0).all()
        weights /= weights.mean()
        exact = np.exp(MOVE * source[:, 0].double().numpy() - MOVE**2 / 2)
        correlations.append(rank_correlation(weights, exact))
        misses.append((weights * source[:, 0].double().numpy()).mean() - float(target.mean()))
    assert np.mean(correlations) > 0.95
    assert abs(np.mean(misses)) < 0.03


def test_a_density_ratio_comes_from_a_classifier_that_did_not_see_the_row():
    """Of one distribution, in more columns than rows: a classifier knows the rows it has seen by heart."""
    rng = np.random.default_rng(0)
    source, target = (torch.tensor(rng.normal(size=(60, 100))).float() for _ in range(2))  # one distribution, d > n
    weights = density_ratio(source, target, seed=0, C=1e6, folds=2)
    assert abs((weights > 1).double().mean() - 0.5) < 0.25  # seen, all would be far below 1


def plain(n: int = 40, m: int = 25, d: int = 3) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(n, d, generator=generator), 1 + torch.randn(m, d, generator=generator)
    return source, target, cdist(source.double().numpy(), target.double().numpy())


def test_nearest_is_the_least_of_all_distances():
    source, target, distances = plain()
    found, which = nearest_rows(source, target)
    np.testing.assert_allclose(found, distances.min(1), rtol=1e-4)
    assert which.tolist() == distances.argmin(1).tolist()


def test_each_mode_is_its_formula():
    source, target, distances = plain()
    d = distances.min(1)
    near = {mode: by_distance(source, target, mode).double().numpy() for mode in ("inverse", "rbf", "distance")}
    np.testing.assert_allclose(near["inverse"], 1 / (d + 0.1 * d.mean()), rtol=1e-4)
    np.testing.assert_allclose(near["distance"], d, rtol=1e-4)
    middle = np.sort(d)[(len(d) - 1) // 2]  # torch's median is the lower of two
    np.testing.assert_allclose(near["rbf"], np.exp(-((d / middle) ** 2) / 2), rtol=1e-3)
    wide = by_distance(source, target, "rbf", bandwidth=3.0).double().numpy()
    np.testing.assert_allclose(wide, np.exp(-((d / (3 * middle)) ** 2) / 2), rtol=1e-3)


@pytest.mark.parametrize(("n", "m"), [(40, 25), (25, 40)])
def test_count_counts_the_target_rows_that_a_source_row_is_nearest_to(n, m):
    source, target, distances = plain(n, m)
    owners = [int(column.argmin()) for column in distances.T]
    assert by_distance(source, target, "count").tolist() == [1 + owners.count(i) for i in range(n)]


@pytest.mark.parametrize("mode", ["inverse", "rbf", "count", "distance"])
def test_nearer_weighs_more_but_in_the_literal_form(mode):
    source, target = gaussians(400, 300, 0)
    right = target + (6 if mode == "distance" else 2)  # of nearly all, or of most source rows
    correlation = rank_correlation(by_distance(source, right, mode).numpy(), source[:, 0].numpy())
    assert correlation < -0.9 if mode == "distance" else correlation > 0.4


@pytest.mark.parametrize("mode", ["inverse", "rbf", "count", "distance"])
def test_weights_are_finite_where_the_domains_are_one(mode):
    same = torch.ones(10, 2)
    weights = by_distance(same, same.clone(), mode)
    assert torch.isfinite(weights).all() and (weights >= 0).all()


def test_effective_rows_of_equal_and_of_one_sided_weights():
    assert effective_rows(torch.full((7,), 3.0)).item() == pytest.approx(7)
    assert effective_rows(torch.tensor([0.0, 5.0, 0.0])).item() == pytest.approx(1)
    assert effective_rows(torch.tensor([1.0, 2.0])).item() == pytest.approx(9 / 5)


@pytest.mark.parametrize(("n", "m"), [(400, 100), (100, 400)])
def test_log_odds_become_a_ratio_of_densities_however_many_rows_a_side_has(n, m):
    """By Bayes the log-odds of the target among n + m rows are log(m p_t / n p_s)."""
    x = torch.linspace(-2, 2, n + m).double()
    exact = torch.exp(MOVE * x - MOVE**2 / 2)  # N(MOVE, 1) over N(0, 1)
    torch.testing.assert_close(ratio(exact.log() + math.log(m / n), n), exact[:n])


@pytest.mark.parametrize(("n", "m"), [(1200, 300), (300, 1200)])
def test_density_ratios_have_mean_one_on_the_source_whose_rows_they_weigh(n, m):
    """E_s p_t/p_s = 1; the same scale for rows that the estimate does not see."""
    source, target = gaussians(n, m, 0)
    weights = density_ratio(source, target, 0)
    assert float(weights.mean()) == pytest.approx(1, abs=0.25)
    both = density_ratio(source, target, 0, others=gaussians(n, m, 1)[0])
    assert float(both[n:].mean()) == pytest.approx(1, abs=0.25)
