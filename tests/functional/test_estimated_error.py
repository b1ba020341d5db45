"""The estimated RMSE against closed forms, and the coverage of its interval."""

import math

import pytest
import torch

from tl_runner.functional.estimated_error import weighted_rmse


def test_equal_weights_give_the_rmse_and_the_interval_of_a_mean():
    residuals = torch.tensor([1.0, -2.0, 3.0, 0.0], dtype=torch.double)
    found = weighted_rmse(residuals, torch.full((4,), 2.5))
    squares = residuals.square()
    half = 1.6448536269514722 * squares.std(correction=0).item() / math.sqrt(4)
    assert found.value == pytest.approx(math.sqrt(3.5)) == found.unweighted
    assert found.high == pytest.approx(math.sqrt(3.5 + half))
    assert found.low == pytest.approx(math.sqrt(max(0.0, 3.5 - half)))


def test_weights_move_the_estimate_to_the_rows_that_look_like_the_target():
    found = weighted_rmse(torch.tensor([1.0, 1.0, 5.0]), torch.tensor([0.0, 0.0, 3.0]))
    assert found.value == pytest.approx(5.0) and found.unweighted == pytest.approx(3.0)


def test_the_interval_covers_the_targets_rmse_under_covariate_shift():
    """Errors grow with x; the ratio of N(.5, 1) to N(0, 1) is exact. 90 % of 400 draws: a share of .87 to .93 by ±2σ.

    The delta method knows the variance from the same rows, and covers a little less.
    """
    generator, hits, draws = torch.Generator().manual_seed(0), 0, 400
    truth = math.sqrt(1 + 0.5**2 + 1)  # E (1 + x²) over the target, and r = √(1 + x²)·z
    for _ in range(draws):
        x = torch.randn(2000, generator=generator, dtype=torch.double)
        residuals = (1 + x.square()).sqrt() * torch.randn(2000, generator=generator, dtype=torch.double)
        found = weighted_rmse(residuals, (0.5 * x - 0.125).exp())
        hits += found.low <= truth <= found.high
    assert 0.84 <= hits / draws <= 0.94
