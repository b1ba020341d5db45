"""What an objective without target labels costs a search for the weight of a method's term.

Every weight, from far too little to too much, is trained once on each seed. Searches are then replayed: one that has
tried all weights, all that try five of them, and ten by TPE that try eight, as `hydra/sweeper=tl_optuna` does. Each
takes the trial that its objective likes best. Regret is the target accuracy of the best of all weights less that of
the one taken.

    scripts/bench_search.py --outputs FOLDER --write docs/deciding.md

Runs that are there are not made again. All of it is some ten minutes of one core for three seeds.
"""

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from bench_methods import put

from tl_runner.storage.record import RunRecord, read_records
from tl_runner.sweep.agreed import compute_agreements
from tl_runner.sweep.search import value_of_evidence
from tl_runner.training.checkpoint_selection import DOUBT, Evidence, standard_error

WEIGHTS = tuple(float(f"{weight:.2g}") for weight in np.logspace(-3, 2, 8))
METHODS: dict[str, list[str]] = {"mmd": [], "dann": ["method.hidden=128"], "mcc": [], "im": []}
DEFAULTS = {"mmd": 2.0, "dann": 0.2, "mcc": 1.0, "im": 0.1}  # the weights that these methods have without a search
PAIRS = {
    "blobs": ["dataset=blobs", "backbone=mlp", "train.steps=150"],
    "covariate": ["dataset=synthetic", "dataset.shift=covariate", "backbone=mlp", "train.steps=150"],
    "digits": ["dataset=digits", "dataset.samples=600", "backbone=small", "backbone.channels=16", "train.steps=100"],
}
FIXED = ["train.evaluations=5", "diagnose=none", "save=false", "threads=1"]
KNOWN = ("floor", "information", "bnm", "dev")
SMALL = 0.01  # weights up to this one have next to no effect
SOME, TRIALS, STARTUP, REPLAYS = 5, 8, 3, 10
BEGIN, END = "<!-- made by scripts/bench_search.py: begin -->", "<!-- end of bench_search -->"

Values = Mapping[float, float]  # what an objective says of each weight that was tried
Objective = Callable[["Tried", Sequence[float]], Values]


class Tried(NamedTuple):
    """A method on a pair and a seed, with every weight: all that may be searched."""

    pair: str
    method: str
    seed: int
    runs: dict[float, RunRecord]

    def worth(self, weight: float) -> float:
        return 100 * (self.runs[weight].headline or 0.0)

    @property
    def best(self) -> float:
        return max(map(self.worth, self.runs))

    def evidence(self, weight: float) -> Evidence:
        known = self.runs[weight].evidence or {}
        return Evidence(**{name: known[name] for name in Evidence._fields if name in known})


def alone(name: str, tried: Tried, weights: Sequence[float]) -> Values:
    """What a trial is worth does not depend on the others."""
    return {weight: value_of_evidence(tried.evidence(weight)._asdict(), name) or 0.0 for weight in weights}


def agreement(tried: Tried, weights: Sequence[float]) -> Values:
    found = compute_agreements([[str(tried.runs[weight].folder)] for weight in weights])
    return dict(zip(weights, found, strict=True))


def kept_floor(tried: Tried, weights: Sequence[float], of: Objective) -> Values:
    """Another objective among the trials whose floor is within two standard errors of the highest; the others after."""
    best = max((tried.evidence(weight) for weight in weights), key=lambda seen: seen.floor or 0.0)
    limit = (best.floor or 0.0) - DOUBT * standard_error(best)
    inner = of(tried, weights)
    return {weight: inner[weight] + ((tried.evidence(weight).floor or 0.0) >= limit) for weight in weights}


def oracle(tried: Tried, weights: Sequence[float]) -> Values:
    return {weight: tried.worth(weight) for weight in weights}


OBJECTIVES: dict[str, Objective] = {
    **{name: partial(alone, name) for name in KNOWN},
    "agreement": agreement,
    "information, floor kept": partial(kept_floor, of=partial(alone, "information")),
    "bnm, floor kept": partial(kept_floor, of=partial(alone, "bnm")),
    "agreement, floor kept": partial(kept_floor, of=agreement),
    "oracle": oracle,
}


def chosen(tried: Tried, objective: Objective, weights: Sequence[float]) -> float:
    """The weight of the trial that is taken; the more informative of equals, as `Study.best` has it."""
    values = objective(tried, weights)
    return max(weights, key=lambda weight: (values[weight], tried.evidence(weight).information))


def by_all(tried: Tried, objective: Objective) -> list[float]:
    return [chosen(tried, objective, [*tried.runs])]


def by_some(tried: Tried, objective: Objective) -> list[float]:
    return [chosen(tried, objective, weights) for weights in combinations(tried.runs, SOME)]


def by_tpe(tried: Tried, objective: Objective) -> list[float]:
    """A weight between those of the grid is taken for the nearest; a trial's value is what it was when it ended."""
    found = []
    for replay in range(REPLAYS):
        sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=replay)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        weights: dict[float, None] = {}
        for _ in range(TRIALS):
            trial = study.ask()
            drawn = trial.suggest_float("weight", min(WEIGHTS), max(WEIGHTS), log=True)
            weight = min(tried.runs, key=lambda known: abs(np.log(known / drawn)))
            weights[weight] = None
            study.tell(trial, objective(tried, [*weights])[weight])
        found.append(chosen(tried, objective, [*weights]))
    return found


def table(of: Sequence[Tried]) -> Iterator[str]:
    """A line an objective: its regrets where all weights are tried by pair, and those of smaller searches."""
    pairs, seeds = sorted({each.pair for each in of}), sorted({each.seed for each in of})
    yield f"| objective | {' | '.join(pairs)} | mean ± sd over {len(seeds)} seeds | worst | weight ≤ {SMALL} |" + (
        f" {SOME} at random | {TRIALS} by TPE |"
    )
    yield "|---|" + "--:|" * (len(pairs) + 5)
    for name, objective in OBJECTIVES.items():
        taken = [chosen(each, objective, [*each.runs]) for each in of]
        regrets = [each.best - each.worth(weight) for each, weight in zip(of, taken, strict=True)]
        small = sum(weight <= SMALL for weight in taken)
        others = [
            np.mean([np.mean([each.best - each.worth(w) for w in way(each, objective)]) for each in of])
            for way in (by_some, by_tpe)
        ]
        yield line(f"`{name}`" if name in (*KNOWN, "agreement") else name, of, regrets) + (
            f" {small} of {len(of)} | {others[0]:.1f} | {others[1]:.1f} |"
        )
    usual = [min(WEIGHTS, key=lambda known, own=DEFAULTS[each.method]: abs(np.log(known / own))) for each in of]
    yield line(
        "no search: nearest to the default", of, [e.best - e.worth(w) for e, w in zip(of, usual, strict=True)]
    ) + (" | | |")
    yield line("a weight at random", of, [e.best - float(np.mean([*map(e.worth, e.runs)])) for e in of]) + " | | |"


def line(name: str, of: Sequence[Tried], regrets: Sequence[float]) -> str:
    """The regrets by pair, their mean with its deviation over the seeds, and the largest."""
    by_pair: dict[str, list[float]] = defaultdict(list)
    by_seed: dict[int, list[float]] = defaultdict(list)
    for each, regret in zip(of, regrets, strict=True):
        by_pair[each.pair].append(regret)
        by_seed[each.seed].append(regret)
    over = [float(np.mean(found)) for found in by_seed.values()]
    spread = f" ± {np.std(over, ddof=1):.1f}" if len(over) > 1 else ""
    columns = " | ".join(f"{np.mean(by_pair[pair]):.1f}" for pair in sorted(by_pair))
    return f"| {name} | {columns} | {np.mean(regrets):.1f}{spread} | {max(regrets):.1f} |"


def searched(outputs: Path) -> tuple[list[Tried], list[str]]:
    """What was made, where every weight came to an end, of those that ended well; and what to say of it."""
    cells: dict[tuple[str, str, int], dict[float, RunRecord]] = defaultdict(dict)
    ends: Counter[str] = Counter()
    for run in read_records([outputs])[0]:
        ends[run.status] += 1
        if run.status != "running":
            pair = next(name for name, words in PAIRS.items() if run.choices["dataset"] == words[0].partition("=")[2])
            cells[pair, run.choices["method"], run.seed][float(run.config["method"]["weight"])] = run
    whole = [
        Tried(*key, {weight: run for weight, run in sorted(runs.items()) if run.status == "ok"})
        for key, runs in sorted(cells.items())
        if len(runs) == len(WEIGHTS)
    ]
    said = f"{len(whole)} searches of {len(WEIGHTS)} weights ({', '.join(METHODS)}); {ends.total()} runs"
    return whole, [said + "".join(f", {count} {end}" for end, count in ends.items() if end != "ok") + "."]


def make(outputs: Path, seeds: int, jobs: int) -> None:
    for pair in PAIRS.values():
        for method, options in METHODS.items():
            command = [str(Path(sys.executable).with_name("tl-run")), "-m", *pair, f"method={method}", *options]
            command += [f"method.weight={','.join(map(str, WEIGHTS))}", f"seed=range({seeds})", f"outputs={outputs}"]
            print(*command, flush=True)
            subprocess.run([*command, *FIXED, f"hydra.launcher.n_jobs={jobs}"], check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the table goes")
    said = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make(said.outputs, said.seeds, said.jobs)
    of, told = searched(said.outputs)
    text = "\n".join([*table(of), "", *told])
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
