"""Who makes a run, and when: locks and heartbeats, skipping, stopping, time limits, plans and places."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest
import torch
from conftest import QUICK, composed
from rich.console import Console
from support.failing import exhausted

from tl_runner.engine.dry_run import estimate_seconds, plan_jobs
from tl_runner.engine.job import Job, Outcome, find_skippable, run_job, run_or_skip
from tl_runner.engine.recorder import Recording, open_recording
from tl_runner.engine.run import run
from tl_runner.errors import LockedError, UserError
from tl_runner.report import tables
from tl_runner.report.consoles import complain
from tl_runner.report.sweep_progress import SweepProgress
from tl_runner.storage import lock
from tl_runner.storage.lock import claim_lock, hold_lock, is_owned, read_owner
from tl_runner.storage.record import (
    SCHEMA,
    RunRecord,
    describe_run,
    find_on_other_data,
    read_record,
    read_records,
    read_stored,
)
from tl_runner.sweep import slots as module
from tl_runner.sweep.command import warn_other_data
from tl_runner.sweep.slots import count_slots


def described(outputs: Path, *overrides: str) -> RunRecord:
    return conftest.described(outputs, *QUICK, *overrides)


def attended(record: RunRecord) -> Outcome:
    return run_job(Job(record), lambda: False, exhausted)


def test_a_second_owner_is_told_who_the_first_is_and_how_far(tmp_path):
    with claim_lock(tmp_path / "a" / "run") as claim:
        claim.tell(step=3, steps=10)
        claim.write()
        with (
            pytest.raises(LockedError, match=rf"^process {os.getpid()} on .* is running this, at step 3 of 10$"),
            claim_lock(tmp_path / "a" / "run"),
        ):
            pass
    assert read_owner(tmp_path / "a" / "run") is None
    with claim_lock(tmp_path / "a" / "run"):
        pass


def test_a_lock_dies_with_its_owner(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, started = context.Pipe()

    def hold() -> None:
        with claim_lock(tmp_path / "run"):
            started.send(os.getpid())
            started.recv()

    process = context.Process(target=hold)
    process.start()
    assert ready.recv() == process.pid
    with pytest.raises(LockedError, match=f"process {process.pid} "), claim_lock(tmp_path / "run"):
        pass
    assert is_owned(tmp_path / "run")
    process.kill()
    process.join()
    assert read_owner(tmp_path / "run")  # it could not tell
    assert not is_owned(tmp_path / "run")
    with claim_lock(tmp_path / "run") as claim:
        assert claim.content["pid"] == os.getpid()


def test_on_a_file_system_whose_locks_others_do_not_see_the_heartbeat_counts(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(LockedError, match="process 1 on elsewhere"), claim_lock(tmp_path / "run"):
        pass
    assert is_owned(tmp_path / "run")
    os.utime(file, (file.stat().st_mtime - lock.DEAD - 1,) * 2)
    assert not is_owned(tmp_path / "run")
    with claim_lock(tmp_path / "run"):
        assert read_owner(tmp_path / "run") != {"host": "elsewhere", "pid": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.lock"]


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with claim_lock(tmp_path / "run"):
        first = (tmp_path / "run.json").stat().st_ino
        for _ in range(10_000):
            if not (tmp_path / "run.json").exists() or (tmp_path / "run.json").stat().st_ino != first:
                break
        else:
            pytest.fail("nothing was written anew")


@pytest.mark.parametrize("content", ["", "[1]", "{}", "\x00"])
def test_what_is_no_heartbeat_is_none(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    assert read_owner(tmp_path / "run") is None
    with claim_lock(tmp_path / "run"):
        pass


def test_one_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")

    def add() -> None:
        for _ in range(20):
            with hold_lock(tmp_path / "file"):
                file = tmp_path / "number"
                file.write_text(str(int(file.read_text()) + 1))

    (tmp_path / "number").write_text("0")
    processes = [context.Process(target=add) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "80"


def test_a_run_is_made_kept_left_to_others_or_stopped(tmp_path):
    made = attended(described(tmp_path))
    assert (made.what, made.record.status, made.failed) == ("ran", "ok", False)
    kept = attended(described(tmp_path))
    assert (kept.what, kept.record.scores, kept.failed) == ("skipped", made.record.scores, False)
    other = described(tmp_path, "seed=1")
    with claim_lock(other.lock):
        elsewhere = attended(other)
    assert elsewhere.what == "locked" and not elsewhere.failed and "is running this" in elsewhere.message
    stopped = run_job(Job(other), lambda: True, exhausted)
    assert stopped.what == "stopped" and not stopped.failed
    assert read_record(other.folder / "run.json").error == "interrupted"
    assert [planned.state for planned in plan_jobs([Job(described(tmp_path, f"seed={n}")) for n in (0, 1, 2)])] == [
        "complete", "to resume", "new",
    ]  # fmt: skip


def test_a_plan_takes_no_run_that_was_killed_for_one_that_runs(tmp_path):
    def state() -> str:
        return plan_jobs([Job(described(tmp_path))])[0].state

    record = described(tmp_path)
    run_job(Job(record), lambda: True, exhausted)
    with claim_lock(record.lock) as claim:
        told = claim.path.read_text()
        assert state() == "running"
    claim.path.write_text(told)  # as kill -9 leaves it
    assert state() == "to resume"
    assert read_owner(record.lock)


def test_whoever_waited_at_the_lock_finds_the_run_made(tmp_path, monkeypatch):
    record = described(tmp_path)
    asked = []

    def then_not_yet(record: RunRecord) -> RunRecord | None:
        asked.append(find_skippable(record))
        return asked[-1] if len(asked) > 1 else None

    exhausted(run(described(tmp_path)), record)
    monkeypatch.setattr("tl_runner.engine.job.find_skippable", then_not_yet)
    assert attended(record).what == "skipped" and len(asked) == 2


def failing_with(error: BaseException) -> Callable[..., RunRecord]:
    def failing(points, record: RunRecord) -> RunRecord:
        next(points)
        return points.throw(error)

    return failing


@pytest.mark.parametrize("error", [SystemExit(3), KeyError("k"), MemoryError(), GeneratorExit()])
def test_an_error_ends_its_run_only(error, tmp_path):
    failing = failing_with(error)
    outcome = run_job(Job(described(tmp_path)), lambda: False, failing)
    assert outcome.failed and outcome.record.status == "failed" and type(error).__name__ in outcome.message
    assert f"The traceback is in {outcome.record.folder / 'run.log'}" in outcome.message
    full = run_job(Job(described(tmp_path)), lambda: False, failing, full_error=True)
    assert "Traceback (most recent call last)" in full.message


def test_a_file_where_outputs_should_be_is_told_by_its_key(tmp_path):
    (tmp_path / "taken").write_text("")
    outcome = attended(described(tmp_path / "taken"))
    assert outcome.message == f"outputs={tmp_path / 'taken'} can't be written to (Not a directory): name another folder"


def test_a_run_for_which_there_is_not_enough_memory_is_told_so(tmp_path):
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(10**14)
    for error in (torchs.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")):
        outcome = run_job(Job(described(tmp_path)), lambda: False, failing_with(error))
        assert "Not enough memory: try a smaller train.batch" in outcome.message
    assert "memory" not in run_job(Job(described(tmp_path)), lambda: False, failing_with(KeyError("k"))).message


def test_a_run_ends_at_its_time_limit_and_goes_on_when_it_is_typed_again(tmp_path):
    late = attended(described(tmp_path, "timeout=0.001", "train.log_every=5"))
    assert late.failed and late.message == "it exceeded timeout=0.001 s at step 5 of 20"
    assert read_record(late.record.folder / "run.json").error == late.message
    again = attended(described(tmp_path, "train.log_every=5", "timeout=null"))
    assert again.record.status == "ok" and again.record.environment.resumed == 5


def test_a_run_that_diverged_is_not_made_again_unless_by_force(tmp_path):
    words = ["optimizer.lr=1e30", "optimizer=sgd", "train.clip=null"]
    assert attended(described(tmp_path, *words)).record.status == "diverged"
    again = attended(described(tmp_path, *words))
    assert (again.what, again.failed) == ("skipped", True) and "not a finite number" in again.message
    assert attended(described(tmp_path, *words, "force=true")).what == "ran"


def test_a_plan_estimates_from_runs_that_are_alike(tmp_path):
    exhausted(run(first := described(tmp_path)), first)
    planned = plan_jobs(
        [Job(described(tmp_path, *words)) for words in ([], ["seed=1"], ["train.steps=30"], ["method=dann"])]
    )
    assert [each.state for each in planned] == ["complete", "new", "new", "new"]
    assert [each.seconds for each in planned] == [0.0, first.seconds, first.seconds, None]
    assert estimate_seconds(planned, 2) == (first.seconds, 1)
    assert not read_stored(described(tmp_path, "seed=1"))
    assert plan_jobs([Job(described(tmp_path / "nowhere"))])[0].state == "new"


@pytest.mark.parametrize(
    ("cores", "gpus", "asked", "expected"),
    [
        (2, 0, ("auto", 1), [(1, None)] * 2),
        (64, 0, ("auto", 1), [(8, None)] * 8),
        (8, 0, (3, 1), [(2, None)] * 3),
        (2, 0, (5, 1), [(1, None)] * 5),
        (16, 2, ("auto", 1), [(8, "cuda:0"), (8, "cuda:1")]),
        (16, 2, ("auto", 2), [(4, "cuda:0"), (4, "cuda:1")] * 2),
        (16, 2, (3, 1), [(5, "cuda:0"), (5, "cuda:1"), (5, "cuda:0")]),
    ],
)
def test_places_share_the_cores_and_the_gpus(cores, gpus, asked, expected, monkeypatch):
    monkeypatch.setattr(module, "_cores", lambda: cores)
    monkeypatch.setattr(module, "_gpus", lambda: gpus)
    found = count_slots(*asked)
    assert [(slot.threads, slot.device) for slot in found] == expected
    assert [slot.number for slot in found] == list(range(len(found)))


@pytest.mark.parametrize("asked", [(0, 1), ("many", 1), (2.5, 1), ("auto", 0), ("auto", 0.5), (True, 1)])
def test_impossible_places_are_refused(asked):
    with pytest.raises(UserError, match=r"^hydra\.launcher\.(n_jobs|jobs_per_gpu) takes"):
        count_slots(*asked)


def test_a_board_tells_failures_at_once_and_notes_once(tmp_path):
    console = Console(width=200, record=True, force_terminal=False)
    shown = SweepProgress(4, console, console)
    orders = [Job(described(tmp_path, f"seed={n}"), "optimizer.lr=1") for n in range(4)]
    with claim_lock(orders[0].record.lock) as claim:
        claim.tell(step=5, steps=20, phase="train")
        claim.write()
        shown.under_way(orders[:2])
    console.print(shown)
    shown.over(Outcome(*orders[0], "stopped"))
    for order in orders[1:3]:
        order.record.status = "failed"
        shown.over(Outcome(*order, "ran", "[bold]why[/bold]", ("a note",)))
    shown.over(Outcome(*orders[3], "queued"))
    console.print(shown)
    text = console.export_text()
    assert "5/20 digits small mmd optimizer.lr=1 seed=0  train" in text and "seed=1  starting" in text
    assert "0 of 4 done · 2 running · 2 queued · 0 failed" in text
    assert text.count("failed: digits small mmd optimizer.lr=1 seed=") == 2 and text.count("[bold]why[/bold]") == 2
    assert text.count("a note") == 1 and "seed=0: stopped before its first point, to start anew" in text
    assert "3 of 4 done · 0 running · 1 queued · 2 failed" in text


def test_a_large_sweep_lists_what_did_not_end_well(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LISTED", 3)
    records = [described(tmp_path, f"seed={n}") for n in range(4)]
    for number, record in enumerate(records):
        record.status = "failed" if number == 2 else "ok"
    console = Console(width=200, record=True)
    console.print(tables.outcomes([Outcome(r, "", "ran") for r in records[:3]] + [Outcome(records[3], "", "skipped")]))
    text = console.export_text()
    assert "4 runs, 1 failed, 1 skipped; the 1 that did not complete" in text
    assert "mmd-small-s2" in text and "mmd-small-s0" not in text
    planned = plan_jobs([Job(record) for record in records])
    console.print(*tables.plan(planned, 1))
    assert "4 runs: 4 new" in console.export_text()


def test_a_job_is_a_generator_that_returns_its_record(tmp_path):
    record = described(tmp_path)
    points = run_or_skip(record, lambda: False)
    assert next(points).step and record.status == "running"
    points.close()
    assert read_record(record.folder / "run.json").error == "interrupted" and read_owner(record.lock) is None


def test_a_run_that_leaves_the_working_folder_is_where_it_belongs(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")

    def leaving(points, record: RunRecord) -> RunRecord:
        next(points)
        os.chdir(tmp_path)
        return exhausted(points, record)

    outcome = run_job(Job(described(Path("outputs"), "train.log_every=5")), lambda: False, leaving)
    assert outcome.record.status == "ok" and Path.cwd() == tmp_path / "home"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert read_record(outcome.record.folder / "run.json").status == "ok"


def test_a_run_whose_last_word_could_not_be_written_is_not_ok(tmp_path, monkeypatch):
    def full(self) -> None:
        if self.record.status == "ok":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recording, "save", full)
    outcome = attended(described(tmp_path))
    assert outcome.failed and outcome.record.status == "failed" and "No space left" in outcome.message


def test_no_control_sequence_reaches_the_terminal():
    console = Console(width=100, record=True)
    complain(console, "[bold]a\x1b[2J\ud800\u202e b\nc")
    assert console.export_text() == "error: [bold]a\ufffd[2J\ufffd\ufffd b\nc\n"


def test_a_stream_that_cannot_be_written_falls_silent():
    code = """if True:
        import sys
        from tl_runner.report.consoles import consoles
        results, errors = consoles()
        for _ in range(300):
            results.print("x" * 70)  # more than a buffer holds
        errors.print("still here")
    """
    with Path("/dev/full").open("w") as full:
        made = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "still here\n")


def test_a_record_that_cannot_be_read_is_said_before_it_is_made_again(tmp_path, caplog):
    record = described(tmp_path)
    record.folder.mkdir(parents=True)
    (record.folder / "run.json").write_text("{")
    assert plan_jobs([Job(record)])[0].state == "new"
    assert f"{record.folder / 'run.json'} can't be read: running it again" in caplog.text
    assert attended(record).record.status == "ok"


def csv_files(folder: Path, moved: int = 1) -> Path:
    """Two small CSV files, a.csv and b.csv, the second moved."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, by in (("a.csv", 0), ("b.csv", moved)):
        rows = [f"{i % 7 + by * (i % 2)},{i % 5},{'ab'[i % 2]}" for i in range(60)]
        (folder / name).write_text("x,y,label\n" + "\n".join(rows) + "\n")
    return folder


def of_tables(outputs: Path, *overrides: str) -> RunRecord:
    words = ["dataset=table", "dataset.source=a.csv", "dataset.target=b.csv", "backbone=mlp", "train=tiny"]
    return describe_run(*composed(*words, "method=source_only", "diagnose=none", f"outputs={outputs}", *overrides))


@pytest.mark.parametrize("force", [False, True])
def test_a_record_of_a_later_version_is_never_overwritten(force, tmp_path):
    file = attended(described(tmp_path)).record.folder / "run.json"
    file.write_text(file.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'))
    later = file.read_bytes()
    again = attended(described(tmp_path, f"force={force}"))
    assert again.failed and f"a later version of tl_runner (schema {SCHEMA + 1};" in again.message
    assert file.read_bytes() == later
    _, (fault,) = read_records([tmp_path])
    assert "later version" in fault and "rerun" not in fault  # which would be no help


def test_a_tilde_in_outputs_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert described(Path("~/kept")).outputs == tmp_path / "kept"


def test_changed_data_is_a_new_run_and_the_earlier_one_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(csv_files(tmp_path / "here"))
    first = attended(of_tables(tmp_path / "out")).record
    assert first.data.read == {"files": 2, "bytes": sum(Path(name).stat().st_size for name in ("a.csv", "b.csv"))}
    assert read_record(first.folder / "run.json").data.files == first.data.files and len(str(first.data.files)) == 16
    os.utime("b.csv")
    assert attended(of_tables(tmp_path / "out")).what == "skipped" and not find_on_other_data(first)
    csv_files(Path(), moved=3)
    changed = of_tables(tmp_path / "out")
    assert changed.id != first.id and changed.setting != first.setting
    (planned,) = plan_jobs([Job(changed)])
    assert planned.state == "new" and planned.since and planned.since.folder == first.folder
    console = Console(width=200, record=True)
    console.print(*tables.plan([planned], 1))
    assert f"new: data changed since {first.folder.name}" in console.export_text()
    assert attended(changed).what == "ran" and read_record(first.folder / "run.json").status == "ok"
    assert find_on_other_data(changed) is None  # it is there now
    csv_files(Path())
    assert attended(of_tables(tmp_path / "out")).record.id == first.id


def test_the_same_command_in_another_folder_is_another_run_unless_it_holds_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(csv_files(tmp_path / "here"))
    first = of_tables(tmp_path / "out")
    monkeypatch.chdir(csv_files(tmp_path / "copy"))
    assert of_tables(tmp_path / "out").id == first.id
    monkeypatch.chdir(tmp_path)
    assert (
        of_tables(tmp_path / "out", "dataset.source=copy/a.csv", f"dataset.target={tmp_path}/here/b.csv").id == first.id
    )
    monkeypatch.chdir(csv_files(tmp_path / "there", moved=5))
    assert of_tables(tmp_path / "out").id != first.id


def test_a_run_whose_data_is_not_there_fails_in_its_datasets_words_and_is_on_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = attended(of_tables(tmp_path / "out"))
    assert outcome.failed and "a.csv" in outcome.message and "there is no such file" in outcome.message
    assert read_record(outcome.record.folder / "run.json").data.read == {"files": 0, "bytes": 0}


def test_data_that_changes_between_the_command_and_the_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(csv_files(tmp_path))
    record = of_tables(tmp_path / "out")
    csv_files(tmp_path, moved=4)
    outcome = attended(record)
    assert outcome.failed and "Changed data is another run: rerun the command" in outcome.message
    assert attended(of_tables(tmp_path / "out")).record.status == "ok"


def test_a_run_that_was_cut_off_starts_anew_on_changed_data(tmp_path, monkeypatch):
    monkeypatch.chdir(csv_files(tmp_path))
    words = ["train.log_every=5", "checkpoint_every=0", "timeout=0.001"]
    cut = attended(of_tables(tmp_path / "out", *words)).record
    assert [*cut.folder.glob("checkpoint*.pt")]
    csv_files(tmp_path, moved=4)
    again = attended(of_tables(tmp_path / "out", *words, "timeout=null")).record
    assert again.status == "ok" and again.environment.resumed is None and [*cut.folder.glob("checkpoint*.pt")]


def test_new_data_is_said_once_for_all_runs_of_a_command(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(csv_files(tmp_path))
    seeds = [of_tables(tmp_path / "out", f"seed={seed}") for seed in (0, 1)]
    for record in seeds:
        with open_recording(record):
            pass
    caplog.clear()
    warn_other_data([Job(record) for record in seeds])
    assert not caplog.records
    csv_files(tmp_path, moved=4)
    warn_other_data([Job(of_tables(tmp_path / "out", f"seed={seed}")) for seed in (0, 1, 2)])
    assert [record.getMessage() for record in caplog.records] == [
        f"new: the data changed since {seeds[0].folder} was made by the same configuration; 2 of 3 runs read other"
        " content"
    ]


def test_files_elsewhere_are_no_data_that_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csv_files(tmp_path / "one")
    csv_files(tmp_path / "two", moved=4)

    def of_folder(name: str) -> RunRecord:
        return of_tables(tmp_path / "out", f"dataset.source={name}/a.csv", f"dataset.target={name}/b.csv")

    with open_recording(of_folder("one")):
        pass
    assert find_on_other_data(of_folder("two")) is None
    csv_files(tmp_path / "one", moved=4)
    for same in ("one", "./one", tmp_path / "one"):
        assert find_on_other_data(of_folder(str(same)))
