"""One process at a time: locks that die with their owner, and a heartbeat that others can read.

A lock is the kernel's, on a file that is never removed, so that an owner who was killed holds nothing. Where the file
system does not tell other machines of it, the heartbeat does: a file that its owner writes anew every few seconds.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock, Timeout

from tl_runner.errors import LockedError
from tl_runner.storage.atomic import write_atomically

log = logging.getLogger(__name__)

BEAT = 10.0  # seconds between heartbeats
DEAD = 60.0  # seconds without one, after which an owner on another machine is taken for dead


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Within, no other process is in a block on the same path; waits for one that is."""
    with FileLock(f"{path}.lock", thread_local=False):
        yield


class Claim:
    """What the owner of a lock tells others: who it is, and how far."""

    def __init__(self, path: Path):
        self.path = path.with_name(f"{path.name}.json")
        self.content: dict[str, Any] = {"host": platform.node(), "pid": os.getpid(), "since": time.time()}
        self._describe_owner = 0.0

    def tell(self, **progress: Any) -> None:
        """Let others know; at most twice a second."""
        self.content |= progress
        if time.monotonic() - self._describe_owner > 0.5:
            self.write()

    def write(self) -> None:
        self._describe_owner = time.monotonic()
        try:
            write_atomically(self.path, json.dumps(self.content).encode(), sync=False)  # no owner outlives its machine
        except OSError as error:  # a full disk, say: the kernel's lock still stands
            log.warning("no heartbeat could be written: %s", error)


@contextmanager
def claim_lock(path: Path) -> Iterator[Claim]:
    """Own the path within the block; raises `LockedError`, which names the owner, where another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = Claim(path)
    lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(_told(read_owner(path))) from None
    try:
        if other := _find_living_elsewhere(claim):
            raise LockedError(_told(other))
        claim.write()
        over = Event()
        beating = Thread(target=_beat, args=(claim, over), daemon=True)
        beating.start()
        try:
            yield claim
        finally:
            over.set()
            beating.join()
            claim.path.unlink(missing_ok=True)
    finally:
        lock.release()


def read_owner(path: Path) -> dict[str, Any] | None:
    """What the owner of this path last told; None where nobody has told anything."""
    try:
        content = json.loads(path.with_name(f"{path.name}.json").read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"host", "pid"} <= content.keys() else None


def is_owned(path: Path) -> bool:
    """Whether a process owns this path now: an owner that was killed leaves what it told behind."""
    if read_owner(path) is None:
        return False
    try:
        with FileLock(f"{path}.lock", timeout=0, thread_local=False):
            return _find_living_elsewhere(Claim(path)) is not None
    except OSError:  # a Timeout; or a folder in which this process may take no lock: what was told stands
        return True


def _find_living_elsewhere(claim: Claim) -> dict[str, Any] | None:
    """The owner on another machine, whose lock the kernel here may not see, if its heart still beats."""
    other = read_owner(claim.path.with_suffix(""))
    return other if other and other["host"] != claim.content["host"] and _age(claim) < DEAD else None


def _age(claim: Claim) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that both machines share."""
    now = claim.path.with_name(f"{claim.path.name}.{claim.content['host']}.{os.getpid()}")
    now.touch()
    try:
        return now.stat().st_mtime - claim.path.stat().st_mtime
    except FileNotFoundError:  # its owner has just ended
        return DEAD
    finally:
        now.unlink()


def _beat(claim: Claim, over: Event) -> None:
    while not over.wait(BEAT):
        claim.write()


def _told(who: dict[str, Any] | None) -> str:
    if who is None:
        return "another process is running this"
    step = f", at step {who['step']} of {who['steps']}" if "step" in who else ""
    return f"process {who['pid']} on {who['host']} is running this{step}"
