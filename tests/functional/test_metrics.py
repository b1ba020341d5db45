"""Scores of quantities against scikit-learn and SciPy; those of classes are in tests/evaluation/test_scores."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from tl_runner.functional.metrics import correlation, measure_errors, rank_values


def drawn(n: int = 200, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(n, generator=generator, dtype=torch.double) * 40 + 300
    predicted = y + 25 * torch.randn(n, generator=generator, dtype=torch.double)
    return (predicted.div(20).round(), y.div(20).round()) if ties else (predicted, y)


@pytest.mark.parametrize("ties", [False, True])
def test_errors_are_those_of_scikit_learn_and_scipy(ties):
    predicted, y = drawn(ties=ties)
    found, ranked = measure_errors(predicted, y), cast(Any, spearmanr(y, predicted))
    assert found == pytest.approx(
        {
            "r2": r2_score(y, predicted),
            "mae": mean_absolute_error(y, predicted),
            "rmse": root_mean_squared_error(y, predicted),
            "spearman": ranked.statistic,
        }
    )


def test_weights_count_rows_as_scikit_learn_does():
    predicted, y = drawn()
    w = torch.arange(len(y)).double()
    found = measure_errors(predicted, y, w)
    assert found["r2"] == pytest.approx(r2_score(y, predicted, sample_weight=w))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(y, predicted, sample_weight=w))
    assert found["mae"] == pytest.approx(mean_absolute_error(y, predicted, sample_weight=w))


def test_ranks_of_equal_values_are_their_mean():
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])
    assert np.array_equal(rank_values(values).numpy(), rankdata(values))


def test_a_constant_is_as_good_as_the_mean_and_correlates_with_nothing():
    _, y = drawn()
    found = measure_errors(y.mean().expand(len(y)), y)
    assert found["r2"] == pytest.approx(0.0, abs=1e-12) and found["spearman"] == 0.0
    assert found["rmse"] == pytest.approx(y.std(correction=0).item())
    assert measure_errors(y, torch.ones_like(y))["r2"] == 0.0  # nothing to explain
    assert correlation(y, -y) == pytest.approx(-1.0)
