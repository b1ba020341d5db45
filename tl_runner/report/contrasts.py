"""Differences that an experiment asks for; the leaderboard has those to the baseline alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tl_runner.report.comparison import gain
from tl_runner.report.settings import Setting, order_budget
from tl_runner.report.statistics import Paired
from tl_runner.storage.identity import drop_later_keys
from tl_runner.storage.record import NEUTRAL, RunRecord

Asked = tuple[Mapping[str, str], Mapping[str, str]]  # the words of one side and of the other, values by key


class Contrast(NamedTuple):
    """What `one` gains over `other` on the same data, on the seeds of both; by one test, uncorrected."""

    one: Setting
    other: Setting
    gain: Paired

    @property
    def granted(self) -> str:
        """The label budget, or that of each side."""
        return " / ".join(dict.fromkeys(str(side.first.granted) for side in (self.one, self.other)))


def contrast(settings: Sequence[Setting], asked: Sequence[Asked]) -> Iterator[Contrast]:
    """Of each pair of settings that fits one of what is asked, by data and label budget.

    Two settings fit if each has the values of its side, and both agree in all that neither side names: the data, the
    labels, and every key, but that those of a method are its own where the methods differ.
    """
    settings = sorted(settings, key=lambda of: (of.pair, order_budget(of.first.granted), of.label))
    for left, right in asked:
        named = {*left, *right}
        for one in settings:
            if not one.scored or not _has(one.first, left):
                continue
            for other in settings:
                fits = other is not one and other.cell == one.cell and other.scored and _has(other.first, right)
                if fits and _list_rest(one.first, other.first, named) == _list_rest(other.first, one.first, named):
                    yield Contrast(one, other, gain(one, other))


def _has(record: RunRecord, words: Mapping[str, str]) -> bool:
    return all(_read(record, key).lower() == value.lower() for key, value in words.items())


def _read(record: RunRecord, key: str) -> str:
    """The value of a key, or the option of a group, as typed; "" where there is none."""
    if key in record.choices:
        return str(record.choices[key])
    value: Any = record.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _list_rest(record: RunRecord, other: RunRecord, named: set[str]) -> dict[str, str]:
    """What a record's configuration says beside what is named, and beside what it can't share with the other."""
    apart = {*NEUTRAL, "seed", "dataset", *named}
    if record.choices["method"] != other.choices["method"]:
        apart.add("method")
    rest: dict[str, str] = {}
    for key, value in drop_later_keys(record.config).items():
        if key in apart:
            continue
        nested = value if isinstance(value, Mapping) else {"": value}
        rest |= {f"{key}.{name}".rstrip("."): str(of) for name, of in nested.items() if f"{key}.{name}" not in apart}
    return rest
