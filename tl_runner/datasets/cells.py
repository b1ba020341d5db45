"""A delimited text file as named columns of cells. Errors name the line."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.utf8 import TABLE, read_utf8
from tl_runner.errors import UserError, list_names, nearest

Cells = NDArray[np.object_]  # of text, None where missing
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Table:
    """The rows of a file, or some of them.

    `name` is that of the domain, `file` the path as typed, `header` all columns of the file, `lines` (n,) where each
    row begins (the header's line is 1, as an editor counts), `cells` the columns in use, each (n,).
    """

    name: str
    file: str
    header: tuple[str, ...]
    lines: NDArray[np.int64]
    cells: dict[str, Cells]

    def __len__(self) -> int:
        return len(self.lines)

    def places(self) -> list[str]:
        """Where each row stands: `file:line`."""
        return [f"{self.file}:{line}" for line in self.lines]

    def take(self, rows: NDArray[Any]) -> "Table":
        """These rows: numbers, or a mask."""
        cells = {name: column[rows] for name, column in self.cells.items()}
        return replace(self, lines=self.lines[rows], cells=cells)

    def split_off(self, name: str, key: str) -> tuple[Cells, "Table"]:
        """A column, which the option `key` names, and the table without it."""
        if name not in self.cells:
            raise UserError(
                f"dataset.{key}={name}: {self.file} has no such column{nearest(name, self.cells)}"
                f" (it has {list_names(self.cells)}){about_comment(self.header)}"
            )
        rest = {other: cells for other, cells in self.cells.items() if other != name}
        return self.cells[name], replace(self, cells=rest)


def read_cells(
    file: str,
    said: str,
    separator: str,
    missing: Sequence[str],
    drop: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> Table:
    """The table in a UTF-8 text file (RFC 4180, with any of `SEPARATORS`), whose first line names the columns.

    Cells are stripped of blanks around them; an empty one, and one of the words `missing` in upper or lower case, is
    None. Columns named in `drop` are left out, and where `only` names some all others; blank lines are passed over.
    `said` is what named the file, as it was typed.
    """
    text = _without_separator_line(read_utf8(file, said, TABLE), file, separator)
    records = _records(text, file, SEPARATORS[separator])
    top, first = next(records, (0, []))
    header = tuple(name.strip() for name in first)
    used = [name for name in header if name not in drop and (only is None or name in only)]
    rest = list(islice(records, 1))
    _refuse_line_above_header(file, top, header, *rest)
    _check_header(file, header, used, separator, least=2 if only is None else 0)
    absent = {"", *(word.strip().lower() for word in missing)}
    lines, rows = [], []
    for line, record in chain(rest, records):
        if len(record) != len(header):
            cut = f"is it cut off, or does a cell hold a {separator} without quotes around it?"
            why = "is it a comment, as its # says? Take it out" if record[0].startswith("#") else cut
            raise UserError(f"line {line} of {file} has {len(record)} cells, the header {len(header)}: {why}")
        lines.append(line)
        rows.append([None if (word := cell.strip()).lower() in absent else word for cell in record])
    if not rows:
        raise UserError(f"{file} has a header and no rows")
    cells = np.array(rows, dtype=object)
    kept = {name: cells[:, index] for index, name in enumerate(header) if name in used}
    return Table(Path(file).stem, file, header, np.array(lines), kept)


def observed(cells: Cells) -> Cells:
    """The cells that are not missing."""
    return cells[cells != None]  # noqa: E711  (of each cell)


def normalise_categories(cells: Cells) -> Cells:
    """Categories by one name each: `1.0` is `1`, as pandas writes whole numbers where some are missing."""
    return np.array([cell and re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell) for cell in cells], dtype=object)


def about_comment(header: Sequence[str]) -> str:
    """What to say of a first line that begins like a comment, where it lacks a name that it must have."""
    return ". Is its first line a comment, as its # says? Take it out" if header[:1] and header[0][:1] == "#" else ""


def format_option(key: str, words: Iterable[str]) -> str:
    """A list as it is typed in a shell: `dataset.drop=[id]`, in quotes where a word needs them."""
    words = list(words)
    if all(re.fullmatch(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*", word, re.ASCII) for word in words):
        return f"dataset.{key}=[{','.join(words)}]"
    return f'dataset.{key}="{words}"'


def _without_separator_line(text: str, file: str, separator: str) -> str:
    """Without a first line such as `sep=;`, which tells Excel the separator and must agree with the one in use."""
    match = re.match(r'"?sep=(\\t|[^\r\n])\1*"?[,;|\t]*(?=[\r\n])', text, re.IGNORECASE)
    if match is None:
        return text
    sign = match[1].replace("\\t", "\t")
    if sign != SEPARATORS[separator]:
        right = [name for name, other in SEPARATORS.items() if other == sign]
        mend = f"set dataset.separator={right[0]}" if right else f"possible: {list_names(SEPARATORS)}"
        raise UserError(
            f"line 1 of {file} says that {sign!r} separates its cells, and dataset.separator={separator}: {mend}"
        )
    return text[match.end() :]  # the end of the line stays, so that lines count as in an editor


def _refuse_line_above_header(
    file: str, top: int, header: Sequence[str], following: tuple[int, list[str]] = (0, [])
) -> None:
    """A first line that is a title or a comment: alone in its line, or begun by # and not as wide as the next."""
    line, record = following
    comment = bool(header) and header[0].startswith("#")
    other_separator = bool(header) and any(sign in header[0] for sign in SEPARATORS.values())
    above = len(header) == 1 < len(record) and (comment or not other_separator)
    if above or (comment and (len(header) == 1 or len(record) != len(header))):
        raise UserError(
            f"line {top} of {file} holds {', '.join(header)!r}"
            + (f" alone, line {line} has {len(record)} cells" if above else "")
            + f": is it a {'comment' if comment else 'title'}? The first line must name the columns: take out what"
            " stands above that line"
        )


def _records(text: str, file: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not a blank line, with the line it begins at."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    begins = 1
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be longer than what csv takes by default
    try:
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"the row at line {begins} of {file} can't be read: {error}; are its quotes closed?") from error


def _check_header(file: str, header: Sequence[str], used: Sequence[str], separator: str, least: int) -> None:
    if not header:
        raise UserError(f"{file} is empty: its first line must name the columns")
    if len(header) < least:
        others = [name for name, sign in SEPARATORS.items() if sign in header[0]]
        other = f"set dataset.separator={others[0]}? It holds for both files" if others else ""
        hint = other or "a label and one more are needed"
        raise UserError(f"{file} has one column with dataset.separator={separator}: {hint}")
    for index, name in enumerate(header, 1):
        if name in used and not name:
            raise UserError(
                f"column {index} of {file} has no name. If it numbers the rows, as pandas writes it:"
                f" {format_option('drop', [''])} leaves it out"
            )
        if used.count(name) > 1:
            raise UserError(f"{file} has {used.count(name)} columns of the name {name!r}: rename all but one")
