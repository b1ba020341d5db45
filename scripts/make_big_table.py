"""Two large tables, to see how long a run on them takes, and how much memory.

    scripts/make_big_table.py FOLDER --rows 500000 --columns 50    writes FOLDER/a.csv and b.csv, of so many rows each
    scripts/make_big_table.py FOLDER --run                         and runs tl-run there; prints seconds and memory

Of the columns one is the label, five are categories of eight words, one has gaps; the rest are normal numbers of five
digits. The target's numbers are moved by a tenth of a deviation.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BLOCK = 20_000  # rows in memory
WORDS = ["dataset=table", "method=source_only", "backbone=linear", "train=tiny", "device=cpu"]


def write_table(file: Path, rows: int, columns: int, move: float, seed: int) -> None:
    """A table of random rows; each number has a weight in the label."""
    rng = np.random.default_rng(seed)
    numbers, categories = columns - 6, 5
    weights = np.random.default_rng(0).normal(size=numbers)
    names = [f"x{i}" for i in range(numbers)] + [f"c{i}" for i in range(categories)] + ["label"]
    with file.open("w", encoding="utf-8") as out:
        out.write(",".join(names) + "\n")
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            x = rng.normal(size=(count, numbers)) + move
            label = np.where(x @ weights + rng.normal(size=count) * 3 > 0, "yes", "no").tolist()
            words = np.char.add("w", rng.integers(0, 8, (count, categories)).astype(str)).tolist()
            cells = [[f"{value:.5g}" for value in row] for row in x.tolist()]
            for row, gap in enumerate((rng.random(count) < 0.05).tolist()):
                if gap:
                    cells[row][0] = ""
            out.writelines(
                ",".join([*row, *of, name]) + "\n" for row, of, name in zip(cells, words, label, strict=True)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=500_000, help="of each of the two tables")
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--run", action="store_true", help="make a run on them, too")
    said = parser.parse_args()
    said.folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate("ab"):
        if not (said.folder / f"{name}.csv").exists():
            write_table(said.folder / f"{name}.csv", said.rows, said.columns, 0.1 * seed, seed)
    if said.run:
        words = [*WORDS, "dataset.source=a.csv", "dataset.target=b.csv", "force=true"]
        started = time.monotonic()
        ended = subprocess.run([Path(sys.executable).with_name("tl-run"), *words], cwd=said.folder, check=False)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.monotonic() - started
        print(
            f"exit {ended.returncode}: {seconds:.0f} s, processor {used.ru_utime + used.ru_stime:.0f} s,"
            f" peak memory {used.ru_maxrss / 2**20:.1f} GiB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
