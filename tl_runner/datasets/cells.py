"""A table as named columns of cells, each row with the place that it stands at."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.dialect import name_category
from tl_runner.errors import UserError, list_names, nearest

Floats = NDArray[np.float64]
# Of text, None where missing. Or, where all of a column's cells are plain numbers, these as float64, NaN where missing.
Cells = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """The rows of one or several files, or some of them.

    `name` is that of the domain, `file` what named it, `header` all columns, `lines` (n,) where each row begins (the
    header's line is 1, as an editor counts), `cells` the columns in use, each (n,). `files` are the paths; of several
    `file_of` (n,) says by position which a row is of. `found` is what was found out about how the files are written.
    A file without lines has a `unit` of another name. `codes` are the first cell such as `00417` of columns of
    float64 that have one: where it stands, and what it holds. A pool of several domains has the name of each, and what
    named its rows, in `members`, and in `member` (n,) the position of each row's own.
    """

    name: str
    file: str
    header: tuple[str, ...]
    lines: NDArray[np.int64]
    cells: dict[str, Cells]
    files: tuple[str, ...] = ()
    file_of: NDArray[np.int32] | None = None
    found: Mapping[str, str] = field(default_factory=dict)
    unit: str = "line"
    codes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    members: tuple[tuple[str, str], ...] = ()
    member: NDArray[np.int64] | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """What to read to have all of these rows, and others perhaps."""
        return tuple(file for _, file in self.members) or (self.file,)

    def __len__(self) -> int:
        return len(self.lines)

    def file_at(self, row: int) -> str:
        """The file of a row."""
        return self.file if self.file_of is None else self.files[self.file_of[row]]

    def where(self, row: int) -> str:
        """Where a row stands, in words: `line 5 of a.csv`."""
        return f"{self.unit} {self.lines[row]} of {self.file_at(row)}"

    def places(self) -> list[str]:
        """Where each row stands: `file:line`."""
        if self.file_of is None:
            return [f"{self.file}:{line}" for line in self.lines.tolist()]
        return [f"{self.files[at]}:{line}" for at, line in zip(self.file_of.tolist(), self.lines.tolist(), strict=True)]

    def take(self, rows: NDArray[Any]) -> "Table":
        """These rows: numbers, or a mask."""
        cells = {name: column[rows] for name, column in self.cells.items()}
        file_of, member = (None if each is None else each[rows] for each in (self.file_of, self.member))
        return replace(self, lines=self.lines[rows], cells=cells, file_of=file_of, member=member)

    def without(self, *names: str) -> "Table":
        """The table without these columns."""
        return replace(self, cells={name: cells for name, cells in self.cells.items() if name not in names})

    def split_off(self, name: str, key: str) -> tuple[Cells, "Table"]:
        """A column, which the option `key` names, and the table without it."""
        if name not in self.cells:
            raise UserError(
                f"dataset.{key}={name}: {self.file} has no such column{nearest(name, self.cells)}"
                f" (it has {list_names(self.cells)}){about_comment(self.header)}"
            )
        return self.cells[name], self.without(name)


def join_tables(name: str, file: str, tables: Sequence[Table]) -> Table:
    """The rows of several files as one table, whose columns are those of the first; all must have the same."""
    first = tables[0]
    for other in tables[1:]:
        for mine, theirs in ((first, other), (other, first)):
            if extra := [column for column in mine.cells if column not in theirs.cells]:
                close = nearest(extra[0], theirs.cells)
                raise UserError(
                    f"{mine.file} has columns that {theirs.file} does not have: {list_names(extra)}{close}."
                    f" The files of a domain ({file}) must have the same columns: rename them, or leave them out:"
                    " dataset.drop=[…]"
                )
    files = tuple(dict.fromkeys(each for table in tables for each in table.files or (table.file,)))
    place = {each: index for index, each in enumerate(files)}

    def own(table: Table) -> NDArray[np.int32]:
        numbers = np.array([place[each] for each in table.files or (table.file,)], dtype=np.int32)
        return np.repeat(numbers, len(table)) if table.file_of is None else numbers[table.file_of]

    return Table(
        name,
        file,
        first.header,
        np.concatenate([table.lines for table in tables]),
        {column: np.concatenate([table.cells[column] for table in tables]) for column in first.cells},
        files,
        np.concatenate([own(table) for table in tables]),
        {key: ", ".join(dict.fromkeys(table.found[key] for table in tables if key in table.found)) for key in {
            key: None for table in tables for key in table.found}},
        first.unit,
        {column: first for table in reversed(tables) for column, first in table.codes.items()},
    )  # fmt: skip


def pool_tables(tables: Sequence[Table]) -> Table:
    """The rows of several domains, of names of their own, as one table, each knowing its own; one stays as it is."""
    if len(tables) == 1:
        return tables[0]
    joined = join_tables(
        " + ".join(table.name for table in tables), " and ".join(dict.fromkeys(table.file for table in tables)), tables
    )
    member = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return replace(joined, members=tuple((table.name, table.file) for table in tables), member=member)


def is_missing(cells: Cells) -> NDArray[np.bool_]:
    """Which cells (n,) have no value."""
    if cells.dtype == np.float64:
        return np.isnan(cells)
    return np.array([cell is None for cell in cells.tolist()], dtype=np.bool_)


def observed(cells: Cells) -> Cells:
    """The cells that are not missing."""
    return cells[~is_missing(cells)]


def map_words(cells: Cells, words: Mapping[Any, Any], dtype: Any = object) -> NDArray[Any]:
    """What each cell stands for."""
    return np.array([words[word] for word in cells.tolist()], dtype=dtype)


def normalise_categories(cells: Cells) -> Cells:
    """Categories by one name each; see `name_category`."""
    words = {word: word and name_category(word) for word in set(cells.tolist())}
    return map_words(cells, words)


def about_comment(header: Sequence[str]) -> str:
    """What to say of a first line that begins like a comment, where it lacks a name that it must have."""
    return ". Is its first line a comment, as its # says? Take it out" if header[:1] and header[0][:1] == "#" else ""


def format_option(key: str, words: Iterable[str]) -> str:
    """A list as it is typed in a shell: `dataset.drop=[id]`, in quotes where a word needs them."""
    words = list(words)
    if all(re.fullmatch(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*", word, re.ASCII) for word in words):
        return f"dataset.{key}=[{','.join(words)}]"
    return f'dataset.{key}="{words}"'
