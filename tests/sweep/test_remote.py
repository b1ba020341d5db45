"""What comes back of jobs that were sent to other processes, and what if nothing does."""

import json
from pathlib import Path

from conftest import QUICK, composed, made

from tl_runner.engine.job import Job
from tl_runner.engine.recorder import Recording
from tl_runner.storage.record import describe_run, read_stored
from tl_runner.storage.sections import Environment
from tl_runner.sweep.remote import RemoteJob, mark_lost


def order(*overrides: str) -> Job:
    return Job(describe_run(*composed(*QUICK, "method=source_only", *overrides)))


def test_a_machine_without_the_working_folder_says_so(tmp_path):
    outcome, _ = RemoteJob(order(), 1, False, folder=tmp_path / "not_shared").make()
    assert outcome.failed and "not_shared can't be entered" in outcome.message


def test_a_job_takes_its_folder_and_its_threads_along(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(here)
    parcel = RemoteJob(order("device=cpu"), 1, False)
    monkeypatch.chdir(elsewhere)
    outcome, came = parcel.make()
    assert outcome.what == "ran" and not outcome.failed and not came
    assert outcome.record.environment.threads == 1
    assert list(here.glob("outputs/runs/*/*/run.json")) and not list(elsewhere.iterdir())


def test_a_job_that_left_nothing_failed_or_was_not_begun():
    assert mark_lost(order(), "no space", stopping=False).failed
    assert mark_lost(order(), "", stopping=True).what == "queued"


def test_a_job_that_died_is_on_record_and_one_that_was_stopped_is_unfinished():
    begun = order()
    begun.record.environment = Environment()
    Recording(begun.record).open()
    assert mark_lost(begun, "", stopping=True).what == "stopped"
    assert json.loads((begun.record.folder / "run.json").read_text())["status"] == "running"
    outcome = mark_lost(begun, "it died\nand this is its log", stopping=False)
    assert outcome.failed and "its log" in outcome.message
    written = read_stored(begun.record)
    assert written and written.status == "failed" and written.error == "it died"


def test_a_job_that_died_after_its_run_had_ended_lost_nothing():
    ended = made(Path("outputs"), *QUICK, "method=source_only", "dataset.samples=301")
    again = order("dataset.samples=301", "device=cpu")
    assert again.record.id == ended.id
    outcome = mark_lost(again, "its process exited without reporting an error", stopping=False)
    assert outcome.what == "ran" and not outcome.failed

    forced = order("dataset.samples=301", "force=true")
    outcome = mark_lost(forced, "its process exited without reporting an error", stopping=False)
    assert outcome.failed, "the run that is stored is not the one that was asked for"
    kept = read_stored(forced.record)
    assert kept and kept.status == "ok"
