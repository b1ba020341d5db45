"""What divides the cells of a delimited file: found by its header, and where that leaves a choice by the rows below."""

import csv
from io import StringIO
from itertools import islice

from tl_runner.datasets.dialect import SEPARATORS
from tl_runner.errors import UserError

SAMPLE = 2**16  # bytes looked at
ROWS = 200  # rows of these at most
MOST, FEW = 0.9, 0.5  # shares of rows as wide as the header, by which one separator is right and another wrong


def find_separator(head: str, whole: bool, file: str) -> str:
    """The word for what divides the cells of a text that begins so; refuses where two would do.

    Each of `SEPARATORS` that is in the header is tried: the right one makes all rows as wide as the header. A file
    of one column has none, and is read as if it were of commas.
    """
    widths = {word: _widths(head, sign, whole) for word, sign in SEPARATORS.items()}
    possible = {word: rows for word, rows in widths.items() if rows[:1] > [1]}
    if not possible:  # the first line may be a title
        below = {word: rows[1:] for word, rows in widths.items() if len(rows) > 2 and rows[1] > 1}
        alike = [word for word, rows in below.items() if len(set(rows)) == 1]
        return alike[0] if len(alike) == 1 else "comma"
    fits = {
        word: sum(width == rows[0] for width in rows[1:]) / max(1, len(rows) - 1) for word, rows in possible.items()
    }
    best = max(fits, key=lambda word: fits[word])
    if len(fits) == 1 or (fits[best] >= MOST and all(fit < FEW for word, fit in fits.items() if word != best)):
        return best
    told = ", ".join(f"{word} ({possible[word][0]} columns, in {fit:.0%} of the rows)" for word, fit in fits.items())
    raise UserError(
        f"what divides the cells of {file} is not clear: {told}. dataset.separator={best} decides it, for all files"
    )


def _widths(head: str, sign: str, whole: bool) -> list[int]:
    """How many cells the header and the first rows have with this separator."""
    records = csv.reader(StringIO(head, newline=""), delimiter=sign, skipinitialspace=True)
    try:
        widths = [len(record) for record in islice((record for record in records if record), ROWS + 1)]
    except csv.Error:
        return []
    cut = not whole and len(widths) <= ROWS and len(widths) > 1
    return widths[:-1] if cut else widths  # the last row may be cut off
