"""A run as a job: left alone where it was made before, gone on with where it was cut off, left to whoever is at it."""

import logging
import os
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tl_runner.config import settings
from tl_runner.errors import Busy, Diverged, Late, Refused
from tl_runner.storage.lock import Claim, claim_lock
from tl_runner.storage.provenance import collect_provenance
from tl_runner.storage.record import RunRecord, read_stored

if TYPE_CHECKING:
    from tl_runner.training.loop import Point

log = logging.getLogger(__name__)

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch has an error of its own for CUDA alone
LEVELS = ("none", "basic", "full")  # of `diagnose`
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch for tracebacks serves for ours too


class Order(NamedTuple):
    """A run to be made; `variant` tells it from others of its sweep, beside the choices and the seed."""

    record: RunRecord
    variant: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [*self.record.choices.values(), self.variant, f"seed={self.record.seed}"]))


class Outcome(NamedTuple):
    """What became of an order, and what to tell of it.

    made: it was run, well or not, see its record; kept: it was made before; elsewhere: another process is at it;
    stopped: it was asked to stop, and goes on when it is typed again; waiting: it was not begun; pruned: a search has
    stopped it for good.
    """

    record: RunRecord
    variant: str
    what: Literal["made", "kept", "elsewhere", "stopped", "waiting", "pruned"]
    told: str = ""
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.what in ("made", "kept") and self.record.status != "ok"


def run_order(
    order: Order,
    asked: Callable[[], bool],
    show: "Callable[[Generator[Point, None, RunRecord], RunRecord], RunRecord]",
    full_error: bool = False,
) -> Outcome:
    """Make an order's run by `show`, which iterates its points. Whatever goes wrong in it ends this run only.

    `asked` says whether it shall stop; it does so at its next point, and leaves a checkpoint. `full_error`: tell errors
    with their tracebacks.
    """
    record, variant = order
    home = Path.cwd()
    try:
        made = show(run_or_skip(record, asked), record)
        return Outcome(made, variant, "made" if made is record else "kept", made.error or "")
    except Busy as error:
        return Outcome(read_stored(record) or record, variant, "elsewhere", str(error))
    except KeyboardInterrupt:
        return Outcome(record, variant, "stopped")
    except BaseException as error:  # whatever a method of a user's raises
        if record.status != "diverged":  # what it says on disk may be another word, for want of room
            record.status = "failed"
        return Outcome(record, variant, "made", _told(error, record, full_error))
    finally:
        os.chdir(home)  # which a method may have left


def run_or_skip(record: RunRecord, asked: Callable[[], bool]) -> "Generator[Point, None, RunRecord]":
    """The stored run, where it was made before; else the run, made under its lock."""
    if earlier := find_completed(record):
        return earlier
    with claim_lock(record.lock.absolute()) as claim:
        if earlier := find_completed(record):  # by whoever held the lock until now
            return earlier
        from tl_runner.engine.run import run

        limit = record.config.get("timeout")
        return (yield from _watched(run(record), claim, asked, limit if isinstance(limit, int | float) else None))


def find_completed(record: RunRecord) -> RunRecord | None:
    """The run of the same identity that has come to an end, good or diverged, unless it must be made again.

    What has changed since is said.
    """
    earlier = read_stored(record)
    if earlier is None and (record.folder / "run.json").exists():
        log.warning("%s can't be read: running it again", record.folder / "run.json")
    if earlier is None or earlier.status not in ("ok", "diverged"):
        return None
    wanted = settings(record.config)
    if wanted.force:
        return None
    if wanted.save and earlier.status == "ok" and not (earlier.folder / "model.safetensors").exists():
        log.warning("%s is complete, but its weights are missing: running it again", earlier.folder.name)
        return None
    if earlier.status == "ok" and _thoroughness(record) > _thoroughness(earlier):
        log.warning("%s is complete, but with a smaller diagnosis: running it again", earlier.folder.name)
        return None
    then, now = earlier.environment.versions, collect_provenance().versions
    changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    if wanted.device != "auto" and not str(earlier.environment.device).startswith(wanted.device):
        changed.append(f"device {earlier.environment.device} then, {wanted.device} now")
    if changed:
        log.warning("the stored run used a different setup: %s", "; ".join(changed))
    return earlier


def _thoroughness(record: RunRecord) -> int:
    """How much of a diagnosis a configuration asks for."""
    node = record.config.get("diagnose")
    level = node.get("level") if isinstance(node, dict) else None
    return LEVELS.index(level) if level in LEVELS else 0


def _watched(
    points: "Generator[Point, None, RunRecord]", claim: Claim, asked: Callable[[], bool], limit: float | None
) -> "Generator[Point, None, RunRecord]":
    """The same points; on their way others are told how far the run is, and it is stopped when it is time to."""
    started = time.monotonic()
    while True:
        try:
            point = next(points)
        except StopIteration as end:
            return end.value
        try:
            claim.tell(step=point.step, steps=point.steps, phase=point.phase)
            if asked():
                raise KeyboardInterrupt
            if limit is not None and time.monotonic() - started > limit:
                raise Late(f"it exceeded timeout={limit:g} s at step {point.step} of {point.steps}")
            yield point
        except BaseException as error:
            points.throw(error)  # so the run leaves a checkpoint, and its record says why
            raise


def _told(error: BaseException, record: RunRecord, full: bool) -> str:
    """An error for a person; one that was not meant for them comes with its kind and the place of the traceback."""
    if full:
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, Refused | Diverged | Late):
        return str(error)
    trace, said = record.folder / "run.log", f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY):
        said += "\nNot enough memory: try a smaller train.batch, backbone or method"
    return said + (f"\nThe traceback is in {trace}" if trace.exists() else "")
