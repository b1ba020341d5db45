"""Differences, corrections and ranks against scipy, statsmodels and scikit-posthocs."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from math import isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tl_runner.report.statistics import (
    Seeds,
    compare_paired,
    holm,
    influence,
    joined,
    ranks,
    rows_variance,
    seeds_needed,
)

RNG = np.random.default_rng(0)
NEW = Seeds("independent")


def script(name: str):
    """A module of scripts/, which are no package."""
    spec = spec_from_file_location(name, Path(__file__).parents[2] / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_paired_difference_is_that_of_scipys_paired_t_test(n):
    mine, base = RNG.uniform(size=n), RNG.uniform(size=n)
    found, expected = (
        compare_paired(by_seed(mine), by_seed(base), Seeds("independent", 10**6)),
        stats.ttest_rel(mine, base),
    )
    interval = expected.confidence_interval(0.95)
    assert found.pairs == n
    assert found.difference == pytest.approx((mine - base).mean())
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert (found.wins, found.ties, found.losses) == ((mine > base).sum(), 0, (mine < base).sum())


def test_only_seeds_that_both_have_are_compared():
    found = compare_paired({0: 0.5, 1: 0.9, 7: 0.1}, {1: 0.8, 0: 0.5, 2: 0.0}, NEW)
    assert (found.pairs, found.wins, found.ties, found.losses) == (2, 1, 1, 0)
    assert found.difference == pytest.approx(0.05)


def test_too_few_seeds_say_nothing():
    two, none = compare_paired({0: 0.5, 1: 0.5}, {0: 0.4, 1: 0.4}, NEW), compare_paired({0: 0.5}, {1: 0.4}, NEW)
    assert two.difference == pytest.approx(0.1) and isnan(two.p) and isnan(two.low) and isnan(two.high)
    assert isnan(none.difference) and none.pairs == 0


def test_equal_differences_are_no_certainty():
    """Three seeds that all gain one row of 360: by hand t = √18 at two degrees of freedom, p = 1 − t/√(2 + t²)."""
    row, equal = 1 / 360, by_seed([0.5, 0.6, 0.7])
    found = compare_paired({seed: value + row for seed, value in equal.items()}, equal, Seeds("independent", 360))
    assert found.p == pytest.approx(1 - sqrt(18 / 20))
    assert compare_paired(equal, equal, Seeds("independent", 360)).p == pytest.approx(1)
    assert compare_paired(equal, equal, NEW).p == 1


@pytest.mark.parametrize("n", [3, 5, 20])
def test_seeds_that_resplit_a_pool_are_corrected_as_nadeau_and_bengio_have_it(n):
    gains, row = RNG.normal(0.02, 0.03, size=n), Seeds("resplit", 360, 1797)
    found = compare_paired(by_seed(0.8 + gains), by_seed(np.full(n, 0.8)), row)
    error = sqrt((1 / n + 360 / 1437) * gains.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(gains.mean()) / error, n - 1))
    half = stats.t.ppf(0.975, n - 1) * error
    assert (found.low, found.high) == pytest.approx((gains.mean() - half, gains.mean() + half))


def test_with_one_test_set_the_rows_count_beside_the_seeds():
    """Each variance with the quantile of its own degrees of freedom; p is where the interval just reaches 0."""
    gains = np.array([0.03, 0.05, 0.02, 0.04])
    mine, base = by_seed(0.7 + gains), by_seed([0.7] * 4)
    found = compare_paired(mine, base, Seeds("fixed", 500), lambda seeds: 0.01**2)

    def half(level: float) -> float:
        by_seed, by_row = (stats.t.ppf(1 - level / 2, free) for free in (3, 499))
        return sqrt(by_seed**2 * gains.var(ddof=1) / 4 + by_row**2 * 0.01**2)

    assert (found.low, found.high) == pytest.approx((0.035 - half(0.05), 0.035 + half(0.05)))
    assert half(found.p) == pytest.approx(0.035)
    by_t = compare_paired(mine, base, Seeds("independent", 500))
    assert (
        compare_paired(mine, base, Seeds("fixed", 500), lambda seeds: 0.0).p == pytest.approx(by_t.p)
        and found.p > by_t.p
    )
    for rows in (None, lambda seeds: nan):
        assert isnan(compare_paired(mine, base, Seeds("fixed", 500), rows).p)
        assert isnan(compare_paired(mine, base, Seeds(test=500), rows).p)
    assert isnan(compare_paired(mine, base, Seeds(), lambda seeds: 0.0).p)  # nobody knows how many rows there are


def test_runs_that_disagree_on_their_seeds_are_unknown():
    assert joined([Seeds("resplit", 9, 90), Seeds("resplit", 10, 90)]) == Seeds("resplit", 10, 90)
    assert joined([Seeds("resplit", 9, 90), Seeds("independent", 10)]) == Seeds("unknown", 10)
    assert joined([]) == Seeds()


@pytest.mark.parametrize("score", ["accuracy", "balanced", "macro_f1"])
def test_influences_are_derivatives_of_the_score_by_the_rows_weights(score):
    """Against differences of scikit-learn's weighted scores."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    scores = {
        "accuracy": accuracy_score,
        "balanced": balanced_accuracy_score,
        "macro_f1": lambda y, p, sample_weight: f1_score(y, p, average="macro", sample_weight=sample_weight),
    }
    y = RNG.integers(0, 3, 40)
    p = np.where(RNG.uniform(size=40) < 0.6, y, RNG.integers(0, 3, 40))
    found = influence(score, y, p)
    weights, step = np.ones(40), 1e-5
    for row in range(40):
        at = [scores[score](y, p, sample_weight=weights + sign * step * (np.arange(40) == row)) for sign in (1, -1)]
        assert found[row] / 40 == pytest.approx((at[0] - at[1]) / (2 * step), abs=1e-7)
    assert found.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("score", ["accuracy", "balanced", "macro_f1"])
def test_the_variance_by_rows_is_that_of_a_paired_bootstrap(score):
    """3,000 draws of the rows of one trained pair: the deviation's own error is 1.3 %."""
    m = 400
    y = np.sort(RNG.choice(3, size=m, p=[0.7, 0.2, 0.1]))
    mine, base = (np.where(RNG.uniform(size=m) < right, y, RNG.integers(0, 3, m)) for right in (0.8, 0.6))
    found = rows_variance(score, [(y, mine, base)] * 3)  # the same training three times: no noise

    def of(labels, said) -> float:
        true, called, hits = (np.bincount(rows, minlength=3) for rows in (labels, said, labels[labels == said]))
        by_class = {"balanced": hits / true, "macro_f1": 2 * hits / (true + called)}
        return (labels == said).mean() if score == "accuracy" else by_class[score].mean()

    draws = RNG.integers(0, m, (3000, m))
    gains = [of(y[rows], mine[rows]) - of(y[rows], base[rows]) for rows in draws]
    assert np.sqrt(found) == pytest.approx(np.std(gains), rel=0.08)


def test_the_variance_by_rows_leaves_out_what_training_adds_if_rows_can_be_matched():
    """A table of rows × seeds by hand: hits of one against always wrong, so that a difference is a hit."""
    y = np.zeros(4, dtype=int)
    hits = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]])
    wrong = np.ones(4, dtype=int)
    table = hits - hits.mean(1, keepdims=True)
    of_rows = 3 * ((table.mean(0)) ** 2).sum() / 3
    residual = ((table - table.mean(0)) ** 2).sum() / (2 * 3)
    found = rows_variance("accuracy", [(y, 1 - row, wrong) for row in hits])
    assert found == pytest.approx((of_rows - residual) / 12) and of_rows > residual
    y_in_other_order = [np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])]
    apart = [(y, np.where(row, y, 1 - y), 1 - y) for row, y in zip(hits, y_in_other_order, strict=True)]
    assert rows_variance("accuracy", apart) == pytest.approx(np.mean([row.var(ddof=1) / 4 for row in hits]))
    chance = [(y, row, wrong) for row in 1 - np.eye(4, dtype=int)]  # each row is hit once: rows are all alike
    assert rows_variance("accuracy", chance) == 0


def test_how_many_seeds_a_difference_needs():
    gains = np.array([0.00, 0.06, 0.01, 0.05, 0.03])
    mine, base = by_seed(0.7 + gains), by_seed([0.7] * 5)
    for seeds, stays in ((Seeds("independent", 1000), 0.0), (Seeds("resplit", 100, 1000), 100 / 900)):
        found = compare_paired(mine, base, seeds)
        for level in (0.05, 0.005):
            n = 3
            while 2 * stats.t.sf(gains.mean() / (gains.std(ddof=1) * sqrt(1 / n + stays)), n - 1) >= level:
                n += 1
            assert seeds_needed(found, level) == n, (seeds, level)
    few_rows = compare_paired(mine, base, Seeds("resplit", 400, 1000))
    assert seeds_needed(few_rows, 0.05) is None  # √(400/600)·s alone is more than the difference allows
    assert seeds_needed(compare_paired({0: 1.0}, {0: 0.5}, NEW), 0.05) is None


@pytest.mark.parametrize("kind", ["independent", "resplit", "fixed"])
@pytest.mark.parametrize("world", ["one training", "trained anew"])
def test_without_effect_at_most_one_in_twenty_is_found(kind, world):
    """A small version of `scripts/bench_null.py`: 150 reports of 2 pairs × 4 methods, three seeds and ten."""
    bench_null = script("bench_null")
    for n in (3, 10):
        design = bench_null.Design(kind, n, world, 100, 500)
        found = bench_null.rates(design, 150, [1, 2], 7)
        assert found.single <= 0.05 + 0.02, found  # 1,200 comparisons, in groups that share a baseline
        assert max(found.families.values()) <= bench_null.most(150), found
        if kind == "resplit" and world == "one training" and n == 10:
            assert found.plain > 0.1  # what Student's paired t finds there


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_holm_is_that_of_statsmodels(k):
    from statsmodels.stats.multitest import multipletests

    p = [*RNG.uniform(0, 0.2, size=k)]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    with_gaps = holm([nan, *p, nan])
    assert with_gaps[1:-1] == pytest.approx(holm(p)) and isnan(with_gaps[0]) and isnan(with_gaps[-1])


def test_average_ranks_by_hand():
    """Demšar's definition: 1 is the best, equals share the mean of their ranks."""
    found = ranks(pd.DataFrame({"a": [0.9, 0.8, 0.7], "b": [0.5, 0.8, 0.6], "c": [0.1, 0.2, 0.3]}))
    assert list(found.average) == ["a", "b", "c"]
    assert found.average == pytest.approx({"a": (1 + 1.5 + 1) / 3, "b": (2 + 1.5 + 2) / 3, "c": 3.0})
    assert found.p == pytest.approx(stats.friedmanchisquare([0.9, 0.8, 0.7], [0.5, 0.8, 0.6], [0.1, 0.2, 0.3]).pvalue)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_published_table(k, q):
    """q at 5 % of Demšar's table 5."""
    n = 14
    found = ranks(pd.DataFrame(RNG.uniform(size=(n, k))))
    assert found.critical == pytest.approx(q * sqrt(k * (k + 1) / (6 * n)), abs=5e-4)


def test_ranks_that_differ_by_more_than_the_critical_difference_are_those_of_nemenyis_test():
    import scikit_posthocs

    scores = pd.DataFrame(RNG.normal(size=(12, 5)) + np.linspace(0, 3, 5), columns=pd.Index([*"abcde"]))
    found, p = ranks(scores), scikit_posthocs.posthoc_nemenyi_friedman(scores)
    for a in scores:
        for b in scores:
            apart = abs(found.average[str(a)] - found.average[str(b)]) > found.critical
            assert apart == (p.loc[a, b] < 0.05)


def test_the_influence_of_a_row_on_r2_is_its_derivative():
    """u_j against the change of the weighted R² by a little more weight on row j, and of sum 0."""
    random = np.random.default_rng(0)
    values = random.normal(size=40)
    predicted = values + random.normal(size=40) * 0.5

    def r2(w):
        w = w / w.sum()
        return 1 - (w * (values - predicted) ** 2).sum() / (w * (values - (w * values).sum()) ** 2).sum()

    step, m = 1e-6, len(values)
    moved = [(r2(np.ones(m) + step * np.eye(m)[j]) - r2(np.ones(m))) / step * m for j in range(m)]
    found = influence("r2", values, predicted)
    np.testing.assert_allclose(found, moved, atol=1e-4)
    assert abs(found.sum()) < 1e-9 and not influence("r2", values, values).any()
