"""What tests let other processes do, forked from the server that workers of a sweep are forked from."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tl_runner.engine.job import Job, run_job
from tl_runner.storage.record import RunRecord, describe_run
from tl_runner.sweep.workers import IMPORTED

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*IMPORTED, "tl_runner.sweep.workers"])

# A user's method; `how` says what goes wrong halfway.
FAULTY = """
import ctypes, os, sys, time
from pathlib import Path
from tl_runner.methods.source_only import SourceOnly

GARBAGE = b"\\x1b[2J\\x1b[31mGARBAGE \\xff\\x00\\r half a line"

class Faulty(SourceOnly):
    def __init__(self, how: str = "fine", weight: float = 1.0):
        super().__init__()
        self.how, self.weight = how, weight

    def terms(self, model, batch, progress):
        if progress >= 0.5 or self.how == "hangs":  # before its first point
            getattr(self, self.how)()
        return {name: self.weight * term for name, term in super().terms(model, batch, progress).items()}

    def fine(self): pass
    def raises(self): raise RuntimeError("as a user's code does")
    def exits(self): sys.exit(3)
    def ends(self): os._exit(3)
    def segfaults(self): ctypes.string_at(0)
    def is_killed(self): os.kill(os.getpid(), 9)
    def is_slow(self): time.sleep(0.1)
    def hangs(self): time.sleep(1000)

    def prints(self):
        print("GARBAGE from print")
        print("GARBAGE from stderr", file=sys.stderr)
        for fd in (1, 2):
            os.write(fd, GARBAGE)

    def waits(self):
        if not Path("go").exists():
            Path(f"here-{os.getpid()}").touch()
        deadline = time.monotonic() + 120
        while not Path("go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
"""
FAULTY_YAML = "# Goes wrong halfway.\n_target_: faulty.Faulty\nhow: fine\nweight: 1.0\n"


def until(what: Callable[[], Any], seconds: float = 100.0) -> Any:
    """What it returns once that is true; fails where it is not within a time that nothing here takes."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def start(target: Callable[..., None], *words: Any) -> Any:
    process = CONTEXT.Process(target=target, args=words)
    process.start()
    return process


def make(config: Mapping[str, Any], choices: Mapping[str, str], source: bool, point: int, told: Connection) -> None:
    """Make a run, and tell when it has passed so many points of its source model's training, or of its own."""

    def show(points: Generator[Any, None, RunRecord], _: RunRecord) -> RunRecord:
        passed = 0
        while True:
            try:
                passed += (next(points).phase == "source model") == source
            except StopIteration as end:
                return end.value
            if passed == point:
                told.send(os.getpid())

    run_job(Job(describe_run({**config}, choices)), lambda: False, show)


def race(config: Mapping[str, Any], choices: Mapping[str, str], go: Path, told: Connection) -> None:
    """Make a run, or try to, once a file is there; tell what became of it."""
    told.send("ready")
    until(go.exists)
    outcome = run_job(Job(describe_run({**config}, choices)), lambda: False, exhausted)
    told.send((outcome.what, outcome.record.status, outcome.message))


def exhausted(points: Generator[Any, None, RunRecord], _: RunRecord) -> RunRecord:
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value


def command(*words: str) -> list[str]:
    """`tl-run` with these words."""
    code = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
    return [sys.executable, "-c", code, *words]


def hold(config: Mapping[str, Any], choices: Mapping[str, str], point: int, told: Connection) -> None:
    """Make a run up to a point, tell its step and stay there."""

    def show(points: Generator[Any, None, RunRecord], _: RunRecord) -> RunRecord:
        step = [next(points) for _ in range(point)][-1].step
        told.send(step)
        time.sleep(1000)
        raise AssertionError("nobody came")

    run_job(Job(describe_run({**config}, choices)), lambda: False, show)


def end_while_emptying(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Make a run by force, and be killed in the middle of removing the folder of the one that it replaces."""
    remove = shutil.rmtree

    def half(path: Path, **named: Any) -> None:
        if not (path / "predictions.safetensors").exists():
            remove(path, **named)
            return
        (path / "predictions.safetensors").unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.rmtree = half  # pyright: ignore[reportAttributeAccessIssue]
    run_job(Job(describe_run({**config}, choices)), lambda: False, exhausted)
