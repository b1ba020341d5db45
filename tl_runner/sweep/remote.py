"""A sweep by an engine that starts processes elsewhere, perhaps on other machines: orders in, outcomes out.

An engine brings a parcel to a process and its outcome back. What is made before, cut off or at work is for the run
itself to know, so all that is lost with a process is its work since the last checkpoint.
"""

import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tl_runner.engine.job import Order, Outcome, find_completed, run_order
from tl_runner.engine.recorder import record_lost_process
from tl_runner.errors import Busy
from tl_runner.storage.lock import claim_lock, read_owner
from tl_runner.storage.record import read_stored

GRACE = 60.0  # seconds in which jobs that shall stop may leave a checkpoint
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # what engines send to a job that shall stop


@dataclass(frozen=True)
class Parcel:
    """An order, and what its run needs to find in another process what it would find in this one."""

    order: Order
    threads: int
    full_error: bool
    folder: Path = field(default_factory=Path.cwd)
    modules: tuple[str, ...] = field(default_factory=lambda: tuple(str(Path(entry).resolve()) for entry in sys.path))

    def make(self) -> tuple[Outcome, set[int]]:
        """The run's outcome, and the signals that came meanwhile. The first of them stops it, with a checkpoint."""
        record, came = self.order.record, set[int]()
        try:
            os.chdir(self.folder)
        except OSError as error:
            record.status = "failed"
            told = f"{self.folder} can't be entered on {platform.node()}, all machines must share it: {error}"
            return Outcome(*self.order, "made", told), came
        sys.path.extend(entry for entry in self.modules if entry not in sys.path)
        if record.config.get("threads") is None:
            record.config = {**record.config, "threads": self.threads}
        before = {number: signal.signal(number, lambda got, _: came.add(got)) for number in STOP}
        notes, log = Notes(), logging.getLogger("tl_runner")
        log.addHandler(notes)
        try:
            outcome = run_order(self.order, lambda: bool(came), run_silently, self.full_error)
        finally:
            log.removeHandler(notes)
            for number, handler in before.items():
                signal.signal(number, handler)
        return outcome._replace(notes=tuple(notes.said)), came


class Engine(Protocol):
    """Starts processes, and knows which of them are over. A handle stands for a parcel that was sent."""

    pause: float  # seconds between two looks

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Any]:
        """Start them; raises `Refused` if that can't be done."""
        ...

    def over(self, handles: Collection[Any]) -> Iterable[tuple[Any, Outcome | str]]:
        """Those of them that are over, each with its outcome, or with why there is none."""
        ...

    def stop(self, handles: Collection[Any]) -> None: ...


def sweep(
    orders: Sequence[Order],
    engine: Engine,
    threads: int,
    full_error: bool,
    asked: Callable[[], bool],
    under_way: Callable[[Sequence[Order]], None] = lambda running: None,
) -> Iterator[Outcome]:
    """Make the orders, and yield what became of each as soon as it is known; the others of a job that dies go on.

    When the sweep is `asked` to stop, running jobs leave a checkpoint and end, and what was not begun is waiting.
    """
    left = []
    for order in orders:
        if earlier := find_completed(order.record):
            yield Outcome(earlier, order.variant, "kept", earlier.error or "")
        else:
            left.append(order)
    handles = engine.send([Parcel(order, threads, full_error) for order in left]) if left else []
    waiting = dict(zip(handles, left, strict=True))
    until = None
    while waiting:
        for handle, found in list(engine.over(waiting)):
            order = waiting.pop(handle)
            yield found if isinstance(found, Outcome) else mark_lost(order, found, until is not None)
        under_way([order for order in waiting.values() if read_owner(order.record.lock)])
        if until is None and asked():
            engine.stop(waiting)
            until = time.monotonic() + GRACE
        elif until is not None and time.monotonic() > until:
            yield from (mark_lost(order, "", stopping=True) for order in waiting.values())
            return
        if waiting:
            time.sleep(engine.pause)


def mark_lost(order: Order, why: str, stopping: bool) -> Outcome:
    """What became of an order whose job brought no outcome back. Its checkpoint stays."""
    if record := find_completed(order.record):  # its process died after its run had ended
        return Outcome(record, order.variant, "made", record.error or "")
    record = read_stored(order.record)
    if stopping:
        return Outcome(record or order.record, order.variant, "stopped" if record else "waiting")
    record = record or order.record
    try:
        with claim_lock(record.lock):
            record_lost_process(record, why.partition("\n")[0])
    except Busy:  # somebody goes on with it already, or on another machine may still be at it
        pass
    record.status = "failed"  # of this attempt: what is stored may be an earlier run that force=true was to replace
    return Outcome(record, order.variant, "made", why)


def run_silently(points: Any, _: Any) -> Any:
    """Make a run of which nothing is shown; its record."""
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value


class Notes(logging.Handler):
    """Warnings of a run, for who waits for it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: Any) -> None:
        if record.levelno < logging.ERROR:  # an error is told as the run's
            self.said.append(record.getMessage())
