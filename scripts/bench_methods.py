"""Every method on the standing pairs, and the tables of it in docs/methods.md.

    python scripts/bench_methods.py --outputs FOLDER [--kept DIR] [--seeds 200 …] [--pairs digits …] [--methods mmd …]
    python scripts/bench_methods.py --write docs/methods.md                      # the tables, of what is kept

The first makes runs and keeps their compact results in DIR, docs/measured/ by default. It resumes: what is kept is left
out (but for `--again`), and finished runs in the folder are skipped. All
methods take the same number of steps: those that start from the source model have half of them for it, or all where
they train nothing after. Methods that learn from granted labels get ten a class, and are compared with a source_only
that has them too. Differences are taken seed by seed.
"""

import argparse
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import measured
import numpy as np
from measured import Measured

from tl_runner import config, options
from tl_runner.core import Method
from tl_runner.report.statistics import Paired, Seeds, compare_paired, joined
from tl_runner.storage.record import read_records

GRANTED = 10  # a class, for methods that need granted labels
FITTED = {"feature_extract", "coral_linear", "sa", "tca", "ot_map", "tradaboost", "adabn"}  # they train nothing
SEEDS = (200, 201, 202, 203, 204)  # on which nothing was tuned


class Standing(NamedTuple):
    """A pair of the benchmark: its words on the command line, and the steps of each method."""

    words: tuple[str, ...]
    steps: int = 300


def _shifted(shift: str) -> Standing:
    """Handwritten digits -> handwritten digits under a shift of the image, of severity 3."""
    words = ("dataset=digits", "dataset.source=handwritten", f"dataset.shift={shift}", "dataset.samples=600")
    return Standing((*words, "backbone=small"), 150)


PAIRS = {
    "digits": Standing(("dataset=digits", "backbone=small")),
    "contrast": _shifted("contrast"),
    "fog": _shifted("fog"),
    "noise": _shifted("noise"),
    "rotation": _shifted("rotate"),
    "blobs": Standing(("dataset=blobs", "backbone=mlp")),
    "covariate": Standing(("dataset=synthetic", "dataset.shift=covariate", "backbone=mlp")),
    "covariate, linear": Standing(
        (
            *("dataset=synthetic", "dataset.shift=covariate", "dataset.features=2", "dataset.redundant=0"),
            *("dataset.samples=2000", "backbone=linear"),
        )
    ),
    "affine": Standing(("dataset=synthetic", "dataset.shift=affine", "backbone=mlp")),
    "no shift": Standing(("dataset=synthetic", "dataset.shift=none", "backbone=mlp")),
}
TUNED = "digits"  # the pair on which defaults were chosen; the shifts of handwritten digits share rows with its target
BEGIN, END = "<!-- made by scripts/bench_methods.py: begin -->", "<!-- end -->"
BASE = "source_only"

Points = Mapping[int, float]  # by seed, in percent


def methods() -> dict[str, Method]:
    """Every method of this package with its defaults, by name."""
    names = [option.name for option in options.list_options([options.conf()]) if option.group == "method"]
    return {name: config.build_named("method", name, "method") for name in names}


def commands(pair: Standing, known: dict[str, Method], done: Set[tuple[str, str]]) -> Iterator[list[str]]:
    """The sweeps of a pair: with and without granted labels, of methods with all or half of the steps for training.

    `done` are label budgets and methods that are left out.
    """
    for granted in (0, GRANTED):
        for steps in (pair.steps, pair.steps // 2):
            chosen = [
                name
                for name, method in known.items()
                if ("granted" in method.needs) == bool(granted)
                and (pair.steps // 2 if method.start == "source" and name not in FITTED else pair.steps) == steps
            ]
            if granted and steps == pair.steps:
                chosen.append(BASE)
            if chosen := [name for name in chosen if (str(granted), name) not in done]:
                budget = [f"granted={granted}", f"train.steps={steps}", f"pretrain.steps={steps}"]
                yield [*pair.words, f"method={','.join(chosen)}", *budget]


def run(pair: str, words: Sequence[str], seeds: Sequence[int], outputs: Path, jobs: int, kept: Path) -> None:
    """A sweep, and what is kept of it."""
    place = outputs / pair.replace(" ", "_").replace(",", "")
    fixed = [f"seed={','.join(map(str, seeds))}", f"outputs={place}", "threads=1", "save=false"]
    command = [str(Path(sys.executable).with_name("tl-run")), "-m", *words, *fixed, f"hydra.launcher.n_jobs={jobs}"]
    print(*command, flush=True)
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # a refusal is a row of the table
    found, faults = read_records([place])
    ended = [record for record in found if record.status in ("ok", "failed", "diverged")]
    measured.add((measured.compact(record, pair) for record in ended), kept)
    print(f"{len(ended)} of {pair} are kept{'; ' if faults else ''}{'; '.join(faults)}", flush=True)


def by_pair(kept: Sequence[Measured]) -> dict[str, dict[str, dict[str, list[Measured]]]]:
    """The runs by label budget, pair and method, pairs in their order above, methods best first."""
    found: dict[str, dict[str, dict[str, list[Measured]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for each in sorted(kept, key=lambda each: [*PAIRS].index(each.pair)):
        found[each.granted][each.pair][each.method].append(each)
    return {
        budget: {pair: dict(sorted(of.items(), key=lambda item: -_mean(item[1]))) for pair, of in pairs.items()}
        for budget, pairs in sorted(found.items())
    }


def scored(runs: Sequence[Measured]) -> Points:
    """Target accuracy of the selected checkpoint."""
    return {run.seed: 100 * run.chosen for run in runs if not run.error}


def overview(pairs: Mapping[str, Mapping[str, Sequence[Measured]]]) -> Iterator[str]:
    """A line a method, a column a pair: the difference to source_only, bold where its interval leaves 0.

    The last column is the mean over the pairs that no default was chosen on.
    """
    yield "| method | " + " | ".join(pairs) + " | mean, pairs not tuned on |"
    yield "|---|" + "--:|" * (len(pairs) + 1)
    means = {pair: np.mean([*scored(of[BASE]).values()]) for pair, of in pairs.items() if BASE in of}
    yield f"| {BASE}, % | " + " | ".join(f"{means[pair]:.1f}" if pair in means else "" for pair in pairs) + " | |"
    for method in sorted({method for of in pairs.values() for method in of} - {BASE}):
        found = {pair: gains(of, method) for pair, of in pairs.items() if method in of}
        found = {pair: gain for pair, gain in found.items() if gain.pairs}
        line = [
            f"{_sure(found[pair])}{found[pair].difference:+.1f}{_sure(found[pair])}" if pair in found else "–"
            for pair in pairs
        ]
        apart = [gain.difference for pair, gain in found.items() if pair != TUNED]
        yield f"| {method} | {' | '.join([*line, f'{np.mean(apart):+.1f}' if apart else '–'])} |"


def table(of: Mapping[str, Sequence[Measured]]) -> Iterator[str]:
    """The lines of a pair's table, a method each."""
    yield "| method | n | target, % | − source-only, points (95 % interval) | last, % | best, % | source, % | s |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for method, runs in of.items():
        ended = [run for run in runs if not run.error]
        if not ended:
            yield f"| {method} | 0 of {len(runs)} | {min(run.error for run in runs)} | | | | | |"
            continue
        gain = gains(of, method)
        said, points = (
            f"{_sure(gain)}{told(gain)}{_sure(gain)}" if method != BASE and gain.pairs else "",
            [*scored(runs).values()],
        )
        mean = f"{np.mean(points):.1f}" + (f" ± {np.std(points, ddof=1):.1f}" if len(points) > 1 else "")
        last, best = (100 * np.mean([take(run.accuracies) for run in ended]) for take in (lambda a: a[-1], max))
        source = [100 * run.source for run in ended if run.source is not None]
        at_source = f"{np.mean(source):.1f}" if source else ""
        n = str(len(runs)) if len(ended) == len(runs) else f"{len(ended)} of {len(runs)}"
        seconds = np.median([run.seconds for run in ended])
        yield f"| {method} | {n} | {mean} | {said} | {last:.1f} | {best:.1f} | {at_source} | {seconds:.1f} |"


def gains(of: Mapping[str, Sequence[Measured]], method: str) -> Paired:
    """Over source_only in points."""
    return compared(of[method], of.get(BASE, []))


def compared(mine: Sequence[Measured], base: Sequence[Measured]) -> Paired:
    """One setting against another on the seeds of both, as tl-report tests it."""
    seeds = joined(Seeds(**run.seeds) for run in [*mine, *base] if not run.error)
    ours, others = ({seed: value / 100 for seed, value in scored(runs).items()} for runs in (mine, base))
    found = compare_paired(ours, others, seeds)
    return found._replace(difference=100 * found.difference, low=100 * found.low, high=100 * found.high)


def told(found: Paired) -> str:
    """A difference with its interval, as the tables have it."""
    difference, low, high = (f"{round(value, 1) + 0.0:+.1f}" for value in (found.difference, found.low, found.high))
    return f"{difference} ({low} to {high})" if found.spread else difference


def _sure(found: Paired) -> str:
    return "**" if found.low > 0 or found.high < 0 else ""


def _mean(runs: Sequence[Measured]) -> float:
    points = [*scored(runs).values()]
    return float(np.mean(points)) if points else -1.0


def tables(kept: Sequence[Measured]) -> Iterator[str]:
    for budget, pairs in by_pair(kept).items():
        said = "no target labels" if budget == "0" else f"{budget} target labels a class"
        yield from (f"### Differences to source-only in points, {said}", "", *overview(pairs), "")
        for pair, of in pairs.items():
            yield from (f"<details><summary>{pair}, {said}</summary>", "", *table(of), "", "</details>", "")
    yield f"{len(kept)} runs, {sum(bool(each.error) for each in kept)} of them not ok."


def round_value(value: Any) -> Any:
    """A value of a leaderboard as a kept CSV file has it: fractions with four digits, nothing where there is none."""
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 4)
    return value


def put(file: Path, begin: str, end: str, text: str) -> None:
    """Between two markers of a file, which must be there."""
    before, opened, rest = file.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"{file} lacks the markers {begin} and {end}")
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="the folder of the runs; without it only what is kept is read")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--pairs", nargs="*", default=[*PAIRS], choices=[*PAIRS])
    parser.add_argument("--methods", nargs="*", default=[], help="only these, and source_only")
    parser.add_argument("--again", action="store_true", help="methods that are kept too: what they do has changed")
    parser.add_argument("--kept", type=Path, default=measured.FOLDER, help="where compact results are kept")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the tables go")
    said = parser.parse_args()
    if said.outputs:
        known = methods()
        if said.methods:
            known = {name: known[name] for name in dict.fromkeys([BASE, *said.methods])}
        for pair in said.pairs:
            there = {each.key for each in measured.load(said.kept) if each.pair == pair and not said.again}
            budgets = {(granted, method) for granted, method, _ in there}
            done = {of for of in budgets if all((*of, seed) in there for seed in said.seeds)}
            for words in commands(PAIRS[pair], known, done):
                run(pair, words, said.seeds, said.outputs, said.jobs, said.kept)
    if not (kept := measured.load(said.kept)):
        raise SystemExit(f"{said.kept} holds no runs: --outputs FOLDER makes some")
    text = "\n".join(tables(kept))
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
