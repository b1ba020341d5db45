"""Distances of domains against Gaussians of which the truth is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from tl_runner.functional import mmd
from tl_runner.functional.divergence import FOLDS, ROWS, mmd_test, separate_domains


def gaussians(move: float, draw: int, n: int = 300, m: int = 300, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(draw)
    target = rng.normal(size=(m, d))
    target[:, 0] += move
    return torch.tensor(rng.normal(size=(n, d))).float(), torch.tensor(target).float()


@pytest.mark.parametrize("move", [0.5, 1.0, 2.0])
def test_the_a_distance_of_gaussians_is_that_of_the_best_classifier(move):
    """N(0, I) and N(δ, I): the least error is Φ(−δ/2), so the distance is 2(1 − 2Φ(−δ/2)); in 16 of 20 intervals."""
    truth = 2 * (1 - 2 * stats.norm.cdf(-move / 2))
    found = []
    for draw in range(20):
        apart = separate_domains(*gaussians(move, draw))
        assert apart is not None
        found.append(apart.a_distance)
    assert sum(each.low <= truth <= each.high for each in found) >= 16
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.06)
    assert all(each.low <= each.value <= each.high for each in found)


def test_without_a_difference_the_distance_is_about_0_and_with_a_wall_between_it_is_2():
    same = [separate_domains(*gaussians(0.0, draw)) for draw in range(10)]
    assert all(apart and apart.a_distance.low < 0.15 for apart in same)
    assert np.mean([apart.a_distance.value for apart in same if apart]) < 0.15
    apart = separate_domains(*gaussians(50.0, 0))
    assert apart and apart.a_distance.value == 2.0 == apart.a_distance.high and apart.a_distance.low > 1.97


def test_as_many_rows_of_both_sides_are_compared():
    apart = separate_domains(*gaussians(1.0, 0, n=80, m=ROWS + 50))
    assert apart and len(apart.log_odds) == 160 and len(apart.weights) == 80
    assert separate_domains(*gaussians(1.0, 0, n=FOLDS - 1)) is None


def test_the_weights_are_those_of_the_target_over_the_source():
    """p_t/p_s = exp(x − ½) for N(0, 1) and N(1, 1)."""
    source, target = gaussians(1.0, 3, n=ROWS, m=ROWS, d=1)
    apart = separate_domains(source, target)
    assert apart is not None
    assert np.corrcoef(apart.weights.log(), source[:, 0])[0, 1] > 0.95
    assert (apart.weights * source[:, 0]).sum() / apart.weights.sum() == pytest.approx(1.0, abs=0.15)


def test_mmd_is_that_of_the_loss_and_its_p_that_of_a_loop_over_permutations():
    source, target = gaussians(0.3, 0, n=30, m=40)
    found = mmd_test(source, target, permutations=99)
    assert found and found.value == pytest.approx(mmd.mmd2(source, target).item(), rel=1e-4)
    rows, generator, above = torch.cat([source, target]), torch.Generator().manual_seed(0), 0
    for _ in range(99):
        of_source = torch.randperm(70, generator=generator) < 30
        above += mmd.mmd2(rows[of_source], rows[~of_source]).item() >= found.value
    assert found.p == pytest.approx((1 + above) / 100)


@pytest.mark.parametrize("move", [0.0, 0.3])
def test_p_counts_as_float64_does_though_most_permutations_are_compared_in_float32(move):
    source, target = gaussians(move, 1, n=200, m=150)
    kernel, generator = mmd.rbf(torch.cat([source, target])).double(), torch.Generator().manual_seed(0)
    values = []
    for order in [torch.arange(350)] + [torch.randperm(350, generator=generator) for _ in range(400)]:
        of_source = order < 200
        within = kernel[of_source][:, of_source].mean() + kernel[~of_source][:, ~of_source].mean()
        values.append(float(within - 2 * kernel[of_source][:, ~of_source].mean()))
    found = mmd_test(source, target, permutations=400)
    assert found and found.p == (1 + sum(value >= values[0] for value in values[1:])) / 401


def test_the_p_of_mmd_is_uniform_without_a_difference_and_small_with_one():
    same = [found.p for draw in range(100) if (found := mmd_test(*gaussians(0.0, draw, n=40, m=50), permutations=99))]
    assert stats.kstest(same, "uniform").pvalue > 0.01  # the seeds are fixed: it can't fail by chance
    moved = mmd_test(*gaussians(1.0, 0), permutations=199)
    assert moved and moved.p == pytest.approx(1 / 200)
    assert mmd_test(torch.zeros(1, 2), torch.zeros(5, 2), 19) is None


def test_equal_rows_are_no_difference():
    found = mmd_test(torch.ones(6, 2), torch.ones(7, 2), permutations=19)
    assert found and found.p == 1.0 and found.value == pytest.approx(0, abs=1e-6)
