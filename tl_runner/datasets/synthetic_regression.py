"""Tables made on the spot with a quantity to predict, whose shift is known exactly."""

from typing import Any, Literal

import numpy as np
import torch

from tl_runner.datasets.shifts import QUANTITY_SHIFTS, LabelledRows, strength_of, table_pair
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.datasets.synthetic import STRENGTHS
from tl_runner.errors import UserError, check_range
from tl_runner.rng import Rng

QuantityShift = Literal[
    "none", "covariate", "affine", "move", "scale", "rotate", "prior", "concept", "noise", "missing"
]
CONCEPT = 0.5  # the strength of `concept` for a quantity; for classes it is a share


def synthetic_regression(
    seed: int,
    samples: int = 1000,
    features: int = 10,
    informative: int = 4,
    noise: float = 0.3,
    bend: float = 0.7,
    shift: QuantityShift = "covariate",
    strength: float | None = None,
) -> Drawn:
    """y = linear(x) + bend · (u·x)² + noise, each part but for `bend` and `noise` of unit deviation; two domains.

    The linear part is scikit-learn's `make_regression` on `informative` of the columns, which are standard normal; u is
    a random direction in these. Where `bend` is not 0 no linear model is right everywhere, so that which rows it is
    fitted to matters. `strength=None` takes the shift's own default; the record says which.
    """
    from sklearn.datasets import make_regression

    check_range(10, samples=samples)
    check_range(1, features=features, informative=informative)
    check_range(0, noise=noise, bend=bend)
    if informative > features:
        raise UserError(f"informative={informative} columns do not fit into features={features}")
    made: Any = make_regression(
        n_samples=2 * samples,
        n_features=features,
        n_informative=informative,
        coef=True,
        random_state=Rng(seed).child("synthetic_regression").seed % 2**32,
    )
    x, linear, slopes = made
    rng = Rng(seed).child("synthetic_regression", "target").numpy()
    direction = rng.normal(size=features) * (slopes != 0)
    squares = (x @ direction / np.linalg.norm(direction)) ** 2 / np.sqrt(2)  # a χ² of one degree has a variance of 2
    y = linear / np.linalg.norm(slopes) + bend * squares + noise * rng.normal(size=len(x))
    strength = strength_of(shift, strength, CONCEPT if shift == "concept" else STRENGTHS[shift])
    source, target = table_pair(x, y, shift, strength, rng, QUANTITY_SHIFTS)
    sides = _raw("synthetic_regression", source), _raw(f"synthetic_regression {shift} {strength:g}", target)
    return Drawn(*sides, {"shift": shift, "strength": strength}, fresh=True)


def _raw(name: str, rows: LabelledRows) -> Raw:
    x, y = rows
    return Raw(name, torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float64)), (), quantity="y")
