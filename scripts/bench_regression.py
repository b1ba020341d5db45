"""Makes the runs behind "Quantities, measured" in docs/methods.md: a real table and made-up ones, under shifts.

    python scripts/bench_regression.py --outputs RUNS            # makes the runs, or resumes, and keeps the table
    python scripts/bench_regression.py --write docs/methods.md   # the page's table, of what is kept

The real one is scikit-learn's diabetes: how far the disease is after a year, of 442 patients, learnt from those whose
body mass index is below the median and predicted for the others. The table is kept in docs/measured/regression.csv.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from bench_methods import put, round_value

from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "regression.csv"
BEGIN, END = "<!-- made by scripts/bench_regression.py: begin -->", "<!-- end of bench_regression -->"
METHODS = "source_only,mmd,coral,dann,dare_gram,similarity,kliep,ulsif,weighted,coral_linear,sa"
GRANTED = "source_only,finetune,feature_extract,tradaboost,balanced"
SHIFTS = "none,covariate,move,affine"
COLUMNS = ["pair", "label", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high", "source"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        measure(asked.outputs.absolute(), asked.seeds, asked.jobs)
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(page()))


def write_diabetes(folder: Path) -> list[str]:
    """The two files of patients, and the words that name them."""
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes(scaled=False)
    index = found.data[:, found.feature_names.index("bmi")]
    heavy = index > np.median(index)
    for name, rows in (("light", ~heavy), ("heavy", heavy)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            lines = np.column_stack([found.data[rows], found.target[rows]]).tolist()
            csv.writer(file).writerows([[*found.feature_names, "progression"], *lines])
    files = [f"dataset.source={folder}/light.csv", f"dataset.target={folder}/heavy.csv"]
    return ["dataset=table", *files, "dataset.label=progression", "dataset.task=regression", "dataset.numeric=[sex]"]


def measure(outputs: Path, seeds: str, jobs: int) -> None:
    """Make the runs, and keep their table."""
    outputs.mkdir(parents=True, exist_ok=True)
    pairs = [write_diabetes(outputs), ["dataset=synthetic_regression", f"dataset.shift={SHIFTS}"]]
    shared = [f"seed={seeds}", f"outputs={outputs}", "backbone=mlp", "threads=1", "save=false"]
    command = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
    for pair in pairs:
        for words in ([f"method={METHODS}"], [f"method={GRANTED}", "granted=50"]):
            line = ["-m", *pair, *words, *shared, f"hydra.launcher.n_jobs={jobs}"]
            print(*line, flush=True)
            subprocess.run([*command, *line], check=False, stdout=subprocess.DEVNULL)
    runs, _ = read_records([outputs])
    with KEPT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in build_leaderboard(runs).to_dict("records"):
            writer.writerow({str(key): round_value(value) for key, value in row.items()})


def page() -> Iterator[str]:
    """A table for each pair."""
    with KEPT.open(newline="") as opened:
        rows = [*csv.DictReader(opened)]
    for pair, of_pair in groupby(rows, key=lambda row: row["pair"]):
        listed = [*of_pair]
        failed = sum(int(row["failed"]) for row in listed)
        n = min(int(row["n"]) for row in listed)
        yield from ("", f"**{pair}** (n = {n} seeds a row, {failed} runs failed)", "")
        yield "| method | labels | target R², % | − source_only, points (95 %) | source R², % |"
        yield "|---|--:|--:|--:|--:|"
        for row in listed:
            gain = _points(row["difference"], row["low"], row["high"])
            spread = f"{100 * float(row['target']):.1f} ± {100 * float(row['target_sd']):.1f}"
            yield f"| `{row['label']}` | {row['granted']} | {spread} | {gain} | {100 * float(row['source']):.1f} |"


def _points(difference: str, low: str, high: str) -> str:
    if not difference:
        return ""
    said = f"{100 * float(difference):+.1f}"
    said += f" ({100 * float(low):+.1f} to {100 * float(high):+.1f})" if low else ""
    return said.replace("-", "−")


if __name__ == "__main__":
    main()
