"""A delimited text file as a table: CPython's csv divides it, whole columns become numbers. Errors name the line."""

import csv
import gc
import logging
import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.cells import Cells, Table, format_option
from tl_runner.datasets.column_reading import ColumnReader
from tl_runner.datasets.dialect import SEPARATORS, Dialect
from tl_runner.datasets.separators import SAMPLE, find_separator
from tl_runner.datasets.text_files import FileText, find_text
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun
from tl_runner.storage.table_files import strip_endings

log = logging.getLogger(__name__)

CELLS = 20_000  # turned into numbers at a time: as text they take ten times the memory, and fit into a cache

Record = tuple[int, list[str]]  # a row's cells, and the line that it begins at


def read_delimited(
    file: str,
    said: str,
    dialect: Dialect,
    drop: Sequence[str] = (),
    only: Collection[str] | None = None,
    literal: Collection[str] = (),
    as_text: Collection[str] = (),
) -> Table:
    """The table in a text file (RFC 4180, with any of `SEPARATORS`), whose first line names the columns.

    Cells are stripped of blanks around them; an empty one, and one of the dialect's words for missing, has no value.
    Columns named in `drop` are left out, and where `only` names some all others. Those in `literal` stay text, as
    they are written, and those in `as_text` are text, numbers in the plain notation. Blank lines are passed over.
    `said` is what named the file, as it was typed.
    """
    content = find_text(file, said, dialect.encoding, guess=True)
    head, whole = content.head(SAMPLE)
    separator, marked = _settle_separator(head, whole, file, dialect.separator)
    csv.field_size_limit(
        max(csv.field_size_limit(), len(content.data))
    )  # a text may be longer than csv takes by default
    literal, as_text = {*literal}, {*as_text}
    with _open_records(content, file, separator, marked) as records:
        header, lines, columns = _read(records, file, separator, dialect, drop, only, literal, as_text)
    cells = {name: column.finish() for name, column in columns.items()}
    if again := {name: (header.index(name), column.again) for name, column in columns.items() if column.again}:
        with _open_records(content, file, separator, marked) as records:
            earlier = _read_as_text(records, again, dialect, file)
        cells |= {name: np.concatenate([words, cells[name]]) for name, words in earlier.items()}
    codes = {name: column.code for name, column in columns.items() if column.code}
    found = {"separator": separator, "encoding": content.encoding}
    if dialect.separator == "auto" and separator != "comma" and not marked:
        log.info("%s: a %s divides its cells (dataset.separator=%s)", file, separator, separator)
    return Table(strip_endings(Path(file).name), file, header, lines, cells, found=found, codes=codes)


@contextmanager
def _open_records(content: FileText, file: str, separator: str, marked: bool) -> Iterator[Iterator[Record]]:
    """The file's records from the beginning.

    Python's search for cycles among objects pauses: rows of text have none, and it takes half of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with content.stream() as stream:
            yield _records(stream, file, SEPARATORS[separator], marked)
    finally:
        if enabled:
            gc.enable()


def _read(
    records: Iterator[Record],
    file: str,
    separator: str,
    dialect: Dialect,
    drop: Sequence[str],
    only: Collection[str] | None,
    literal: Collection[str],
    as_text: Collection[str],
) -> tuple[tuple[str, ...], NDArray[np.int64], dict[str, ColumnReader]]:
    """The header, the lines of the rows, and the columns in use, which have taken all cells."""
    top, first = next(records, (0, []))
    header = tuple(name.strip() for name in first)
    used = [name for name in header if name not in drop and (only is None or name in only)]
    rest = list(islice(records, 1))
    _refuse_line_above_header(file, top, header, *rest)
    _check_header(file, header, used, separator, dialect.separator == "auto", least=2 if only is None else 0)
    columns = {name: ColumnReader(name, dialect, file, name in literal, name in as_text) for name in used}
    places = {name: header.index(name) for name in used}
    lines, size = array("q"), _count_rows_at_once(header)
    records = chain(rest, records)
    while portion := list(islice(records, size)):
        at, rows = zip(*portion, strict=True)
        if set(map(len, rows)) != {len(header)}:
            _refuse_ragged_row(portion, header, separator, file)
        lines.extend(at)
        across = list(zip(*rows, strict=True))
        for name, column in columns.items():
            column.take(across[places[name]], at)
    if not lines:
        raise UserError(f"{file} has a header and no rows")
    return header, np.array(lines, dtype=np.int64), columns


def _count_rows_at_once(header: Sequence[str]) -> int:
    return max(100, CELLS // len(header))


def _read_as_text(
    records: Iterator[Record], again: Mapping[str, tuple[int, int]], dialect: Dialect, file: str
) -> dict[str, Cells]:
    """The first cells of some columns as text: of each its position, and how many."""
    _, header = next(records)
    readers = {name: ColumnReader(name, dialect, file, literal=False, as_text=True) for name in again}
    done, last = 0, max(count for _, count in again.values())
    while portion := list(islice(records, min(_count_rows_at_once(header), last - done))):
        at, rows = zip(*portion, strict=True)
        for name, (index, count) in again.items():
            own = slice(max(0, count - done))
            readers[name].take([row[index] for row in rows[own]], at[own])
        done += len(portion)
    return {name: reader.finish() for name, reader in readers.items()}


def _settle_separator(head: str, whole: bool, file: str, asked: str) -> tuple[str, bool]:
    """The word for what divides the cells, and whether a first line such as `sep=;` tells Excel so.

    That must agree with what was asked for.
    """
    match = re.match(r'"?sep=(\\t|[^\r\n])\1*"?[,;|\t]*(?=[\r\n])', head, re.IGNORECASE)
    if match is None:
        return (find_separator(head, whole, file) if asked == "auto" else asked), False
    sign = match[1].replace("\\t", "\t")
    right = [name for name, other in SEPARATORS.items() if other == sign]
    if not right or asked not in ("auto", right[0]):
        mend = f"set dataset.separator={right[0]}" if right else f"possible: {list_names(SEPARATORS)}"
        raise UserError(
            f"line 1 of {file} says that {sign!r} separates its cells, and dataset.separator={asked}: {mend}"
        )
    return right[0], True


def _records(stream: TextIO, file: str, delimiter: str, marked: bool) -> Iterator[Record]:
    """Each record that is not a blank line, with the line it begins at; a `marked` first line is passed over."""
    above = 0
    if marked:
        stream.readline()
        above = 1
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    begins = above + 1
    try:
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + above + 1
    except csv.Error as error:
        raise UserError(f"the row at line {begins} of {file} can't be read: {error}; are its quotes closed?") from error


def _refuse_ragged_row(portion: Sequence[Record], header: Sequence[str], separator: str, file: str) -> None:
    line, record = next(each for each in portion if len(each[1]) != len(header))
    blank = len(record) == 1 and not record[0].strip()
    over = len(record) == len(header) + 1 and not record[-1].strip()
    if record[0].startswith("#"):
        why = "is it a comment, as its # says? Take it out"
    elif blank:
        why = "it holds blanks alone: take it out"
    elif over:
        why = f"it ends in a {separator}, and the header does not: take that out, or end the header so, too"
    else:
        why = f"is it cut off, or does a cell hold a {separator} without quotes around it?"
    raise UserError(f"line {line} of {file} has {count_noun(len(record), 'cell')}, the header {len(header)}: {why}")


def _refuse_line_above_header(file: str, top: int, header: Sequence[str], following: Record = (0, [])) -> None:
    """A first line that is a title or a comment: alone in its line, or begun by # and not as wide as the next."""
    line, record = following
    comment = bool(header) and header[0].startswith("#")
    other_separator = bool(header) and any(sign in header[0] for sign in SEPARATORS.values())
    above = len(header) == 1 < len(record) and (comment or not other_separator)
    if above or (comment and (len(header) == 1 or len(record) != len(header))):
        raise UserError(
            f"line {top} of {file} holds {', '.join(header)!r}"
            + (f" alone, line {line} has {count_noun(len(record), 'cell')}" if above else "")
            + f": is it a {'comment' if comment else 'title'}? The first line must name the columns: take out what"
            " stands above that line"
        )


def _check_header(
    file: str, header: Sequence[str], used: Sequence[str], separator: str, found: bool, least: int
) -> None:
    if not header:
        raise UserError(f"{file} is empty: its first line must name the columns")
    if len(header) < least:
        others = [name for name, sign in SEPARATORS.items() if sign in header[0]]
        other = f"set dataset.separator={others[0]}? It holds for both files" if others else ""
        hint = other or "a label and one more are needed"
        how = "" if found else f" with dataset.separator={separator}"
        raise UserError(f"{file} has one column{how}: {hint}")
    for index, name in enumerate(header, 1):
        if name in used and not name:
            why = (
                "Does each line end in a separator" if index == len(header) else "Does it number the rows, as of pandas"
            )
            raise UserError(f"column {index} of {file} has no name. {why}? {format_option('drop', [''])} leaves it out")
        if used.count(name) > 1:
            raise UserError(f"{file} has {used.count(name)} columns of the name {name!r}: rename all but one")
