"""Which columns of a table are numbers and which are categories."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.cells import NUMBER, Cells, Table, observed, typed
from tl_runner.errors import Refused

Kind = Literal["numeric", "categorical"]
Floats = NDArray[np.float64]

LARGEST = 1e30  # float32 ends at 3e38
MANY, TOO_MANY = 100, 1000  # categories: suspicious where most rows have their own; more than one-hot is for


def kinds(
    source: Table, target: Table, categorical: Sequence[str], numeric: Sequence[str], missing: Sequence[str]
) -> dict[str, Kind]:
    """The kind of each of the source's columns, by the source's cells unless the configuration names it.

    A column most of whose cells are finite numbers is numeric; text in it, on either side, is refused with the keys
    that could explain it. So are a column without a value, one that numbers the rows, and free text or an identifier.
    """

    def kind(name: str) -> Kind:
        cells = source.cells[name]
        present = observed(cells)
        if not len(present):
            raise Refused(f"column {name!r} has no value in the source ({source.file}): {typed('drop', [name])}")
        if name in categorical:
            return "categorical"
        values, text = numbers(cells)
        if name not in numeric and text.sum() >= len(present) / 2:
            _refuse_decimal_commas(name, source, present, categorical)
            _refuse_free_text(name, source, present, categorical)
            return "categorical"
        for table in (source, target):
            _refuse_text(name, table, categorical, missing)
        if name not in numeric and len(cells) > 2 and np.ptp(values - source.lines) == 0:
            raise Refused(
                f"column {name!r} of {source.file} numbers the rows ({cells[0]}, {cells[1]}, …):"
                f" {typed('drop', [name])} leaves it out, {typed('numeric', [*numeric, name])} keeps it"
            )
        return "numeric"

    return {name: kind(name) for name in source.cells}


def numbers(cells: Cells) -> tuple[Floats, NDArray[np.bool_]]:
    """The value of each cell (n,), NaN where it is missing or text, and which (n,) are text: no finite numbers."""
    values = np.array([float(cell) if cell is not None and NUMBER.fullmatch(cell) else np.nan for cell in cells])
    values[np.abs(values) > LARGEST] = np.nan
    return values, np.isnan(values) & (cells != None)  # noqa: E711


def _refuse_text(name: str, table: Table, categorical: Sequence[str], missing: Sequence[str]) -> None:
    _, text = numbers(table.cells[name])
    if text.any():
        first = int(text.argmax())
        word = table.cells[name][first]
        raise Refused(
            f"column {name!r}: line {table.lines[first]} of {table.file} holds {word!r}, which is no finite number"
            f" ({text.sum()} of {len(table)} rows). If it stands for a missing value, set"
            f" {typed('missing', [*missing, word])}; if the column holds categories,"
            f" {typed('categorical', [*categorical, name])}"
        )


def _refuse_free_text(name: str, source: Table, present: Cells, categorical: Sequence[str]) -> None:
    different = len(set(present))
    if different > TOO_MANY or (different > MANY and different > len(present) / 2):
        raise Refused(
            f"column {name!r} of {source.file} holds {different} different texts in {len(present)} rows, like"
            f" {present[0]!r}: an identifier or free text? {typed('drop', [name])} leaves it out,"
            f" {typed('categorical', [*categorical, name])} takes each for a category"
        )


def _refuse_decimal_commas(name: str, source: Table, present: Cells, categorical: Sequence[str]) -> None:
    pointed = np.array([cell.replace(",", ".") for cell in present], dtype=object)
    if numbers(pointed)[1].sum() < len(present) / 2:
        raise Refused(
            f"column {name!r} of {source.file} holds {present[0]!r}: numbers have a point and no comma here."
            f" Rewrite them, or take each for a category: {typed('categorical', [*categorical, name])}"
        )
