"""Rows of tables as a run's model takes them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from os import PathLike, fspath
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets import notation
from tl_runner.datasets.cells import Table, about_comment, normalise_categories, observed
from tl_runner.datasets.column_reading import explain_no_number
from tl_runner.datasets.columns import parse_numbers
from tl_runner.datasets.dates import read_dates
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.encoding import encode, matrix
from tl_runner.datasets.read_table import read_table
from tl_runner.datasets.spelling import find_respelled
from tl_runner.errors import UserError, list_names, nearest
from tl_runner.plurals import count_noun, pluralize
from tl_runner.preprocessing.batching import Input, Portion
from tl_runner.storage.table_files import DELIMITED, GZIP, PARQUET

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
SEVERAL = 10  # rows: a column without a value in so many is likely one that was lost


@dataclass(frozen=True)
class Columns:
    """Rows of a table -> (n, d) float32, by what `encoding.fit` found in the run's training rows.

    Columns may come in any order, and others than the run's are not read. A missing value is filled and a category
    that training never met is all 0, as in the run. `dialect` says how the run's files were written.
    """

    encoding: Mapping[str, Any]
    dialect: Dialect = field(default_factory=Dialect)
    known: frozenset[str] = frozenset()  # columns that the run had and did not learn from: label, domain, dropped
    literal: frozenset[str] = frozenset()  # columns that are categories because the run was told so

    takes: ClassVar[str] = "CSV or Parquet files"

    @property
    def endings(self) -> frozenset[str]:
        """How the files are named that are taken from a folder."""
        return frozenset({*PARQUET, *DELIMITED, *(f"{ending}{GZIP}" for ending in DELIMITED)})

    @property
    def kinds(self) -> dict[str, Any]:
        """The kind of each column that is read, by name."""
        return {column["name"]: column["kind"] for column in self.encoding["columns"]}

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        return sum(
            len(column["categories"]) if column["kind"] == "categorical" else 1 + column["gaps"]
            for column in self.encoding["columns"]
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What somebody must know to do the same elsewhere, in JSON's words."""
        facts = {"kind": "table", "columns": list(self.encoding["columns"]), "missing": list(self.dialect.missing)}
        return facts | ({"dates": list(self.dialect.dates)} if self.dialect.dates else {})

    def __call__(self, *rows: str | PathLike[str] | Row) -> Tensor:
        """(n, d): the rows of each CSV file, and one for each mapping of columns to values (None where missing)."""
        if not rows:
            raise UserError("name at least one CSV file, or a row as {column: value}")
        tables = [
            self._row(row, n) if isinstance(row, Mapping) else self._read(fspath(row)) for n, row in enumerate(rows)
        ]
        return torch.cat([self._encoded(table) for table in tables])

    def portions(self, inputs: Sequence[Input], at_most: int) -> Iterator[Portion]:
        """The rows of the files in order, `at_most` at a time, each by the name `file:line`."""
        for path, lines in inputs:
            table = self._read(str(path))
            if lines is not None:
                table = take_lines(table, lines)
            self._check(table)
            for start in range(0, len(table), at_most):
                part = table.take(np.arange(start, min(start + at_most, len(table))))
                yield Portion(part.places(), encode(torch.from_numpy(matrix(part, self.kinds)), self.encoding), {})

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """Inputs (n, d) such as `encode` makes: numbers uniform on what training met, gaps and categories at random."""
        blocks = []
        for column in self.encoding["columns"]:
            if column["kind"] == "categorical":
                count = len(column["categories"])
                chosen = torch.randint(count + 1, (n,), generator=generator)  # the last stands for a missing one
                blocks.append(torch.nn.functional.one_hot(chosen, count + 1)[:, :count])
                continue
            gap = torch.rand(n, generator=generator) < (0.2 if column["gaps"] else 0.0)
            x = (low + (high - low) * torch.rand(n, generator=generator)).where(~gap, torch.zeros(n))
            blocks.append(torch.stack([x, gap.float()] if column["gaps"] else [x], 1))
        return torch.cat([block.float() for block in blocks], 1)

    def _read(self, file: str) -> Table:
        categories = {name for name, kind in self.kinds.items() if kind == "categorical"}
        table = read_table(file, file, self.dialect, only=self.kinds, literal=self.literal, as_text=categories)
        if absent := [name for name in self.kinds if name not in table.cells]:
            spare = [name for name in table.header if name not in self.kinds]
            raise UserError(
                f"{file} has no column {absent[0]!r}{nearest(absent[0], spare)}: the run learnt from"
                f" {list_names(self.kinds)}; the file{self._how(table)} has {list_names(table.header)}"
                f"{about_comment(table.header)}"
            )
        return table

    def _how(self, table: Table) -> str:
        separator = table.found.get("separator")
        return f", read with a {separator} between cells," if separator else ""

    def _row(self, row: Row, number: int) -> Table:
        """A mapping as a table of one row: numbers as they are, words as they would stand in a file."""

        def cell(name: str, value: Any) -> Any:
            kind = self.kinds.get(name)
            if value is None or (isinstance(value, float) and np.isnan(value)):
                return np.array([None], dtype=object)
            if kind == "numeric" and isinstance(value, Real) and not isinstance(value, bool):
                number = float(value)
                return np.array([np.nan if number in self.dialect.absent_values else number], dtype=np.float64)
            word, literal = str(value).strip(), name in self.literal
            plain = None if literal else self.dialect.to_plain(word)
            return np.array([None if self.dialect.is_absent(word, literal) else plain or word], dtype=object)

        cells = {str(name): cell(str(name), value) for name, value in row.items()}
        table = Table("", f"row {number + 1}", tuple(cells), np.array([1]), cells)
        dates = {
            name: read_dates(table, name, "the run's dates are")
            for name, found in cells.items()
            if name in self.dialect.dates and found.dtype != np.float64
        }
        return replace(table, cells={**cells, **dates})

    def _encoded(self, table: Table) -> Tensor:
        self._check(table)
        return encode(torch.from_numpy(matrix(table, self.kinds)), self.encoding)

    def _check(self, table: Table) -> None:
        """Check that every column is there and that numeric ones hold numbers; report unused columns."""
        for name, kind in self.kinds.items():
            if name not in table.cells:
                raise UserError(f"{table.file} has no column {name!r}{nearest(name, table.cells)}")
            if kind == "numeric" and (text := parse_numbers(table.cells[name])[1]).any():
                first = int(text.argmax())
                word = table.cells[name][first]
                if form := notation.form(word):
                    raise UserError(
                        f"column {name!r}: {table.places()[first]} holds {word!r}, which is no finite number"
                        f" ({text.sum()} of {count_noun(len(table), 'row')}), but {form.what}: write it as in the run's"
                        f" files ({self.dialect.describe_numbers()})"
                    )
                words = f", empty, {list_names(self.dialect.missing)}" if self.dialect.missing else " or empty"
                raise UserError(
                    f"column {name!r}: {table.places()[first]} holds {word!r}, {explain_no_number(word)}"
                    f" ({text.sum()} of {count_noun(len(table), 'row')}); missing values are"
                    f"{words.removeprefix(',')}"
                )
        if spare := [name for name in table.header if name and name not in {*self.kinds, *self.known}]:
            log.warning(
                "%s: the run was not trained on the columns %s, which are ignored", table.file, list_names(spare)
            )
        for column in self.encoding["columns"]:
            present = observed(table.cells[column["name"]])
            where = f"{table.file}, column {column['name']!r}"
            if column["kind"] == "categorical":
                met, there = column["categories"], sorted({*normalise_categories(present).tolist()})
                if new := [name for name in there if name not in met]:
                    pairs = find_respelled(there, met)
                    told = list_names(f"{name!r} as {other!r}" for name, other in pairs.items())
                    spelled = f". It spelled {told}: write it so" if pairs else ""
                    log.warning("%s: %s not seen in training, treated as missing%s", where, list_names(new), spelled)
            else:
                _warn_of_points(table, column["name"])
            if not len(present) and len(table) >= SEVERAL:
                log.warning("%s has no value in any of the %d rows: all are taken as missing", where, len(table))
            elif column["kind"] == "numeric" and (missing := len(table) - len(present)) and not column["gaps"]:
                values = count_noun(len(table), "value")
                told = f"{missing} of {values} {pluralize(missing, 'is')} missing, and none was in training"
                log.warning("%s: %s: taken as the median of training, %g", where, told, column["median"])


def _warn_of_points(table: Table, name: str) -> None:
    """`1.100` beside `900` is likely 1100, and is read as 1.1."""
    cells = table.cells[name]
    if cells.dtype == np.float64:  # the reader leaves a column that may be written so as text
        return
    if (first := notation.points_between_thousands(cells)) is not None:
        log.warning(
            "column %r: %s holds %r beside whole numbers, which is read as %g: if the point stands between thousands,"
            " take it out", name, table.places()[first], cells[first], float(cells[first]),
        )  # fmt: skip


def take_lines(table: Table, lines: Sequence[int]) -> Table:
    """The rows that begin at these lines, in this order."""
    at = {line: index for index, line in enumerate(table.lines.tolist())}
    if absent := [line for line in lines if line not in at]:
        raise UserError(f"{table.file} has no row at line {absent[0]}: the file has changed")
    return table.take(np.array([at[line] for line in lines], dtype=int))
