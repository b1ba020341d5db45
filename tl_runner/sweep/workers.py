"""Worker processes: each makes one run after another, apart from all others, and dies with its launcher.

They are forked from a server that has imported torch and never touched it, so that a new one starts in milliseconds.
What a run prints goes to its log, what kills a worker is put on the record of its run.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from pebble import ProcessExpired, ProcessPool

from tl_runner.engine.job import Job, Outcome, collect_warnings, run_job
from tl_runner.plurals import count_noun
from tl_runner.sweep.remote import mark_lost, run_silently
from tl_runner.sweep.slots import Slot

IMPORTED = ["tl_runner.engine.run", "safetensors.torch", "scipy.optimize"]  # once, by the server: what every run needs
PATIENCE = 5  # looks at a process that is gone, before its outcome is no longer waited for
GRACE = 10.0  # seconds after its timeout in which a run may stop by itself

_context = multiprocessing.get_context("forkserver")
_inbox: Connection | None = None  # of this process, if it is a worker: ids of runs that shall stop
_stopping: set[str] = set()  # those that have come
_output: Path | None = None  # what it has printed


class Taken(NamedTuple):
    """The outcomes of jobs that are over, and those that were at work side by side when `error` ended their process.

    Nobody knows which of these has done it.
    """

    outcomes: Sequence[Outcome]
    again: Sequence[Job] = ()
    error: str = ""


class Worker:
    """A slot with its process; it is started with its first jobs and again after it died."""

    def __init__(self, slot: Slot, folder: Path, full_error: bool):
        _serve()
        self.slot, self.full_error = slot, full_error
        self.output = folder / f"{slot.number}.out"
        self._outbox, inbox = _context.Pipe()
        self._process: dict[str, Any] = {"initializer": _begin, "initargs": (inbox, self.output), "context": _context}
        self._pool = ProcessPool(1, **self._process)
        self._pid: int | None = None
        self._missed = 0  # times in a row that its process was looked for and was not there
        self.jobs: Sequence[Job] = ()
        self._future: Future[list[Outcome]] | None = None

    def give(self, jobs: Sequence[Job]) -> "Future[list[Outcome]]":
        """Have the jobs made: one by itself, several side by side, see `engine.group`."""
        self.jobs, self._pid, self._missed = jobs, None, 0
        limit = jobs[0].record.config.get("timeout")  # with one, a run is made by itself: see `fusing`
        hard = limit + GRACE if isinstance(limit, int | float) else None
        arguments = (jobs, self.slot, self.full_error)
        for left in reversed(range(PATIENCE)):
            try:
                self._future = self._pool.schedule(_work, args=arguments, timeout=hard)
                break
            except (BrokenProcessPool, EOFError, OSError):  # somebody has killed the server
                if not left:
                    raise
                time.sleep(0.1)  # it is started anew once the system says that it is gone, a moment later
                self._renew()
        assert self._future
        return self._future

    @property
    def gone(self) -> bool:
        """Whether its process has left without a word; pebble takes an exit code of 0 for the end of its work."""
        while self._outbox.poll():
            run, pid = self._outbox.recv()
            if self.jobs and run == self.jobs[0].record.id:  # and not an earlier one, of a process before
                self._pid = pid
        self._missed = self._missed + 1 if self._pid and not _lives(self._pid) else 0
        return self._missed > PATIENCE

    def take(self) -> Taken:
        """What became of its jobs, which are over: by themselves, or because the process is gone."""
        assert self.jobs and self._future
        jobs, self.jobs = self.jobs, ()
        try:
            if self._future.done():
                return Taken(self._future.result())
            self._renew()
            error = _cause(0)
        except TimeoutError:
            error = f"did not stop within {GRACE:g} s after its timeout, and was killed"
        except ProcessExpired as death:
            error = _cause(death.exitcode)
        except Exception as fault:  # a fault of ours in what makes a group: its runs meet their own
            error = f"failed ({type(fault).__name__}: {fault})"
        gather(self.output, jobs)
        lost = [mark_lost(job, f"its process {error}", stopping=False) for job in jobs]
        if len(jobs) == 1:
            return Taken([_say_where(lost[0], jobs[0].record.folder / "run.log")])
        again = [job for job, outcome in zip(jobs, lost, strict=True) if outcome.record.status == "failed"]
        return Taken([outcome for outcome in lost if outcome.record.status != "failed"], again, error)

    def stop(self, job: Job) -> None:
        """Ask this run to leave a checkpoint at its next point, and end."""
        self._outbox.send(job.record.id)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._pool.stop()
        self._pool.join()

    def _renew(self) -> None:
        self.close()
        _serve()
        self._pool = ProcessPool(1, **self._process)


def _say_where(outcome: Outcome, log: Path) -> Outcome:
    """The outcome of a run whose process is gone; those that have ended before have nothing to say of it."""
    if not log.exists() or outcome.record.status != "failed":
        return outcome
    return outcome._replace(message=f"{outcome.message}\nIts output is in {log}")


def gather(output: Path, jobs: Sequence[Job]) -> None:
    """Move what a worker printed to the end of the log of the run that it was at, or of the first of a group's."""
    folder = jobs[0].record.folder
    if output.exists() and output.stat().st_size and folder.is_dir():
        made = "the run was" if len(jobs) == 1 else f"{count_noun(len(jobs), 'run')}, this one among them, were"
        with (folder / "run.log").open("ab") as log:
            log.write(f"printed while {made} made:\n".encode() + output.read_bytes())
        os.truncate(output, 0)


def _serve() -> None:
    """Start the fork server, unless it runs, out of reach of Ctrl-C, which would end it amid its imports."""
    resource_tracker.ensure_running()  # else the next but one starts it, and it unblocks signals
    _context.set_forkserver_preload(IMPORTED)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    killed = " – by the system, which ran out of memory, or by hand" if name == "SIGKILL" else ""
    return f"was killed by {name}{killed}"


def _begin(inbox: Connection, output: Path) -> None:
    """What a worker does first."""
    global _inbox, _output
    _inbox, _output = inbox, output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, which passes it on in order
    printed = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    faulthandler.enable()
    Thread(target=_die_with_launcher, daemon=True).start()


def _die_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    assert launcher
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _work(jobs: Sequence[Job], slot: Slot, full_error: bool) -> list[Outcome]:
    """In a worker: make the runs with what its slot has."""
    assert _inbox
    _inbox.send((jobs[0].record.id, os.getpid()))
    _stopping.clear()
    for record in (job.record for job in jobs):
        if record.config.get("threads") is None:
            record.config = {**record.config, "threads": slot.threads}
        if slot.device and record.config.get("device") == "auto":
            record.config = {**record.config, "device": slot.device}
    try:
        return _make(jobs, full_error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        assert _output
        gather(_output, jobs)


def _make(jobs: Sequence[Job], full_error: bool) -> list[Outcome]:
    if len(jobs) == 1:
        warnings: list[str] = []
        with collect_warnings(warnings):
            outcome = run_job(jobs[0], lambda: _is_stop_requested(jobs[0]), run_silently, full_error)
        return [outcome._replace(warnings=tuple(warnings))]
    from tl_runner.engine.group import run_group

    return [*run_group(jobs, _is_stop_requested, full_error)]


def _is_stop_requested(job: Job) -> bool:
    """Whether the launcher wants this run to stop; what it wanted of earlier ones is past."""
    assert _inbox
    while _inbox.poll():
        _stopping.add(_inbox.recv())
    return job.record.id in _stopping
