"""Weights & Biases has each point of a run once, in a folder below outputs; nothing is sent, asked or printed."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.tracked import Made, agree, feed, louder, make_run, move_run, random_state, series

from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import Guarded, final, name_place
from tl_runner.trackers.wandb import wandb
from tl_runner.training.loop import Point

pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_run(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def record(made: Made, tmp_path: Path) -> RunRecord:
    return move_run(made, tmp_path / "outputs")


class Kept(NamedTuple):
    """What is in the file of an offline run."""

    run: Any
    curve: dict[str, list[tuple[int, float]]]
    summary: dict[str, Any]
    exit_code: int | None
    bytes: bytes


def folders(place: Path) -> list[Path]:
    return sorted((place / "wandb").glob("offline-run-*"))


def kept(folder: Path) -> Kept:
    (file,) = folder.glob("run-*.wandb")
    run, curve, summary, code = None, {}, {}, None
    for record in records(file.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if not name.startswith("_"):
                    curve.setdefault(name, []).append((row["_step"], value))
        elif kind == "summary":
            summary |= {
                each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in record.summary.update
            }
        elif kind == "exit":
            code = record.exit.exit_code
    return Kept(run, curve, summary, code, file.read_bytes())


def records(content: bytes) -> Iterator[Any]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB, in which a record may come in parts."""
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    at, whole = 7, b""  # after the file's own header
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too little for another part
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of it, or its last part
            yield record.FromString(whole)
            whole = b""


def configuration(run: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}


def kill(record: RunRecord, points: list[Point]) -> None:
    """Feed these points, and lose the run as a process that is killed does."""
    feed(wandb, record, points, end=False)
    import_module("wandb").teardown()


def test_wandb_has_the_curve_the_configuration_and_the_scores(made, record, capfd):
    feed(wandb, record, made.points)
    (folder,) = folders(record.outputs)
    found = kept(folder)
    agree(found.curve, series(made.curve))
    assert {name: value for name, value in found.summary.items() if name.startswith("scores/")} == final(record)
    assert (found.summary["status"], found.summary["error"], found.exit_code) == ("ok", "", 0)
    config = configuration(found.run)
    assert config["method"] == "mmd" and config["train.steps"] == 24 and config["optimizer.lr"] == 0.003
    assert (found.run.project, found.run.display_name, found.run.run_id) == (
        *("digits", record.folder.name, name_place(record)),
    )
    assert list(found.run.tags) == [record.setting] and found.run.run_group == f"mmd-small-{record.setting}"
    assert capfd.readouterr() == ("", "")


def test_wandb_keeps_two_runs_that_are_made_side_by_side(made, record):
    records = [record, replace(record, id="other", seed=7)]
    trackers = [Guarded(wandb, each) for each in records]
    for point in made.points:
        for tracker in trackers:
            tracker.point(point)
    for tracker, each in zip(trackers, records, strict=True):
        tracker.end(each)
    assert all(tracker.alive for tracker in trackers)
    found = [kept(folder) for folder in folders(record.outputs)]
    assert len(found) == 2
    for each in found:
        agree(each.curve, series(made.curve))
        assert each.summary["status"] == "ok" and each.exit_code == 0


def test_wandb_tells_nothing_of_the_machine(made, record, monkeypatch):
    for name, value in {"MODE": "online", "PROJECT": "elsewhere", "RUN_ID": "another", "DIR": "/nowhere"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    feed(wandb, record, made.points)
    (folder,) = folders(record.outputs)
    found = kept(folder)
    assert found.run.project == "digits" and found.run.run_id == name_place(record)
    assert found.run.host == "unknown" and not found.run.git.remote_url
    assert not [path for path in (folder / "files").rglob("*") if path.is_file()]  # as the packages, the command
    told = found.bytes.replace(str(record.config["outputs"]).encode(), b"")  # as the configuration has it
    for word in (str(Path.home()), str(Path.cwd()), sys.executable, "k" * 40):
        assert word.encode() not in told
    assert [path.name for path in Path.cwd().iterdir()] == ["outputs"]  # and nothing beside it


def test_wandb_takes_a_folder_and_a_project(made, record, tmp_path):
    feed(partial(wandb, project="ours", folder=str(tmp_path / "shared")), record, made.points)
    (folder,) = folders(tmp_path / "shared")
    assert kept(folder).run.project == "ours" and not (record.outputs / "wandb").exists()


def test_wandb_of_a_resumed_run_has_each_step_once(made, record):
    kill(record, louder(made.points[:6]))
    feed(wandb, record, made.points[3:])  # its curve on disk is `made`'s
    (folder,) = folders(record.outputs)
    agree(kept(folder).curve, series(made.curve))


def test_wandb_shows_a_run_that_begins_anew_in_place_of_the_one_before(made, record):
    feed(wandb, record, louder(made.points))
    feed(wandb, record, made.points)
    (folder,) = folders(record.outputs)
    agree(kept(folder).curve, series(made.curve))


def test_wandb_gets_the_scores_of_a_run_that_had_only_them_left(made, record):
    kill(record, made.points)
    feed(wandb, record, [])
    (folder,) = folders(record.outputs)
    found = kept(folder)
    agree(found.curve, series(made.curve))
    assert found.summary["scores/target.accuracy"] == record.scores.target["accuracy"]


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [("failed", "KeyError: 'k'", 1), ("diverged", "at step 3", 1), ("running", "interrupted", 255)],
)
def test_wandb_says_how_a_run_ended(made, record, status, error, code):
    tracker = feed(wandb, record, made.points[:2], end=False)
    tracker.end(replace(record, status=status, error=error, scores=None))
    (folder,) = folders(record.outputs)
    found = kept(folder)
    assert (found.summary["status"], found.summary["error"], found.exit_code) == (status, error, code)
    assert not [name for name in found.summary if name.startswith("scores/")]


def test_wandb_leaves_hooks_and_random_numbers_alone(made, record):
    before = [*random_state(), sys.exit, sys.excepthook]
    assert feed(wandb, record, made.points).alive
    assert [*random_state(), sys.exit, sys.excepthook] == before


def test_wandb_refuses_what_it_can_not_do(record, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody has logged in
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"tracker\.mode=online needs an account .*tracker\.mode=offline"):
        Guarded(partial(wandb, mode="online"), record)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install "tl_runner\[wandb\]"'):
        Guarded(wandb, record)


def test_failures_of_wandb_are_said_and_the_run_continues(made, record, caplog, monkeypatch):
    (record.outputs / "wandb").write_text("a file where a folder should be")
    feed(wandb, record, made.points)
    (record.outputs / "wandb").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        feed(wandb, record, made.points)
    assert [message.split(" failed: ")[0] for message in caplog.messages] == ["the tracker wandb"] * 2
    assert all(message.endswith("The run continues without it") for message in caplog.messages)


@pytest.mark.slow
def test_wandb_takes_jobs_that_meet_and_leaves_no_process(made, record, tmp_path):
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps((record, made.points)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, tmp_path / "jobs.pickle"], check=True, timeout=200, env=environment)
    found = [kept(folder) for folder in folders(record.outputs)]
    assert sorted(configuration(each.run)["seed"] for each in found) == [0, 1, 2, 3]
    for each in found:
        agree(each.curve, series(made.curve))
    ids = (tmp_path / "jobs.txt").read_text().split()
    assert len(ids) == 4
    assert not [number for number in ids if serves(number)]


def serves(process: str) -> bool:
    """Whether wandb's own process of this one is alive."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--pid" in words and words[words.index(b"--pid") + 1] == process.encode():
            return True
    return False


def meet(file: Path) -> None:
    """Four processes that track a run each in the same moments, as the jobs of a sweep do."""
    record, points = pickle.loads(file.read_bytes())
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(4)
    records = [replace(record, id=f"job{seed}", seed=seed, config={**record.config, "seed": seed}) for seed in range(4)]
    jobs = [context.Process(target=_job, args=(each, points, gate)) for each in records]
    for each in jobs:
        each.start()
    file.with_suffix(".txt").write_text("\n".join(str(each.pid) for each in jobs))
    for each in jobs:
        each.join()
    sys.exit(max(abs(each.exitcode or 0) for each in jobs))


def _job(record: RunRecord, points: list[Any], gate: Any) -> None:
    gate.wait()
    assert feed(wandb, record, points).alive


if __name__ == "__main__":
    meet(Path(sys.argv[1]))
