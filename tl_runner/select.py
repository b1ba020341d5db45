"""Which checkpoint of a run, decided without target labels.

A rule is a function `rule(history, **options) -> index` of the evidence so far, and a fold: as the history
grows, its answer stays or moves to the newest point. So a run keeps the weights of one checkpoint, not of all.
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from tl_runner.errors import within


class Evidence(NamedTuple):
    """All that may be known of a checkpoint before the answers are opened, at one evaluation point."""

    step: int
    source_val: float | None  # accuracy on the source's validation split, if it has the target's classes
    floor: float | None  # accuracy on held-out granted labels, else source_val if the source task is kept
    floor_rows: int  # how many labels the floor was measured on
    information: float  # H(mean p) − mean H(p) on the target's validation split, in nats
    entropy: float  # mean H(p) there
    classes: int  # how many there are
    classes_used: float  # how many are predicted there, in effect: exp H(histogram)


def last(history: Sequence[Evidence]) -> int:
    """The end of training."""
    return len(history) - 1


def source_val(history: Sequence[Evidence]) -> int:
    """The highest floor: accuracy on held-out granted labels, else on the source's validation split.

    The later of equals; the last where the run has no floor.
    """
    return max(range(len(history)), key=lambda i: (history[i].floor or 0.0, i))


def default(history: Sequence[Evidence], collapse: float = 0.5) -> int:
    """The most informative predictions among the checkpoints that keep the floor; the last without a floor.

    Keeping the floor: within one standard error of the best floor so far. Most informative: the largest
    H(mean p) − mean H(p) on the unlabelled target (Bridle et al. 1991). A checkpoint that predicts at most
    `collapse` × C classes there (in effect: exp of the histogram's entropy) yields to any other.
    """
    within(0, 1, collapse=collapse)
    if any(point.floor is None for point in history):
        return last(history)
    chosen, best = 0, history[0]
    for index, point in enumerate(history):
        best = max(best, point, key=lambda evidence: evidence.floor or 0.0)
        limit = (best.floor or 0.0) - _standard_error(best)

        def merit(evidence: Evidence, limit: float = limit) -> tuple[bool, bool, float]:
            spread = evidence.classes_used > max(1.0, collapse * evidence.classes) + 1e-6
            return spread, (evidence.floor or 0.0) >= limit, evidence.information

        if merit(point) >= merit(history[chosen]):
            chosen = index
    return chosen


def _standard_error(point: Evidence) -> float:
    """Of an accuracy, with one success and one failure added, so that it is not 0 at an accuracy of 1."""
    n = point.floor_rows + 2
    share = ((point.floor or 0.0) * point.floor_rows + 1) / n
    return sqrt(share * (1 - share) / n)
