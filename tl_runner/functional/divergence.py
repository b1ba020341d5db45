"""How far two domains are apart, with how sure that is: rows (n, d) and (m, d) on the CPU, no labels, fixed seeds."""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.functional import importance, mmd
from tl_runner.functional.remembered import remember_results
from tl_runner.rng import Rng

ROWS = 500  # of a side, at most, that are compared: the interval of an A-distance is then about ±0.1
FOLDS = 5
LEVEL = 0.95  # of the intervals
SEED = 0  # of the folds and the permutations: the same rows give the same numbers
PORTION = 64  # permutations at a time


class Estimate(NamedTuple):
    """A number and its interval, of 95 % where nothing else is said."""

    value: float
    low: float
    high: float


class Separation(NamedTuple):
    """What a cross-fitted classifier of the domain says: its log-odds of "target" for n rows of each side."""

    log_odds: Tensor

    @property
    def rows(self) -> slice:
        """Of the source's rows those that were compared."""
        return slice(len(self.log_odds) // 2)

    @property
    def weights(self) -> Tensor:
        """p_t(x)/p_s(x) of these source rows, by a classifier that did not see the row."""
        return importance.ratio(self.log_odds, len(self.log_odds) // 2)

    @property
    def a_distance(self) -> Estimate:
        """2(1 − 2ε), from 0 to 2, ε the held-out error (Ben-David et al. 2007); half of it is the ½d of the bound.

        Clipped at 0. The interval is Wilson's of ε, which takes the rows as independent.
        """
        n = len(self.log_odds) // 2
        wrong = int((self.log_odds[:n] > 0).sum() + (self.log_odds[n:] <= 0).sum())
        low, high = wilson_interval(wrong, 2 * n)
        return Estimate(*(max(0.0, 2 - 4 * e) for e in (wrong / (2 * n), high, low)))


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The interval of a share of which `hits` of n were seen, at `LEVEL` (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    share, centre = hits / n, (hits + z**2 / 2) / (n + z**2)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


@remember_results
def separate_domains(source: Tensor, target: Tensor) -> Separation | None:
    """How well a logistic regression tells the domains apart: the first rows of each side, as many of both.

    None where there are fewer than `FOLDS` rows of a side.
    """
    n = min(len(source), len(target), ROWS)
    return Separation(importance.log_odds(source[:n], target[:n], SEED, folds=FOLDS)) if n >= FOLDS else None


class MMDTest(NamedTuple):
    value: float  # squared MMD, biased
    p: float


@remember_results
def mmd_test(source: Tensor, target: Tensor, permutations: int) -> MMDTest | None:
    """`mmd.mmd2` and the chance of as large a value where both sides are drawn from one distribution.

    p = (1 + #{permuted ≥ seen}) / (1 + permutations), by permuting which row is of which side (Gretton et al. 2012).
    None where a side has fewer than 2 rows. Permuted values that lie farther from the seen one than float32 can be
    wrong, (n + m + 2) ε Σ |z_i| K_ij |z_j|, are compared in float32, at half the cost.
    """
    source, target = source[:ROWS], target[:ROWS]
    n, m = len(source), len(target)
    if min(n, m) < 2:
        return None
    rough = mmd.rbf(torch.cat([source, target])).float()
    kernel, sides = rough.double(), torch.cat([torch.full((n,), 1.0 / n), torch.full((m,), -1.0 / m)]).double()
    generator, above = Rng(SEED).generator(), 0
    seen, error = _mmd2(kernel, sides), (n + m + 2) * torch.finfo(torch.float).eps * _mmd2(kernel, sides.abs())
    for first in range(0, permutations, PORTION):
        count = min(PORTION, permutations - first)
        z = sides[torch.stack([torch.randperm(n + m, generator=generator) for _ in range(count)])]
        gap = _mmd2(rough, z.float()) - seen
        close = _mmd2(kernel, z[gap.abs() <= error]) >= seen * (1 - 1e-9)  # equal rows are equal but for rounding
        above += int((gap > error).sum() + close.sum())
    return MMDTest(seen.item(), (1 + above) / (1 + permutations))


def _mmd2(kernel: Tensor, z: Tensor) -> Tensor:
    """zᵀKz, where z (…, n + m) is 1/n for the rows of the source and −1/m for those of the target."""
    return ((z @ kernel) * z).sum(-1)
