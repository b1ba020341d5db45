"""A delimited text file as named columns of cells. Whatever is wrong in it is said with its line."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.errors import Refused, nearest

Cells = NDArray[np.object_]  # of text, None where missing
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
TOLD = 20  # names that a message lists


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
            raise Refused(
                f"dataset.{key}={name}: {self.file} has no such column{nearest(name, self.cells)}"
                f" (it has {listed(self.cells)})"
            )
        rest = {other: cells for other, cells in self.cells.items() if other != name}
        return self.cells[name], replace(self, cells=rest)


def read(
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
    text = _text(file, said)
    records = _records(text, file, SEPARATORS[separator])
    _, first = next(records, (0, []))
    header = tuple(name.strip() for name in first)
    used = [name for name in header if name not in drop and (only is None or name in only)]
    _check_header(file, header, used, separator, least=2 if only is None else 0)
    absent = {"", *(word.strip().lower() for word in missing)}
    lines, rows = [], []
    for line, record in records:
        if len(record) != len(header):
            raise Refused(
                f"line {line} of {file} has {len(record)} cells, the header {len(header)}:"
                f" is it cut off, or does a cell hold a {separator} without quotes around it?"
            )
        lines.append(line)
        rows.append([None if (word := cell.strip()).lower() in absent else word for cell in record])
    if not rows:
        raise Refused(f"{file} has a header and no rows")
    cells = np.array(rows, dtype=object)
    kept = {name: cells[:, index] for index, name in enumerate(header) if name in used}
    return Table(Path(file).stem, file, header, np.array(lines), kept)


def observed(cells: Cells) -> Cells:
    """The cells that are not missing."""
    return cells[cells != None]  # noqa: E711  (of each cell)


def names(cells: Cells) -> Cells:
    """Categories by one name each: `1.0` is `1`, as pandas writes whole numbers where some are missing."""
    return np.array([cell and re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell) for cell in cells], dtype=object)


def listed(names: Iterable[str]) -> str:
    """The first names as a list to be read, and how many there are where it ends early."""
    names = list(names)
    return ", ".join(names[:TOLD]) + (f", … – {len(names)} in all" if len(names) > TOLD else "")


def typed(key: str, words: Iterable[str]) -> str:
    """A list as it is typed in a shell: `dataset.drop=[id]`, in quotes where a word needs them."""
    words = list(words)
    if all(re.fullmatch(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*", word, re.ASCII) for word in words):
        return f"dataset.{key}=[{','.join(words)}]"
    return f'dataset.{key}="{words}"'


def _text(file: str, said: str) -> str:
    path = Path(file).expanduser()
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.glob("*") if entry.is_file())
        what = "that is a folder" if path.is_dir() else f"there is no such file{nearest(path.name, there)}"
        raise Refused(f"{said}: {what} (in {path.parent.resolve()}: {listed(there) or 'no file'})")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"{said} can't be read: {error.strerror}") from error
    if b"\0" in data:
        raise Refused(f"{file} is no UTF-8 text: a spreadsheet or an archive must be exported as CSV first")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Refused(
            f"line {line} of {file} is not UTF-8: convert the file, as in iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        ) from error


def _records(text: str, file: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not a blank line, with the line it begins at."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    begins = 1
    try:
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + 1
    except csv.Error as error:
        raise Refused(f"the row at line {begins} of {file} can't be read: {error}; are its quotes closed?") from error


def _check_header(file: str, header: Sequence[str], used: Sequence[str], separator: str, least: int) -> None:
    if not header:
        raise Refused(f"{file} is empty: its first line must name the columns")
    if len(header) < least:
        others = [name for name, sign in SEPARATORS.items() if sign in header[0]]
        hint = f"set dataset.separator={others[0]}?" if others else "a label and one more are needed"
        raise Refused(f"{file} has one column with dataset.separator={separator}: {hint}")
    for index, name in enumerate(header, 1):
        if name in used and not name:
            raise Refused(
                f"column {index} of {file} has no name. If it numbers the rows, as pandas writes it:"
                f" {typed('drop', [''])} leaves it out"
            )
        if used.count(name) > 1:
            raise Refused(f"{file} has {used.count(name)} columns of the name {name!r}: rename all but one")
