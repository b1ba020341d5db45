"""Columns of a table that say to which part of the split, which group or which time a row belongs: no features."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.cells import Table, is_missing, map_words, normalise_categories
from tl_runner.datasets.dates import read_time
from tl_runner.datasets.group_time_split import Times
from tl_runner.datasets.part_names import WORDS
from tl_runner.errors import UserError


class RowRoles(NamedTuple):
    """The columns that the options `split`, `group` and `time` name."""

    split: str | None = None
    group: str | None = None
    time: str | None = None

    @property
    def columns(self) -> list[str]:
        """Those that are named."""
        return [column for column in self if column is not None]

    def check(self, test: str | None) -> None:
        """Refuse what contradicts: each of these says which rows are tested."""
        if self.time and (other := "split" if self.split else "group" if self.group else ""):
            why = (
                "the column says which rows are tested, whatever their time"
                if other == "split"
                else "a group may have rows of all times"
            )
            raise UserError(
                f"dataset.time={self.time} and dataset.{other}={getattr(self, other)}: {why}. Leave one out"
            )
        if self.split and test:
            raise UserError(
                f"dataset.split={self.split} and dataset.test={test} both say which rows are tested: leave one out"
            )

    def read(self, table: Table) -> tuple[Table, "RowFacts"]:
        """The table without these columns, and what they say of its rows."""
        part = group = time = None
        if self.split:
            part = _read_split(table, self.split)
        if self.group:
            table.split_off(self.group, "group")
            _refuse_gap(table, self.group, "group")
            group = normalise_categories(table.cells[self.group])
        if self.time:
            table.split_off(self.time, "time")
            time = read_time(table, self.time, f"dataset.time={self.time}")
        return table.without(*self.columns), RowFacts(part, group, time)


class RowFacts(NamedTuple):
    """Of each row (n,) its part as a position in `split.PARTS`, the name of its group, and its time."""

    part: Tensor | None = None
    group: NDArray[np.object_] | None = None
    time: Times | None = None

    def take(self, kept: NDArray[np.bool_]) -> "RowFacts":
        """Those of some rows."""
        part = None if self.part is None else self.part[torch.from_numpy(kept)]
        return RowFacts(part, *(None if each is None else each[kept] for each in self[1:]))


def _read_split(table: Table, name: str) -> Tensor:
    cells, _ = table.split_off(name, "split")
    _refuse_gap(table, name, "split")
    parts = {word: WORDS.get(word.casefold()) for word in set(cells.tolist())}
    if unknown := {word for word, part in parts.items() if part is None}:
        row = next(row for row, word in enumerate(cells.tolist()) if word in unknown)
        raise UserError(
            f"column {name!r}: {table.where(row)} holds {cells[row]!r}, and dataset.split takes train, val (or valid,"
            " validation, dev) and test"
        )
    return torch.from_numpy(map_words(cells, parts, np.int64))


def _refuse_gap(table: Table, name: str, key: str) -> None:
    if (gaps := is_missing(table.cells[name])).any():
        row = int(gaps.argmax())
        raise UserError(f"column {name!r}: {table.where(row)} has no value, and dataset.{key} needs one in each row")
