"""What a correct implementation shows: adaptation helps where it can, and claims nothing where it can't."""

import numpy as np
import pytest
from conftest import made
from scipy import stats

SEEDS = range(5)


def gains(tmp_path, *words: str, mmd: tuple[str, ...] = ()) -> np.ndarray:
    """MMD's target accuracy minus source-only's, seed by seed, of the checkpoints chosen without target labels."""
    accuracy = {}
    for method, own in (("source_only", ()), ("mmd", mmd)):
        task = ["dataset=blobs", "dataset.samples=500", "backbone=mlp", "train.steps=100", "save=false", *words]
        runs = [made(tmp_path, f"method={method}", f"seed={seed}", *task, *own) for seed in SEEDS]
        accuracy[method] = np.array([run.scores.selected["accuracy"] for run in runs if run.scores])
    return accuracy["mmd"] - accuracy["source_only"]


@pytest.mark.parametrize("estimator", ["biased", pytest.param("unbiased", marks=pytest.mark.slow)])
def test_mmd_beats_source_only_on_translated_blobs(estimator, tmp_path):
    """The 95 % interval of the paired difference lies above 0 (Student's t over seeds)."""
    gain = gains(tmp_path, "dataset.strength=1.5", mmd=(f"method.estimator={estimator}",))
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    assert 0 < low < high


@pytest.mark.slow
def test_no_gain_is_claimed_where_there_is_no_shift(tmp_path):
    gain = gains(tmp_path, "dataset.shift=none")
    low, _ = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain) + 1e-12)  # equal runs have no spread
    assert low <= 0
