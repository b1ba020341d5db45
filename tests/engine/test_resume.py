"""What was cut off goes on where it was, and ends as if nothing had happened, to the last bit."""

import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
import torch
from conftest import METHODS, QUICK, composed, some_slow
from support.equal_runs import curve, equal

from tl_runner import rng
from tl_runner.engine.run import run
from tl_runner.errors import DivergedError
from tl_runner.methods.source_only import SourceOnly
from tl_runner.storage.checkpoint import Checkpoint
from tl_runner.storage.record import RunRecord, describe_run

SMALL = [*QUICK, "train.log_every=5", "checkpoint_every=0"]


def described(outputs: Path, *overrides: str) -> RunRecord:
    return conftest.described(outputs, *SMALL, *overrides)


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


@pytest.mark.parametrize("method", some_slow(METHODS))
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(method, tmp_path):
    words = [f"method={method}", "augment=none", "diagnose=none"]
    whole = described(tmp_path / "whole", *words)
    points = len([*run(whole)])
    for at in {1, points // 2, points}:
        cut_off(tmp_path / str(at), at, KeyboardInterrupt, *words)
        again = described(tmp_path / str(at), *words)
        torch.rand(3)  # what else happens in the process does not matter
        to_the_end(run(again))
        equal(whole, again)


@pytest.mark.parametrize(
    "words",
    [
        ["method=dann", "train.average=ema", "shares=bbse"],
        ["method=mmd", "train.average=swa", "train.batchnorm=joint"],
        ["method=finetune", "train.average=ema", "method.lp_ft=true", "method.wise=0.5"],
        pytest.param(["method=maml", "train.average=swa"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_averaged_and_interpolated_weights_go_on_too(words, tmp_path):
    """Left in each phase, at the last step and before it."""
    words = [*words, "augment=none", "diagnose=none", "train.log_every=3"]
    whole = described(tmp_path / "whole", *words)
    points = len([*run(whole)])
    assert whole.status == "ok"
    for at in (points - 7, points - 2, points - 1, points):
        cut_off(tmp_path / str(at), at, KeyboardInterrupt, *words)
        again = described(tmp_path / str(at), *words)
        to_the_end(run(again))
        equal(whole, again)


@pytest.mark.parametrize("how", [GeneratorExit, OSError, SystemExit])
def test_whatever_left_it_at_a_point_it_goes_on(how, tmp_path):
    whole = described(tmp_path / "whole")
    to_the_end(run(whole))
    cut_off(tmp_path / "cut", 2, how)
    again = described(tmp_path / "cut")
    to_the_end(run(again))
    equal(whole, again)
    assert again.environment.resumed == 10 and whole.environment.resumed is None
    assert (again.seconds or 0) > 0 and not [*again.folder.glob("checkpoint*")]


def test_a_source_model_that_was_cut_off_goes_on_too(tmp_path):
    words = ["method=finetune", "checkpoint_every=0"]
    whole = described(tmp_path / "whole", *words)
    to_the_end(run(whole))
    record = cut_off(tmp_path / "cut", 1, KeyboardInterrupt, *words)
    (kept,) = (tmp_path / "cut/cache/source_models").glob("*.pt")
    assert torch.load(kept, weights_only=True)["cursor"]["step"] == 10
    assert not [*record.folder.glob("checkpoint*")]  # its own training had not begun
    again = described(tmp_path / "cut", *words)
    to_the_end(run(again))
    equal(whole, again)
    assert not [*kept.parent.glob("*.pt")] and again.training.source_model.steps == 20


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_without_any_it_starts_again(tmp_path, caplog):
    whole = described(tmp_path / "whole")
    to_the_end(run(whole))
    for spoiled in (["checkpoint.pt"], ["checkpoint.pt", "checkpoint.before.pt"]):
        folder = tmp_path / str(len(spoiled))
        record = cut_off(folder, 3, KeyboardInterrupt)
        for name in spoiled:
            file = record.folder / name
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content[:-100] if name == "checkpoint.pt" else content)
        caplog.clear()
        again = described(folder)
        to_the_end(run(again))
        equal(whole, again)
        assert caplog.text.count("can't be read") == len(spoiled)
        assert again.environment.resumed == (10 if len(spoiled) == 1 else None)


def test_what_was_made_of_other_data_or_by_other_code_is_not_gone_on_with(tmp_path, caplog):
    record = cut_off(tmp_path, 2, KeyboardInterrupt)
    checkpoint = Checkpoint(record.folder / "checkpoint.pt", 0)
    state = checkpoint.load()
    assert state
    state["made"] |= {"data": "other", "torch": "1.0"}
    with checkpoint.around(lambda: state):
        pass
    again = described(tmp_path)
    to_the_end(run(again))
    assert "torch, data changed since the run was interrupted: starting over" in caplog.text
    assert again.environment.resumed is None and curve(again)[0]["step"] == 5


def test_threads_are_those_of_the_first_start(tmp_path):
    cut_off(tmp_path, 1, KeyboardInterrupt, "threads=1")
    again = described(tmp_path, "threads=2")
    try:
        to_the_end(run(again))
    finally:
        torch.set_num_threads(1)
    assert again.environment.threads == 1 and again.environment.resumed is not None


def test_force_starts_again(tmp_path):
    cut_off(tmp_path, 2, KeyboardInterrupt)
    again = described(tmp_path, "force=true")
    to_the_end(run(again))
    assert again.environment.resumed is None


def test_half_a_line_and_lines_after_the_checkpoint_are_made_again(tmp_path):
    whole = described(tmp_path / "whole")
    to_the_end(run(whole))
    record = cut_off(tmp_path / "cut", 2, KeyboardInterrupt)
    with (record.folder / "curve.jsonl").open("a") as file:
        file.write('{"step": 15, "seconds": 1, "terms": {}}\n{"step": 20, "sec')
    (record.folder / ".run.json.half").write_text("{")
    again = described(tmp_path / "cut")
    to_the_end(run(again))
    equal(whole, again)


def test_no_checkpoint_is_kept_of_a_run_that_diverged_or_was_refused(tmp_path):
    record = described(tmp_path, "optimizer.lr=1e30", "optimizer=sgd", "train.clip=null")
    with pytest.raises(DivergedError):
        to_the_end(run(record))
    assert record.status == "diverged" and not [*record.folder.glob("checkpoint*")]


def test_checkpoints_are_written_when_it_is_time(tmp_path):
    rare, often = Checkpoint(tmp_path / "rare.pt", 1000.0), Checkpoint(tmp_path / "often.pt", 0.0)
    for number in range(3):
        for checkpoint in (rare, often):
            with checkpoint.around(lambda: {"number": number}):  # noqa: B023 – it is called at once
                pass
    assert rare.load() is None and often.load() == {"number": 2}
    assert torch.load(often.before, weights_only=True) == {"number": 1}
    often.remove()
    assert often.load() is None and not [*tmp_path.iterdir()]


def test_a_checkpoint_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path / "missing" / "file.pt", 0.0)
    with checkpoint.around(dict):
        pass
    assert "could not save a checkpoint" in caplog.text


def test_all_generators_go_on_where_they_were():
    def draw() -> list[float]:
        return [torch.rand(1).item(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1)]

    rng.Rng(7).start_training()
    draw()
    kept = rng.get_state()
    first = draw()
    rng.Rng(8).start_training()
    rng.restore_state(kept)
    assert draw() == first
    rng.Rng(2**40 + 7).start_training()
    assert draw() != first


def test_features_of_a_frozen_backbone_are_computed_once_a_machine(tmp_path, monkeypatch):
    words = ["method=feature_extract", "backbone=small"]
    first = described(tmp_path, *words, "method.head=knn")
    to_the_end(run(first))
    kept = {file: file.read_bytes() for file in (tmp_path / "cache/features").rglob("*.safetensors")}
    assert kept
    monkeypatch.setattr(torch.nn.functional, "conv2d", None)  # no convolution can be computed any more
    other = described(tmp_path, *words, "method.head=ncm")
    to_the_end(run(other))
    assert other.status == "ok" and {f: f.read_bytes() for f in kept} == kept
    monkeypatch.undo()
    half, whole = min(kept.items(), key=lambda each: each[0])
    half.write_bytes(whole[: len(whole) // 2])
    again = described(tmp_path, *words, "method.head=ncm", "force=true")
    to_the_end(run(again))
    assert half.read_bytes() == whole and again.scores == other.scores


def test_a_curve_that_ends_before_the_checkpoint_is_made_again(tmp_path, caplog):
    whole = described(tmp_path / "whole")
    to_the_end(run(whole))
    record = cut_off(tmp_path / "cut", 3, KeyboardInterrupt)
    file = record.folder / "curve.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    again = described(tmp_path / "cut")
    to_the_end(run(again))
    equal(whole, again)
    assert "curve.jsonl ends before the checkpoint: starting over" in caplog.text


class Counting(SourceOnly):
    """Its loss depends on what it has counted."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.seen, self.words = 0, [1.0], {"a": ("b", None)}

    def terms(self, model, batch, progress):
        self.count += 1
        self.seen.append(1.0 / self.count)
        return {name: value * sum(self.seen) for name, value in super().terms(model, batch, progress).items()}


def test_plain_attributes_of_a_method_go_on_too(tmp_path):
    def counted(outputs: Path) -> RunRecord:
        config, choices = composed(*SMALL, f"outputs={outputs}", "device=cpu")
        return describe_run({**config, "method": {"_target_": f"{__name__}.Counting"}}, choices)

    to_the_end(run(whole := counted(tmp_path / "whole")))
    steps = run(counted(tmp_path / "cut"))
    next(steps)
    steps.close()
    to_the_end(run(again := counted(tmp_path / "cut")))
    equal(whole, again)
    assert again.environment.resumed == 5


class Averaging(SourceOnly):
    """Keeps a moving average as a plain attribute, which no checkpoint holds, and what it prepares once, as one too."""

    def prepare(self, model, pair, resources):
        self.scale, self.average = torch.ones(()), torch.zeros(())
        return model, pair

    def terms(self, model, batch, progress):
        terms = super().terms(model, batch, progress)
        self.average = 0.9 * self.average + 0.1 * terms["source"].detach() * self.scale
        return terms


def test_a_tensor_that_a_checkpoint_would_lose_is_told(tmp_path, caplog):
    to_the_end(run(described(tmp_path, "method=source_only", "method._target_=test_resume.Averaging")))
    told = [entry.getMessage() for entry in caplog.records if "no checkpoint holds it" in entry.getMessage()]
    assert len(told) == 1 and told[0].startswith("Averaging.average is a tensor that training changes")


def test_a_curve_that_is_only_half_a_line_is_begun_again(tmp_path):
    record = cut_off(tmp_path, 2, KeyboardInterrupt)
    (record.folder / "curve.jsonl").write_text('{"step": 5, "sec')
    to_the_end(run(again := described(tmp_path)))
    assert [line["step"] for line in curve(again)] == [5, 10, 15, 20]
