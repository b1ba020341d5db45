"""What may be said of methods by their runs: paired differences, corrected tests, ranks. Pure functions of numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isnan, nan, sqrt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

SeedKind = Literal["independent", "resplit", "fixed", "unknown"]
Metric = Literal["accuracy", "balanced", "macro_f1", "r2", "spearman"]
OF_QUANTITY: tuple[Metric, ...] = ("r2", "spearman")
ScoreName = Literal["headline", Metric]  # headline: accuracy, or R² where a quantity is predicted

LEVEL = 0.05  # of the tests; intervals are of 1 − this
LEAST = 3  # seeds below which nothing is tested
MOST = 1000  # seeds that a report recommends at most
SMALLEST = 1e-300  # p-value


class Seeds(NamedTuple):
    """How runs on several seeds are related (`split_domains` puts it on record), and how many rows they are scored on.

    independent: every seed draws new data. resplit: every seed draws its `test` rows from one pool of `pool` rows.
    fixed: all seeds are scored on the same rows. unknown: an older record, taken for fixed, the most cautious.
    """

    kind: SeedKind = "unknown"
    test: int = 0
    pool: int = 0

    @property
    def overlap(self) -> float:
        """n_test / n_train of Nadeau and Bengio, n_train being the pool's rows outside the test split."""
        return self.test / (self.pool - self.test) if self.kind == "resplit" else 0.0

    @property
    def shares_rows(self) -> bool:
        """Whether the test rows' own chance is the same at all seeds, so that no spread over seeds shows it."""
        return self.kind in ("fixed", "unknown")


def joined(several: Iterable[Seeds]) -> Seeds:
    """How seeds differ over all of these runs; unknown where they do not agree, or there are none."""
    found = list(several)
    test = max((each.test for each in found), default=0)
    if len({each.kind for each in found}) != 1:
        return Seeds(test=test)
    return Seeds(found[0].kind, test, max(each.pool for each in found))


class Spread(NamedTuple):
    """What makes a mean difference uncertain: its variance over seeds, and the parts that more seeds do not reduce."""

    seeds: float  # s², of the difference, between seeds
    overlap: float  # × s²: what seeds share by drawing their test rows from one pool
    rows: float  # the variance of the mean that comes from the choice of the test rows, which all seeds share
    test: int

    def margin(self, n: int, level: float) -> float:
        """Half of the interval of n seeds that holds the true difference but for `level`.

        √(t²_{n−1} · s² · (1/n + overlap) + t²_{test−1} · rows): each part with its own quantile, which keeps the level
        whatever their ratio (Banerjee 1960); with one part alone it is Student's interval.
        """
        by_seed, by_row = (_quantile(free, level) for free in (n - 1, max(self.test - 1, 1)))
        return sqrt(by_seed**2 * self.seeds * (1 / n + self.overlap) + by_row**2 * self.rows)

    def p(self, n: int, difference: float) -> float:
        """The level at which the interval of n seeds just reaches 0: two-sided."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        error = sqrt(self.seeds * (1 / n + self.overlap))
        least = 2 * float(stdtr(n - 1, -abs(difference) / error)) if error else 0.0
        if not self.rows:
            return least if error else float(difference == 0)
        least = max(least, 2 * float(stdtr(max(self.test - 1, 1), -abs(difference) / sqrt(self.rows))), SMALLEST)
        if least >= 1 or self.margin(n, least) <= abs(difference):
            return min(least, 1.0)
        found: Any = brentq(lambda level: self.margin(n, level) - abs(difference), least, 1.0, xtol=1e-12)
        return float(found)


def _quantile(free: int, level: float) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(free, level / 2))  # 1 − level/2 would round to 1 for the least of levels


class Paired(NamedTuple):
    """What one setting gains over another on the same seeds; nan where nothing can be tested.

    `spread` is what its interval is made of, None without one.
    """

    pairs: int
    difference: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int
    spread: Spread | None = None


def compare_paired(
    mine: Mapping[Any, float], base: Mapping[Any, float], seeds: Seeds, rows: Callable[[list[Any]], float] | None = None
) -> Paired:
    """Scores by seed, compared where both have one: mean difference, 95 % interval and two-sided p, by kind of seeds.

    independent: Student's paired t, variance s²/n. resplit: the corrected resampled t, (1/n + n_test/n_train)·s²
    (Nadeau and Bengio, Machine Learning 2003). fixed, unknown: s²/n and the variance that comes from the test rows,
    which `rows` gives for the seeds of both (see `rows_variance`); without it nothing is tested. Nor is below `LEAST`
    seeds.

    Differences are not known better than to one test row, so their deviation is taken to be at least that of two
    roundings, 1/(√6·test): else equal differences would be as certain as can be.
    """
    shared = sorted(mine.keys() & base.keys(), key=lambda seed: str(seed).rjust(20))
    gains = np.array([mine[seed] - base[seed] for seed in shared])
    n = len(gains)
    counts = int((gains > 0).sum()), int((gains == 0).sum()), int((gains < 0).sum())
    mean = float(gains.mean()) if n else nan
    of_rows = 0.0
    if n >= LEAST and seeds.shares_rows:
        of_rows = rows(shared) if rows and seeds.test else nan
    if n < LEAST or isnan(of_rows):
        return Paired(n, mean, nan, nan, nan, *counts)
    resolution = 1 / seeds.test if seeds.test else 0.0
    spread = Spread(max(float(gains.var(ddof=1)), resolution**2 / 6), seeds.overlap, of_rows, seeds.test)
    margin = spread.margin(n, LEVEL)
    return Paired(n, mean, mean - margin, mean + margin, spread.p(n, mean), *counts, spread)


def seeds_needed(found: Paired, level: float) -> int | None:
    """With how many seeds a difference and spread like these would have a p below `level`; None if with none.

    Where seeds share rows or a pool, part of the uncertainty stays however many there are.
    """
    if found.spread is None:
        return None

    def enough(n: int) -> bool:
        return found.spread is not None and found.spread.margin(n, level) < abs(found.difference)

    low, high = LEAST - 1, MOST
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def influence(score: Metric, labels: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """How much each of m test rows moves a score: u (m,), of sum 0, with d score / d weight_j = u_j / m.

    The mean of u² over m is then the variance that a bootstrap over the rows has in the limit (the infinitesimal
    jackknife; Efron 1982). For accuracy u_j is [row j is right] − accuracy. For r2 = 1 − A/B, with A = Σ(y − ŷ)² and
    B = Σ(y − ȳ)², it is −m((y_j − ŷ_j)²/B − A(y_j − ȳ)²/B²). labels, predicted: (m,) classes, or values.
    """
    if score == "r2":
        return _influence_of_r2(labels.astype(np.float64), predicted.astype(np.float64))
    m, right = len(labels), labels == predicted
    if score == "accuracy":
        return right - right.mean()
    classes = int(max(labels.max(), predicted.max())) + 1
    true, said, hits = (np.bincount(rows, minlength=classes) for rows in (labels, predicted, labels[right]))
    if score == "balanced":
        of_class = hits / np.maximum(true, 1)
        return m * (right - of_class[labels]) / true[labels] / (true > 0).sum()
    total = np.maximum(true + said, 1)  # F1 = 2·hits/total
    gained, lost = 2 * right / total[labels], 2 * hits / total**2
    return m * (gained - lost[labels] - lost[predicted]) / (true + said > 0).sum()


def _influence_of_r2(values: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    squares, spread = np.square(values - predicted), np.square(values - values.mean())
    total = spread.sum()
    return np.zeros(len(values)) if not total else -len(values) * (squares / total - squares.sum() * spread / total**2)


def rows_variance(score: Metric, runs: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> float:
    """The variance of a mean difference of scores over n seeds that comes from the choice of the test rows.

    Of each seed the labels (m,), and the classes that the one and the other predict. Where the rows are the same in the
    same order at all seeds, rows and seeds are the two ways of a table of influences: its residual is training noise,
    which counts with the seeds, and what is left is (mean square of rows − residual)/(n·m), at least 0. Where they are
    not (a record from before the order was kept), rows can't be told from noise: then it is the mean of the seeds' own
    variances, more than there is.
    """
    moved = [influence(score, labels, mine) - influence(score, labels, base) for labels, mine, base in runs]
    n, m = len(moved), len(moved[0])
    if not all(np.array_equal(labels, runs[0][0]) for labels, _, _ in runs):
        return float(np.mean([np.var(row, ddof=1) / len(row) for row in moved]))
    of_row = np.mean(moved, 0)
    residual = float(np.square(moved - of_row).sum()) / ((n - 1) * (m - 1))
    return max(0.0, float(of_row.var(ddof=1)) - residual / n) / m


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values of one family (1979); nan stays, and counts for nothing.

    The i-th smallest of k is multiplied by k − i + 1, and is no less than those before it. (statsmodels has it, and
    calls the garbage collector each time: four seconds for 3,000 runs.)
    """
    order = sorted((index for index, value in enumerate(p) if not isnan(value)), key=lambda index: p[index])
    corrected, before = list(p), 0.0
    for tests, index in zip(range(len(order), 0, -1), order, strict=True):
        corrected[index] = before = max(before, min(1.0, tests * p[index]))
    return corrected


class Ranks(NamedTuple):
    """Average ranks of methods over pairs of domains, 1 the best, and what difference of two is more than chance."""

    average: dict[str, float]  # best first
    pairs: int
    critical: float  # Nemenyi's critical difference at the 5 % level
    p: float  # Friedman's, that all methods are alike


def ranks(scores: "pd.DataFrame") -> Ranks:
    """Of scores with a row for each pair and a column for each method, none missing (Demšar, JMLR 2006).

    CD = q·√(k(k+1)/(6N)), q the studentised range of k methods at infinite degrees of freedom over √2. Friedman's p is
    nan below three methods, of which it knows nothing.
    """
    from scipy import stats

    n, k = scores.shape
    average = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    critical = float(stats.studentized_range.ppf(1 - LEVEL, k, inf)) / sqrt(2) * sqrt(k * (k + 1) / (6 * n))
    p = float(stats.friedmanchisquare(*(scores[name] for name in scores)).pvalue) if k > 2 and n > 1 else nan
    return Ranks({str(name): float(rank) for name, rank in average.items()}, n, critical, p)
