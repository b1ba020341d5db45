"""Differences, corrections and ranks against scipy, statsmodels and scikit-posthocs."""

from math import isnan, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tl_runner.report.statistics import holm, paired, ranks

RNG = np.random.default_rng(0)


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_a_paired_difference_is_that_of_scipys_paired_t_test(n):
    mine, base = RNG.uniform(size=n), RNG.uniform(size=n)
    found, expected = paired(by_seed(mine), by_seed(base), resolution=1e-6), stats.ttest_rel(mine, base)
    interval = expected.confidence_interval(0.95)
    assert found.pairs == n
    assert found.difference == pytest.approx((mine - base).mean())
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert (found.wins, found.ties, found.losses) == ((mine > base).sum(), 0, (mine < base).sum())


def test_only_seeds_that_both_have_are_compared():
    found = paired({0: 0.5, 1: 0.9, 7: 0.1}, {1: 0.8, 0: 0.5, 2: 0.0}, resolution=0.0)
    assert (found.pairs, found.wins, found.ties, found.losses) == (2, 1, 1, 0)
    assert found.difference == pytest.approx(0.05)


def test_too_few_seeds_say_nothing():
    one, none = paired({0: 0.5}, {0: 0.4}, 0.01), paired({0: 0.5}, {1: 0.4}, 0.01)
    assert one.difference == pytest.approx(0.1) and isnan(one.p) and isnan(one.low)
    assert isnan(none.difference) and none.pairs == 0


def test_equal_differences_are_no_certainty():
    """Two seeds that both gain one row of 360: by hand t = √12 at one degree of freedom, p = 1 − 2·atan(√12)/π."""
    row = 1 / 360
    found = paired({0: 0.5 + row, 1: 0.6 + row}, {0: 0.5, 1: 0.6}, resolution=row)
    assert found.p == pytest.approx(1 - 2 * np.arctan(sqrt(12)) / np.pi)
    assert paired({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}, row).p == pytest.approx(1)
    assert paired({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}, 0.0).p == 1


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
