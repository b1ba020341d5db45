"""Seed-by-seed differences between two methods, from the runs in docs/measured/: the figures of docs/which-method.md.

python scripts/measured_differences.py lmmd                   # against source_only, on each pair
python scripts/measured_differences.py lmmd --base adabn
python scripts/measured_differences.py mme --granted 10
python scripts/measured_differences.py auto --kept docs/measured/2026-11-27
"""

import argparse
from pathlib import Path

import measured
import numpy as np
from bench_methods import BASE, PAIRS, scored

BELOW = 2  # points; about seven test rows of 360


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--granted", default="0", help="target labels a class")
    parser.add_argument("--base-granted", help="those of the base, if they differ")
    parser.add_argument("--kept", type=Path, default=measured.FOLDER, help="where the compact results are")
    asked = parser.parse_args()
    kept = measured.load(asked.kept)
    every: list[float] = []
    for pair in PAIRS:
        runs = [run for run in kept if run.pair == pair]
        mine = scored([run for run in runs if (run.method, run.granted) == (asked.method, asked.granted)])
        granted = asked.base_granted or asked.granted
        base = scored([run for run in runs if (run.method, run.granted) == (asked.base, granted)])
        points = [mine[seed] - base[seed] for seed in mine if seed in base]
        if len(points) > 1:
            every += points
            print(f"{pair:18} n = {len(points)}  {np.mean(points):+6.1f} ± {np.std(points, ddof=1):.1f}")
    print(f"{sum(value < -BELOW for value in every)} of {len(every)} runs more than {BELOW} points below {asked.base}")


if __name__ == "__main__":
    main()
