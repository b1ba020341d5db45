"""What was cut off goes on where it was, and ends as if nothing had happened, to the last bit."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import METHODS, QUICK, composed

from tl_runner.run import run
from tl_runner.store import RunRecord, describe

SMALL = [*QUICK, "train.log_every=5", "checkpoint_every=0"]


def described(outputs: Path, *overrides: str) -> RunRecord:
    return describe(*composed(*SMALL, *overrides, f"outputs={outputs}", "device=cpu"))


def curve(record: RunRecord) -> list[dict[str, Any]]:
    lines = map(json.loads, (record.folder / "curve.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def to_the_end(points: Generator[Any, None, RunRecord]) -> None:
    for _ in points:
        pass


def cut_off(outputs: Path, points: int, how: type[BaseException], *overrides: str) -> RunRecord:
    """A run that was left at a point."""
    record = described(outputs, *overrides)
    steps = run(record)
    for _ in range(points):
        next(steps)
    with pytest.raises(how):
        steps.throw(how())
    return record


def equal(one: RunRecord, other: RunRecord) -> None:
    for name in ("model", "predictions"):
        assert (one.folder / f"{name}.safetensors").read_bytes() == (other.folder / f"{name}.safetensors").read_bytes()
    assert curve(one) == curve(other)
    assert one.scores == other.scores and one.evidence == other.evidence
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(path.name for path in other.folder.iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(method, tmp_path):
    whole = described(tmp_path / "whole", f"method={method}", "augment=none")
    points = len([*run(whole)])
    for at in {1, points // 2, points}:
        cut_off(tmp_path / str(at), at, KeyboardInterrupt, f"method={method}", "augment=none")
        again = described(tmp_path / str(at), f"method={method}", "augment=none")
        torch.rand(3)  # what else happens in the process does not matter
        to_the_end(run(again))
        equal(whole, again)
