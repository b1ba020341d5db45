"""What turns a source into a target: named shifts with a strength, for tables and for images.

A shift of a table takes the rows of a target that was drawn like the source, and changes or leaves out some;
`covariate` alone divides one pool between the domains.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.errors import Refused, within

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Side = tuple[Floats, Ints]  # the rows of a domain and their labels


def covariate(x: Floats, y: Ints, n: int, strength: float, rng: Generator) -> Ints:
    """n rows chosen by x alone, so that p(y|x) is kept.

    The log-odds of being chosen are strength × the row's position along a random direction, in standard
    deviations, plus the constant that makes n.
    """
    position = (x - x.mean(0)) @ rng.normal(size=x.shape[1])
    return np.argsort(-(strength * position / position.std() + rng.logistic(size=len(x))))[:n]


def prior(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """Rows kept by y alone, so that p(x|y) is kept: the last class's odds to the first grow by exp(strength)."""
    classes = y.max() + 1
    counts = np.bincount(y, minlength=classes)
    odds = counts * np.exp(strength * np.arange(classes) / max(1, classes - 1))
    shares = odds / odds.sum()
    n = (counts / shares).min()  # as many as the rarest class allows
    kept = [rng.permutation(np.flatnonzero(y == c))[: round(n * share)] for c, share in enumerate(shares)]
    kept = rng.permutation(np.concatenate(kept))
    return x[kept], y[kept]


def move(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """x + strength · (mean deviation of the columns) · u, along a random unit vector u."""
    direction = rng.normal(size=x.shape[1])
    return x + strength * x.std(0).mean() * direction / np.linalg.norm(direction), y


def scale(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """Every column times a factor of its own, exp(strength · z) with z standard normal."""
    return x * np.exp(strength * rng.normal(size=x.shape[1])), y


def rotate(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """Rotated about the origin by `strength` radians, in each of a random pairing of the columns."""
    order = rng.permutation(x.shape[1])
    rotated = x.copy()
    for i, j in zip(order[::2], order[1::2], strict=False):  # an odd column out stays
        rotated[:, i] = math.cos(strength) * x[:, i] - math.sin(strength) * x[:, j]
        rotated[:, j] = math.sin(strength) * x[:, i] + math.cos(strength) * x[:, j]
    return rotated, y


def affine(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """Rotated by strength/2 radians, scaled by strength/4 and moved by strength: p(y|x) moves along."""
    for shift, share in ((rotate, 0.5), (scale, 0.25), (move, 1.0)):
        x, y = shift(x, y, share * strength, rng)
    return x, y


def concept(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """The same x, other labels: the share `strength` of the rows furthest in a random direction has the next class."""
    within(0, 1, strength=strength)
    position = x @ rng.normal(size=x.shape[1])
    changed = position >= np.quantile(position, 1 - strength) if strength > 0 else np.zeros(len(x), dtype=bool)
    return x, np.where(changed, (y + 1) % (y.max() + 1), y)


def noise(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """Normal noise of `strength` × each column's deviation."""
    return x + strength * x.std(0) * rng.normal(size=x.shape), y


def missing(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """A share `strength` of the cells is lost and filled with the column's mean."""
    within(0, 1, strength=strength)
    return np.where(rng.random(x.shape) < strength, x.mean(0), x), y


def unchanged(x: Floats, y: Ints, strength: float, rng: Generator) -> Side:
    """No shift: source and target are one distribution."""
    return x, y


TABLE_SHIFTS: dict[str, Callable[[Floats, Ints, float, Generator], Side]] = {
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


def table_pair(x: Floats, y: Ints, shift: str, strength: float, rng: Generator) -> tuple[Side, Side]:
    """A pool of rows as (source, target), each at most half of it, without a row in both."""
    within(0, 50, strength=strength)
    half = len(x) // 2
    if shift == "covariate":
        target = covariate(x, y, half, strength, rng)
        source = rng.permutation(np.setdiff1d(np.arange(len(x)), target))[:half]
        return (x[source], y[source]), (x[target], y[target])
    return (x[:half], y[:half]), TABLE_SHIFTS[shift](x[half:], y[half:], strength, rng)


def strength_of(shift: str, given: float | None, default: float) -> float:
    """How strong a shift is: as given or its default; 0 for `none`, which takes no strength."""
    if shift == "none" and given is not None:
        raise Refused(f"a strength or severity of {given:g} has no shift to belong to: set dataset.shift too")
    return 0.0 if shift == "none" else default if given is None else given


# Image shifts take (n, c, h, w) in [0, 1] and a severity from 1 to 5, and are computed in one batch.


def _noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Normal noise of deviation 0.08 to 0.4."""
    return x + 0.08 * severity * torch.randn(x.shape, generator=generator)


def _blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A Gaussian of 2 to 10 % of the image's height."""
    deviation = 0.02 * severity * x.shape[-2]
    reach = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype)
    weights = torch.exp(-offsets.square() / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, weights[:, :, None, :], groups=x.shape[1])
    return F.conv2d(x, weights[:, :, :, None], groups=x.shape[1])


def _contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Distances to the image's mean, times 0.75 to 0.1."""
    mean = x.mean((-3, -2, -1), keepdim=True)
    return mean + (0.75, 0.5, 0.35, 0.2, 0.1)[severity - 1] * (x - mean)


def _invert(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Towards the negative, x + 0.2·severity·(1 − 2x): flatter at 1 and 2, inverted from 3 on, the negative at 5."""
    return x + 0.2 * severity * (1 - 2 * x)


def _rotate(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Each image by an angle of its own around 12° to 60°, give or take a fifth."""
    angle = math.radians(12 * severity) * (0.8 + 0.4 * torch.rand(len(x), generator=generator))
    return warp(x, torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2))


IMAGE_SHIFTS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "invert": _invert,
    "rotate": _rotate,
}


def shift_images(x: Tensor, shift: str, severity: int, generator: torch.Generator) -> Tensor:
    """The images under a named shift, clipped to [0, 1]; `none` returns them as they are."""
    return x if shift == "none" else IMAGE_SHIFTS[shift](x, severity, generator).clamp(0, 1)


def warp(x: Tensor, matrix: Tensor, offset: Tensor | None = None, side: int | None = None) -> Tensor:
    """Each image (n, c, h, w) sampled at matrix · position + offset, positions in [−1, 1]; outside is 0.

    matrix (n, 2, 2), offset (n, 2); `side` is the height and width of the result, else those of x.
    """
    offset = torch.zeros(len(x), 2) if offset is None else offset
    size = [*x.shape[:2], *(x.shape[2:] if side is None else (side, side))]
    grid = F.affine_grid(torch.cat([matrix, offset[..., None]], -1), size, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
