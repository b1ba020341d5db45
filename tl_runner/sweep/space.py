"""What a search varies: from Hydra's override grammar to dimensions. How they are searched is not said here."""

from collections.abc import Sequence
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from tl_runner.errors import UserError
from tl_runner.storage.record import NEUTRAL

APART = {"dataset", "granted"}  # runs on other data or with other label budgets are not to be compared


class Choice(NamedTuple):
    """One of several values, in no order, each as it is typed."""

    key: str
    values: tuple[str, ...]

    def typed(self, value: str) -> str:
        return f"{self.key}={value}"

    @property
    def words(self) -> str:
        return f"{self.key} one of {', '.join(self.values)}"


class NumberRange(NamedTuple):
    """Numbers from low to high, both of them possible; whole ones where both are. `listed`: those of a range."""

    key: str
    low: float
    high: float
    step: float | None = None  # None: any number between; whole numbers always have one
    log: bool = False
    listed: tuple[float, ...] = ()

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def typed(self, value: float) -> str:
        if self.listed:  # exactly as a sweep over the range has it, so that the runs are the same
            value = min(self.listed, key=lambda number: abs(number - value))
        return f"{self.key}={value!r}"

    @property
    def words(self) -> str:
        kind = "whole numbers" if self.whole else "numbers"
        steps = f" in steps of {self.step:g}" if self.step and not (self.whole and self.step == 1) else ""
        return f"{self.key} {kind} from {self.low:g} to {self.high:g}{steps}{', on a log scale' * self.log}"


Dimension = Choice | NumberRange


class Space(NamedTuple):
    """What a command line searches, what it fixes, and the seeds that every trial is run on."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]  # as typed
    seeds: tuple[str, ...]  # as typed: seed=0; empty where one seed stands in the configuration

    def by(self, key: str) -> "dict[str, Space]":
        """A space for each value of a choice that is searched; by the empty name this one, where it is not."""
        for dimension in self.dimensions:
            if dimension.key == key and isinstance(dimension, Choice):
                rest = tuple(other for other in self.dimensions if other is not dimension)
                return {
                    value: self._replace(dimensions=rest, fixed=(*self.fixed, dimension.typed(value)))
                    for value in dimension.values
                }
        return {"": self}


def parse_space(overrides: Sequence[Override]) -> Space:
    """The space of parsed overrides, of which a later one of the same key takes the place of an earlier.

    `choice()`, `a,b,c` and `glob()` are choices; `range()` has the values that it has in a sweep: its end is none of
    them; `interval()` has both ends, and as `int(interval())` whole numbers only. `tag(log, …)` puts numbers on a log
    scale. Seeds are not searched. Raises `UserError` for what can't be searched.
    """
    fixed: dict[str, str] = {}
    swept: dict[str, Override] = {}
    for override in overrides:
        key = override.get_key_element()
        fixed.pop(key, None)
        swept.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = str(override.input_line)
            continue
        values = _values(override)
        if values is not None and len(values) == 1:
            fixed[key] = f"{key}={values[0]}"
        else:
            swept[key] = override
    seeds = _values(swept.pop("seed")) if "seed" in swept else ()
    if seeds is None:
        raise UserError("seeds are not searched: every trial is run on each seed that you list, as in seed=0,1,2")
    dimensions = tuple(_dimension(override) for override in swept.values())
    return Space(dimensions, tuple(fixed.values()), tuple(f"seed={seed}" for seed in seeds))


def _values(override: Override) -> tuple[str, ...] | None:
    """The values that can be listed, as typed; None for an interval. Raises `UserError` where there is none."""
    if override.is_interval_sweep():
        return None
    said, sweep = override.input_line, override.value()
    if getattr(sweep, "shuffle", False):
        raise UserError(f"{said}: a search goes through no list, so there is nothing to shuffle: leave shuffle() out")
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise UserError(f"{said}: there is no value in it")
    return values


def _dimension(override: Override) -> Dimension:
    key, said, sweep = override.get_key_element(), override.input_line, override.value()
    name = key.lstrip("+")
    head = name.partition(".")[0]
    if head in APART:
        raise UserError(f"{said}: a search compares runs on the same data and labels; make one search for each value")
    if head in NEUTRAL:
        raise UserError(f"{said}: there is nothing to search, {head} is not to change a run's numbers")
    tags = sweep.tags if isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep) else set()
    if unknown := sorted(tags - {"log"}):
        raise UserError(f"{said}: the tag {unknown[0]!r} means nothing here (possible: log, of numbers)")
    if isinstance(sweep, RangeSweep):
        return _range(key, said, sweep)
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None and sweep.end is not None
        return _numbers(said, NumberRange(key, sweep.start, sweep.end, log="log" in tags))
    values = _values(override)
    assert values
    if tags:
        raise UserError(f"{said}: a choice has no scale: tag(log, …) takes interval() or range()")
    return Choice(key, values)


def _range(key: str, said: str | None, sweep: RangeSweep) -> Dimension:
    log, values = "log" in sweep.tags, sorted(sweep.range())
    if log and not (isinstance(sweep.step, int) and abs(sweep.step) == 1 and isinstance(values[0], int)):
        raise UserError(f"{said}: on a log scale a range has whole numbers and steps of 1: say tag(log, interval(…))")
    if isinstance(values[0], int):
        return _numbers(said, NumberRange(key, values[0], values[-1], abs(sweep.step), log))
    step = abs(Decimal(str(sweep.step)))
    last = Decimal(str(values[0])) + (len(values) - 1) * step  # what adding up floats would miss by a little
    return _numbers(said, NumberRange(key, values[0], float(last), float(step), log, tuple(values)))


def _numbers(said: str | None, numbers: NumberRange) -> NumberRange:
    if not (isfinite(numbers.low) and isfinite(numbers.high) and numbers.low < numbers.high):
        raise UserError(f"{said}: the first number must be below the second, and both finite")
    if numbers.log and numbers.low <= 0:
        raise UserError(f"{said}: a log scale begins above 0")
    if numbers.whole:
        return numbers._replace(step=numbers.step or 1)
    return numbers._replace(low=float(numbers.low), high=float(numbers.high))
