"""What a sweep over numbers costs as processes, as one process, and as stacks: whole commands on one core.

    python scripts/bench_fused.py                    # some twenty minutes on a quiet machine
    python scripts/bench_fused.py mmd --repeats 1 --jobs 20

One hundred points, five seeds × five rates × four weights of MMD, on digits of 8 × 8 pixels and an MLP 64-128-10, with
the default diagnosis and evaluations. Every command is pinned to one core, and the ways take turns. What counts are the
processor seconds of a command and of all processes that it starts, which a busy machine does not stretch. A process for
each point is timed on `ALONE` points and multiplied. The scores of the stacks are compared with those of the single
process. The exit code is 1 where a goal is missed.
"""

import argparse
import ctypes
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tl_runner.storage.record import RunRecord, read_records

ALONE = 3  # points that are made by a process each
PR_SET_CHILD_SUBREAPER = 36  # of prctl(2): processes whose parents have ended become this one's, which counts them
WORDS = ["dataset=digits", "dataset.size=8", "backbone=mlp", "backbone.depth=1", "threads=1", "device=cpu"]
METHODS = {
    "mmd": ["method=mmd", "method.weight=0.5,1,2,4"],
    "source_only": ["method=source_only", "optimizer.weight_decay=0,0.01,0.03,0.1"],
    "feature_extract": ["method=feature_extract", "method.head=linear", "granted=5",
                        "optimizer.weight_decay=0,0.01,0.03,0.1"],
}  # fmt: skip
RATES = "optimizer.lr=0.001,0.002,0.003,0.005,0.01"
FASTER_THAN_LOOP, FASTER_THAN_PROCESSES, ROWS = 2.5, 20.0, 2  # the goals; and test rows by which a score may differ


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep as processes, as one process, and as stacks.")
    parser.add_argument("methods", nargs="*", default=[*METHODS], help=f"of {', '.join(METHODS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=100, help="points, a multiple of 20")
    said = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    print(f"| {said.jobs} points | as | s, median | range | × the stacks, median | range |\n|---|---|--:|--:|--:|--:|")
    missed = False
    for name, words in ((name, METHODS[name]) for name in said.methods):
        found: dict[str, list[float]] = {"processes": [], "one process": [], "stacks": []}
        furthest = 0.0
        for _ in range(said.repeats):
            with TemporaryDirectory() as folder:
                points = [*WORDS, *words, RATES, f"seed=range({said.jobs // 20})"]
                found["processes"].append(time_alone(Path(folder), words) * said.jobs)
                for way, launcher in (("one process", "basic"), ("stacks", "fused")):
                    more = ["hydra.launcher.n_jobs=1"] if launcher == "fused" else []
                    outputs = Path(folder) / launcher
                    found[way].append(time_command(outputs, ["-m", f"hydra/launcher={launcher}", *more, *points]))
                furthest = max(furthest, compare(Path(folder) / "basic", Path(folder) / "fused"))
        ratios = {way: [a / b for a, b in zip(times, found["stacks"], strict=True)] for way, times in found.items()}
        for way, times in found.items():
            print(f"| {name} | {way} | {spread(times, 1)} | {spread(ratios[way], 2)} |", flush=True)
        loop, processes = (statistics.median(ratios[way]) for way in ("one process", "processes"))
        missed = missed or loop < FASTER_THAN_LOOP or processes < FASTER_THAN_PROCESSES or furthest > ROWS
        print(f"goal ({name}): {FASTER_THAN_LOOP} × one process, reached {loop:.2f}", flush=True)
        print(f"goal ({name}): {FASTER_THAN_PROCESSES:g} × processes, reached {processes:.1f}", flush=True)
        print(f"goal ({name}): scores within {ROWS} test rows, reached {furthest:.0f}", flush=True)
    sys.exit(missed)


def time_alone(folder: Path, words: list[str]) -> float:
    """Processor seconds of a process that makes one point, the mean over `ALONE`."""
    single = [word.split(",")[0] for word in words]
    times = [time_command(folder / "alone", [*WORDS, *single, f"seed={seed}"]) for seed in range(ALONE)]
    return statistics.fmean(times)


def time_command(outputs: Path, words: list[str]) -> float:
    """Processor seconds of `tl-run` on one core, and of its workers."""
    code = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
    core = min(os.sched_getaffinity(0))
    before = count_seconds()
    subprocess.run(
        [sys.executable, "-c", code, *words, f"outputs={outputs}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return count_seconds() - before


def count_seconds() -> float:
    """Of all children, once they have ended."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return used.ru_utime + used.ru_stime


def compare(alone: Path, stacked: Path) -> float:
    """The test rows, at most, by which the score of a run differs between the two."""
    first, second = (by_id(read_records([outputs])[0]) for outputs in (alone, stacked))
    assert first.keys() == second.keys() and all(record.status == "ok" for record in second.values())
    assert all(record.environment.engine == "fused" for record in second.values())
    return max(
        abs((record.headline or 0) - (second[run].headline or 0)) * record.data.rows["target"][2]
        for run, record in first.items()
    )


def by_id(records: list[RunRecord]) -> dict[str, RunRecord]:
    return {record.id: record for record in records}


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} | {min(values):.{digits}f} – {max(values):.{digits}f}"


if __name__ == "__main__":
    main()
