"""A sweep by a backend that starts processes elsewhere, perhaps on other machines: jobs in, outcomes out.

A backend sends a job to a process and brings its outcome back. Each run finds out for itself whether it is complete,
interrupted or locked. So a process that is lost costs no more than the work since its last checkpoint.
"""

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tl_runner.engine.job import Job, Outcome, collect_warnings, find_skippable, run_job
from tl_runner.engine.recorder import record_lost_process
from tl_runner.errors import LockedError
from tl_runner.storage.lock import claim_lock, read_owner
from tl_runner.storage.record import read_stored

GRACE = 60.0  # seconds in which jobs that shall stop may leave a checkpoint
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # what backends send to a job that shall stop


@dataclass(frozen=True)
class RemoteJob:
    """A job, with the working folder and module paths that its process needs to find the same files and code."""

    job: Job
    threads: int
    full_error: bool
    folder: Path = field(default_factory=Path.cwd)
    modules: tuple[str, ...] = field(default_factory=lambda: tuple(str(Path(entry).resolve()) for entry in sys.path))

    def make(self) -> tuple[Outcome, set[int]]:
        """The run's outcome, and the signals that came meanwhile. The first of them stops it, with a checkpoint."""
        record, came = self.job.record, set[int]()
        try:
            os.chdir(self.folder)
        except OSError as error:
            record.status = "failed"
            told = f"{self.folder} can't be entered on {platform.node()}, all machines must share it: {error}"
            return Outcome(*self.job, "ran", told), came
        sys.path.extend(entry for entry in self.modules if entry not in sys.path)
        if record.config.get("threads") is None:
            record.config = {**record.config, "threads": self.threads}
        before = {number: signal.signal(number, lambda got, _: came.add(got)) for number in STOP}
        warnings: list[str] = []
        try:
            with collect_warnings(warnings):
                outcome = run_job(self.job, lambda: bool(came), run_silently, self.full_error)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return outcome._replace(warnings=tuple(warnings)), came


class Backend(Protocol):
    """Starts processes, and knows which of them have ended. A handle stands for a job that was sent."""

    pause: float  # seconds between two looks

    def send(self, remote_jobs: Sequence[RemoteJob]) -> Sequence[Any]:
        """Start them; raises `UserError` if that can't be done."""
        ...

    def over(self, handles: Collection[Any]) -> Iterable[tuple[Any, Outcome | str]]:
        """Those of them that are over, each with its outcome, or with why there is none."""
        ...

    def stop(self, handles: Collection[Any]) -> None: ...


def run_remotely(
    jobs: Sequence[Job],
    backend: Backend,
    threads: int,
    full_error: bool,
    asked: Callable[[], bool],
    under_way: Callable[[Sequence[Job]], None] = lambda running: None,
) -> Iterator[Outcome]:
    """Run the jobs, and yield each outcome as soon as it is known. A job that dies stops no other.

    When the sweep is `asked` to stop, running jobs leave a checkpoint and end, and what was not begun is waiting.
    """
    left = []
    for job in jobs:
        if earlier := find_skippable(job.record):
            yield Outcome(earlier, job.variant, "skipped", earlier.error or "")
        else:
            left.append(job)
    handles = backend.send([RemoteJob(job, threads, full_error) for job in left]) if left else []
    waiting = dict(zip(handles, left, strict=True))
    until = None
    while waiting:
        for handle, found in list(backend.over(waiting)):
            job = waiting.pop(handle)
            yield found if isinstance(found, Outcome) else mark_lost(job, found, until is not None)
        under_way([job for job in waiting.values() if read_owner(job.record.lock)])
        if until is None and asked():
            backend.stop(waiting)
            until = time.monotonic() + GRACE
        elif until is not None and time.monotonic() > until:
            yield from (mark_lost(job, "", stopping=True) for job in waiting.values())
            return
        if waiting:
            time.sleep(backend.pause)


def mark_lost(job: Job, why: str, stopping: bool) -> Outcome:
    """The outcome of a job whose process brought none back. Its checkpoint stays."""
    if record := find_skippable(job.record):  # its process died after its run had ended
        return Outcome(record, job.variant, "ran", record.error or "")
    record = read_stored(job.record)
    if stopping:
        return Outcome(record or job.record, job.variant, "stopped" if record else "queued")
    record = record or job.record
    try:
        with claim_lock(record.lock):
            record_lost_process(record, why.partition("\n")[0])
    except LockedError:  # another process makes it, or one on another machine may still be running
        pass
    record.status = "failed"  # of this attempt: what is stored may be an earlier run that force=true was to replace
    return Outcome(record, job.variant, "ran", why)


def run_silently(points: Any, _: Any) -> Any:
    """Make a run of which nothing is shown; its record."""
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value
