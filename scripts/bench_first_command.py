"""How good and how long is the first command: `tl-run method=mmd backbone=resnet18` with other stems, rates and steps.

    python scripts/bench_first_command.py --outputs FOLDER                     # the table of docs/decisions.md
    python scripts/bench_first_command.py --outputs FOLDER --seeds 100 "backbone.stem=halving optimizer.lr=0.01"

Seeds from 100 on are for choosing, since the tables of the docs use 0 to 4. What is compared is the accuracy on the
target's test split, *by its labels*: a default of the product is chosen so, never a checkpoint. The variants take
turns, seed by seed. Seconds are those of the whole command, in a process of its own; processor seconds, of all its
threads, say what a busy machine hides. Both are medians. FOLDER is to be empty, since a complete run is not made again.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

from tl_runner.storage.record import RunRecord, read_records

DEFAULT = [
    "backbone.stem=imagenet",
    "backbone.stem=halving",
    "backbone.stem=halving optimizer.lr=0.001",
    "method=source_only backbone.stem=imagenet",
    "method=source_only backbone.stem=halving",
]
CODE = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"


class Timed(NamedTuple):
    """A finished command: the record of its run, its seconds, and those of all its threads."""

    record: RunRecord
    seconds: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=DEFAULT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    parser.add_argument("--outputs", type=Path, required=True)
    said = parser.parse_args()
    found: dict[str, list[Timed]] = {words: [] for words in said.words}
    for seed in said.seeds:
        for words, made in found.items():
            folder = said.outputs / words.replace(" ", "_").replace("=", "-")  # Hydra reads = in a value as a key's
            made.append(time_command([*words.split(), f"seed={seed}", f"outputs={folder}"], folder, seed))
            print(f"{words} seed={seed}: {describe([made[-1]])}", file=sys.stderr, flush=True)
    print("| `tl-run backbone=resnet18 …` | n | target, % | last, % | oracle, % | seconds | processor seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for words, made in found.items():
        print(f"| `{words}` | {len(made)} | {describe(made)} |")


def time_command(words: list[str], folder: Path, seed: int) -> Timed:
    """Make the run of these words in the folder."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", CODE, "backbone=resnet18", *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    (record,) = [each for each in read_records([folder])[0] if each.seed == seed]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Timed(record, time.perf_counter() - started, used)


def describe(made: list[Timed]) -> str:
    """The cells of some runs: means with their deviations, medians of the seconds."""
    cells = []
    for kind in ("selected", "last", "oracle"):
        values = [100 * score for each in made if (score := each.record.score(kind, "accuracy")) is not None]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{fmean(values):.1f}{spread}")
    cells += [f"{median(each.seconds for each in made):.0f}", f"{median(each.processor for each in made):.0f}"]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
