"""How many rows pass a frozen backbone in sweeps, whoever asks for their features."""

from collections.abc import Generator
from typing import Any

import pytest
from conftest import QUICK, described

from tl_runner.engine.run import run
from tl_runner.engine.screen import screen
from tl_runner.models import features, frozen_features
from tl_runner.storage.record import RunRecord

HEADS = ["method.head=linear optimizer.lr=0.01", "method.head=linear optimizer.lr=0.02", "method.head=knn"]
SWEEP = [
    *(f"method=feature_extract {head}" for head in HEADS),
    *("method=sa", "method=sa method.head=ncm", "method=tca", "method=coral_linear", "method=tradaboost"),
    *("method=kmm method.view=features", "method=auto method.candidates=[sa,coral_linear]"),
]


def to_the_end(points: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value


@pytest.fixture
def passed(monkeypatch) -> list[int]:
    """The rows of each pass from now on."""
    found: list[int] = []
    inner = frozen_features.embed_split

    def count(model, split):
        found.append(len(split))
        return inner(model, split)

    monkeypatch.setattr(frozen_features, "embed_split", count)
    return found


def make_run(tmp_path, *words: str) -> RunRecord:
    record = to_the_end(run(described(tmp_path, *QUICK, "granted=5", *words)))
    assert record.status == "ok", record.error
    return record


def test_a_sweep_and_a_screening_pass_each_split_once(tmp_path, passed):
    """The six splits and the granted rows: heads, closed forms, boosting, weights, trials and tl-screen share them."""
    first = make_run(tmp_path, "backbone=mlp", *SWEEP[0].split())
    granted, (train, *source), (of_target, *target) = [40, 10], [180, 60, 60], [1078, 359, 360]
    assert first.data.rows == {"source": [train, *source], "target": [of_target, *target]}
    assert sorted(passed) == sorted([*granted, *source, *target])  # a head on granted rows reads no training split
    for point in SWEEP[1:]:
        make_run(tmp_path, "backbone=mlp", *point.split())
    to_the_end(screen(described(tmp_path, *QUICK, "backbone=mlp", "method=sa")))
    assert sorted(passed) == sorted([*granted, train, *source, of_target, *target])


def test_seeds_that_divide_one_pool_of_rows_pass_them_once(tmp_path, passed, monkeypatch):
    """In batches of 16, a split whose rows are known passes one batch, to test them, and the rows that fill none."""
    monkeypatch.setattr(features, "NUMBERS", 16 * 64)  # sixteen images of 8 × 8
    words = ["backbone=identity", "pretrain=none", "dataset.source=handwritten", "dataset.samples=2000", "method=sa"]
    granted = (16 + 40 % 16) + 10
    for seed in range(3):
        passed.clear()
        record = make_run(tmp_path, *words, f"seed={seed}")
        splits = [rows for role in record.data.rows.values() for rows in role]
        assert sum(splits) == 1797
        known = sum(16 + rows % 16 for rows in splits)
        assert sum(passed) == granted + (known if seed else 1797)
