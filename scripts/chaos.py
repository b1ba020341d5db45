"""Kill a sweep at random moments, type it again until it is through, and compare with one that nobody disturbed.

    python scripts/chaos.py --kills 20

Each time one of the launcher, a worker, the fork server or all of them gets SIGKILL; while the launcher lives, it may
lose another worker. A sweep that is through before there were enough kills is followed by another one. After each
command: no process of it is left, no lock is held, and what was finished before it is untouched. At the end every
run's weights, predictions, curve (but for its seconds) and scores equal those of the undisturbed sweep.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

SWEEP = [
    "-m",
    "method=source_only,mmd,finetune",
    "seed=range(2)",
    "train=tiny",
    "train.steps=120",
    "pretrain.steps=120",
]
SWEEP += ["dataset.samples=300", "dataset.size=8", "checkpoint_every=0", "device=cpu"]
CODE = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
PATIENCE = 30.0  # seconds in which what must end has ended
MARK = "TL_RUN_CHAOS"  # in the environment of all processes of a sweep


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill sweeps, resume them, compare them with an undisturbed one.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    said = parser.parse_args()
    draw = random.Random(said.seed)
    with TemporaryDirectory(prefix="chaos-") as folder:
        started = time.monotonic()
        calm = Sweep(Path(folder) / "calm", said.jobs)
        began = calm.until_at_work()
        if calm.ended() != 0:
            sys.exit(f"the undisturbed sweep failed:\n{calm.told()}")
        expected = calm.runs()
        start, work = began - started, time.monotonic() - began
        print(f"undisturbed: {len(expected)} runs, {start:.1f} s to the first job and {work:.1f} s from there")
        kills, faults, lost, different, rounds = Counter(), [], 0, 0, 0
        while kills.total() < said.kills:
            rounds += 1
            outputs = Path(folder) / f"chaos{rounds}"
            faults += disturbed(outputs, said, draw, kills, (start, work), expected)
            made = Sweep.found(outputs)
            lost += sum(made.get(name, {}).get("status") != "ok" for name in expected)
            for name in sorted(expected.keys() & made.keys()):
                if apart := [what for what in expected[name] if expected[name][what] != made[name][what]]:
                    different += 1
                    print(f"DIFFERENT {name}: {', '.join(apart)}")
    print(f"{rounds} sweeps; killed: {', '.join(f'{what} {n}' for what, n in sorted(kills.items()))}")
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{kills.total()} kills, {lost} lost, {different} different")
    sys.exit(bool(lost or different or faults))


def disturbed(
    outputs: Path,
    said: argparse.Namespace,
    draw: random.Random,
    kills: "Counter[str]",
    usual: tuple[float, float],
    expected: dict[str, Any],
) -> list[str]:
    """Type the command until it is through, killing until there were enough; what went wrong beside that."""
    faults: list[str] = []
    start, work = usual
    for _ in range(3 * said.kills + 3):
        before = Sweep.stamps(outputs)
        sweep = Sweep(outputs, said.jobs)
        early = draw.random() < 0.2  # while it imports and composes
        while kills.total() < said.kills:
            if not early:
                sweep.until_at_work()
            if sweep.over_within(draw.uniform(0, start if early else work / 3)):
                break
            if victim := sweep.kill(draw):
                kills[victim] += 1
                done = sum(run["status"] == "ok" for run in Sweep.found(outputs).values())
                print(f"kill {kills.total()}: {victim}; {done} of {len(expected)} runs are done", flush=True)
            if victim in ("launcher", "everything"):
                break
            early = False
        code = sweep.ended()
        if left := sweep.left():
            faults.append(f"{len(left)} processes outlived their launcher: {left}")
        if touched := [run for run, stamp in before.items() if Sweep.stamps(outputs).get(run) != stamp]:
            faults.append(f"finished runs were touched: {touched}")
        if stuck := [path.name for path in (outputs / "locks").glob("*.lock") if not freed(path)]:
            faults.append(f"locks are held by nobody that lives: {stuck}")
        if code == 0:
            return faults
        if code not in (1, -signal.SIGKILL):
            faults.append(f"exit code {code}:\n{sweep.told()}")
    return [*faults, f"the sweep in {outputs.name} was never through"]


class Sweep:
    """The command under way, in a session of its own."""

    def __init__(self, outputs: Path, jobs: int):
        outputs.mkdir(exist_ok=True)
        self.outputs, self.mark = outputs, f"{os.getpid()}-{time.monotonic_ns()}"
        self.began = time.time()
        self.log = outputs / "terminal.txt"
        words = [*SWEEP, f"hydra.launcher.n_jobs={jobs}", f"outputs={outputs}"]
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(outputs.parent), "COLUMNS": "200"}
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CODE, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )

    def until_at_work(self) -> float:
        """When a job has told how far it is, or all is over."""

        def at_work() -> bool:
            told = [*(self.outputs / "locks").glob("*.json")]
            return any(modified(path) > self.began for path in told) or self.process.poll() is not None

        check_range(10 * PATIENCE, at_work)
        return time.monotonic()

    def over_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, draw: random.Random) -> str | None:
        """SIGKILL to one that is there; who it was."""
        launcher = self.process.pid
        server = [pid for pid, parent, words in self.alive() if parent == launcher and "forkserver" in words]
        workers = [pid for pid, parent, _ in self.alive() if parent in server]
        victims = {"launcher": [launcher], "server": server, "worker": workers, "everything": [launcher]}
        victim = draw.choice([name for name, pids in victims.items() if pids])
        try:
            if victim == "everything":
                os.killpg(launcher, signal.SIGKILL)
            else:
                os.kill(draw.choice(victims[victim]), signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            return None
        return victim

    def ended(self) -> int:
        return self.process.wait(20 * PATIENCE)

    def left(self) -> list[tuple[int, int, str]]:
        """Processes that are still there when all have had the time to end."""
        if check_range(PATIENCE, lambda: not self.alive()):
            return []
        left = self.alive()
        for pid, _, _ in left:
            os.kill(pid, signal.SIGKILL)
        return left

    def alive(self) -> list[tuple[int, int, str]]:
        """Process, parent and command line of all that carry this command's mark."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}\0".encode() in (path / "environ").read_bytes() + b"\0":
                    state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found += [(int(path.name), int(parent), words[:80])] if state != "Z" else []
            except OSError:  # ended meanwhile
                continue
        return found

    def told(self) -> str:
        return self.log.read_text()[-3000:]

    def runs(self) -> dict[str, dict[str, Any]]:
        return self.found(self.outputs)

    @staticmethod
    def found(outputs: Path) -> dict[str, dict[str, Any]]:
        """What must be equal of each run, by its folder."""
        runs = {}
        for file in outputs.glob("runs/*/*/run.json"):
            record = json.loads(file.read_text())
            runs[file.parent.name] = {name: record[name] for name in ("status", "scores", "evidence")} | {
                "model": digest(file.with_name("model.safetensors")),
                "predictions": digest(file.with_name("predictions.safetensors")),
                "curve": curve(file.with_name("curve.jsonl")) if record["status"] == "ok" else None,
                "files": sorted(path.name for path in file.parent.iterdir()) if record["status"] == "ok" else None,
            }
        return runs

    @staticmethod
    def stamps(outputs: Path) -> dict[str, list[tuple[str, int, int]]]:
        """Inode and time of each file of the runs that are finished."""
        done = [name for name, run in Sweep.found(outputs).items() if run["status"] == "ok"]
        folders = [folder for name in done for folder in outputs.glob(f"runs/*/{name}")]
        return {
            folder.name: sorted((f.name, f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.iterdir())
            for folder in folders
        }


def curve(file: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, file.read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def digest(file: Path) -> str | None:
    return hashlib.blake2b(file.read_bytes()).hexdigest() if file.exists() else None


def freed(path: Path) -> bool:
    """Whether nobody holds this lock; the kernel lets go a moment after it has killed the owner."""
    return check_range(PATIENCE, lambda: not held(path))


def held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def check_range(seconds: float, what: Callable[[], bool]) -> bool:
    """Whether it comes true in this time."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    main()
