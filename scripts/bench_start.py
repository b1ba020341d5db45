"""What a process of `tl-run` costs before and beside its training, in units of `import torch` on the same machine.

    python scripts/bench_start.py [--repeats 5]

Medians of runs that take turns; user seconds as well, since the seconds of a busy machine say little.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

RUN = ["dataset=blobs", "backbone=mlp", "method=source_only", "train=tiny"]
MAIN = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
JOBS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["OMP_NUM_THREADS"] = "1"
        measure("again", 0)  # the run that is complete
        names = ["import torch", "smoke", "again", "help", "dry", "dry, all jobs"]
        turns = [{name: measure(name, turn) for name in names} for turn in range(repeats)]
    found = {name: [turn[name] for turn in turns] for name in names}
    unit = [statistics.median(column) for column in zip(*found["import torch"], strict=True)]
    print(f"{'':28}{'seconds':>9}{'user s':>9}{'× import torch':>16}{'user ×':>9}")
    for name in names:
        wall, user = (statistics.median(column) for column in zip(*found[name], strict=True))
        print(f"{name:28}{wall:9.2f}{user:9.2f}{wall / unit[0]:16.2f}{user / unit[1]:9.2f}")
    for index, kind in enumerate(("seconds", "user seconds")):
        whole, one = (statistics.median(row[index] for row in found[name]) for name in ("dry, all jobs", "dry"))
        print(f"dry=true, a job beyond the first: {1000 * (whole - one) / (JOBS - 1):.1f} ms in {kind}")


def measure(name: str, turn: int) -> tuple[float, float]:
    """Seconds and user seconds of one process."""
    words = {
        "import torch": ["-c", "import torch"],
        "smoke": ["-c", MAIN, *RUN, f"seed={1000 + turn}"],
        "again": ["-c", MAIN, *RUN, "seed=0"],
        "help": ["-c", MAIN, "--help"],
        "dry": ["-c", MAIN, "-m", *RUN, "seed=2000", "dry=true"],
        "dry, all jobs": ["-c", MAIN, "-m", *RUN, f"seed=range(2000,{2000 + JOBS})", "dry=true"],
    }[name]
    before, started = os.times().children_user, time.monotonic()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.monotonic() - started, os.times().children_user - before


if __name__ == "__main__":
    main()
