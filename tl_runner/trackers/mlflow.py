"""MLflow: a run of its own for each run, found again by its identity, in a database below outputs or on a server."""

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner.errors import check_range
from tl_runner.storage.lock import hold_lock
from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import SentSteps, Tracker, final, flatten_configuration, needed, scalars
from tl_runner.training.loop import Point

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

# What MLflow reads when it is imported; a value that the user has set stays.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it tells its makers what is called
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # `Guarded` says in a line what MLflow says in a hundred
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the table of a sweep stands there
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # 6 s; its 7 keep a run waiting for minutes for a server that is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
}
STATUS = {"ok": "FINISHED", "failed": "FAILED", "diverged": "FAILED"}


def mlflow(record: RunRecord, uri: str | None = None, experiment: str | None = None, every: float = 1.0) -> Tracker:
    """A run in MLflow.

    uri: of the server or database; None is `<outputs>/mlflow/mlflow.db`. experiment: None is the dataset's name.
    every: seconds between two batches of points, since each is a transaction or a request.
    """
    check_range(0, every=every)
    import_mlflow(uri)
    home = (record.outputs / "mlflow").resolve()
    experiment = experiment or record.choices["dataset"]
    client = _client(uri or f"sqlite:///{home / 'mlflow.db'}")
    artifacts = None if uri else (home / "artifacts" / experiment).as_uri()
    return MlflowRun(client, _experiment(client, experiment, artifacts), record, every)


def import_mlflow(uri: str | None) -> None:
    """Import what this uri needs, and open nothing: processes that are forked afterwards save the second it takes.

    Raises `UserError` where it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with needed("mlflow"):
        import_module("mlflow.tracking")
        if uri is None or uri.startswith("sqlite:"):
            import_module("mlflow.store.tracking.sqlalchemy_store")


class MlflowRun:
    """The MLflow run of a run.

    A resumed run continues the same one, and steps that are there already are not sent again. A run that begins
    anew takes the place of the one before, which MLflow then lists as deleted: it can't take points back.
    """

    def __init__(self, client: "MlflowClient", experiment: str, record: RunRecord, every: float):
        self.client = client
        self.experiment = experiment
        self.record = record
        self.every = every
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()
        if earlier := self._earlier():
            self.run = earlier.info.run_id
            self._steps = SentSteps(record, (each.step for each in client.get_metric_history(self.run, "seconds")))
            client.update_run(self.run, status="RUNNING")
        else:
            self.run = self._create()
            self._steps = SentSteps(record)

    def point(self, point: Point) -> None:
        if self._steps.begins_anew(point):
            self.client.delete_run(self.run)
            self.run = self._create()
        for each in self._steps.complete(point):
            self._add(scalars(each), each.step)
        if time.monotonic() - self._sent >= self.every:
            self._send()

    def end(self, record: RunRecord) -> None:
        for each in self._steps.rest():
            self._add(scalars(each), each.step)
        if record.scores:
            self._add(final(record), int(record.scores.last["step"]))
        self._send({"tl_runner.status": record.status, "tl_runner.error": record.error or ""})
        interrupted = record.error == "interrupted"
        self.client.set_terminated(self.run, "KILLED" if interrupted else STATUS.get(record.status, "KILLED"))

    def _earlier(self) -> "Run | None":
        """The run of the same identity and the same folder: on a server there may be others' runs of that identity."""
        folder = str(self.record.folder.resolve())
        runs = self.client.search_runs([self.experiment], f"tags.`tl_runner.id` = '{self.record.id}'")
        return next((run for run in runs if run.data.tags.get("tl_runner.folder") == folder), None)

    def _create(self) -> str:
        from mlflow.entities import Param

        record = self.record
        tags = {"id": record.id, "setting": record.setting, "seed": record.seed, "folder": record.folder.resolve()}
        run = self.client.create_run(
            self.experiment,
            run_name=record.folder.name,
            tags={f"tl_runner.{name}": str(value) for name, value in {**tags, "status": record.status}.items()},
        )
        params = [Param(name, _text(value)) for name, value in flatten_configuration(record).items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run.info.run_id

    def _add(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]

    def _send(self, tags: Mapping[str, str] | None = None) -> None:
        """What is waiting; MLflow's client keeps to the numbers and lengths that a request may have."""
        from mlflow.entities import RunTag

        told = [RunTag(name, value) for name, value in (tags or {}).items()]
        self.client.log_batch(self.run, self._waiting, tags=told)
        self._waiting = []
        self._sent = time.monotonic()


def _client(uri: str) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    scheme, _, path = uri.partition(":///")
    if scheme != "sqlite":
        return MlflowClient(tracking_uri=uri)
    file = Path(path.partition("?")[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(file):  # MLflow fails where several processes make the tables of a new database
        with closing(sqlite3.connect(file)) as database:  # and tries for 100 s to open what can't be opened
            database.execute("PRAGMA schema_version")
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # here at the latest it has opened the database
    return client


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The id of an experiment, which is made if nobody has yet."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, artifacts)
    except MlflowException:
        if found := client.get_experiment_by_name(name):  # another job was faster
            return found.experiment_id
        raise


def _text(value: object) -> str:
    """As YAML and the command line say it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
