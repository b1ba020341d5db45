"""What `shares=` is worth where the class shares of the target differ, and what it costs where they do not.

    python scripts/bench_shares.py --outputs FOLDER [--seeds 300 301 …] [--jobs 2]   # makes the runs, and resumes
    python scripts/bench_shares.py --outputs FOLDER --write docs/deciding.md         # the table, of finished runs

Differences are to `shares=none` of the same method and seed, in points of accuracy on the target's test split.
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from bench_methods import put

from tl_runner.storage.record import read_records

PAIRS = {
    "digits, Dirichlet α = 0.5": ("dataset=digits", "dataset.target_shares=0.5", "backbone=small"),
    "digits, Dirichlet α = 3": ("dataset=digits", "dataset.target_shares=3.0", "backbone=small"),
    "digits, five of ten classes": (
        "dataset=digits", "dataset.target_shares=[1,1,1,1,1,0,0,0,0,0]", "backbone=small",
    ),
    "digits": ("dataset=digits", "backbone=small"),
    "rotation": (
        *("dataset=digits", "dataset.source=handwritten", "dataset.shift=rotate", "dataset.samples=600"),
        "backbone=small",
    ),
    "synthetic, prior": ("dataset=synthetic", "dataset.shift=prior", "backbone=mlp"),
    "synthetic, no shift": ("dataset=synthetic", "dataset.shift=none", "backbone=mlp"),
}  # fmt: skip
METHODS = ("source_only", "mmd", "dann")
SHARES = ("none", "bbse", "rlls", "mlls")
SEEDS = (300, 301, 302, 303, 304)
BEGIN, END = "<!-- made by scripts/bench_shares.py: begin -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--pairs", nargs="+", default=[*PAIRS], choices=[*PAIRS])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(table(asked.outputs)))
        return
    for pair in asked.pairs:
        sweep(pair, asked.seeds, asked.outputs, asked.jobs)
    print("\n".join(table(asked.outputs)))


def place(outputs: Path, pair: str) -> Path:
    return outputs / re.sub(r"[^a-z0-9]+", "_", pair)


def sweep(pair: str, seeds: Sequence[int], outputs: Path, jobs: int) -> None:
    words = [*PAIRS[pair], f"method={','.join(METHODS)}", f"shares={','.join(SHARES)}", "threads=1", "save=false"]
    words += [f"seed={','.join(map(str, seeds))}", f"outputs={place(outputs, pair)}", f"hydra.launcher.n_jobs={jobs}"]
    print(*words, flush=True)
    subprocess.run(
        [str(Path(sys.executable).with_name("tl-run")), "-m", *words], check=False, stdout=subprocess.DEVNULL
    )


def table(outputs: Path) -> Iterator[str]:
    """A line a pair and method: the accuracy without, and what each estimator adds to it, seed by seed."""
    yield f"| target | method | n | `none`, % | {' | '.join(f'`{by}`' for by in SHARES[1:])} |"
    yield "|---|---|--:|--:|" + "--:|" * len(SHARES[1:])
    for pair in PAIRS:
        found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for run in read_records([place(outputs, pair)])[0]:
            if run.headline is not None:
                found[run.choices["method"], run.config["shares"]][run.seed] = 100 * run.headline
        for method in METHODS:
            base = found[method, "none"]
            if not base:
                continue
            others = [found[method, by] for by in SHARES[1:]]
            cells = [spread([of[seed] - base[seed] for seed in of if seed in base], "+.1f") for of in others]
            yield f"| {pair} | `{method}` | {len(base)} | {spread([*base.values()], '.1f')} | {' | '.join(cells)} |"


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± sd, with the sign for minus."""
    if not values:
        return "–"
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{deviation}".replace("-", "−")


if __name__ == "__main__":
    main()
