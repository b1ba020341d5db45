"""Trackers show the points of the curve, once each, whatever happened to the run; and none can stop it."""

import logging
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from support.tracked import Made, agree, feed, louder, make_run, move_run, series, track_at_once, unscored
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
from tl_runner.trackers.mlflow import import_mlflow, mlflow
from tl_runner.trackers.none import none
from tl_runner.trackers.tensorboard import tensorboard
from tl_runner.trackers.tracker import Guarded, final, flatten_leaves, scalars
from tl_runner.training.loop import Point

# MLflow 3.17 configures its tables in a way that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_run(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def record(made: Made, tmp_path: Path) -> RunRecord:
    return move_run(made, tmp_path / "outputs")


# TensorBoard


def drawn(record: RunRecord) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws of a run."""
    folder = record.outputs / "tensorboard" / "digits" / record.folder.name
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def older(record: RunRecord, torn: int = 0) -> None:
    """TensorBoard reads event files by the second in their name: put those that are there before all to come."""
    for second, file in enumerate(sorted((record.outputs / "tensorboard").rglob("events.*"))):
        content = file.read_bytes()
        file.unlink()
        file.with_name(f"events.out.tfevents.{second:010}.host.1.0").write_bytes(content[: len(content) - torn])


def test_tensorboard_draws_the_curve_and_the_scores(made, record):
    feed(tensorboard, record, made.points)
    found = drawn(record)
    agree(unscored(found), series(made.curve))
    assert record.scores is not None
    assert found["scores/target.accuracy"] == [(24, pytest.approx(record.scores.target["accuracy"], rel=1e-6))]
    assert {"scores/oracle.accuracy", "scores/selected.step", "scores/source.accuracy"} < found.keys()


@pytest.mark.parametrize("torn", [0, 3])
def test_tensorboard_of_a_resumed_run_has_each_step_once(made, record, torn):
    killed = feed(tensorboard, record, louder(made.points[:6]), end=False)
    older(record, torn)  # it may have written half an event
    assert killed.alive
    feed(tensorboard, record, made.points[3:])
    early = louder(made.points[:3])
    wanted = series(made.curve)
    for name in early[0].terms:
        wanted[f"terms/{name}"][:3] = [(point.step, point.terms[name]) for point in early]
    agree(unscored(drawn(record)), wanted)


def test_tensorboard_forgets_a_run_that_begins_anew(made, record):
    feed(tensorboard, record, louder(made.points))
    older(record)
    feed(tensorboard, record, made.points)
    agree(unscored(drawn(record)), series(made.curve))
    assert [step for step, _ in drawn(record)["scores/target.accuracy"]] == [24]


def test_tensorboard_gets_the_scores_of_a_run_that_had_only_them_left(made, record):
    killed = feed(tensorboard, record, made.points, end=False)
    older(record)
    assert killed.alive
    feed(tensorboard, record, [])
    agree(unscored(drawn(record)), series(made.curve))
    assert "scores/target.accuracy" in drawn(record)


def test_tensorboard_draws_the_only_point_of_a_method_that_trains_nothing(made, record):
    for _ in range(2):  # made twice
        feed(tensorboard, record, [made.points[2]._replace(step=0, terms={})])
        older(record)
    assert {tuple(step for step, _ in points) for points in unscored(drawn(record)).values()} == {(0,)}


# MLflow


def client(record: RunRecord) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{record.outputs}/mlflow/mlflow.db")


def runs(record: RunRecord, view: int = ViewType.ACTIVE_ONLY, experiment: str = "digits") -> list[Run]:
    found = client(record).get_experiment_by_name(experiment)
    return list(client(record).search_runs([found.experiment_id], run_view_type=view)) if found else []


def sent(record: RunRecord, of: Run) -> dict[str, list[tuple[int, float]]]:
    """All that MLflow has of a run's metrics, in the order of steps."""
    histories = {name: client(record).get_metric_history(of.info.run_id, name) for name in of.data.metrics}
    return {name: sorted((metric.step, metric.value) for metric in history) for name, history in histories.items()}


def test_mlflow_has_the_curve_the_configuration_and_the_scores(made, record):
    feed(mlflow, record, made.points)
    (stored,) = runs(record)
    agree(unscored(sent(record, stored)), series(made.curve))
    assert record.scores is not None
    assert stored.data.metrics["scores/target.accuracy"] == record.scores.target["accuracy"]
    assert stored.info.status == "FINISHED" and stored.info.run_name == record.folder.name
    assert stored.data.params["method"] == "mmd" and stored.data.params["train.steps"] == "24"
    assert stored.data.params["threads"] == "null" and stored.data.params["optimizer.lr"] == "0.003"
    tags = {name.removeprefix("tl_runner."): value for name, value in stored.data.tags.items() if "tl_runner" in name}
    known = {"id": record.id, "setting": record.setting, "seed": "0", "status": "ok", "error": ""}
    assert tags == {**known, "folder": str(record.folder)}
    assert str(stored.info.artifact_uri).startswith((record.outputs / "mlflow" / "artifacts").as_uri())
    assert [path.name for path in Path.cwd().iterdir()] == ["outputs"]  # and nothing beside it


@pytest.mark.slow
def test_mlflow_of_a_resumed_run_is_the_same_run_with_each_step_once(made, record):
    feed(partial(mlflow, every=0), record, made.points[:6], end=False)
    (before,) = runs(record)
    assert before.info.status == "RUNNING"
    feed(partial(mlflow, every=0), record, louder(made.points[3:]))
    (after,) = runs(record, ViewType.ALL)
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    late = series(made.curve)
    for name in made.points[0].terms:
        late[f"terms/{name}"][6:] = [(point.step, point.terms[name]) for point in louder(made.points[6:])]
    agree(unscored(sent(record, after)), late)


@pytest.mark.slow
def test_mlflow_gets_from_the_curve_what_was_not_sent_when_the_run_was_killed(made, record):
    feed(partial(mlflow, every=1e9), record, made.points[:6], end=False)
    (before,) = runs(record)
    assert before.data.metrics == {}  # points are sent in batches
    feed(partial(mlflow, every=1e9), record, made.points[5:])
    (after,) = runs(record, ViewType.ALL)
    assert after.info.run_id == before.info.run_id
    agree(unscored(sent(record, after)), series(made.curve))


@pytest.mark.slow
def test_mlflow_gets_the_last_points_of_a_run_that_was_killed_behind_them(made, record):
    feed(partial(mlflow, every=1e9), record, made.points, end=False)
    feed(partial(mlflow, every=1e9), record, [])
    agree(unscored(sent(record, *runs(record))), series(made.curve))


@pytest.mark.slow
def test_mlflow_lists_a_run_that_begins_anew_in_place_of_the_one_before(made, record):
    feed(mlflow, record, louder(made.points))
    feed(mlflow, record, made.points)
    (now,) = runs(record)
    agree(unscored(sent(record, now)), series(made.curve))
    assert len(runs(record, ViewType.ALL)) == 2


@pytest.mark.slow
def test_mlflow_leaves_alone_what_others_have_of_the_same_identity(made, record, tmp_path):
    uri = f"sqlite:///{tmp_path}/shared.db"
    elsewhere = replace(record, config={**record.config, "outputs": str(tmp_path / "other's")})
    for each in (record, elsewhere, elsewhere):
        feed(partial(mlflow, uri=uri, experiment="ours"), each, made.points)
    shared = MlflowClient(tracking_uri=uri)
    found = shared.get_experiment_by_name("ours")
    assert found is not None
    listed = shared.search_runs([found.experiment_id])
    assert Counter(run.data.tags["tl_runner.folder"] for run in listed) == {
        str(record.folder): 1, str(elsewhere.folder): 1
    }  # fmt: skip


@pytest.mark.slow
def test_mlflow_takes_many_long_and_oddly_named_things(made, record):
    method = {f"key_{index}": "x" * 10_000 for index in range(250)}
    record.config = {**record.config, "method": method}
    odd = made.points[0]._replace(
        terms={"‖Δμ‖² (source, target)": 1.0, "a/b": 2.0, **{f"t{i}": 0.5 for i in range(1500)}}
    )
    feed(mlflow, record, [odd])
    (stored,) = runs(record)
    assert sum(name.startswith("method.key_") for name in stored.data.params) == 250
    assert stored.data.params["method.key_249"] == "x" * 6000
    assert stored.data.metrics["terms/_Δμ_² _source_ target_"] == 1.0 and stored.data.metrics["terms/a/b"] == 2.0
    assert stored.data.metrics["terms/t1499"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "error", "shown"),
    [
        ("ok", None, "FINISHED"),
        ("failed", "KeyError: 'k'", "FAILED"),
        ("diverged", "at step 3", "FAILED"),
        ("failed", "interrupted", "KILLED"),
    ],
)
def test_mlflow_says_how_a_run_ended(made, record, status, error, shown):
    feed(mlflow, record, made.points[:2])  # it went well before, or so
    tracker = Guarded(mlflow, record)
    assert [run.info.status for run in runs(record)] == ["RUNNING"]
    record.status, record.error, record.scores = status, error, None
    tracker.end(record)
    (stored,) = runs(record)
    assert (stored.info.status, stored.data.tags["tl_runner.status"]) == (shown, status)
    assert stored.data.tags["tl_runner.error"] == (error or "")


@pytest.mark.slow
def test_mlflow_takes_the_experiment_that_another_job_has_just_made(record, monkeypatch):
    find = MlflowClient.get_experiment_by_name

    def late(self: MlflowClient, name: str) -> Any:
        monkeypatch.setattr(MlflowClient, "get_experiment_by_name", find)
        self.create_experiment(name)  # by the other job, after this one has looked

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert Guarded(mlflow, record).alive
    assert len(runs(record)) == 1


@pytest.mark.slow
def test_mlflow_takes_jobs_that_meet_at_a_new_database(made, record, tmp_path):
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps((record, made.points)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, tmp_path / "jobs.pickle"], check=True, timeout=200, env=environment)
    stored = runs(record)
    assert sorted(run.data.tags["tl_runner.seed"] for run in stored) == ["0", "1", "2", "3"]
    for each in stored:
        assert each.info.status == "FINISHED"
        agree(unscored(sent(record, each)), series(made.curve))


# Whatever happens


def test_no_tracker_leaves_nothing(made, record, tmp_path):
    feed(none, record, made.points)
    assert [path.name for path in record.outputs.iterdir()] == ["runs"]


@pytest.mark.slow
def test_points_of_the_shared_source_model_are_left_out(made, record):
    shared = [point._replace(phase="source model") for point in louder(made.points)]
    feed(tensorboard, record, [*shared, *made.points])
    feed(mlflow, record, [*shared, *made.points])
    agree(unscored(drawn(record)), series(made.curve))
    (stored,) = runs(record)
    agree(unscored(sent(record, stored)), series(made.curve))


class Broken:
    """A tracker that fails where it is told to."""

    def __init__(self, record: RunRecord, at: str):
        self.at, self.calls = at, 0
        self._fail("start")

    def point(self, point: Point) -> None:
        self._fail("point")

    def end(self, record: RunRecord) -> None:
        self._fail("end")

    def _fail(self, where: str) -> None:
        self.calls += 1
        if where == self.at:
            raise OSError(28, "No space left on device" + "\nand a long statement" * 100)


@pytest.mark.parametrize("at", ["start", "point", "end"])
def test_a_tracker_that_fails_is_said_once_and_left_alone(made, record, at, caplog):
    def broken(record: RunRecord) -> Broken:
        return Broken(record, at)

    tracker = feed(partial(broken), record, made.points)
    tracker.point(made.points[0])
    tracker.end(record)
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    (told,) = caplog.messages
    assert told.startswith("the tracker broken failed: OSError: [Errno 28] No space left on device and a long")
    assert told.endswith("The run continues without it") and len(told) < 400
    assert not tracker.alive


def test_real_failures_are_said_in_words(made, record, caplog):
    record.outputs.joinpath("tensorboard").write_text("a file where a folder should be")
    feed(tensorboard, record, made.points)
    feed(partial(mlflow, uri=f"sqlite:///{record.outputs}/tensorboard/x.db"), record, made.points)
    feed(partial(mlflow, uri=f"sqlite:///{record.outputs}"), record, made.points)
    feed(partial(mlflow, uri="nonsense://here"), record, made.points)
    (record.outputs / "mlflow").mkdir()
    (record.outputs / "mlflow" / "mlflow.db").write_bytes(b"no database" * 100)
    feed(mlflow, record, made.points)
    names = [message.removeprefix("the tracker ").split(" failed: ")[0] for message in caplog.messages]
    assert names == ["tensorboard", "mlflow", "mlflow", "mlflow", "mlflow"]
    assert all(message.endswith("The run continues without it") for message in caplog.messages)


@pytest.mark.parametrize(
    ("tracker", "module", "message"),
    [
        (tensorboard, "torch.utils.tensorboard", r'pip install "tl_runner\[tensorboard\]"'),
        (mlflow, "mlflow.tracking", r'tracker=mlflow needs mlflow.tracking.*pip install "tl_runner\[mlflow\]"'),
        (mlflow, "mlflow.store.tracking.sqlalchemy_store", r"tracker=none"),
    ],
)
def test_a_library_that_is_missing_is_refused_before_the_run(record, tracker, module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        Guarded(tracker, record)


def test_an_option_out_of_range_is_refused(record):
    with pytest.raises(UserError, match="every must be at least 0"):
        Guarded(partial(mlflow, every=-1), record)


def test_an_interrupted_run_stays_interrupted(record):
    def interrupted(record: RunRecord) -> Broken:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(interrupted, record)


def test_what_is_drawn_has_no_gaps_for_what_is_unknown(made):
    assert "floor" not in scalars(made.points[0]) and "source_val" not in scalars(made.points[0])
    assert flatten_leaves({"a": {"b": 1, "c": {}}, "d": None}) == {"a.b": 1, "a.c": {}, "d": None}
    assert "scores/source" not in final(replace(made.record, scores=replace(made.record.scores, source=None)))


if __name__ == "__main__":
    import_mlflow(None)
    track_at_once(Path(sys.argv[1]), partial(mlflow, every=0))
