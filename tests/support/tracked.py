"""A real run, and what a tracker must show of it."""

import json
import multiprocessing
import pickle
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import QUICK, composed

from tl_runner.engine.run import run
from tl_runner.storage.record import RunRecord, describe_run
from tl_runner.trackers.tracker import Guarded, Tracker
from tl_runner.training.loop import Point


class Made(NamedTuple):
    record: RunRecord
    points: list[Point]
    curve: list[dict[str, Any]]


def make_run(outputs: Path) -> Made:
    """A real run, its points, and the curve that its folder keeps."""
    words = [*QUICK, "train.steps=24", "train.log_every=3", "train.evaluations=4", "device=cpu"]
    record = describe_run(*composed(*words, f"outputs={outputs}"))
    points = list(run(record))
    lines = (record.folder / "curve.jsonl").read_text().splitlines()
    assert len(points) == len(lines) == 8
    return Made(record, points, [json.loads(line) for line in lines])


def move_run(made: Made, outputs: Path) -> RunRecord:
    """The record of the same run in a folder of the test's own, with its curve."""
    copy = replace(made.record, config={**made.record.config, "outputs": str(outputs)})
    copy.folder.mkdir(parents=True)
    (copy.folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made.curve))
    return copy


def track_at_once(file: Path, tracker: Callable[[RunRecord], Tracker]) -> None:
    """Four processes track a run each and write in the same moments, as the jobs of a sweep do; exits with their code.

    `file` holds the pickled record and points.
    """
    record, points = pickle.loads(file.read_bytes())
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(4)

    def track(each: RunRecord) -> None:
        gate.wait()
        assert feed(tracker, each, points).alive

    jobs = [context.Process(target=track, args=(replace(record, id=f"job{seed}", seed=seed),)) for seed in range(4)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    sys.exit(max(abs(each.exitcode or 0) for each in jobs))


def expected(line: Mapping[str, Any]) -> dict[str, float]:
    """What is to be seen of a line of the curve."""
    names = ("source_val", "floor", "information", "entropy", "classes_used", "seconds")
    names += ("nuclear_norm", "calibrated_norm", "density", "risk", "a_distance")
    known = {name: line[name] for name in names if line.get(name) is not None}
    return known | {f"terms/{name}": value for name, value in line["terms"].items()}


def series(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The same by name, as (step, value)."""
    seen: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in expected(line).items():
            seen.setdefault(name, []).append((line["step"], value))
    return seen


def agree(found: Mapping[str, list[tuple[int, float]]], wanted: Mapping[str, list[tuple[int, float]]]) -> None:
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        tolerance = 2e-3 if name == "seconds" else 1e-6  # the curve has milliseconds, TensorBoard single precision
        assert [value for _, value in found[name]] == pytest.approx(
            [value for _, value in points], rel=tolerance, abs=tolerance
        )


def unscored(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith("scores/")}


def louder(points: list[Point]) -> list[Point]:
    """The same steps with other numbers: what a second training of them may give."""
    return [p._replace(terms={name: value + 100 for name, value in p.terms.items()}) for p in points]


def random_state() -> list[Any]:
    """Of the generators that a run draws from."""
    return [
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].tolist(),
        torch.get_rng_state().tolist(),
    ]


def feed(part: Any, record: RunRecord, points: list[Point], end: bool = True) -> Guarded:
    tracker = Guarded(part, record)
    for point in points:
        tracker.point(point)
    if end:
        tracker.end(record)
    return tracker
