"""Which checkpoint of a run, decided without target labels.

A rule is a function `rule(history, **options) -> index` of the evidence so far, and a fold: as the history
grows, its answer stays or moves to the newest point. So a run keeps the weights of one checkpoint, not of all.
"""

import logging
from collections.abc import Sequence
from math import sqrt
from typing import Literal, NamedTuple

from tl_runner.errors import check_range

logger = logging.getLogger(__name__)

DOUBT = 2.0  # standard errors within which two floors count as equal

FloorOf = Literal["granted", "source", "weighted source"]


class Evidence(NamedTuple):
    """All that may be known of a checkpoint before the answers are opened, at one evaluation point.

    Where a quantity is predicted, R² stands in the place of accuracy, and what is about classes is None. Of predictions
    on the target's validation split, where not said otherwise; `functional.label_free` has the formulas.
    """

    step: int
    source_val: float | None  # accuracy on the source's validation split, if it has the target's classes
    floor: float | None  # accuracy on held-out granted labels, else on source_val's rows if the source task is kept
    floor_rows: float  # how many labels the floor was measured on; in effect, (Σw)²/Σw², where these rows are weighed
    information: float | None = None  # H(mean p) − mean H(p) in nats
    entropy: float | None = None  # mean H(p)
    classes: int | None = None  # how many there are
    classes_used: float | None = None  # how many are predicted, in effect: exp H(histogram)
    nuclear_norm: float | None = None  # ‖P‖_* / √(n·C)
    density: float | None = None  # soft neighbourhood density
    risk: float | None = None  # of the source's validation rows, weighed to look like the target's; if its task is kept
    a_distance: float | None = None  # proxy A-distance of the validation splits' features
    floor_of: FloorOf | None = None  # whose labels the floor was measured on
    calibrated_norm: float | None = None  # nuclear_norm, calibrated on source_val's rows; if the source task is kept

    @classmethod
    def example(cls) -> "Evidence":
        """Of an untrained model of two classes, in which every fact is known: what a rule is tried out on."""
        return cls(
            step=0,
            source_val=0.5,
            floor=0.5,
            floor_rows=1,
            information=0.0,
            entropy=0.0,
            classes=2,
            classes_used=2.0,
            nuclear_norm=0.0,
            density=0.0,
            risk=0.0,
            a_distance=0.0,
            calibrated_norm=0.0,
        )


def last(history: Sequence[Evidence]) -> int:
    """The end of training."""
    return len(history) - 1


def source_val(history: Sequence[Evidence]) -> int:
    """The highest floor: accuracy on held-out granted labels, else on the source's validation split."""
    return _highest("source_val", [point.floor for point in history])


def im(history: Sequence[Evidence]) -> int:
    """The most informative predictions, H(mean p) − mean H(p)."""
    return _highest("im", [point.information for point in history])


def bnm(history: Sequence[Evidence]) -> int:
    """The largest nuclear norm of the predictions."""
    return _highest("bnm", [point.nuclear_norm for point in history])


def entropy(history: Sequence[Evidence]) -> int:
    """The most confident predictions, also where they are all of one class."""
    return _highest("entropy", [None if point.entropy is None else -point.entropy for point in history])


def snd(history: Sequence[Evidence]) -> int:
    """The highest soft neighbourhood density, also where all rows are in one neighbourhood."""
    return _highest("snd", [point.density for point in history])


def dev(history: Sequence[Evidence]) -> int:
    """The lowest risk by deep embedded validation."""
    return _highest("dev", [None if point.risk is None else -point.risk for point in history])


def default(history: Sequence[Evidence], collapse: float = 0.5, tolerance: float = 0.002) -> int:
    """The latest of those with the largest nuclear norm of calibrated predictions, within `tolerance` of the highest.

    The predictions on the unlabelled target are calibrated by the temperature that fits the source's validation rows:
    one that has grown too sure of itself gains nothing by that. Where the method does not keep the source's task, or
    there is no source, the predictions are taken as they are. Held-out granted labels are a floor: a checkpoint within
    two standard errors of the best accuracy on them so far is better than any other. One that predicts at most
    `collapse` × C classes (in effect: exp of the histogram's entropy) yields to any other.

    Where a quantity is predicted there is no such norm: the highest floor decides, R² on held-out granted labels or
    else on the source's validation rows; without both it is the last checkpoint.
    """
    check_range(0, 1, collapse=collapse, tolerance=tolerance)
    if history[0].classes is None:
        return source_val(history) if all(point.floor is not None for point in history) else last(history)
    values = [_norm(point) for point in history]
    if None in values:
        return last(history)
    chosen, peak, best = 0, values[0] or 0.0, history[0]
    for index, point in enumerate(history):
        best = max(best, point, key=_floor)
        limit = _floor(best) - DOUBT * standard_error(best)

        def sound(evidence: Evidence, limit: float = limit) -> tuple[bool, bool]:
            spread = (evidence.classes_used or 0.0) > max(1.0, collapse * (evidence.classes or 0)) + 1e-6
            return spread, _floor(evidence) >= limit

        value, better = values[index] or 0.0, sound(point) > sound(history[chosen])
        if better or (sound(point) == sound(history[chosen]) and value >= peak - tolerance):
            chosen, peak = index, value if better else max(peak, value)
    return chosen


def _norm(point: Evidence) -> float | None:
    """What `default` compares checkpoints by."""
    return point.nuclear_norm if point.calibrated_norm is None else point.calibrated_norm


def _floor(point: Evidence) -> float:
    """The accuracy on held-out granted labels; 0 where there are none."""
    return point.floor or 0.0 if point.floor_of == "granted" else 0.0


def _highest(rule: str, values: Sequence[float | None]) -> int:
    """The later of equals; the last where a run does not know the value."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        if len(values) == 1:  # the first time that the rule is asked
            logger.warning("select=%s has no evidence to use in this run: it selects the last checkpoint", rule)
        return len(values) - 1
    return max(range(len(known)), key=lambda index: (known[index], index))


def standard_error(point: Evidence) -> float:
    """Of an accuracy, with one success and one failure added, so that it is not 0 at an accuracy of 1."""
    n = point.floor_rows + 2
    share = ((point.floor or 0.0) * point.floor_rows + 1) / n
    return sqrt(share * (1 - share) / n)
