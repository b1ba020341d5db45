"""How often tl-report finds what is not there, and what is: simulated runs through its own functions.

    python scripts/bench_null.py [--simulations 1000] [--seeds 3 5 10 20] [--pairs 1 2 4 6 12] [--rows 360]

Four methods and a baseline of equal true accuracy, on up to 12 pairs of domains. A row is hard for all of them by one
half to six tenths, and for each in its own way, which stays the same at every seed; `trained anew` adds chance by row
and by seed. independent: each seed has new rows; resplit: each draws its test rows from one pool; fixed: all have the
same. A true difference of two points says how much is found. Ends with 1 if a rate of false findings is above 5 % by
more than twice its own error.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_runner.report.statistics import LEVEL, Paired, SeedKind, Seeds, compare_paired, holm, rows_variance

METHODS = 4
ACCURACY, GAIN = 0.8, 0.02
KINDS: tuple[SeedKind, ...] = tuple(kind for kind in get_args(SeedKind) if kind != "unknown")
WORLDS = {"one training": (0.6, 0.4, 0.0, 0.0), "trained anew": (0.5, 0.3, 0.2, 0.1)}  # see `hits`


class Design(NamedTuple):
    """What is simulated: how seeds differ, how many there are, what training adds, rows of the test split and pool."""

    kind: SeedKind
    seeds: int
    world: str
    rows: int
    pool: int


def hits(design: Design, rng: np.random.Generator, gain: float = 0.0) -> NDArray[np.bool_]:
    """Which test rows the baseline and each method get right: (1 + methods, seeds, rows), `gain` is every method's.

    A row is right where difficulty + taste + noise < Φ⁻¹(accuracy) + the run's own luck, in variances of the world.
    """
    difficulty, taste, noise, luck = WORLDS[design.world]
    runs, seeds, rows = 1 + METHODS, design.seeds, design.rows
    several = {"independent": seeds * rows, "resplit": design.pool, "fixed": rows}[design.kind]

    def normal(variance: float, *shape: int) -> NDArray[np.float32]:
        return np.float32(sqrt(variance)) * rng.standard_normal(shape, dtype=np.float32)

    hard = normal(difficulty, several) + normal(taste, runs, several)
    if design.kind == "resplit":
        hard = hard[:, rng.random((seeds, several), dtype=np.float32).argpartition(rows)[:, :rows]]
    else:
        hard = np.broadcast_to(hard.reshape(runs, -1, rows), (runs, seeds, rows))
    if noise:
        hard = hard + normal(noise, *hard.shape)
    reached = np.array([ACCURACY, *[ACCURACY + gain] * METHODS])
    line = stats.norm.ppf(reached)[:, None] * sqrt(1 + luck**2) + luck * rng.normal(size=(runs, seeds))
    return hard < line[..., None]


def tested(right: NDArray[np.bool_], design: Design) -> list[Paired]:
    """Each method over the baseline, by the functions of the report."""
    seeds = Seeds(design.kind, design.rows, design.pool)
    labels = np.zeros(design.rows, dtype=np.int64)
    accuracies = [dict(enumerate(of.mean(-1).tolist())) for of in right]
    wrong = (~right).astype(np.int64)

    def rows(method: int) -> float:
        return rows_variance("accuracy", [(labels, a, b) for a, b in zip(wrong[method], wrong[0], strict=True)])

    return [
        compare_paired(accuracies[method], accuracies[0], seeds, lambda _, method=method: rows(method))
        for method in range(1, len(right))
    ]


def plain(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Student's paired t of each method over the baseline, whatever the kind of seeds: p."""
    gains = right[1:].mean(-1) - right[:1].mean(-1)
    error = np.maximum(gains.std(-1, ddof=1), 1 / right.shape[-1] / sqrt(6)) / sqrt(gains.shape[-1])
    return 2 * stats.t.sf(np.abs(gains.mean(-1)) / error, gains.shape[-1] - 1)


class Rates(NamedTuple):
    """Shares of false findings: of a single comparison, by Student's t instead, in a report of so many pairs; and the
    share of true differences that is found."""

    single: float
    plain: float
    families: dict[int, float]
    power: float


def rates(design: Design, simulations: int, pairs: Sequence[int], seed: int) -> Rates:
    rng = np.random.default_rng([seed, design.seeds, KINDS.index(design.kind), [*WORLDS].index(design.world)])
    single, by_plain, found, family = 0, 0, 0, dict.fromkeys(pairs, 0.0)
    for _ in range(simulations):
        p: list[float] = []
        for _ in range(max(pairs)):
            right = hits(design, rng)
            p += [each.p for each in tested(right, design)]
            by_plain += int((plain(right) < LEVEL).sum())
        single += sum(value < LEVEL for value in p)
        for count in pairs:  # a simulation holds several families of few pairs
            of = METHODS * count
            families = [holm(p[first : first + of]) for first in range(0, len(p) - of + 1, of)]
            family[count] += sum(min(corrected) < LEVEL for corrected in families) / len(families)
        truly = tested(hits(design, rng, GAIN)[:2], design)
        found += truly[0].p < LEVEL and truly[0].difference > 0
    comparisons = simulations * max(pairs) * METHODS
    families = {count: number / simulations for count, number in family.items()}
    return Rates(single / comparisons, by_plain / comparisons, families, found / simulations)


def most(simulations: int) -> float:
    """What a rate of 5 % stays below in 98 of 100 tries."""
    return LEVEL + 2 * sqrt(LEVEL * (1 - LEVEL) / simulations)


def table(found: dict[Design, Rates], pairs: Sequence[int]) -> Iterator[str]:
    heads = [
        "seeds are",
        "training",
        "n",
        "one test",
        "plain t",
        *(f"{n} × {METHODS}" for n in pairs),
        "power, 2 points",
    ]
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|" + "--:|" * (len(heads) - 2)
    for design, rate in found.items():
        numbers = [rate.single, rate.plain, *rate.families.values(), rate.power]
        told = [f"{100 * number:.1f} %" for number in numbers]
        yield f"| {design.kind} | {design.world} | {design.seeds} | {' | '.join(told)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5, 10, 20])
    parser.add_argument("--pairs", type=int, nargs="*", default=[1, 2, 4, 6, 12])
    parser.add_argument("--rows", type=int, default=360)
    parser.add_argument("--pool", type=int, default=1797)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    designs = [Design(kind, n, world, said.rows, said.pool) for kind in KINDS for world in WORLDS for n in said.seeds]
    found = {design: rates(design, said.simulations, said.pairs, said.seed) for design in designs}
    print(f"{said.simulations} simulations each, {said.rows} test rows, pool {said.pool}; false findings at 5 %")
    print(*table(found, said.pairs), sep="\n")
    worst = max(max(rate.single, *rate.families.values()) for rate in found.values())
    limit = most(said.simulations)
    print(f"highest rate of false findings {100 * worst:.1f} %, at most {100 * limit:.1f} % is chance")
    sys.exit(worst > limit)


if __name__ == "__main__":
    main()
