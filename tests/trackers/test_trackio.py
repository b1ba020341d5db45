"""Trackio has each point of a run once, in a file of its own folder, and is told nothing else."""

import json
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.tracked import Made, agree, feed, louder, make_run, move_run, random_state, series, track_at_once, unscored

from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import Guarded, final, name_place
from tl_runner.trackers.trackio import trackio

pytest.importorskip("trackio", reason="trackio is not installed: pip install trackio")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_run(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def record(made: Made, tmp_path: Path) -> RunRecord:
    return move_run(made, tmp_path / "outputs")


def query(file: Path, words: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(words, values).fetchall()


def database(record: RunRecord, project: str = "digits") -> Path:
    return record.outputs / "trackio" / f"{project}.db"


def shown(record: RunRecord) -> dict[str, list[tuple[int, float]]]:
    """What Trackio has of a run, by name, in the order of steps."""
    rows = query(database(record), "SELECT step, metrics FROM metrics WHERE run_id = ?", name_place(record))
    found: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in rows:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, []).append((step, value))
    return {name: sorted(points) for name, points in found.items()}


def configuration(record: RunRecord) -> dict[str, Any]:
    ((config,),) = query(database(record), "SELECT config FROM configs WHERE run_id = ?", name_place(record))
    return json.loads(config)


def test_trackio_has_the_curve_the_configuration_and_the_scores(made, record, capfd):
    feed(trackio, record, made.points)
    found = shown(record)
    agree(unscored(found), series(made.curve))
    assert {name: value for name, value in found.items() if name.startswith("scores/")} == {
        name: [(24, value)] for name, value in final(record).items()
    }
    config = configuration(record)
    assert config["method"] == "mmd" and config["train.steps"] == 24 and config["optimizer.lr"] == 0.003
    assert (config["setting"], config["status"], config["seed"]) == (record.setting, "ok", 0)
    assert config["_Group"] == f"mmd-small-{record.setting}" and "_Username" not in config
    assert query(database(record), "SELECT DISTINCT run_name FROM metrics") == [(record.folder.name,)]
    assert capfd.readouterr() == ("", "")


def test_trackio_writes_below_outputs_and_leaves_no_thread(made, record, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/elsewhere")  # which `trackio.init` would send the run to
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    before = threading.active_count()
    assert feed(trackio, record, made.points).alive
    assert threading.active_count() == before
    assert sorted(path.name for path in (record.outputs / "trackio").iterdir()) == [
        "digits.db",
        "digits.db.lock",
        "digits.lock",
    ]
    assert [path.name for path in Path.cwd().iterdir()] == ["outputs"]


def test_trackio_takes_a_folder_and_a_project(made, record, tmp_path):
    feed(partial(trackio, project="ours", folder=str(tmp_path / "shared")), record, made.points)
    feed(trackio, record, made.points)  # another folder in the same process
    assert query(tmp_path / "shared" / "ours.db", "SELECT COUNT(*) FROM metrics") == [(9,)]
    assert query(database(record), "SELECT COUNT(*) FROM metrics") == [(9,)]


def test_trackio_of_a_resumed_run_is_the_same_run_with_each_step_once(made, record):
    feed(partial(trackio, every=0), record, made.points[:6], end=False)
    assert configuration(record)["status"] == "ok"  # of the record that this test has; a real one says `running`
    feed(partial(trackio, every=0), record, louder(made.points[3:]))
    late = series(made.curve)
    for name in made.points[0].terms:
        late[f"terms/{name}"][6:] = [(point.step, point.terms[name]) for point in louder(made.points[6:])]
    agree(unscored(shown(record)), late)
    assert query(database(record), "SELECT COUNT(DISTINCT run_id) FROM metrics") == [(1,)]


def test_trackio_gets_from_the_curve_what_was_not_sent_when_the_run_was_killed(made, record):
    feed(partial(trackio, every=1e9), record, made.points[:6], end=False)
    assert not database(record).exists()  # points are sent in batches
    feed(partial(trackio, every=1e9), record, made.points[5:])
    agree(unscored(shown(record)), series(made.curve))


def test_trackio_gets_the_last_points_of_a_run_that_was_killed_behind_them(made, record):
    feed(partial(trackio, every=1e9), record, made.points, end=False)
    feed(partial(trackio, every=1e9), record, [])
    agree(unscored(shown(record)), series(made.curve))


def test_trackio_shows_a_run_that_begins_anew_in_place_of_the_one_before(made, record):
    feed(trackio, record, louder(made.points))
    feed(trackio, record, made.points)
    found = shown(record)
    agree(unscored(found), series(made.curve))
    assert len(found["scores/target.accuracy"]) == 1


@pytest.mark.parametrize("kept", [0, 3])
def test_trackio_says_how_a_run_ended_and_that_it_ended_well_later(made, record, kept):
    for _ in range(2):
        stopped = replace(record, status="running", error="interrupted", scores=None)
        feed(trackio, stopped, made.points[:kept])
    assert (configuration(record)["status"], configuration(record)["error"]) == ("running", "interrupted")
    feed(trackio, record, made.points[kept:])
    assert (configuration(record)["status"], configuration(record)["error"]) == ("ok", "")
    found = shown(record)
    agree(unscored(found), series(made.curve))
    assert found["scores/target.accuracy"] == [(24, record.scores.target["accuracy"])]


def test_trackio_keeps_runs_of_other_folders_and_seeds_apart(made, record, tmp_path):
    shared = partial(trackio, folder=str(tmp_path / "shared"))
    elsewhere = replace(record, config={**record.config, "outputs": str(tmp_path / "other's")})
    for each in (record, elsewhere, replace(record, id="another", seed=1)):
        feed(shared, each, made.points)
    file = tmp_path / "shared" / "digits.db"
    assert query(file, "SELECT COUNT(*) FROM metrics GROUP BY run_id") == [(9,), (9,), (9,)]


def test_trackio_draws_no_random_number(made, record):
    before = random_state()
    feed(trackio, record, made.points)
    assert random_state() == before


def test_trackio_refuses_what_it_can_not_do(record, monkeypatch):
    with pytest.raises(UserError, match=r"tracker\.project=registry-x can't be a project of Trackio"):
        Guarded(partial(trackio, project="registry-x"), record)
    with pytest.raises(UserError, match="every must be at least 0"):
        Guarded(partial(trackio, every=-1), record)
    monkeypatch.setitem(sys.modules, "trackio.sqlite_storage", None)
    with pytest.raises(UserError, match=r'pip install "tl_runner\[trackio\]"'):
        Guarded(trackio, record)


def test_failures_of_trackio_are_said_and_the_run_continues(made, record, caplog):
    (record.outputs / "trackio").write_text("a file where a folder should be")
    feed(trackio, record, made.points)
    (record.outputs / "trackio").unlink()
    (record.outputs / "trackio").mkdir()
    database(record).write_bytes(b"no database" * 100)
    feed(trackio, record, made.points)
    assert [message.split(" failed: ")[0] for message in caplog.messages] == ["the tracker trackio"] * 2
    assert all(message.endswith("The run continues without it") for message in caplog.messages)


@pytest.mark.slow
def test_trackio_takes_jobs_that_meet_at_a_new_database(made, record, tmp_path):
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps((record, made.points)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, tmp_path / "jobs.pickle"], check=True, timeout=200, env=environment)
    for seed in range(4):
        agree(unscored(shown(replace(record, id=f"job{seed}", seed=seed))), series(made.curve))


if __name__ == "__main__":
    track_at_once(Path(sys.argv[1]), partial(trackio, every=0))
