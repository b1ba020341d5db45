"""Worker processes: each makes one run after another, apart from all others, and dies with its launcher.

They are forked from a server that has imported torch and never touched it, so that a new one starts in milliseconds.
What a run prints goes to its log, what kills a worker is put on the record of its run.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

from pebble import ProcessExpired, ProcessPool

from tl_runner.engine.job import Job, Outcome, run_job
from tl_runner.storage.record import RunRecord
from tl_runner.sweep.remote import WarningCollector, mark_lost, run_silently
from tl_runner.sweep.slots import Slot

IMPORTED = ["tl_runner.engine.run", "safetensors.torch", "scipy.optimize"]  # once, by the server: what every run needs
PATIENCE = 5  # looks at a process that is gone, before its outcome is no longer waited for
GRACE = 10.0  # seconds after its timeout in which a run may stop by itself

_context = multiprocessing.get_context("forkserver")
_inbox: Connection | None = None  # of this process, if it is a worker: ids of runs that shall stop
_output: Path | None = None  # what it has printed


class Worker:
    """A slot with its process; it is started with its first order and again after it died."""

    def __init__(self, slot: Slot, folder: Path, full_error: bool):
        _serve()
        self.slot, self.full_error = slot, full_error
        self.output = folder / f"{slot.number}.out"
        self._outbox, inbox = _context.Pipe()
        self._process: dict[str, Any] = {"initializer": _begin, "initargs": (inbox, self.output), "context": _context}
        self._pool = ProcessPool(1, **self._process)
        self._pid: int | None = None
        self._missed = 0  # times in a row that its process was looked for and was not there
        self.job: Job | None = None
        self._future: Future[Outcome] | None = None

    def give(self, job: Job) -> "Future[Outcome]":
        self.job, self._pid, self._missed = job, None, 0
        limit = job.record.config.get("timeout")
        hard = limit + GRACE if isinstance(limit, int | float) else None
        arguments = (job, self.slot, self.full_error)
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
            if self.job and run == self.job.record.id:  # and not an earlier one, of a process before
                self._pid = pid
        self._missed = self._missed + 1 if self._pid and not _lives(self._pid) else 0
        return self._missed > PATIENCE

    def take(self) -> Outcome:
        """The outcome of its order, which is over: by itself, or because the process is gone."""
        assert self.job and self._future
        job, self.job = self.job, None
        try:
            if self._future.done():
                return self._future.result()
            self._renew()
            error = _cause(0)
        except TimeoutError:
            error = f"did not stop within {GRACE:g} s after its timeout, and was killed"
        except ProcessExpired as death:
            error = _cause(death.exitcode)
        gather(self.output, job.record)
        outcome = mark_lost(job, error, stopping=False)
        log = outcome.record.folder / "run.log"
        return outcome._replace(message=f"{outcome.message}\nIts output is in {log}") if log.exists() else outcome

    def stop(self) -> None:
        """Ask its run to leave a checkpoint at its next point, and end."""
        if self.job:
            self._outbox.send(self.job.record.id)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._pool.stop()
        self._pool.join()

    def _renew(self) -> None:
        self.close()
        _serve()
        self._pool = ProcessPool(1, **self._process)


def gather(output: Path, record: RunRecord) -> None:
    """Move what a worker printed to the end of the log of the run that it was at."""
    if output.exists() and output.stat().st_size and record.folder.is_dir():
        with (record.folder / "run.log").open("ab") as log:
            log.write(b"printed while the run was made:\n" + output.read_bytes())
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
        return f"its process exited with code {code}"
    name = signal.Signals(-code).name
    killed = " – by the system, which ran out of memory, or by hand" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{killed}"


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


def _work(job: Job, slot: Slot, full_error: bool) -> Outcome:
    """In a worker: make the run with what its slot has."""
    assert _inbox
    _inbox.send((job.record.id, os.getpid()))
    record = job.record
    if record.config.get("threads") is None:
        record.config = {**record.config, "threads": slot.threads}
    if slot.device and record.config.get("device") == "auto":
        record.config = {**record.config, "device": slot.device}
    warnings = WarningCollector()
    logging.getLogger("tl_runner").addHandler(warnings)
    try:
        outcome = run_job(job, lambda: _is_stop_requested(record.id), run_silently, full_error)
    finally:
        logging.getLogger("tl_runner").removeHandler(warnings)
        sys.stdout.flush()
        sys.stderr.flush()
        assert _output
        gather(_output, record)
    return outcome._replace(warnings=tuple(warnings.messages))


def _is_stop_requested(run: str) -> bool:
    """Whether the launcher wants this run to stop; what it wanted of earlier ones is past."""
    assert _inbox
    while _inbox.poll():
        if _inbox.recv() == run:
            return True
    return False
