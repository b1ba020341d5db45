"""What turns a source into a target: named shifts of tables, with a strength; `image_shifts` has those of images.

A shift of a table takes the rows of a target that was drawn like the source, and changes or leaves out some;
`covariate` alone divides one pool between the domains.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tl_runner.errors import UserError, check_range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LabelledRows = tuple[Floats, NDArray[np.int64] | Floats]  # the rows of a domain, and their labels or values
Shift = Callable[[Floats, NDArray[Any], float, Generator], LabelledRows]


def covariate(x: Floats, y: NDArray[Any], n: int, strength: float, rng: Generator) -> Ints:
    """n rows chosen by x alone, so that p(y|x) is kept.

    The log-odds of being chosen are strength × the row's position along a random direction, in standard
    deviations, plus the constant that makes n.
    """
    position = (x - x.mean(0)) @ rng.normal(size=x.shape[1])
    return np.argsort(-(strength * position / position.std() + rng.logistic(size=len(x))))[:n]


def prior(x: Floats, y: Ints, strength: float, rng: Generator) -> LabelledRows:
    """Rows kept by y alone, so that p(x|y) is kept: the last class's odds to the first grow by exp(strength)."""
    classes = y.max() + 1
    counts = np.bincount(y, minlength=classes)
    odds = counts * np.exp(strength * np.arange(classes) / max(1, classes - 1))
    shares = odds / odds.sum()
    n = (counts / shares).min()  # as many as the rarest class allows
    kept = [rng.permutation(np.flatnonzero(y == c))[: round(n * share)] for c, share in enumerate(shares)]
    kept = rng.permutation(np.concatenate(kept))
    return x[kept], y[kept]


def move(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """x + strength · (mean deviation of the columns) · u, along a random unit vector u."""
    direction = rng.normal(size=x.shape[1])
    return x + strength * x.std(0).mean() * direction / np.linalg.norm(direction), y


def scale(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """Every column times a factor of its own, exp(strength · z) with z standard normal."""
    return x * np.exp(strength * rng.normal(size=x.shape[1])), y


def rotate(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """Rotated about the origin by `strength` radians, in each of a random pairing of the columns."""
    order = rng.permutation(x.shape[1])
    rotated = x.copy()
    for i, j in zip(order[::2], order[1::2], strict=False):  # an odd column out stays
        rotated[:, i] = math.cos(strength) * x[:, i] - math.sin(strength) * x[:, j]
        rotated[:, j] = math.sin(strength) * x[:, i] + math.cos(strength) * x[:, j]
    return rotated, y


def affine(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """Rotated by strength/2 radians, scaled by strength/4 and moved by strength: p(y|x) moves along."""
    for shift, share in ((rotate, 0.5), (scale, 0.25), (move, 1.0)):
        x, y = shift(x, y, share * strength, rng)
    return x, y


def concept(x: Floats, y: Ints, strength: float, rng: Generator) -> LabelledRows:
    """The same x, other labels: the share `strength` of the rows furthest in a random direction has the next class."""
    check_range(0, 1, strength=strength)
    position = x @ rng.normal(size=x.shape[1])
    changed = position >= np.quantile(position, 1 - strength) if strength > 0 else np.zeros(len(x), dtype=bool)
    return x, np.where(changed, (y + 1) % (y.max() + 1), y)


def mislabel(y: Ints, classes: int, share: float, rng: Generator) -> Ints:
    """The labels with that share of them, at random rows, replaced by any other class, each as likely."""
    chosen = rng.permutation(len(y))[: round(share * len(y))]
    wrong = y.copy()
    wrong[chosen] = (y[chosen] + rng.integers(1, classes, size=len(chosen))) % classes
    return wrong


def noise(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """Normal noise of `strength` × each column's deviation."""
    return x + strength * x.std(0) * rng.normal(size=x.shape), y


def missing(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """A share `strength` of the cells is lost and filled with the column's mean."""
    check_range(0, 1, strength=strength)
    return np.where(rng.random(x.shape) < strength, x.mean(0), x), y


def unchanged(x: Floats, y: NDArray[Any], strength: float, rng: Generator) -> LabelledRows:
    """No shift: source and target are one distribution."""
    return x, y


def prior_of_quantity(x: Floats, y: Floats, strength: float, rng: Generator) -> LabelledRows:
    """Half of the rows, chosen by y alone, so that p(x|y) is kept: their log-odds grow by strength a deviation of y."""
    odds = strength * (y - y.mean()) / y.std() + rng.logistic(size=len(y))
    kept = rng.permutation(np.argsort(-odds)[: len(y) // 2])
    return x[kept], y[kept]


def concept_of_quantity(x: Floats, y: Floats, strength: float, rng: Generator) -> LabelledRows:
    """The same x, other values: y + strength · (deviation of y) · the row's position in a random direction."""
    position = x @ rng.normal(size=x.shape[1])
    return x, y + strength * y.std() * (position - position.mean()) / position.std()


TABLE_SHIFTS: dict[str, Shift] = {
    "none": unchanged,
    "prior": prior,
    "affine": affine,
    "move": move,
    "scale": scale,
    "rotate": rotate,
    "concept": concept,
    "noise": noise,
    "missing": missing,
}


QUANTITY_SHIFTS: dict[str, Shift] = {**TABLE_SHIFTS, "prior": prior_of_quantity, "concept": concept_of_quantity}


def table_pair(
    x: Floats,
    y: NDArray[Any],
    shift: str,
    strength: float,
    rng: Generator,
    shifts: Mapping[str, Shift] = TABLE_SHIFTS,
) -> tuple[LabelledRows, LabelledRows]:
    """A pool of rows as (source, target), each at most half of it, without a row in both."""
    check_range(0, 50, strength=strength)
    half = len(x) // 2
    if shift == "covariate":
        target = covariate(x, y, half, strength, rng)
        source = rng.permutation(np.setdiff1d(np.arange(len(x)), target))[:half]
        return (x[source], y[source]), (x[target], y[target])
    return (x[:half], y[:half]), shifts[shift](x[half:], y[half:], strength, rng)


def strength_of(shift: str, given: float | None, default: float) -> float:
    """How strong a shift is: as given or its default; 0 for `none`, which takes no strength."""
    if shift == "none" and given is not None:
        raise UserError(f"a strength or severity of {given:g} has no shift to belong to: set dataset.shift too")
    return 0.0 if shift == "none" else default if given is None else given
