"""No target label reaches training or selection, and the same command gives the same bytes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import METHODS, QUICK, built, made, some_slow
from support.permuted import bytes_under

from tl_runner.core import Method
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.content import digests
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains

SUPERVISED = [name for name in METHODS if "granted" in built(name).needs]  # learn from granted target labels
UNSUPERVISED = [name for name in METHODS if name not in SUPERVISED]


@pytest.mark.parametrize("method", some_slow(UNSUPERVISED))
def test_permuting_the_target_labels_changes_no_byte(method, tmp_path):
    plain, accuracy = bytes_under(method, "honest", tmp_path)
    permuted, other = bytes_under(method, "mislabelled", tmp_path)
    assert plain == permuted
    assert accuracy != other  # the labels were in fact others


@pytest.mark.parametrize("method", some_slow(SUPERVISED))
def test_permuting_does_reach_a_run_that_is_granted_labels(method, tmp_path):
    """The test above can fail: with granted labels the bytes do change."""
    assert bytes_under(method, "honest", tmp_path)[0] != bytes_under(method, "mislabelled", tmp_path)[0]


@pytest.mark.parametrize("method", some_slow(METHODS))
def test_the_same_command_in_two_folders_is_equal_to_the_last_bit(method, tmp_path):
    first, second = (made(tmp_path / name, f"method={method}", "diagnose=none", *QUICK) for name in ("a", "b"))
    assert first.id == second.id and first.scores == second.scores
    for name in ("model.safetensors", "predictions.safetensors"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_what_ran_before_in_the_process_changes_nothing(tmp_path):
    first = made(tmp_path / "a", "method=dann", *QUICK)
    torch.manual_seed(12345)
    made(tmp_path / "b", "method=mmd", "seed=3", *QUICK)
    second = made(tmp_path / "c", "method=dann", *QUICK)
    assert first.scores == second.scores


class Careless(Method):
    """Draws from torch's default generator wherever it can."""

    needs = frozenset({"source"})

    def prepare(self, model, pair, resources):
        self.extra = torch.nn.Linear(model.width, model.width)
        return model, pair

    def terms(self, model, batch, progress):
        noise = torch.randn(())
        features = self.extra(model.features(batch.source.x)[0])
        return {"source": F.cross_entropy(model.head(features), batch.source.y) * (1 + 0.1 * noise)}


def test_a_method_that_draws_without_a_seed_is_reproducible_all_the_same(tmp_path):
    options = ("weight", "estimator", "layers", "normalise", "schedule", "squared")
    words = ["method._target_=test_honesty.Careless", *(f"~method.{name}" for name in options), *QUICK]
    torch.manual_seed(1)
    first = made(tmp_path / "a", *words)
    torch.manual_seed(2)
    second = made(tmp_path / "b", *words)
    assert (first.folder / "model.safetensors").read_bytes() == (second.folder / "model.safetensors").read_bytes()


def test_the_docs_say_how_many_test_rows_the_defaults_were_chosen_on():
    """Seeds divide one pool anew: validation rows of the seeds 100–109 against test rows of the seeds 0–9."""
    pool = digits(0)._replace(source=None)

    def rows(seed: int, part: str) -> set[int]:
        pair, *_ = split_domains(pool, seed, Budget("count", 0), torch.device("cpu"))
        split = getattr(pair.target, part)
        return set(digests(split.take(torch.arange(len(split)))).tolist())

    seen = set[int]().union(*(rows(seed, "val") for seed in range(100, 110)))
    tests = [rows(seed, "test") for seed in range(200, 205)]
    assert all(len(test) == 360 for test in tests)  # no two rows are alike
    shares = [100 * len(test & seen) / len(test) for test in tests]
    told = f"{sum(shares) / 5:.1f} % ({min(shares):.1f} to {max(shares):.1f})"
    assert told == "90.4 % (88.3 to 92.8)"
    assert told in " ".join((Path(__file__).parents[2] / "docs" / "methods.md").read_text().split())
