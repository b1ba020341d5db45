"""Trackio: a run of its own for each run, in a SQLite file per project on this machine."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tl_runner.errors import UserError, check_range
from tl_runner.storage.lock import hold_lock
from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import (
    SentSteps,
    Tracker,
    final,
    flatten_configuration,
    name_group,
    name_place,
    needed,
    scalars,
)
from tl_runner.training.loop import Point


def trackio(record: RunRecord, project: str | None = None, folder: str | None = None, every: float = 1.0) -> Tracker:
    """A run in Trackio, which `TRACKIO_DIR=FOLDER trackio show` draws. Nothing leaves this machine.

    project: None is the dataset's name. folder: None is `<outputs>/trackio`. every: seconds between two batches of
    points, since each is a transaction.
    """
    check_range(0, every=every)
    with needed("trackio"):
        library = import_module("trackio.sqlite_storage")
    project = project or record.choices["dataset"]
    try:
        library.SQLiteStorage.validate_project_name(project)
    except ValueError as error:
        raise UserError(f"tracker.project={project} can't be a project of Trackio: {error}") from error
    return TrackioRun(
        library, Path(folder or record.outputs / "trackio").expanduser().resolve(), project, record, every
    )


class Row(NamedTuple):
    """What Trackio is to keep of a moment; of two rows with the same id it keeps the first."""

    id: str
    step: int
    values: Mapping[str, float]
    time: str


class TrackioRun:
    """The Trackio run of a run.

    It writes to Trackio's store itself, as Trackio's own imports do. `trackio.init` would print, start a thread, follow
    variables as TRACKIO_SPACE_ID to a server, and hide errors in warnings, which nobody could then act on.
    A resumed run continues the same one, and steps that are there already stay. One that begins anew replaces it.
    """

    def __init__(self, library: Any, folder: Path, project: str, record: RunRecord, every: float):
        self.library = library
        self.folder = folder
        self.project = project
        self.record = record
        self.every = every
        self.run = name_place(record)
        self._waiting: list[Row] = []
        self._sent = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with self._storage() as storage:
            earlier = storage.get_logs(project, record.folder.name, run_id=self.run)
        self._steps = SentSteps(record, (row["step"] for row in earlier))

    def point(self, point: Point) -> None:
        if self._steps.begins_anew(point):
            with self._storage() as storage:
                storage.delete_run(self.project, self.record.folder.name, run_id=self.run)
        for each in self._steps.complete(point):
            self._add(str(each.step), scalars(each), each.step)
        if time.monotonic() - self._sent >= self.every:
            self._send(self.record)

    def end(self, record: RunRecord) -> None:
        for each in self._steps.rest():
            self._add(str(each.step), scalars(each), each.step)
        self._add(record.status, final(record), self._steps.last)  # Trackio takes a status only beside a row
        self._send(record)

    def _add(self, name: str, values: Mapping[str, float], step: int) -> None:
        self._waiting.append(Row(f"{self.run}/{name}", step, values, datetime.now(UTC).isoformat()))

    def _send(self, record: RunRecord) -> None:
        """What is waiting, in one transaction, beside the configuration and how the run is."""
        config = {
            **flatten_configuration(record),
            "setting": record.setting,
            "status": record.status,
            "error": record.error or "",
            "_Group": name_group(record),
        }
        with self._storage() as storage:
            storage.bulk_log(
                self.project,
                record.folder.name,
                [dict(row.values) for row in self._waiting],
                steps=[row.step for row in self._waiting],
                timestamps=[row.time for row in self._waiting],
                log_ids=[row.id for row in self._waiting],
                config=config,
                run_id=self.run,
            )
        self._waiting = []
        self._sent = time.monotonic()

    @contextmanager
    def _storage(self) -> Iterator[Any]:
        """Trackio's store in this run's folder: Trackio knows one folder per process, and reads it when imported.

        Processes wait for each other here; Trackio itself gives up after 10 s of trying ten times a second.
        """
        storage, before = self.library.SQLiteStorage, self.library.TRACKIO_DIR
        with hold_lock(self.folder / storage.get_project_db_filename(self.project)):
            self.library.TRACKIO_DIR = self.folder
            try:
                yield storage
            finally:
                self.library.TRACKIO_DIR = before
