"""One column of a delimited file, a portion of cells at a time: to numbers where all are, else to text."""

import logging
import re
from collections.abc import Sequence

import numpy as np

from tl_runner.datasets.cells import Cells, Floats, format_option
from tl_runner.datasets.dialect import DECIMALS, NUMBER, Dialect
from tl_runner.errors import UserError

log = logging.getLogger(__name__)

LARGEST = 1e30  # float32 ends at 3e38
EXACT = 2.0**53  # from here on floats round whole numbers
SIGNS = b"0123456789+-eE\n"  # of which, beside the decimal sign, plain numbers consist; the last divides them here
KEPT = 10_000  # different words of a column that are looked up, rather than made again

# Lines that hold a number with a point, but for those that could be thousands: see `notation.points_between_thousands`.
_NO_THOUSANDS = re.compile(rb"^(?=[^\n]*\.)(?![+-]?[1-9]\d{0,2}\.\d{3}$)", re.MULTILINE)
_CODE = re.compile(rb"\n(0[0-9]+)\n")  # fast since it begins with signs that are seldom found together
_WHOLE = re.compile(rb"^(?![+-]?0?$)[^.eE\n]+$", re.MULTILINE)


class ColumnReader:
    """Takes a column's cells, and gives them as float64 if each is a finite number or missing; else as text.

    Text, too, are numbers that want a second look: whole ones that floats can't hold, and `1.100` beside `900`. With
    `literal` all cells are text as they are written; with `as_text` they are text, numbers in the plain notation.

    Cells that are numbers are not kept as text. Where a later one must be, `again` is how many came before its portion:
    these are to be read again `as_text`, and `finish` gives only the others. `code` is the first cell such as `00417`
    that is kept as a number: where it stands, and what it holds.
    """

    def __init__(self, name: str, dialect: Dialect, file: str, literal: bool, as_text: bool, unit: str = "line"):
        self.name, self.dialect, self.file, self.literal, self.unit = name, dialect, file, literal, unit
        self.as_text = as_text or literal
        self.numbers: list[Floats] = []
        self.text: list[str | None] = []
        self.known: dict[str, str | None] = {}
        self.point = DECIMALS[dialect.decimal].encode()
        self.absent_numbers = {word for word in dialect.absent if NUMBER.fullmatch(word)}
        self.absent_values = np.array(sorted(dialect.absent_values))
        self.again = 0
        self.code: tuple[str, str] | None = None
        self.pointed = self.whole = False
        self.decimal_points = not dialect.is_plain  # whether it is sure that points are those

    def take(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """The next cells, which stand at these lines."""
        if not self.as_text:
            values = self._fast(cells, lines)
            if values is None:
                words = self._strip(cells, lines)
                values = self._fast(["" if word is None else word for word in words], lines, plain=True)
            if values is not None:
                self.numbers.append(values)
                return
            self.as_text, self.again, self.numbers = True, sum(map(len, self.numbers)), []
        self.text += self._strip(cells, lines)

    def finish(self) -> Cells:
        """All cells, but for those that are to be read `again`."""
        if self.as_text:
            return np.array(self.text, dtype=object)
        return np.concatenate(self.numbers)

    def _fast(self, cells: Sequence[str], lines: Sequence[int], plain: bool = False) -> Floats | None:
        """The values of cells that all are numbers as the dialect writes them, or empty; None where it must be looked
        at each.

        float() reads more than numbers: `inf`, `1_0`, other digits. None of that is made of these signs alone.
        """
        absent = self.absent_numbers
        if not plain and (self.dialect.thousands != "none" or (absent and not absent.isdisjoint(cells))):
            return None
        joined, point = "\n".join(cells), b"." if plain else self.point
        data = joined.encode() if joined.isascii() else b"?"
        if data.translate(None, SIGNS + point):
            return None
        if point == b",":
            cells, count = joined.replace(",", ".").split("\n"), len(cells)
            if len(cells) != count:  # a cell has two lines
                return None
        try:
            values = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            return None
        rounds = bool((np.abs(values) >= EXACT).any()) and not _rounds_nothing(cells, values)
        if rounds or self._may_be_thousands(data):
            return None
        if not self.code and (match := _CODE.search(b"\n%b\n" % data)):
            word = match[1].decode()
            self.code = f"{self.unit} {lines[cells.index(word)]} of {self.file}", word
        if len(self.absent_values):
            values[np.isin(values, self.absent_values)] = np.nan
        return values

    def _may_be_thousands(self, data: bytes) -> bool:
        """Whether all cells with a point so far look like `1.100`, and others like `900`."""
        if self.decimal_points:
            return False
        if b"." in data:
            if _NO_THOUSANDS.search(data):
                self.decimal_points = True
                return False
            self.pointed = True
        self.whole = self.whole or _WHOLE.search(data) is not None
        return self.pointed and self.whole

    def _strip(self, cells: Sequence[str], lines: Sequence[int]) -> list[str | None]:
        """The words in these cells: without blanks around them, None where missing, numbers plain unless `literal`."""
        known = self.known
        for cell in set(cells).difference(known):
            known[cell] = self._word(cell, cells, lines)
        found = list(map(known.__getitem__, cells))
        if len(known) > KEPT:
            self.known = {}
        return found

    def _word(self, cell: str, cells: Sequence[str], lines: Sequence[int]) -> str | None:
        word = cell.strip()
        if self.dialect.is_absent(word, self.literal):
            return None
        if self.literal or self.dialect.is_plain:
            return word
        plain = self.dialect.to_plain(word)
        if plain is None and NUMBER.fullmatch(word):
            said = self.dialect.describe_numbers()
            raise UserError(
                f"column {self.name!r}: {self.unit} {lines[cells.index(cell)]} of {self.file} holds {word!r}, which is"
                f" no number with {said}. If the column holds categories,"
                f" set {format_option('categorical', [self.name])}"
            )
        return word if plain is None else plain


def _rounds_nothing(cells: Sequence[str], values: Floats) -> bool:
    """Whether large numbers are finite, and no whole ones written out that floats would round."""
    large = np.flatnonzero(np.abs(values) >= EXACT)
    return bool((np.abs(values[large]) <= LARGEST).all()) and not any(
        cells[row].strip("+- ").isdigit() and int(cells[row]) != int(values[row]) for row in large.tolist()
    )


def explain_no_number(word: str) -> str:
    """Why a cell is read as no number: it is none, or it is too large."""
    if NUMBER.fullmatch(word):
        return f"which is beyond ±{LARGEST:g}, more than is computed with: divide the column by a constant"
    return "which is no finite number"


def warn_of_rounding(name: str, where: str, word: str) -> None:
    """Say that a column holds whole numbers that floats can't tell apart."""
    log.warning(
        "column %r: %s holds %s: whole numbers beyond 2^53 are rounded. If the column holds identifiers, %s leaves it"
        " out", name, where, word, format_option("drop", [name]),
    )  # fmt: skip
