"""Every method on the embedded data sets, and the table of it in docs/methods.md.

    python scripts/bench_methods.py --outputs FOLDER [--seeds 10] [--pairs digits blobs …] [--write docs/methods.md]

Runs that are there are not made again, so that it goes on where it was cut off. All methods take the same number of
steps: those that start from the source model have half of them for it, or all where they train nothing after. Methods
that learn from granted labels get ten a class, and are compared with a source_only that has them too. Differences are
taken seed by seed; the interval is Student's t.
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from tl_runner import config, menu
from tl_runner.core import Method
from tl_runner.store import RunRecord, records

STEPS = 300
GRANTED = 10  # a class, for methods that need granted labels
FITTED = {"feature_extract", "coral_linear", "sa", "tca", "ot_map", "tradaboost", "adabn"}  # they train nothing
PAIRS = {
    "digits": ["dataset=digits", "backbone=small"],
    "blobs": ["dataset=blobs", "backbone=mlp"],
    "synthetic covariate": ["dataset=synthetic", "dataset.shift=covariate", "backbone=mlp"],
    "synthetic covariate, misspecified": [
        *("dataset=synthetic", "dataset.shift=covariate", "dataset.features=2", "dataset.redundant=0"),
        *("dataset.samples=2000", "backbone=linear"),
    ],
    "synthetic affine": ["dataset=synthetic", "dataset.shift=affine", "backbone=mlp"],
    "synthetic none": ["dataset=synthetic", "dataset.shift=none", "backbone=mlp"],
}
TUNED = "digits"  # the data set that all pairs on it share their rows with, and on which defaults were chosen
BEGIN, END = "<!-- made by scripts/bench_methods.py: begin -->", "<!-- end -->"


def methods() -> dict[str, Method]:
    """Every method of this package with its defaults, by name."""
    names = [option.name for option in menu.options([menu.conf()]) if option.group == "method"]
    return {name: config.named("method", name, "method") for name in names}


def commands(pair: Sequence[str], known: dict[str, Method]) -> Iterator[list[str]]:
    """The sweeps of a pair: with and without granted labels, of methods with all or half of the steps for training."""
    for granted in (0, GRANTED):
        for steps in (STEPS, STEPS // 2):
            chosen = [
                name
                for name, method in known.items()
                if ("granted" in method.needs) == bool(granted)
                and (STEPS // 2 if method.start == "source" and name not in FITTED else STEPS) == steps
            ]
            if granted and steps == STEPS:
                chosen.append("source_only")
            if chosen:
                budget = [f"granted={granted}", f"train.steps={steps}", f"pretrain.steps={steps}"]
                yield [*pair, f"method={','.join(chosen)}", *budget]


class Cell(NamedTuple):
    """What the runs of a method on a pair gave, by seed; `refused` where none of them ended."""

    selected: dict[int, float]
    last: dict[int, float]
    seconds: list[float]
    asked: int
    refused: str


def cells(found: Sequence[RunRecord]) -> dict[str, dict[str, dict[str, Cell]]]:
    """By label budget, by pair, and by method, the best first."""
    runs: dict[str, dict[str, dict[str, list[RunRecord]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in found:
        budget = "no target labels" if str(run.granted) == "0" else f"{run.granted} target labels a class"
        runs[budget][pair_of(run)][run.choices["method"]].append(run)
    return {
        budget: {
            pair: dict(sorted(((m, cell(of)) for m, of in by_method.items()), key=lambda item: -_mean(item[1])))
            for pair, by_method in sorted(by_pair.items())
        }
        for budget, by_pair in sorted(runs.items(), reverse=True)
    }


def pair_of(run: RunRecord) -> str:
    """What a table calls the data and the backbone of a run."""
    said = [run.choices["dataset"], run.config["dataset"].get("shift", "none"), run.choices["backbone"]]
    return " ".join(word for word in said if word != "none")


def cell(runs: Sequence[RunRecord]) -> Cell:
    selected, last = (
        {run.seed: 100 * run.scores[which]["accuracy"] for run in runs if run.scores} for which in ("selected", "last")
    )
    refused = "" if selected else min(str(run.error) for run in runs)
    return Cell(selected, last, [run.seconds for run in runs if run.seconds], len(runs), refused)


def overview(by_pair: dict[str, dict[str, Cell]]) -> Iterator[str]:
    """A line a method, a column a pair: the difference to source_only, bold where its interval leaves 0.

    The last column is the mean over the pairs that no default was chosen on.
    """
    yield "| method | " + " | ".join(by_pair) + " | mean, pairs not tuned on |"
    yield "|---|" + "--:|" * (len(by_pair) + 1)
    for method in sorted({method for of in by_pair.values() for method in of} - {"source_only"}):
        gained = [gains(of, method) if method in of else [] for of in by_pair.values()]
        line = [f"{_sure(gain)}{np.mean(gain):+.1f}{_sure(gain)}" if gain else "–" for gain in gained]
        apart = [
            np.mean(gain) for name, gain in zip(by_pair, gained, strict=True) if gain and not name.startswith(TUNED)
        ]
        yield f"| {method} | {' | '.join([*line, f'{np.mean(apart):+.1f}' if apart else '–'])} |"


def table(of: dict[str, Cell]) -> Iterator[str]:
    """The lines of a pair's table, a method each."""
    yield "| method | n | target, % | − source-only, points (95 % interval) | last, % | s |"
    yield "|---|--:|--:|--:|--:|--:|"
    for method, runs in of.items():
        if runs.refused:
            yield f"| {method} | 0 of {runs.asked} | refused: {runs.refused} | | | |"
            continue
        n = str(runs.asked) if len(runs.selected) == runs.asked else f"{len(runs.selected)} of {runs.asked}"
        gain = [] if method == "source_only" else gains(of, method)
        low, high = interval(gain)
        said = f"{np.mean(gain):+.1f} ({low:+.1f} to {high:+.1f})" if len(gain) > 1 else ""
        sure = _sure(gain)
        mean = f"{_mean(runs):.1f}" + (
            f" ± {np.std([*runs.selected.values()], ddof=1):.1f}" if len(runs.selected) > 1 else ""
        )
        last, seconds = np.mean([*runs.last.values()]), np.median(runs.seconds)
        yield f"| {method} | {n} | {mean} | {sure}{said}{sure} | {last:.1f} | {seconds:.1f} |"


def gains(of: dict[str, Cell], method: str) -> list[float]:
    """Over source_only in points, a seed each."""
    mine, base = of[method].selected, of["source_only"].selected if "source_only" in of else {}
    return [mine[seed] - base[seed] for seed in sorted(mine.keys() & base.keys())]


def interval(gain: Sequence[float]) -> tuple[float, float]:
    """The mean's 95 % interval by Student's t; all numbers where there are fewer than two."""
    if len(gain) < 2:
        return -np.inf, np.inf
    error = stats.sem(gain) + 1e-12  # equal runs have no spread
    low, high = stats.t.interval(0.95, len(gain) - 1, np.mean(gain), error)
    return float(low), float(high)


def _sure(gain: Sequence[float]) -> str:
    low, high = interval(gain)
    return "**" if low > 0 or high < 0 else ""


def _mean(runs: Cell) -> float:
    return float(np.mean([*runs.selected.values()])) if runs.selected else -1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--methods", nargs="*", default=[], help="only these, and source_only")
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the table goes")
    said = parser.parse_args()
    known = methods()
    if said.methods:
        known = {name: known[name] for name in dict.fromkeys(["source_only", *said.methods])}
    for pair in said.pairs:
        for words in commands(PAIRS[pair], known):
            fixed = [f"seed=range({said.seeds})", f"outputs={said.outputs}", "threads=1", "save=false"]
            command = [str(Path(sys.executable).with_name("tl-run")), "-m", *words, *fixed]
            print(*command, flush=True)
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # a refusal is a row of the table
    found, faults = records([said.outputs])
    ended = sum(record.status == "ok" for record in found)
    lines = []
    for budget, by_pair in cells(found).items():
        lines += [f"### Differences to source-only in points, {budget}", "", *overview(by_pair), ""]
        for pair, of in by_pair.items():
            lines += [f"<details><summary>{pair}, {budget}</summary>", "", *table(of), "", "</details>", ""]
    text = "\n".join([*lines, f"{len(found)} runs, {len(found) - ended + len(faults)} of them not ok."])
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


def put(file: Path, begin: str, end: str, text: str) -> None:
    """Between two markers of a file."""
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
