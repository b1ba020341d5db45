"""How many target labels, and how many steps, a line of runs needs for an accuracy. Pure functions of settings.

A line is a configuration but for `granted` and `train.steps`.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isnan, nan
from statistics import fmean
from typing import Any, Literal, NamedTuple

from tl_runner.report.settings import Setting, distinguish_labels
from tl_runner.report.statistics import Paired, compare_paired, rows_variance
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.identity import drop_later_keys
from tl_runner.storage.record import NEUTRAL, RunRecord

Resource = Literal["labels", "steps"]
RESOURCES: tuple[Resource, Resource] = ("labels", "steps")
SHARE = 0.95  # of what two lines reach: at the end of a flat curve chance decides which budget is the best one
WITHOUT_LABELS = "source_only"  # is shown beside the lines, though it has one budget alone


class Level(NamedTuple):
    """The accuracy on the target's test split for one budget: the mean of n seeds, the ends of its 95 % interval.

    These are nan where nothing can be tested. `labels` are all granted rows, `per_class` the count of each class where
    the budget was one.
    """

    labels: int
    steps: int
    per_class: int | None
    mean: float
    low: float
    high: float
    n: int

    @property
    def tested(self) -> bool:
        return not isnan(self.low)


class Needed(NamedTuple):
    """The smallest budget that reaches an accuracy, and its interval; None is more than `most`, the largest measured.

    `tested`: whether there is an interval.
    """

    budget: int | None
    low: int | None
    high: int | None
    most: int
    tested: bool

    def describe(self, write: Callable[[int], str] = str) -> tuple[str, str]:
        """The budget and its interval in words, as `50` and `20 to more than 100`; "" without an interval."""
        budget, low, high = (
            f"more than {write(self.most)}" if amount is None else write(amount)
            for amount in (self.budget, self.low, self.high)
        )
        return budget, "" if not self.tested else low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Curve:
    """A line by one resource, `by`, from the smallest budget on; all its levels have the same `other` one."""

    line: str
    by: Resource
    other: int
    levels: tuple[Level, ...]

    def budget(self, level: Level) -> int:
        return level.labels if self.by == "labels" else level.steps

    def need(self, accuracy: float) -> Needed:
        """The smallest measured budget whose mean is at least `accuracy`: nothing is interpolated.

        Its interval goes from the smallest budget at which the upper end of the means' interval reaches the accuracy to
        the smallest at which the lower end does; each of these holds for its own budget at 95 %. There is none unless
        all budgets have one.
        """

        def first(values: Sequence[float]) -> int | None:
            reached = (of for of, value in zip(self.levels, values, strict=True) if value >= accuracy)
            return next(map(self.budget, reached), None)

        mean, high, low = (first([getattr(of, name) for of in self.levels]) for name in ("mean", "high", "low"))
        return Needed(mean, high, low, self.budget(self.levels[-1]), all(of.tested for of in self.levels))


@dataclass(frozen=True)
class Budgets:
    """The curves of lines that have several budgets, and the `accuracy` that these are compared at.

    That is `SHARE` of the highest mean that two lines reach (of a line's that is alone), down to a whole per cent.
    `left_out`: settings with no other budget to compare with, or of an unknown number of labels.
    """

    accuracy: float
    lines: int
    curves: list[Curve]
    left_out: int


def measure_budgets(settings: Sequence[Setting]) -> Budgets | None:
    """The curves by labels, at each number of steps, and by steps, at each number of labels; None without any.

    source_only is among them by its one budget, no labels, beside other lines of as many steps.
    """
    lines: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        if setting.values("selected") and _labels(setting) is not None and _steps(setting) is not None:
            lines[_identify_line(setting.first)].append(setting)
    named = dict(zip(_name_lines([of[0].first for of in lines.values()]), lines.values(), strict=True))
    # the others are not measured: that may take the predictions of all their runs
    levels = {line: _measure(of) for line, of in named.items() if len({(_labels(s), _steps(s)) for s in of}) > 1}
    curves = [curve for line, of in levels.items() for curve in _draw(line, of)]
    curves = [curve for curve in curves if curve.by == "labels" or _takes_steps(named[curve.line][0].first)]
    if not curves:
        return None
    best = sorted((max(of.mean for of in levels[line]) for line in {curve.line for curve in curves}), reverse=True)
    steps = {curve.other for curve in curves if curve.by == "labels"}
    for line, of in named.items():
        if of[0].first.choices["method"] == WITHOUT_LABELS:
            drawn = {curve.other for curve in curves if curve.by == "labels" and curve.line == line}
            alone = [level for level in _measure(of) if not level.labels and level.steps in steps - drawn]
            curves += [Curve(line, "labels", level.steps, (level,)) for level in alone]
    used = {(curve.line, of.labels, of.steps) for curve in curves for of in curve.levels}
    return Budgets(
        accuracy=floor(100 * SHARE * best[min(1, len(best) - 1)] + 1e-9) / 100,
        lines=len(best),
        curves=curves,
        left_out=sum(bool(setting.values("selected")) for setting in settings) - len(used),
    )


def _draw(line: str, levels: Sequence[Level]) -> Iterator[Curve]:
    for by in RESOURCES:
        other = "steps" if by == "labels" else "labels"
        groups: dict[int, list[Level]] = defaultdict(list)
        for level in levels:
            groups[getattr(level, other)].append(level)
        for fixed, of in sorted(groups.items()):
            if len(of) > 1:
                yield Curve(line, by, fixed, tuple(sorted(of, key=lambda level: (level.labels, level.steps))))


def _measure(settings: Sequence[Setting]) -> list[Level]:
    """Of the settings of a line; of two with the same budget (granted=auto and granted=10) that with more seeds.

    They are not averaged: a run on the same seed is no other seed.
    """
    found: dict[tuple[int, int], Level] = {}
    for setting in settings:
        labels, steps = _labels(setting) or 0, _steps(setting) or 0
        mean = _estimate_mean(setting)
        level = Level(labels, steps, _per_class(setting, labels), mean.difference, mean.low, mean.high, mean.pairs)
        if (labels, steps) not in found or found[labels, steps].n < level.n:
            found[labels, steps] = level
    return [*found.values()]


def _estimate_mean(setting: Setting) -> Paired:
    """Its mean accuracy as what it gains over 0, so that its interval is of the kind that fits how its seeds differ."""
    values = setting.values("selected")

    def variance(seeds: list[Any]) -> float:
        kept = [setting.outcomes[seed] for seed in seeds if seed in setting.outcomes]
        if len(kept) == len(seeds):  # the labels themselves, always right, have no chance of their own
            return rows_variance(setting.first.metric, [(of.labels, of.predicted, of.labels) for of in kept])
        if setting.first.metric != "accuracy":
            return nan
        return fmean(values[seed] * (1 - values[seed]) / setting.seeds.test for seed in seeds)

    return compare_paired(values, dict.fromkeys(values, 0.0), setting.seeds, variance)


def _labels(setting: Setting) -> int | None:
    """Target rows that were granted, the mean over seeds: the share of a class may be a row more at one of them.

    None where a record does not say.
    """
    granted = [run.data.granted for run in setting.scored.values()]
    return round(fmean(granted)) if all(granted) or str(setting.first.granted) == "0" else None


def _per_class(setting: Setting, labels: int) -> int | None:
    text, classes = str(setting.first.granted), len(setting.first.data.classes)
    return int(text) if text.isdecimal() and int(text) * classes == labels else None


def _steps(setting: Setting) -> int | None:
    train = setting.first.config.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    return steps if isinstance(steps, int) else None


def _takes_steps(record: RunRecord) -> bool:
    """Whether `train.steps` means anything to it: a head in closed form has one checkpoint, of step 0."""
    return record.scores is None or record.scores.last["step"] > 0


def _without_budget(record: RunRecord) -> dict[str, Any]:
    """What a record's configuration says beside its budget, and beside what changes no number."""
    apart = {*NEUTRAL, "seed", "granted"}
    told = {key: value for key, value in drop_later_keys(record.config).items() if key not in apart}
    return {**told, "train": {key: value for key, value in record.config["train"].items() if key != "steps"}}


def _identify_line(record: RunRecord) -> str:
    node = {**_without_budget(record), "dataset": drop_locations(record.config.get("dataset"))}
    return json.dumps([record.choices, node, record.data.files], sort_keys=True, default=str)


def _name_lines(firsts: Sequence[RunRecord]) -> list[str]:
    """A method, and as much more as tells its line from the others: source, backbone, keys of the configuration."""
    records = [replace(record, config=_without_budget(record)) for record in firsts]
    several = [
        len({record.data.domains.get("source") for record in records}) > 1,
        len({record.choices["backbone"] for record in records}) > 1,
    ]
    named: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        told = (record.data.domains.get("source") or "no source", record.choices["backbone"])
        shown = [part for part, needed in zip(told, several, strict=True) if needed]
        named[record.choices["method"], *shown].append(index)
    names = [""] * len(records)
    for parts, indices in named.items():
        for index, variant in zip(indices, distinguish_labels([records[i] for i in indices]), strict=True):
            names[index] = " ".join(filter(None, [*parts, variant]))
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]
