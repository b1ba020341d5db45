"""Weights & Biases: a run of its own for each run, in a folder that `wandb sync` sends later, or sent at once."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from tl_runner.errors import UserError
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

if TYPE_CHECKING:
    from wandb import Run

# What wandb reads when it is imported; a value that the user has set stays.
ENVIRONMENT = {
    "WANDB_ERROR_REPORTING": "false",  # else it tells its makers what fails
    "WANDB_SILENT": "true",  # the table of a sweep stands there
}
# What a run needs not tell: the words of its configuration say how it was made, and run.json where.
SETTINGS = {
    "silent": True,
    "console": "off",  # else it keeps what is printed
    "save_code": False,
    "disable_git": True,
    "host": "unknown",  # else the machine's name
    "x_disable_meta": True,  # the user, the command, the hardware
    "x_disable_machine_info": True,
    "x_disable_stats": True,  # load and memory, every 15 s
    "x_save_requirements": False,
    "init_timeout": 30.0,  # seconds; its 90 keep a run waiting for a server that is gone
    "finish_timeout": 60.0,  # and without it until all is sent; what is left `wandb sync` can send
}
EXIT = {"ok": 0, "running": 255}  # an interrupted run stays `running`; anything else failed


def wandb(
    record: RunRecord,
    project: str | None = None,
    folder: str | None = None,
    mode: Literal["offline", "online"] = "offline",
) -> Tracker:
    """A run of Weights & Biases.

    project: None is the dataset's name. folder: where wandb makes its folder `wandb/`; None is outputs. mode: `offline`
    needs no account and opens no connection; `online` sends each point at once.
    """
    place = Path(folder or record.outputs).expanduser().resolve()
    for name, value in {**ENVIRONMENT, "WANDB_CACHE_DIR": str(place / "wandb" / "cache")}.items():
        os.environ.setdefault(name, value)
    with needed("wandb"):
        library = import_module("wandb")
    if mode == "online" and not library.login(prompt=False):
        raise UserError(
            "tracker.mode=online needs an account of Weights & Biases: call `wandb login`, set WANDB_API_KEY,"
            " or set tracker.mode=offline"
        )
    return WandbRun(library, place, project or record.choices["dataset"], mode, record)


_at_work: WeakSet["WandbRun"] = WeakSet()  # in this process: runs of a stack are made side by side


class WandbRun:
    """The run of Weights & Biases of a run.

    Offline, a run that is resumed or begins anew writes its curve once more, from its first point, and its folder takes
    the place of the one before. Online it continues the same one, and steps that are there already are not sent again.
    """

    def __init__(self, library: Any, place: Path, project: str, mode: str, record: RunRecord):
        self.library = library
        self.record = record
        _at_work.add(self)
        name = name_place(record)
        _claim_folder(place / "wandb")
        for earlier in (place / "wandb").glob(f"offline-run-*-{name}") if mode == "offline" else ():
            shutil.rmtree(earlier)
        with _hooks_restored():
            self.run: Run = library.init(
                dir=str(place),
                project=project,
                mode=mode,
                id=name,
                name=record.folder.name,
                config=flatten_configuration(record),
                tags=[record.setting],
                group=name_group(record),
                resume="never" if mode == "offline" else "allow",
                reinit="create_new",
                settings=library.Settings(**SETTINGS),
            )
        self._steps = SentSteps(record, range(self.run.step))

    def point(self, point: Point) -> None:
        for each in self._steps.complete(point):
            self.run.log(scalars(each), step=each.step)

    def end(self, record: RunRecord) -> None:
        for each in self._steps.rest():
            self.run.log(scalars(each), step=each.step)
        self.run.summary.update({**final(record), "status": record.status, "error": record.error or ""})
        with _hooks_restored():
            self.run.finish(exit_code=EXIT.get(record.status, 1))
        _at_work.discard(self)
        if not _at_work and self.library.run is None:  # else it would end other runs of ours, or one of the user's
            self.library.teardown()  # waits until the file is whole, and a job's process ends without Python's atexit


def _claim_folder(folder: Path) -> None:
    """Make the folder, or raise: where wandb can't write to one, it takes one below /tmp instead."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is read-only")


@contextmanager
def _hooks_restored() -> Iterator[None]:
    """wandb puts itself before `sys.exit` and tracebacks, and stays there after its run."""
    kept = sys.exit, sys.excepthook
    try:
        yield
    finally:
        sys.exit, sys.excepthook = kept
