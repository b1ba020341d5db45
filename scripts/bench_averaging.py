"""What `train.average=` and `method.wise=` are worth: the tables of "Averaged weights" in docs/methods.md.

    python scripts/bench_averaging.py --outputs FOLDER [--seeds 300 …] [--jobs 1]   # makes the runs, or resumes
    python scripts/bench_averaging.py --write docs/methods.md                       # the tables, of what is kept

A line for each run is kept in docs/measured/averaging.csv. Differences are taken seed by seed, with the 95 % interval
that tl-report gives.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from bench_methods import put, told

from tl_runner.report.settings import seeds_of
from tl_runner.report.statistics import Paired, Seeds, compare_paired
from tl_runner.storage.record import RunRecord, read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "averaging.csv"
BEGIN, END = "<!-- made by scripts/bench_averaging.py: begin -->", "<!-- end of bench_averaging -->"
_SMALL = ("dataset.samples=600", "dataset.size=8", "train.steps=150", "pretrain.steps=150", "backbone=small")
PAIRS = {
    "digits": ("dataset=digits", *_SMALL),
    "covariate": ("dataset=synthetic", "dataset.shift=covariate", "backbone=mlp"),
    "rotation": ("dataset=digits", "dataset.source=handwritten", "dataset.shift=rotate", *_SMALL),
}
AVERAGES = ("none", "ema", "swa")
ALPHAS = ("0.25", "0.5", "0.75", "1.0")
LABELS = 5  # granted a class, to finetune
SWEEPS = (  # in the order in which they are made
    ("method=source_only,mmd,dann,mcc", "train.average=none,ema,swa"),
    ("method=finetune", f"granted={LABELS}", "train.average=none,ema,swa"),
    ("method=finetune", f"granted={LABELS}", f"method.wise={','.join(ALPHAS[:-1])}"),
    ("method=source_only,mmd", "train.average=none,ema,swa", "schedule=constant"),
)
COLUMNS = [
    *("pair", "schedule", "method", "average", "wise", "seed"),
    *("status", "target", "last", "source", "test", "pool", "kind"),
]

Row = Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[300, 301, 302, 303, 304])
    parser.add_argument("--pairs", nargs="+", default=[*PAIRS], choices=[*PAIRS])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        for words in SWEEPS:
            for pair in asked.pairs:
                sweep(pair, words, asked.seeds, asked.outputs, asked.jobs)
                keep(asked.outputs)
    text = "\n".join(page())
    print(text)
    if asked.write:
        put(asked.write, BEGIN, END, text)


def sweep(pair: str, words: Sequence[str], seeds: Sequence[int], outputs: Path, jobs: int) -> None:
    fixed = [f"seed={','.join(map(str, seeds))}", "threads=1", "save=false", f"hydra.launcher.n_jobs={jobs}"]
    line = ["-m", *PAIRS[pair], *words, *fixed, f"outputs={outputs / pair}"]
    print(*line, flush=True)
    subprocess.run(
        [str(Path(sys.executable).with_name("tl-run")), *line], check=False, stdout=subprocess.DEVNULL
    )  # what fails is counted


def keep(outputs: Path) -> None:
    """Write a line for each run in the folder."""
    rows = [describe(run, pair) for pair in PAIRS for run in read_records([outputs / pair])[0]]
    with KEPT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [*row.values()][:6]))


def describe(run: RunRecord, pair: str) -> dict[str, str]:
    """What is kept of a run: its settings, its accuracies in %, and how its seeds are related."""
    scores, seeds = run.scores, seeds_of(run)
    found = {"pair": pair, "schedule": str(run.config["schedule"]["_target_"]).rpartition(".")[2]}
    found |= {"method": run.choices["method"], "average": str(run.config["train"]["average"])}
    found |= {"wise": str(run.config["method"].get("wise", "")), "seed": str(run.seed), "status": run.status}
    for name, of in (
        ("target", scores and scores.target),
        ("last", scores and scores.last),
        ("source", scores and scores.source),
    ):
        found[name] = f"{100 * of['accuracy']:.2f}" if of else ""
    return {**found, "test": str(seeds.test), "pool": str(seeds.pool), "kind": seeds.kind}


def page() -> Iterator[str]:
    with KEPT.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    failed = sum(row["status"] != "ok" for row in rows)
    columns = "`ema` − `none` | `swa` − `none` | at the last step, `ema` | `swa`"
    yield f"| pair | schedule | method | n | `none`, % | {columns} |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    averaged = [row for row in rows if row["wise"] in ("", "1.0")]
    for pair, schedule, method in dict.fromkeys((row["pair"], row["schedule"], row["method"]) for row in averaged):
        of = [row for row in averaged if (row["pair"], row["schedule"], row["method"]) == (pair, schedule, method)]
        base, *others = ([row for row in of if row["average"] == each] for each in AVERAGES)
        cells = [said(each, base, column) for column in ("target", "last") for each in others]
        yield f"| {pair} | {schedule} | `{method}` | {len(base)} | {spread(base, 'target')} | {' | '.join(cells)} |"
    yield from ("", f"`finetune`, {LABELS} labels a class, `schedule=cosine`, `train.average=none`:", "")
    yield "| pair | `method.wise` | n | target, % | − `wise=1` | source, % | − `wise=1` |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    tuned = [row for row in rows if row["wise"] and row["average"] == "none"]
    for pair in dict.fromkeys(row["pair"] for row in tuned):
        by_alpha = {alpha: [row for row in tuned if (row["pair"], row["wise"]) == (pair, alpha)] for alpha in ALPHAS}
        for alpha, of in by_alpha.items():
            gains = ["" if alpha == "1.0" else said(of, by_alpha["1.0"], column) for column in ("target", "source")]
            cells = f"{spread(of, 'target')} | {gains[0]} | {spread(of, 'source')} | {gains[1]}"
            yield f"| {pair} | {alpha} | {len(of)} | {cells} |"
    yield from ("", f"{len(rows)} runs, {failed} of them not ok.")


def said(mine: Sequence[Row], base: Sequence[Row], column: str) -> str:
    """The mean difference in points with its interval, bold where that leaves 0."""
    found = compare(mine, base, column)
    mark = "**" if found.low > 0 or found.high < 0 else ""
    return f"{mark}{told(found)}{mark}".replace("-", "−") if found.pairs else "–"


def compare(mine: Sequence[Row], base: Sequence[Row], column: str) -> Paired:
    read: Callable[[Sequence[Row]], dict[int, float]] = lambda rows: {  # noqa: E731
        int(row["seed"]): float(row[column]) / 100 for row in rows if row[column]
    }
    first = base[0] if base else {"kind": "unknown", "test": "0", "pool": "0"}
    kind = re.fullmatch("independent|resplit|fixed", first["kind"])
    seeds = Seeds(kind[0] if kind else "unknown", int(first["test"]), int(first["pool"]))  # pyright: ignore[reportArgumentType]
    found = compare_paired(read(mine), read(base), seeds)
    return found._replace(difference=100 * found.difference, low=100 * found.low, high=100 * found.high)


def spread(rows: Sequence[Row], column: str) -> str:
    """Mean ± sd."""
    values = [float(row[column]) for row in rows if row[column]]
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "") if values else "–"


if __name__ == "__main__":
    main()
