"""Makes the runs of the experiments in conf/experiment, and the page of what each came to.

    python scripts/bench_experiments.py --outputs FOLDER [NAME …]   # makes the runs, or resumes, and keeps their tables
    python scripts/bench_experiments.py --write docs/experiments.md # the page's tables, of all that is kept

Tables are kept in docs/measured/experiments, a CSV for each experiment.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

from bench_methods import put

from tl_runner import experiments, options
from tl_runner.experiments import Experiment
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import RunRecord, read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "experiments"
BEGIN, END = "<!-- made by scripts/bench_experiments.py: begin -->", "<!-- end of bench_experiments -->"
OWN_FILES = ("resnet18_cifar10", "resnet18_features")  # need files that are not here
COLUMNS = [
    "pair", "label", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high", "verdict",
    "source", "seconds", "steps",
]  # fmt: skip
BOUND = ("source_error", "half_distance", "joint_error")
BOUNDS = ("ε_T", "ε_S", "½d", "λ*", "ε_S + ½d + λ*")
Row = Mapping[str, str]  # of a kept table
TO_COME = {
    "text": "sentiment across kinds of reviews, by features of a language model",
    "speech": "digits spoken by others",
    "detection": "objects in other scenes",
    "zero_shot": "classes without an example, by what is said of them",
    "cross_modal": "from images to text and back",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these experiments")
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    listed = experiments.list_experiments([options.conf()])
    if asked.outputs:
        KEPT.mkdir(parents=True, exist_ok=True)
        for each in listed:
            if each.name in (asked.names or {each.name for each in listed if each.name not in OWN_FILES}):
                measure(each.name, asked.outputs, asked.jobs)
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(page(listed)))


def measure(name: str, outputs: Path, jobs: int) -> None:
    """Make the runs of an experiment, and keep its table."""
    folder = outputs / name
    words = [f"experiment={name}", f"outputs={folder}", f"hydra.launcher.n_jobs={jobs}", "threads=1", "save=false"]
    print(*words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("tl-run")), *words], check=False, stdout=subprocess.DEVNULL)
    runs, _ = read_records([folder])
    with (KEPT / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *BOUND], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in build_leaderboard(runs).to_dict("records"):
            terms = measure_bound([run for run in runs if run.setting == row["setting"]])
            writer.writerow({key: _written(value) for key, value in {**row, **terms}.items()})


def measure_bound(runs: Sequence[RunRecord]) -> dict[str, float | None]:
    """The mean of each of the bound's terms over runs; None where one does not know it."""
    found = [run.diagnosis.bound if run.diagnosis else None for run in runs]
    terms = {}
    for term in BOUND:
        values = [value for bound in found if (value := getattr(bound, term, None)) is not None]
        terms[term] = fmean(values) if len(values) == len(runs) else None
    return terms


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return "" if isnan(value) else round(value, 4)
    return value


def page(listed: Sequence[Experiment]) -> Iterator[str]:
    """The overview, then each experiment with its table."""
    kept = {each.name: read(file) for each in listed if (file := KEPT / f"{each.name}.csv").exists()}
    yield "| experiment | the claim | what was seen | runs | minutes |"
    yield "|---|---|---|--:|--:|"
    for each in listed:
        runs, minutes = measure_cost(kept.get(each.name, []))
        seen = each.seen or "not run here"
        yield f"| [{each.name}](#{each.name}) | {each.claim or '–'} | {seen} | {runs} | {minutes} |"
    for name, purpose in TO_COME.items():
        yield f"| {name} | {purpose} | to come | | |"
    for each in listed:
        yield from describe(each, kept.get(each.name, []))


def read(file: Path) -> list[Row]:
    with file.open(newline="") as opened:
        return [*csv.DictReader(opened)]


def measure_cost(rows: Sequence[Row]) -> tuple[str, str]:
    """Runs, and minutes of one core."""
    if not rows:
        return "–", "–"
    minutes = sum(float(row["seconds"] or 0) * int(row["n"]) for row in rows) / 60
    return str(sum(int(row["n"]) for row in rows)), f"{minutes:.1f}"


def describe(of: Experiment, rows: Sequence[Row]) -> Iterator[str]:
    yield from ("", f"### {of.name}", "", of.purpose)
    for line in of.text.splitlines():
        if line.startswith("#   tl-run"):
            yield from ("", f"    {line.lstrip('# ')}")
    if of.origin:
        yield from ("", f"*From the articles.* {of.origin}", "", f"*The claim:* {of.claim}.")
    if of.seen:
        yield from ("", f"*Seen:* {of.seen}")
    terms = list_bound if of.name == "bound_terms" else None
    heads = ["setting", "granted", "n", "target, %", "− baseline, points (95 %)", *(BOUNDS if terms else ())]
    for pair, of_pair in groupby(rows, key=lambda row: row["pair"]):
        yield from ("", pair, "", f"| {' | '.join(heads)} |", "|---|--:|--:" + "|--:" * (len(heads) - 3) + "|")
        for row in of_pair:
            yield f"| {' | '.join([*list_cells(row), *(terms(row) if terms else ())])} |"


def list_cells(row: Row) -> list[str]:
    failed = f" ({row['failed']} failed)" if row["failed"] != "0" else ""
    target = percent(row["target"]) + (f" ± {percent(row['target_sd'])}" if row["target_sd"] else "")
    gain = percent(row["difference"], "+.1f") if row["difference"] else ""
    if gain and row["low"]:
        gain += f" ({percent(row['low'], '+.1f')} to {percent(row['high'], '+.1f')})"
    label = row["label"].replace("|", "\\|")
    return [f"`{label}`", row["granted"], row["n"] + failed, target, gain]


def percent(value: str, form: str = ".1f") -> str:
    return f"{100 * float(value):{form}}".replace("-", "−")


def list_bound(row: Row) -> list[str]:
    """ε_T, the three terms, and their sum."""
    terms = [float(row[term]) for term in BOUND]
    return [f"{value:.2f}" for value in (1 - float(row["target"]), *terms, sum(terms))]


if __name__ == "__main__":
    main()
