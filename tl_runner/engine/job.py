"""A run as a job of a command: skip it if it is complete, resume it if it was interrupted, leave it if it is locked."""

import logging
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tl_runner.config import check_settings
from tl_runner.errors import DivergedError, LockedError, TimeLimitError, UserError
from tl_runner.storage.lock import Claim, claim_lock
from tl_runner.storage.provenance import collect_provenance
from tl_runner.storage.record import RunRecord, read_stored
from tl_runner.storage.sections import DIAGNOSIS_LEVELS

if TYPE_CHECKING:
    from tl_runner.training.loop import Point

log = logging.getLogger(__name__)

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch has an error of its own for CUDA alone
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch for tracebacks serves for ours too


class Job(NamedTuple):
    """A run to make. `variant` distinguishes it from jobs of its sweep with the same choices and seed."""

    record: RunRecord
    variant: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [*self.record.choices.values(), self.variant, f"seed={self.record.seed}"]))


class Outcome(NamedTuple):
    """What happened to a job.

    ran: the run was made; its record says how it ended. skipped: it was complete, or had diverged, before. locked:
    another process is making it. stopped: it was asked to stop, and can be resumed. queued: it did not start. pruned: a
    search stopped it for good. warnings: to be printed. alone: why it did not train in the stack of its group.
    """

    record: RunRecord
    variant: str
    what: Literal["ran", "skipped", "locked", "stopped", "queued", "pruned"]
    message: str = ""
    warnings: tuple[str, ...] = ()
    alone: str = ""

    @property
    def failed(self) -> bool:
        return self.what in ("ran", "skipped") and self.record.status != "ok"


@contextmanager
def collect_warnings(messages: list[str]) -> Iterator[None]:
    """Within, what the package warns of is added to the messages: the process of the command prints them."""
    collector = _WarningCollector(messages)
    logger = logging.getLogger("tl_runner")
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)


class _WarningCollector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:  # errors are in the run's outcome
            self.messages.append(record.getMessage())


def run_job(
    job: Job,
    should_stop: Callable[[], bool],
    show: "Callable[[Generator[Point, None, RunRecord], RunRecord], RunRecord]",
    full_error: bool = False,
) -> Outcome:
    """Make the job's run by `show`, which iterates its points. Any error in it ends this run only.

    When `should_stop()` is true, the run stops at its next point with a checkpoint. `full_error` adds tracebacks to
    error messages.
    """
    home = Path.cwd()
    try:
        return _conclude(show(run_or_skip(job.record, should_stop), job.record), job)
    except BaseException as error:  # whatever a method of a user's raises
        return _explain(error, job, full_error)
    finally:
        os.chdir(home)  # which a method may have left


def follow_job(
    job: Job,
    should_stop: Callable[[], bool],
    full_error: bool,
    make: "Callable[[RunRecord], Generator[Point, None, RunRecord]]",
) -> "Generator[Point, None, Outcome]":
    """As `run_job`, of a run that `make` makes, for who makes several in turns: yields its points."""
    try:
        return _conclude((yield from run_or_skip(job.record, should_stop, make)), job)
    except GeneratorExit:
        raise
    except BaseException as error:
        return _explain(error, job, full_error)


def _conclude(ended: RunRecord, job: Job) -> Outcome:
    was_stored = ended is not job.record  # `run_or_skip` returns the stored record of a run that it skips
    return Outcome(ended, job.variant, "skipped" if was_stored else "ran", ended.error or "")


def _explain(error: BaseException, job: Job, full_error: bool) -> Outcome:
    """The outcome of a run that an error has ended."""
    record, variant = job
    if isinstance(error, LockedError):
        return Outcome(read_stored(record) or record, variant, "locked", str(error))
    if isinstance(error, KeyboardInterrupt):
        return Outcome(record, variant, "stopped")
    if record.status != "diverged":  # what it says on disk may be another word, for want of room
        record.status = "failed"
    return Outcome(record, variant, "ran", _describe_error(error, record, full_error))


def run_or_skip(
    record: RunRecord,
    should_stop: Callable[[], bool],
    make: "Callable[[RunRecord], Generator[Point, None, RunRecord]] | None" = None,
) -> "Generator[Point, None, RunRecord]":
    """Return the stored run if there is one to skip to; else make the run under its lock, by `engine.run` or `make`."""
    if earlier := find_skippable(record):
        return earlier
    _claim_outputs(record)
    with claim_lock(record.lock.absolute()) as claim:
        if earlier := find_skippable(record):  # which another process made meanwhile
            return earlier
        if make is None:
            from tl_runner.engine.run import run as make

        limit = record.config.get("timeout")
        return (
            yield from _watched(make(record), claim, should_stop, limit if isinstance(limit, int | float) else None)
        )


def _claim_outputs(record: RunRecord) -> None:
    """Make the folder of outputs; raises `UserError` where it can't be made or written to."""
    try:
        record.lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"outputs={record.outputs} can't be written to ({error.strerror}): name another folder"
        ) from error


def find_skippable(record: RunRecord) -> RunRecord | None:
    """The stored run of this identity if it is complete or diverged, and need not be made again.

    Logs a warning where the stored run used other versions or another device; raises `UserError` where a later version
    of tl_runner stored it.
    """
    earlier = read_stored(record)
    if earlier is None and (record.folder / "run.json").exists():
        log.warning("%s can't be read: running it again", record.folder / "run.json")
    if earlier is None or earlier.status not in ("ok", "diverged"):
        return None
    wanted = check_settings(record.config)
    if wanted.force:
        return None
    if wanted.save and earlier.status == "ok" and not (earlier.folder / "model.safetensors").exists():
        log.warning("%s is complete, but its weights are missing: running it again", earlier.folder.name)
        return None
    if earlier.status == "ok" and _diagnosis_level(record) > _diagnosis_level(earlier):
        log.warning("%s is complete, but with a smaller diagnosis: running it again", earlier.folder.name)
        return None
    then, now = earlier.environment.versions, collect_provenance().versions
    changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    if wanted.device != "auto" and not str(earlier.environment.device).startswith(wanted.device):
        changed.append(f"device {earlier.environment.device} then, {wanted.device} now")
    if changed:
        log.warning("the stored run used a different setup: %s", "; ".join(changed))
    return earlier


def _diagnosis_level(record: RunRecord) -> int:
    """How much of a diagnosis a configuration asks for."""
    node = record.config.get("diagnose")
    level = node.get("level") if isinstance(node, dict) else None
    return DIAGNOSIS_LEVELS.index(level) if level in DIAGNOSIS_LEVELS else 0


def _watched(
    points: "Generator[Point, None, RunRecord]", claim: Claim, should_stop: Callable[[], bool], limit: float | None
) -> "Generator[Point, None, RunRecord]":
    """The same points. After each one, writes the progress into the lock file, and stops the run if it must stop."""
    started = time.monotonic()
    while True:
        try:
            point = next(points)
        except StopIteration as end:
            return end.value
        try:
            claim.tell(step=point.step, steps=point.steps, phase=point.phase)
            if should_stop():
                raise KeyboardInterrupt
            if limit is not None and time.monotonic() - started > limit:
                raise TimeLimitError(f"it exceeded timeout={limit:g} s at step {point.step} of {point.steps}")
            yield point
        except BaseException as error:
            points.throw(error)  # so the run leaves a checkpoint, and its record says why
            raise


def _describe_error(error: BaseException, record: RunRecord, full: bool) -> str:
    """The message of an error. One that no code of ours raised on purpose has its type and the traceback's file."""
    if full:
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, UserError | DivergedError | TimeLimitError):
        return str(error)
    trace, message = record.folder / "run.log", f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(words in message for words in OUT_OF_MEMORY):
        message += "\nNot enough memory: try a smaller train.batch, backbone or method"
    return message + (f"\nThe traceback is in {trace}" if trace.exists() else "")
