"""Tables made on the spot, whose shift is known exactly."""

from typing import Literal

import numpy as np
import torch

from tl_runner.datasets.shifts import LabelledRows, mislabel, strength_of, table_pair
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.errors import UserError, check_range
from tl_runner.rng import Rng

TableShift = Literal["none", "covariate", "affine", "move", "scale", "rotate", "prior", "concept", "noise", "missing"]

# What makes each shift felt; the units are those of `shifts`.
STRENGTHS = {
    "none": 0.0,
    "covariate": 2.0,
    "affine": 1.0,
    "move": 2.0,
    "scale": 0.5,
    "rotate": 0.5,
    "prior": 2.0,
    "concept": 0.3,
    "noise": 1.0,
    "missing": 0.3,
}


def synthetic(
    seed: int,
    samples: int = 1000,
    features: int = 20,
    informative: int = 2,
    redundant: int = 10,
    classes: int = 2,
    separation: float = 1.0,
    shift: TableShift = "covariate",
    strength: float | None = None,
    random_state: int | None = None,
    label_noise: float = 0.0,
) -> Drawn:
    """scikit-learn's `make_classification`, `samples` rows a side, and a target under a named shift.

    `strength=None` takes the shift's own default; the record says which. With a `random_state` both domains are what
    `make_classification` makes of that, at every seed: the same rows, but for the shift. Without a shift they are split
    alike, so that no row to test by is one that the source trains on. `label_noise` is the share of the source's rows
    that get the label of another class, at random.
    """
    from sklearn.datasets import make_classification

    check_range(10, samples=samples)
    check_range(1, features=features, informative=informative)
    check_range(0, redundant=redundant, separation=separation)
    check_range(2, classes=classes)
    check_range(0, 1, label_noise=label_noise)
    if informative + redundant > features:
        raise UserError(
            f"{informative} informative and {redundant} redundant columns do not fit into features={features}"
        )
    if classes * 2 > 2**informative:
        raise UserError(f"{classes} classes of two clusters each need more than informative={informative} columns")
    same = random_state is not None
    check_range(0, 2**32 - 1, random_state=random_state or 0)
    if same and shift == "covariate":
        raise UserError(
            "dataset.shift=covariate divides rows between the domains, and random_state gives both the same rows: set"
            " dataset.shift=none, or another shift"
        )
    x, y = make_classification(
        n_samples=samples if same else 2 * samples,
        n_features=features,
        n_informative=informative,
        n_redundant=redundant,
        n_classes=classes,
        class_sep=separation,
        random_state=random_state if same else Rng(seed).child("synthetic").seed % 2**32,
    )
    x, y = np.tile(x, (1 + same, 1)), np.tile(y, 1 + same)
    strength = strength_of(shift, strength, STRENGTHS[shift])
    rng = Rng(random_state if same else seed).child("synthetic", "shift").numpy()
    (source, labels), target = table_pair(x, y, shift, strength, rng)
    noise = Rng(seed).child("synthetic", "label noise").numpy()
    sides = (source, mislabel(labels.astype(np.int64), classes, label_noise, noise)), target
    if not same:
        return _build_pair("synthetic", sides, classes, shift, strength)
    drawn = _build_pair(name := f"make_classification {random_state}", sides, classes, shift, strength)
    target = drawn.target._replace(name=name) if shift == "none" else drawn.target  # by the name rows are split alike
    return drawn._replace(target=target, fresh=False)


def blobs(
    seed: int,
    samples: int = 1000,
    features: int = 10,
    classes: int = 5,
    separation: float = 6.0,
    shift: Literal["none", "move"] = "move",
    strength: float | None = None,
) -> Drawn:
    """Normal clusters of unit deviation, the target's translated as one: the classes stay as separated as they were.

    The two nearest centres are `separation` apart; the translation is `strength` (by default 1) times that, in a
    random direction.
    """
    check_range(10, samples=samples)
    check_range(2, features=features, classes=classes)
    strength = strength_of(shift, strength, 1.0)
    check_range(0, separation=separation, strength=strength)
    rng = Rng(seed).child("blobs").numpy()
    y = rng.integers(classes, size=2 * samples)
    centres = rng.normal(size=(classes, features))
    centres *= separation / np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(classes, 1)].min()
    x = centres[y] + rng.normal(size=(len(y), features))
    direction = rng.normal(size=features)
    if shift == "move":
        x[samples:] += strength * separation * direction / np.linalg.norm(direction)
    return _build_pair("blobs", ((x[:samples], y[:samples]), (x[samples:], y[samples:])), classes, shift, strength)


def _build_pair(
    name: str, sides: tuple[LabelledRows, LabelledRows], classes: int, shift: str, strength: float
) -> Drawn:
    names = tuple(map(str, range(classes)))
    source, target = (
        Raw(label, torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)), names)
        for label, (rows, labels) in zip((name, f"{name} {shift} {strength:g}"), sides, strict=True)
    )
    return Drawn(source, target, {"shift": shift, "strength": strength}, fresh=True)
