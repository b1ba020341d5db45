"""Makes the runs of the experiments in conf/experiment, and the page of what each came to.

    python scripts/bench_experiments.py --outputs FOLDER [NAME …]   # makes the runs, or resumes, and keeps their tables
    python scripts/bench_experiments.py --write docs/experiments.md # the page's tables, of all that is kept

Tables are kept in docs/measured/experiments, a CSV for each experiment.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
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
    table = build_leaderboard(runs)[COLUMNS]
    terms = pd.DataFrame([bound_of(run) for run in runs]).groupby("setting").mean()
    table = table.assign(**{term: build_leaderboard(runs)["setting"].map(terms[term]) for term in BOUND})
    table.round(4).to_csv(KEPT / f"{name}.csv", index=False)


def bound_of(run: RunRecord) -> dict[str, float | str | None]:
    bound = run.diagnosis and run.diagnosis.bound
    return {"setting": run.setting, **{term: getattr(bound, term) if bound else None for term in BOUND}}


def page(listed: Sequence[Experiment]) -> Iterator[str]:
    """The overview, then each experiment with its table."""
    kept = {
        each.name: pd.read_csv(KEPT / f"{each.name}.csv") for each in listed if (KEPT / f"{each.name}.csv").exists()
    }
    yield "| experiment | the claim | what was seen | runs | minutes |"
    yield "|---|---|---|--:|--:|"
    for each in listed:
        table = kept.get(each.name)
        runs, minutes = ("–", "–") if table is None else cost(table)
        seen = each.seen or "not run here"
        yield f"| [{each.name}](#{each.name}) | {each.claim or '–'} | {seen} | {runs} | {minutes} |"
    for name, purpose in TO_COME.items():
        yield f"| {name} | {purpose} | to come | | |"
    for each in listed:
        yield from section(each, kept.get(each.name))
    yield f"\nMeasured {datetime.now(UTC):%Y-%m-%d}."


def cost(table: pd.DataFrame) -> tuple[str, str]:
    """Runs, and minutes of one core."""
    minutes = (table["seconds"] * table["n"]).sum() / 60
    return str(int(table["n"].sum())), f"{minutes:.1f}"


def section(of: Experiment, table: pd.DataFrame | None) -> Iterator[str]:
    yield from ("", f"## {of.name}", "", of.purpose)
    for line in of.text.splitlines():
        if line.startswith("#   tl-run"):
            yield from ("", f"    {line.lstrip('# ')}")
    if of.origin:
        yield from ("", f"*From the articles.* {of.origin}", "", f"*The claim:* {of.claim}.")
    if of.seen:
        yield from ("", f"*Seen:* {of.seen}")
    if table is None:
        return
    bounded = of.name == "bound_terms"
    for pair, rows in table.groupby("pair", sort=False):
        yield from ("", f"**{pair}**" if table["pair"].nunique() > 1 else "")
        heads = ["setting", "granted", "n", "target, %", "− source-only, points (95 %)"]
        yield f"\n| {' | '.join([*heads, *(BOUNDS if bounded else ())])} |"
        yield "|---|--:|--:|--:|--:|" + "--:|" * (len(BOUNDS) if bounded else 0)
        for row in rows.to_dict("records"):
            yield f"| {' | '.join([*cells(row), *(terms(row) if bounded else ())])} |"


BOUNDS = ("ε_T", "ε_S", "½d", "λ*", "ε_S + ½d + λ*")


def cells(row: Mapping) -> list[str]:
    failed = f" ({row['failed']} failed)" if row["failed"] else ""
    spread = "" if pd.isna(row["target_sd"]) else f" ± {100 * row['target_sd']:.1f}"
    gain = "" if pd.isna(row["difference"]) else f"{100 * row['difference']:+.1f}"
    if gain and not pd.isna(row["low"]):
        gain += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    label = row["label"].replace("|", "\\|")
    return [
        f"`{label}`",
        str(row["granted"]),
        f"{row['n']}{failed}",
        f"{100 * row['target']:.1f}{spread}",
        gain.replace("-", "−"),
    ]


def terms(row: Mapping) -> list[str]:
    values = [row[term] for term in BOUND]
    return [f"{value:.2f}" for value in (1 - row["target"], *values, sum(values))]


if __name__ == "__main__":
    main()
