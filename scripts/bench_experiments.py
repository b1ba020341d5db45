"""Makes the runs of the experiments in conf/experiment, and the page of what each came to.

    python scripts/bench_experiments.py --outputs FOLDER [NAME …]   # makes the runs, or resumes, and keeps their tables
    python scripts/bench_experiments.py --write docs/experiments.md # the page's tables, of all that is kept

Tables are kept in docs/measured/experiments, a CSV for each experiment; pictures of three of them are drawn from these.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from bench_methods import put, round_value

from tl_runner import experiments, options
from tl_runner.experiments import Experiment
from tl_runner.report.comparison import OTHER_LABELS
from tl_runner.report.contrasts import contrast
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.settings import group_settings, order_budget
from tl_runner.storage.record import RunRecord, read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "experiments"
BEGIN, END = "<!-- made by scripts/bench_experiments.py: begin -->", "<!-- end of bench_experiments -->"
OWN_FILES = ("bert_sentiment", "resnet18_cifar10", "resnet18_features")  # need files that are not here
COLUMNS = [
    "pair", "label", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high", "verdict",
    "source", "seconds", "steps",
]  # fmt: skip
BOUND = ("source_error", "half_distance", "joint_error")
MEASURED = (*BOUND, "a_distance")
COMPARED = ("pair", "one", "other", "granted", "n", "difference", "low", "high")
BOUNDS = ("ε_T", "ε_S", "½d", "λ*", "ε_S + ½d + λ*")
Row = Mapping[str, str]  # of a kept table
TO_COME = {
    "detection": "objects in other scenes",
    "zero_shot": "classes without training examples, recognised by their text descriptions",
    "cross_modal": "from images to text and back",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these experiments")
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    files = experiments.list_files([options.conf()])
    listed = [experiments.read_experiment(file) for file in files.values()]
    if asked.outputs:
        KEPT.mkdir(parents=True, exist_ok=True)
        for each in listed:
            if each.name in (asked.names or {each.name for each in listed if each.name not in OWN_FILES}):
                measure(each, asked.outputs, asked.jobs)
    if asked.write:
        for name, (draw, _) in PICTURES.items():
            save_picture(name, draw)
        put(asked.write, BEGIN, END, "\n".join(page(listed)))


def measure(asked: Experiment, outputs: Path, jobs: int) -> None:
    """Make the runs of an experiment, and keep its tables."""
    name, folder = asked.name, outputs / asked.name
    words = [f"experiment={name}", f"outputs={folder}", f"hydra.launcher.n_jobs={jobs}", "threads=1", "save=false"]
    print(*words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("tl-run")), *words], check=False, stdout=subprocess.DEVNULL)
    runs, _ = read_records([folder])
    if not runs:
        raise SystemExit(f"{name} left no run in {folder}")
    with (KEPT / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *MEASURED], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in build_leaderboard(runs).to_dict("records"):
            means = average([run for run in runs if run.setting == row["setting"]])
            writer.writerow({key: round_value(value) for key, value in {**row, **means}.items()})
    if asked.compare:
        keep_comparisons(KEPT / f"{name}.compared.csv", runs, asked)


def keep_comparisons(file: Path, runs: Sequence[RunRecord], asked: Experiment) -> None:
    """A line for each comparison that the experiment asks for."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(COMPARED)
        for of in contrast(group_settings(runs), asked.compare):
            gain = (of.gain.pairs, of.gain.difference, of.gain.low, of.gain.high)
            labels = of.one.pair, of.one.label, of.other.label, of.granted
            writer.writerow([round_value(value) for value in (*labels, *gain)])


def average(runs: Sequence[RunRecord]) -> dict[str, float | None]:
    """The means of what is `MEASURED` over runs; None where one of them does not know it."""
    found = [measure_domains(run) for run in runs]
    columns = {name: [of[name] for of in found] for name in MEASURED}
    return {name: None if None in of else fmean(of) for name, of in columns.items()}


def measure_domains(run: RunRecord) -> dict[str, Any]:
    """The terms of the bound, and the A-distance of the features when the run ended."""
    bound = run.diagnosis and run.diagnosis.bound
    apart = run.diagnosis and run.diagnosis.after and run.diagnosis.after.a_distance
    return {**{term: getattr(bound, term, None) for term in BOUND}, "a_distance": apart.value if apart else None}


def page(listed: Sequence[Experiment]) -> Iterator[str]:
    """The overview, then each experiment with its table."""
    kept = {each.name: read(file) for each in listed if (file := KEPT / f"{each.name}.csv").exists()}
    yield "| experiment | the claim | what was seen | runs | minutes |"
    yield "|---|---|---|--:|--:|"
    for each in listed:
        runs, minutes = measure_cost(kept.get(each.name, []))
        claim, seen = (text[:1].upper() + text[1:] or "–" for text in (each.claim, each.seen))
        yield f"| [{each.name}](#{each.name}) | {claim} | {seen} | {runs} | {minutes} |"
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
    if of.name in PICTURES and picture(of.name).exists():
        yield from ("", f"![{PICTURES[of.name][1]}](pictures/{of.name}.png)")
    heads, more = EXTRA.get(of.name, ((), None))
    heads = ["setting", "granted", "n", "target, %", "− baseline, points (95 %)", *heads]
    rows = sorted(rows, key=lambda row: (row["pair"], order_budget(row["granted"])))
    for pair, of_pair in groupby(rows, key=lambda row: row["pair"]):
        yield from ("", pair, "", f"| {' | '.join(heads)} |", "|---|--:|--:" + "|--:" * (len(heads) - 3) + "|")
        for row in of_pair:
            yield f"| {' | '.join([*list_cells(row), *(more(row) if more else ())])} |"
    if (file := KEPT / f"{of.name}.compared.csv").exists():
        heads = ["data", "one", "other", "granted", "n", "one − other, points (95 %)"]
        yield from ("", f"| {' | '.join(heads)} |", "|---|---|---|--:|--:|--:|")
        for row in read(file):
            names = [row["pair"], *(f"`{row[side]}`" for side in ("one", "other"))]
            yield f"| {' | '.join([*names, row['granted'], row['n'], list_gain(row)])} |"


def list_cells(row: Row) -> list[str]:
    failed = f" ({row['failed']} failed)" if row["failed"] != "0" else ""
    target = percent(row["target"]) + (f" ± {percent(row['target_sd'])}" if row["target_sd"] else "")
    label = row["label"].replace("|", "\\|")
    gain = list_gain(row) if row["verdict"] != OTHER_LABELS else ""
    return [f"`{label}`", row["granted"], row["n"] + failed, target, gain]


def list_gain(row: Row) -> str:
    """A difference in points with its interval, where there is one."""
    if not row["difference"]:
        return ""
    difference, low, high = (row[name] and percent(row[name], "+.1f") for name in ("difference", "low", "high"))
    return f"{difference} ({low} to {high})" if low else difference


def percent(value: str, form: str = ".1f") -> str:
    return f"{100 * float(value):{form}}".replace("-", "−")


def list_bound(row: Row) -> list[str]:
    """ε_T, the three terms, and their sum."""
    terms = [float(row[term]) for term in BOUND]
    return [f"{value:.2f}" for value in (1 - float(row["target"]), *terms, sum(terms))]


def list_distance(row: Row) -> list[str]:
    return [f"{float(row['a_distance']):.2f}" if row["a_distance"] else "–"]


EXTRA = {"bound_terms": (BOUNDS, list_bound), "domain_similarity": (("A-distance after",), list_distance)}


def save_picture(name: str, draw: Callable[[Any, Sequence[Row]], None]) -> None:
    from matplotlib.figure import Figure

    if not (KEPT / f"{name}.csv").exists():
        return
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    draw(figure, read(KEPT / f"{name}.csv"))
    picture(name).parent.mkdir(exist_ok=True)
    figure.savefig(picture(name), dpi=100, metadata={"Software": None})


def picture(name: str) -> Path:
    return KEPT.parents[1] / "pictures" / f"{name}.png"


def draw_bound(figure: Any, rows: Sequence[Row]) -> None:
    """For each method the error on the target and the bound's sum, by the strength of the shift."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, method in zip(panels, ("source_only", "mmd"), strict=True):
        of = [row for row in rows if row["label"] == method]
        strengths = [float(row["pair"].rpartition("=")[2]) for row in of]
        terms = [[float(row[term]) for row in of] for term in BOUND]
        axes.stackplot(strengths, terms, labels=BOUNDS[1:4], colors=("#0072b2", "#e69f00", "#cccccc"), alpha=0.6)
        axes.plot(strengths, [1 - float(row["target"]) for row in of], "k-o", label="ε_T")
        axes.set(title=method, xlabel="strength of the shift")
    panels[0].set(ylabel="error")
    panels[0].legend(loc="upper left")


def draw_budgets(figure: Any, rows: Sequence[Row]) -> None:
    """Accuracy by label budget, mean ± sd over seeds, after 300 steps."""
    axes = figure.subplots()
    for method, colour in (("finetune", "#0072b2"), ("feature_extract", "#d55e00")):
        of = [row for row in rows if row["label"] == f"{method} train.steps=300"]
        of.sort(key=lambda row: order_budget(row["granted"]))
        means, spreads = ([100 * float(row[name]) for row in of] for name in ("target", "target_sd"))
        axes.errorbar([row["granted"] for row in of], means, spreads, fmt="-o", capsize=3, color=colour, label=method)
    axes.set(xlabel="granted target labels, a class", ylabel="target accuracy, %")
    axes.legend()


def draw_transfer(figure: Any, rows: Sequence[Row]) -> None:
    """What fine-tuning and joint training gain over training on the target alone, as the domains part."""
    compared = [row for row in read(KEPT / "negative_transfer.compared.csv") if row["other"] == "target_only"]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, title in zip(panels, ("label_noise", "strength"), ("label noise", "concept shift"), strict=True):
        for method, colour in (("source_only", "#009e73"), ("finetune", "#0072b2")):
            of = [row for row in compared if row["one"] == method and f"{key}=" in row["pair"]]
            amounts = [float(re.findall(rf"{key}=([\d.]+)", row["pair"])[0]) for row in of]
            mean, low, high = ([100 * float(row[name]) for row in of] for name in ("difference", "low", "high"))
            ends = [
                [m - end for m, end in zip(mean, low, strict=True)],
                [end - m for m, end in zip(mean, high, strict=True)],
            ]
            name = "joint (source_only, granted=5)" if method == "source_only" else method
            axes.errorbar(amounts, mean, ends, fmt="-o", capsize=3, color=colour, label=name)
        axes.axhline(0, color="k", lw=0.8)
        axes.set(title=title, xlabel="share of labels that differ")
    panels[0].set(ylabel="points over target_only")
    panels[0].legend()


PICTURES = {
    "bound_terms": (
        draw_bound,
        "The bound's terms, stacked, and the error on the target, by the strength of the shift",
    ),
    "finetune_vs_extract": (draw_budgets, "Accuracy of fine-tuning and feature extraction by labels a class"),
    "negative_transfer": (draw_transfer, "Points over training on the target alone, as source and target part"),
}


if __name__ == "__main__":
    main()
