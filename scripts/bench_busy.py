"""What `tl_runner/openmp.py` does: steps a second of runs that share the machine, and of one that has it alone.

    python scripts/bench_busy.py                       # some four minutes; start it on an idle machine
    python scripts/bench_busy.py --rounds 3 "method=dann"

Six processes train the same configuration, three with the setting and three without. In each round they are timed in
turn: one with the setting alone, one without it alone, the three with it at once, the three without it at once. Only
speeds of one round are compared, so that a machine whose speed drifts treats both alike; medians over the rounds are
printed with their ranges. The exit code is 1 where a goal is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

AT_ONCE, WINDOW = 3, 4  # runs; steps after which a process looks at the clock
SHARE, QUIET = 0.8, 0.95  # the goals
BUSY = 0.5  # load above which a machine is not idle
VARIABLES = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps a second on a busy and on an idle machine.")
    parser.add_argument("words", nargs="?", default="", help="the configuration, as for tl-run (its default run)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each timing")
    parser.add_argument(
        "--train", choices=["with", "without"], help=argparse.SUPPRESS
    )  # this script sets it for the processes that it starts
    asked = parser.parse_args()
    if asked.train:
        train(asked.words, asked.train == "with")
        return
    if told := [name for name in VARIABLES if name in os.environ]:
        sys.exit(f"error: {', '.join(told)} set in this shell: unset it, else both kinds of processes have it")
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {asked.rounds} rounds, {asked.seconds:g} s a timing"
    )
    if os.getloadavg()[0] > BUSY:
        print("warning: other work runs here: none of the four is alone, and shares of a third come out too high")
    told = {kind: [started(kind, asked.words) for _ in range(AT_ONCE)] for kind in ("with", "without")}
    try:
        rounds = [timings(told, asked.seconds) for _ in range(asked.rounds)]
    finally:
        for process in [process for processes in told.values() for process in processes]:
            process.kill()
            process.wait()
    sys.exit(shown(rounds))


def started(kind: str, words: str) -> "subprocess.Popen[str]":
    """A process that has trained its first steps, and waits."""
    command = [sys.executable, __file__, words, "--train", kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        sys.exit("error: a process did not start")
    return process


def timings(processes: dict[str, list[Any]], seconds: float) -> dict[str, list[float]]:
    """Steps a second of each process of a timing, under what it shows."""
    return {
        "with the setting, alone": speeds(processes["with"][:1], seconds),
        "without it, alone": speeds(processes["without"][:1], seconds),
        "with the setting, three at once": speeds(processes["with"], seconds),
        "without it, three at once": speeds(processes["without"], seconds),
    }


def speeds(processes: Sequence[Any], seconds: float) -> list[float]:
    for process in processes:
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return [float(process.stdout.readline()) for process in processes]


def train(words: str, setting: bool) -> None:
    """Train for as many seconds as each line on stdin says, and print the steps a second."""
    if not setting:
        import torch  # noqa: F401  (before tl_runner, which then changes nothing)
    sys.path.insert(0, str(Path(__file__).parent))
    from bench_train import points

    assert [name in os.environ for name in VARIABLES] == [setting] * len(VARIABLES)
    run = points(words, WINDOW)
    next(run)
    print("ready", flush=True)
    for line in sys.stdin:
        next(run)  # what comes back from waiting is not timed
        begun, ends = time.perf_counter(), list[float]()
        while not ends or ends[-1] < begun + float(line):
            next(run)
            ends.append(time.perf_counter())
        inside = ends[:-1] or ends  # the last window may end when the others have stopped
        print(len(inside) * WINDOW / (inside[-1] - begun), flush=True)


def shown(rounds: Sequence[dict[str, list[float]]]) -> int:
    """Print the table and what became of the goals; the exit code."""
    print("\n| processes | ms a step, median | range |\n|---|--:|---|")
    for name in rounds[0]:
        taken = sorted(1000 / speed for timing in rounds for speed in timing[name])
        print(f"| {name} | {statistics.median(taken):.0f} | {taken[0]:.0f} – {taken[-1]:.0f} |")
    alone, plain, busy, fought = rounds[0]
    shares = {
        name: [
            statistics.median(timing[name][process] * AT_ONCE / timing[quiet][0] for timing in rounds)
            for process in range(AT_ONCE)
        ]
        for name, quiet in ((busy, alone), (fought, plain))
    }
    kept = [timing[alone][0] / timing[plain][0] for timing in rounds]
    reached = statistics.median(kept)
    print(f"\nshare of a third of the quiet speed, each of three runs, median of {len(rounds)} rounds:")
    for name, values in shares.items():
        print(f"  {name}: {', '.join(f'{value:.2f}' for value in values)}")
    goals = [
        (f"each of three runs at once at {SHARE} of its share or more", min(shares[busy]), SHARE),
        (f"quiet speed with the setting at {QUIET} of that without it or more", reached, QUIET),
    ]
    for goal, value, least in goals:
        print(f"{'reached' if value >= least else 'MISSED '}  {goal}: {value:.3f}")
    print(f"  (the second, round by round: {', '.join(f'{value:.2f}' for value in sorted(kept))})")
    return int(any(value < least for _, value, least in goals))


if __name__ == "__main__":
    main()
