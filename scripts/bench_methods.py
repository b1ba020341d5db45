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


def table(found: Sequence[RunRecord]) -> Iterator[str]:
    """The lines of the table: a pair and a label budget at a time, the best method first."""
    rows: dict[tuple[str, str], dict[str, dict[int, RunRecord]]] = defaultdict(lambda: defaultdict(dict))
    for record in found:
        said = [record.choices["dataset"], record.config["dataset"].get("shift", "none"), record.choices["backbone"]]
        name = " ".join(word for word in said if word != "none")
        rows[name, record.granted][record.choices["method"]][record.seed] = record
    yield "| pair, labels a class | method | n | target, % | − source-only, points (95 % interval) | last, % | s |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for (name, granted), by_method in sorted(rows.items()):
        means = {method: _accuracies(runs, "selected") for method, runs in by_method.items()}
        baseline = means.get("source_only", {})
        mean = {method: float(np.mean([*of.values()])) if of else -1.0 for method, of in means.items()}
        for method in sorted(means, key=lambda method, mean=mean: -mean[method]):
            runs, values = by_method[method], means[method]
            if not values:
                said = {str(run.error).partition(":")[2].strip() or str(run.error) for run in runs.values()}
                yield f"| {name}, {granted} | {method} | 0 of {len(runs)} | refused: {min(said)} | | | |"
                continue
            last, seconds = _accuracies(runs, "last"), [run.seconds for run in runs.values() if run.seconds]
            gain = [values[seed] - baseline[seed] for seed in values.keys() & baseline.keys()]
            cells = [_spread([*values.values()]), "" if method == "source_only" else _interval(gain)]
            cells += [f"{np.mean([*last.values()]):.1f}", f"{np.median(seconds):.1f}"]
            n = str(len(values)) if len(values) == len(runs) else f"{len(values)} of {len(runs)}"
            yield f"| {name}, {granted} | {method} | {n} | {' | '.join(cells)} |"


def _accuracies(runs: dict[int, RunRecord], which: str) -> dict[int, float]:
    return {seed: 100 * run.scores[which]["accuracy"] for seed, run in runs.items() if run.scores}


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _interval(gain: Sequence[float]) -> str:
    if len(gain) < 2:
        return ""
    mean, error = np.mean(gain), stats.sem(gain) + 1e-12  # equal runs have no spread
    low, high = stats.t.interval(0.95, len(gain) - 1, mean, error)
    sure = "**" if low > 0 or high < 0 else ""
    return f"{sure}{mean:+.1f} ({low:+.1f} to {high:+.1f}){sure}"


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
    text = "\n".join([*table(found), "", f"{len(found)} runs, {len(found) - ended + len(faults)} of them not ok."])
    print(text)
    if said.write:
        before, _, rest = said.write.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        said.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
