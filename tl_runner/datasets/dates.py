"""ISO dates as numbers: days since 1970-01-01."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.cells import Cells, Floats, Table, is_missing
from tl_runner.datasets.columns import parse_numbers
from tl_runner.errors import UserError

EPOCH = datetime(1970, 1, 1)
MICROSECONDS = 86_400_000_000  # of a day
ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?P<zone> ?(?:Z|UTC|[+-]\d\d(?::?\d\d)?))?)?", re.ASCII
)
FORMS = "ISO dates such as 2024-01-31, 2024-01-31 12:30 or 2024-01-31T12:30:00+01:00"


def read_dates(table: Table, name: str, key: str) -> Floats:
    """A column's ISO dates (n,) as days since 1970-01-01, NaN where missing; the part of a day is a fraction.

    Times with a zone are taken in UTC. Refuses what is no such date, and a column in which only some times have a zone.
    `key` is what named the column.
    """
    cells = table.cells[name]
    found = {word: parse_date(word) for word in set(cells[~is_missing(cells)].tolist())}
    if bad := {word for word, day in found.items() if day is None}:
        row = _first(cells, bad)
        raise UserError(f"column {name!r}: {table.where(row)} holds {cells[row]!r}, which is no date: {key} {FORMS}")
    timed = {word: bool(match["zone"]) for word in found if (match := ISO.fullmatch(word)) and ":" in word}
    if len(set(timed.values())) > 1:
        row, other = (_first(cells, {word for word, zone in timed.items() if zone is has}) for has in (True, False))
        raise UserError(
            f"column {name!r}: {table.where(row)} holds {cells[row]!r}, which has a time zone, and"
            f" {table.where(other)} {cells[other]!r}, which has none: write all in one way"
        )
    return np.array([np.nan if word is None else found[word] for word in cells.tolist()], dtype=np.float64)


def parse_date(word: str) -> float | None:
    """The days from 1970-01-01 to an ISO date, in UTC where it has a zone; None where it is none."""
    if not (match := ISO.fullmatch(word)):
        return None
    zone = match["zone"] or ""
    plain = word[: match.start("zone")] if zone else word
    try:
        found = datetime.fromisoformat(plain.replace(",", "."))
        if zone.strip() not in ("", "Z", "UTC"):
            aware = datetime.fromisoformat(plain.replace(",", ".") + zone.strip())
            found = aware.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return (found - EPOCH) / timedelta(days=1)


def read_time(table: Table, name: str, key: str) -> NDArray[Any]:
    """A column of numbers (float64) or of ISO dates (datetime64), by which rows are ordered; refuses anything else."""
    cells = table.cells[name]
    if (gaps := is_missing(cells)).any():
        raise UserError(f"column {name!r}: {table.where(int(gaps.argmax()))} has no value, and {key} orders all rows")
    if cells.dtype == np.float64:
        return cells
    numbers = _numbers(cells)
    if numbers is not None:
        return numbers
    days = read_dates(table, name, f"{key} takes numbers, or")
    return np.rint(days * MICROSECONDS).astype("datetime64[us]")


def _numbers(cells: Cells) -> NDArray[np.float64] | None:
    values, text = parse_numbers(cells)
    return None if text.any() else values


def _first(cells: Cells, words: set[str]) -> int:
    return next(row for row, word in enumerate(cells.tolist()) if word in words)
