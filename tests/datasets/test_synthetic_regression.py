"""Made-up quantities: what the columns explain, what each shift changes, and that it is said."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures

from tl_runner.datasets.synthetic_regression import synthetic_regression
from tl_runner.errors import UserError


def sides(**options):
    drawn = synthetic_regression(0, samples=2000, **options)
    return tuple((raw.x.double().numpy(), raw.y.numpy()) for raw in (drawn.source, drawn.target))


def chance(a, b) -> float:
    """The p-value of the two-sample Kolmogorov–Smirnov test."""
    found: Any = ks_2samp(a, b)
    return found.pvalue


def squares(x):
    return PolynomialFeatures(2).fit_transform(x)


def test_a_linear_model_explains_all_but_the_noise_without_a_bend():
    (x, y), _ = sides(bend=0, noise=0.5, shift="none")
    residual = y - LinearRegression().fit(x, y).predict(x)
    assert residual.std() == pytest.approx(0.5, rel=0.05)  # 2,000 rows: a standard error of 1.6 %
    assert np.var(y) == pytest.approx(1 + 0.25, rel=0.1)


def test_the_bend_is_quadratic():
    (x, y), _ = sides(bend=0.7, noise=0.3, shift="none", features=5, informative=3)
    straight, bent = (LinearRegression().fit(f(x), y).score(f(x), y) for f in (lambda x: x, squares))
    assert straight < 0.75 and bent == pytest.approx(1 - 0.09 / (1 + 0.49 + 0.09), abs=0.03)


def test_without_a_shift_the_domains_are_one_distribution():
    (x, y), (u, v) = sides(shift="none")
    assert min(chance(y, v), *(chance(x[:, j], u[:, j]) for j in range(3))) > 0.01


@pytest.mark.parametrize("shift", ["covariate", "prior"])
def test_rows_that_are_chosen_keep_what_their_columns_mean(shift):
    """A quadratic model of the source is as right on the target under covariate shift; prior moves y's mean."""
    (x, y), (u, v) = sides(shift=shift, features=5, informative=3)
    model = LinearRegression().fit(squares(x), y)
    gap = (v - model.predict(squares(u))).std() / (y - model.predict(squares(x))).std()
    assert gap == pytest.approx(1.0, abs=0.1)
    moved = abs(v.mean() - y.mean()) / y.std()
    assert moved > (0.5 if shift == "prior" else 0.0) and len(v) == (1000 if shift == "prior" else 2000)


def test_a_concept_shift_changes_what_the_same_columns_mean():
    (x, y), (u, v) = sides(shift="concept", strength=1.0, bend=0)
    assert chance(x[:, 0], u[:, 0]) > 0.01
    one, other = (LinearRegression().fit(a, b).coef_ for a, b in ((x, y), (u, v)))
    assert np.linalg.norm(one - other) > 0.5 * np.linalg.norm(one)


def test_the_record_says_which_shift_and_how_strong():
    drawn = synthetic_regression(0, samples=50, shift="concept")
    assert drawn.notes == {"shift": "concept", "strength": 0.5} and drawn.fresh
    assert drawn.target.quantity == "y" and drawn.target.name == "synthetic_regression concept 0.5"
    with pytest.raises(UserError, match="informative=9 columns do not fit into features=5"):
        synthetic_regression(0, features=5, informative=9)
