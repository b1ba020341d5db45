"""What can happen to a run: it is killed, its disk is full or read-only, its files are torn, others want it too."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, composed
from support import failing
from support.equal_runs import equal

from tl_runner.engine.job import Job, Outcome, run_job
from tl_runner.storage.record import RunRecord, describe_run, read_records, read_stored

SMALL = [*QUICK, "checkpoint_every=0", "threads=1", "device=cpu"]


def described(outputs: Path, *overrides: str) -> RunRecord:
    return describe_run(*composed(*SMALL, *overrides, f"outputs={outputs}"))


def attended(record: RunRecord) -> Outcome:
    return run_job(Job(record), lambda: False, failing.exhausted)


def curve(record: RunRecord) -> list[dict[str, Any]]:
    lines = map(json.loads, (record.folder / "curve.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def killed(record: RunRecord, source: bool, point: int) -> None:
    """A process makes the run, and gets SIGKILL once it has passed this point, wherever it is then.

    `source`: a point of its source model's training.
    """
    ready, told = failing.CONTEXT.Pipe()
    process = failing.start(failing.make, record.config, record.choices, source, point, told)
    told.close()
    assert ready.recv() == process.pid
    process.kill()
    process.join()
    assert process.exitcode == -9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kills"),
    [
        ("source_only", [(False, 3), (False, 6)]),
        ("dann", [(False, 9)]),
        ("finetune", [(True, 3), (True, 6), (False, 9)]),
    ],
)
def test_a_run_killed_wherever_it_was_and_typed_again_ends_as_if_nothing_had_been(method, kills, tmp_path):
    long = [f"method={method}", "train.steps=120", "pretrain.steps=120"]
    whole, cut = described(tmp_path / "whole", *long), described(tmp_path / "cut", *long)
    assert attended(whole).what == "ran"
    for source, point in kills:
        killed(cut, source, point)
        left = read_stored(cut)
        assert left and left.status == "running"
    if method == "finetune":
        (weights,) = (tmp_path / "cut" / "cache" / "source_models").glob("*.safetensors")
        (before,) = (tmp_path / "whole" / "cache" / "source_models").glob("*.safetensors")
        assert weights.read_bytes() == before.read_bytes()
    assert attended(cut).what == "ran" and cut.environment.resumed >= 45
    equal(whole, cut)
    assert attended(described(tmp_path / "cut", *long)).what == "skipped"


@pytest.mark.slow
def test_fifty_processes_that_start_the_same_run_at_once_make_it_once(tmp_path):
    record = described(tmp_path / "outputs")
    ends, processes = [], []
    for _ in range(50):
        ready, told = failing.CONTEXT.Pipe()
        processes.append(failing.start(failing.race, record.config, record.choices, tmp_path / "go", told))
        told.close()
        ends.append(ready)
    assert [end.recv() for end in ends] == ["ready"] * 50
    (tmp_path / "go").touch()
    outcomes = [end.recv() for end in ends]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (winner,) = [outcome for outcome in outcomes if outcome[0] == "ran"]
    assert winner[1] == "ok"
    others = [outcome for outcome in outcomes if outcome is not winner]
    assert {what for what, _, _ in others} <= {"locked", "skipped"}
    assert all("is running this" in told for what, _, told in others if what == "locked")
    whole = described(tmp_path / "whole")
    attended(whole)
    made = read_stored(record)
    assert made
    equal(whole, made)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory; skips where this user may mount none."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mount.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        size = 2**16
        while size:
            try:
                filler.write(b"0" * size)
            except OSError:
                size //= 2
    return file


@pytest.mark.slow
@pytest.mark.parametrize("point", [0, 2, 4])
def test_on_a_full_disk_a_run_fails_in_words_and_goes_on_when_there_is_space(point, tmp_path):
    disk = tmp_path / "disk"
    with mounted(disk, "size=6m"):
        other = described(disk / "outputs", "seed=1")
        assert attended(other).record.status == "ok"
        before = contents(other.folder)
        record = described(disk / "outputs")
        fillers = []

        def show(points: Any, record: RunRecord) -> RunRecord:
            for _ in range(point):
                next(points)
            fillers.append(fill(disk))
            return failing.exhausted(points, record)

        outcome = run_job(Job(record), lambda: False, show)
        assert outcome.what == "ran" and outcome.failed
        assert "No space left on device" in outcome.message
        assert contents(other.folder) == before

        again = attended(described(disk / "outputs"))  # still full
        assert again.failed and "No space left on device" in again.message

        fillers[0].unlink()
        found, faults = read_records([disk])
        assert faults == [] and {run.status for run in found if run.id == other.id} == {"ok"}
        last = described(disk / "outputs")
        assert attended(last).record.status == "ok"
        whole = described(tmp_path / "whole")
        attended(whole)
        equal(whole, last)
        assert contents(other.folder) == before


@pytest.mark.slow
def test_where_outputs_cannot_be_written_one_message_says_so(tmp_path):
    with mounted(tmp_path / "outputs", "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "outputs"], check=True)
        for words in ([], ["-m", "seed=0,1"]):
            environment = {**os.environ, "HYDRA_FULL_ERROR": "0", "COLUMNS": "200"}
            result = subprocess.run(
                failing.command(*words, *SMALL), capture_output=True, text=True, check=False, env=environment
            )
            assert result.returncode == 1
            assert "Read-only file system" in result.stderr and "Traceback" not in result.stdout + result.stderr
            assert list((tmp_path / "outputs").iterdir()) == []


def test_a_file_in_the_place_of_outputs_is_an_error_in_words(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    outcome = attended(described(tmp_path / "outputs"))
    assert outcome.failed and "outputs" in outcome.message


@pytest.mark.slow
@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"id": "a"}', b"\xff\xfe\x00"])
def test_a_record_that_cannot_be_read_is_reported_and_its_run_made_again(torn, tmp_path):
    record = described(tmp_path / "outputs")
    attended(record)
    before = contents(record.folder)
    file = record.folder / "run.json"
    file.write_bytes(torn)
    found, (fault,) = read_records([tmp_path])
    assert found == [] and str(file) in fault and "can't be read" in fault
    again = described(tmp_path / "outputs")
    assert attended(again).what == "ran"
    assert read_records([tmp_path])[1] == [] and len(read_records([tmp_path])[0]) == 1
    for name in ("model.safetensors", "predictions.safetensors"):
        assert (again.folder / name).read_bytes() == before[name]


@pytest.mark.slow
@pytest.mark.parametrize(("keep_before", "said"), [(True, "resuming after step 15"), (False, "can't be read")])
def test_truncated_checkpoints_after_a_kill(keep_before, said, tmp_path):
    whole, cut = described(tmp_path / "whole"), described(tmp_path / "cut")
    attended(whole)
    steps = _paused(cut)
    file = cut.folder / "checkpoint.pt"
    for each in [file] if keep_before else [file, file.with_name("checkpoint.before.pt")]:
        each.write_bytes(each.read_bytes()[: each.stat().st_size // 2])
    with (cut.folder / "curve.jsonl").open("ab") as torn:
        torn.write(b'{"step": 20, "seco')
    again = described(tmp_path / "cut")
    assert attended(again).record.status == "ok"
    assert (steps, said in (again.folder / "run.log").read_text()) == (20, True)
    equal(whole, again)


def _paused(record: RunRecord) -> int:
    """Leave the run at its last point, as a kill does: nothing is closed. The step of that point."""
    ready, told = failing.CONTEXT.Pipe()
    process = failing.start(failing.hold, record.config, record.choices, 4, told)
    told.close()
    step = ready.recv()
    process.kill()
    process.join()
    return step


def test_a_cached_feature_file_that_was_truncated_is_computed_again(tmp_path):
    words = ["method=feature_extract", "backbone=identity", "pretrain=none"]
    whole = described(tmp_path / "outputs", *words)
    assert attended(whole).record.status == "ok"
    cached = sorted((tmp_path / "outputs" / "cache" / "features").rglob("*.safetensors"))
    before = {file: file.read_bytes() for file in cached}
    assert cached
    for file in cached:
        file.write_bytes(before[file][: len(before[file]) // 2])
    again = described(tmp_path / "outputs", *words, "force=true")
    assert attended(again).record.status == "ok"
    assert {file: file.read_bytes() for file in cached} == before
    assert (whole.scores, whole.evidence) == (again.scores, again.evidence)


@pytest.mark.slow
def test_a_run_by_force_that_is_killed_while_it_takes_its_place_leaves_a_whole_one(tmp_path):
    record = described(tmp_path / "outputs")
    attended(record)
    before = contents(record.folder)
    forced = described(tmp_path / "outputs", "force=true")
    process = failing.start(failing.end_while_emptying, forced.config, forced.choices)
    process.join()
    assert process.exitcode == -9
    last = described(tmp_path / "outputs")
    attended(last)
    assert contents(last.folder).keys() == before.keys()
    assert contents(last.folder)["predictions.safetensors"] == before["predictions.safetensors"]
    assert attended(described(tmp_path / "outputs", "force=true")).record.status == "ok"
    assert [path.name for path in record.folder.parent.iterdir()] == [record.folder.name]
