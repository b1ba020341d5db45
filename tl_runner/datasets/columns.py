"""Which columns of a table are numbers and which are categories."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets import notation
from tl_runner.datasets.cells import Cells, Floats, Table, format_option, is_missing, map_words, observed
from tl_runner.datasets.column_reading import EXACT, LARGEST, explain_no_number, warn_of_rounding
from tl_runner.datasets.dialect import NUMBER
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

ColumnKind = Literal["numeric", "categorical"]

MANY, TOO_MANY = 100, 1000  # categories: suspicious where most rows have their own; more than one-hot is for
SPARE = 3  # words beside numbers, up to which they are likely to stand for missing values


def kinds(
    sides: Mapping[str, Table],
    categorical: Sequence[str],
    numeric: Sequence[str],
    missing: Sequence[str],
    dates: Sequence[str] = (),
) -> dict[str, ColumnKind]:
    """The kind of each column, by the cells of the side `source` unless the configuration names it.

    A column most of whose cells are finite numbers is numeric; text in it, on any side, is refused with the keys that
    could explain it. So are a column without a value on a side, one that numbers the rows, free text or an
    identifier, and numbers in another notation (`another_notation`) or too large to compute with. Of `dates` one a row
    is no number of the row.
    """
    source = sides["source"]

    def kind(name: str) -> ColumnKind:
        cells = source.cells[name]
        present = observed(cells)
        _refuse_empty(name, sides)
        if name in categorical:
            return "categorical"
        values, text = parse_numbers(cells)
        if name in numeric or (text & ~_are_too_large(cells)).sum() < len(present) / 2:
            for table in sides.values():
                _refuse_too_large(name, table, categorical)
        if name not in numeric and text.sum() >= len(present) / 2:
            _refuse_another_notation(name, source, categorical)
            _refuse_numbers_beside_a_word(name, source, categorical, missing)
            _refuse_free_text(name, source, present, categorical)
            return "categorical"
        for table in sides.values():
            _refuse_text(name, table, categorical, missing)
            if name not in numeric:
                _refuse_points_between_thousands(name, table, categorical, numeric)
            _warn_of_rounded(name, table)
        if name not in numeric:
            _warn_of_codes(name, sides, categorical, numeric)
        if name not in (*numeric, *dates) and _numbers_the_rows(values, source):
            raise UserError(
                f"column {name!r} of {source.file} numbers the rows ({values[0]:.16g}, {values[1]:.16g}, …):"
                f" {format_option('drop', [name])} leaves it out, {format_option('numeric', [*numeric, name])} keeps it"
            )
        return "numeric"

    return {name: kind(name) for name in source.cells}


def parse_numbers(cells: Cells) -> tuple[Floats, NDArray[np.bool_]]:
    """The value of each cell (n,), NaN where it is missing or text, and which (n,) are text: no finite numbers."""
    if cells.dtype == np.float64:
        return cells, np.zeros(len(cells), dtype=np.bool_)
    words = {word: _parse(word) for word in set(cells.tolist())}
    values = map_words(cells, words, np.float64)
    return values, np.isnan(values) & ~is_missing(cells)


def _parse(word: str | None) -> float:
    value = float(word) if word is not None and NUMBER.fullmatch(word) else np.nan
    return np.nan if abs(value) > LARGEST else value


def _are_too_large(cells: Cells) -> NDArray[np.bool_]:
    """Which cells (n,) are text since the number in them is too large."""
    if cells.dtype == np.float64:
        return np.zeros(len(cells), dtype=np.bool_)

    def is_large(word: str | None) -> bool:
        return word is not None and NUMBER.fullmatch(word) is not None and abs(float(word)) > LARGEST

    return map_words(cells, {word: is_large(word) for word in set(cells.tolist())}, np.bool_)


def _refuse_too_large(name: str, table: Table, categorical: Sequence[str]) -> None:
    if (large := _are_too_large(table.cells[name])).any():
        first = int(large.argmax())
        word = table.cells[name][first]
        raise UserError(
            f"column {name!r}: {table.where(first)} holds {word!r}, {explain_no_number(word)} ({large.sum()} of"
            f" {count_noun(len(table), 'row')}). {format_option('drop', [name])} leaves it out; if the column holds"
            f" categories, set {format_option('categorical', [*categorical, name])}"
        )


def _numbers_the_rows(values: Floats, table: Table) -> bool:
    """Whether the values count the rows, in each file from any number on."""
    offsets = values - table.lines
    of = [offsets] if table.file_of is None else [offsets[table.file_of == at] for at in set(table.file_of.tolist())]
    return len(values) > 2 and all(np.ptp(each) == 0 for each in of) and len(values) > 2 * len(of)


def _warn_of_codes(name: str, sides: Mapping[str, Table], categorical: Sequence[str], numeric: Sequence[str]) -> None:
    """Numbers such as `00417` are likely codes: their zeros are lost, and their order means little."""
    if first := next((table.codes[name] for table in sides.values() if name in table.codes), None):
        where, word = first
        log.warning(
            "column %r: %s holds %r, which is read as the number %d. If the column holds codes, set %s; %s says that"
            " they are numbers",
            name, where, word, int(word), format_option("categorical", [*categorical, name]),
            format_option("numeric", [*numeric, name]),
        )  # fmt: skip


def _warn_of_rounded(name: str, table: Table) -> None:
    """Whole numbers written out that floats round: the reader left such a column as text."""
    cells = table.cells[name]
    if cells.dtype == np.float64:
        return
    large = (word for word in set(observed(cells).tolist()) if len(word) > 15 and word.lstrip("+-").isdigit())
    if rounded := {word for word in large if abs(int(word)) > EXACT and int(float(word)) != int(word)}:
        row = next(row for row, word in enumerate(cells.tolist()) if word in rounded)
        warn_of_rounding(name, table.where(row), cells[row])


def _refuse_empty(name: str, sides: Mapping[str, Table]) -> None:
    """A column must have a value in all domains: the others' would be of no use, or all be one made-up number."""
    empty = list[str]()
    for role, table in sides.items():
        missing = is_missing(table.cells[name])
        if missing.all():
            empty.append(f"no value in the {role} ({table.file})")
        elif table.member is not None:
            without = [position for position in range(len(table.members)) if missing[table.member == position].all()]
            empty += [f"no value in the {role} domain {table.members[position][0]}" for position in without]
    if empty:
        where = " and ".join(empty)
        raise UserError(
            f"column {name!r} has {where}: each cell is empty, or a word for a missing value (dataset.missing)."
            f" {format_option('drop', [name])} leaves the column out"
        )


def _refuse_text(name: str, table: Table, categorical: Sequence[str], missing: Sequence[str]) -> None:
    _, text = parse_numbers(table.cells[name])
    if text.any():
        first = int(text.argmax())
        word = table.cells[name][first]
        said = (
            f"column {name!r}: {table.where(first)} holds {word!r}, which is no finite number"
            f" ({text.sum()} of {count_noun(len(table), 'row')})"
        )
        as_categories = format_option("categorical", [*categorical, name])
        if found := notation.form(word):
            raise UserError(
                f"{said}, but {found.what}: {found.mend}. If the column holds categories, set {as_categories}"
            )
        raise UserError(
            f"{said}. If it stands for a missing value, set"
            f" {format_option('missing', [*missing, word])}; if the column holds categories, {as_categories}"
        )


def _refuse_free_text(name: str, source: Table, present: Cells, categorical: Sequence[str]) -> None:
    different = len(set(present))
    if different > TOO_MANY or (different > MANY and different > len(present) / 2):
        raise UserError(
            f"column {name!r} of {source.file} holds {different} different texts in {len(present)} rows, like"
            f" {present[0]!r}: an identifier or free text? {format_option('drop', [name])} leaves it out,"
            f" {format_option('categorical', [*categorical, name])} treats each as a category"
        )


def _refuse_another_notation(name: str, source: Table, categorical: Sequence[str]) -> None:
    """Numbers, dates and times that would become a category each; where they may be meant so, a warning."""
    cells = source.cells[name]
    if (found := notation.another_notation(cells)) is None:
        return
    said = (
        f"column {name!r}: {source.where(found.first)} holds {cells[found.first]!r},"
        f" {found.what} (in {found.count} of {count_noun(len(cells), 'row')})"
    )
    drop, as_categories = format_option("drop", [name]), format_option("categorical", [*categorical, name])
    keys = f"{drop} leaves it out, {as_categories} takes each"
    if found.likely:
        raise UserError(f"{said}: {found.mend}. {keys} value as a category")
    log.warning(
        "%s: its %d different values are treated as unordered categories. If they are quantities, %s."
        " %s value as a category without this warning", said, len(set(observed(cells))), found.mend, keys,
    )  # fmt: skip


def _refuse_numbers_beside_a_word(name: str, source: Table, categorical: Sequence[str], missing: Sequence[str]) -> None:
    """A column of numbers, most of which are missing and written as a word such as `-`, is none of categories."""
    words = Counter(observed(source.cells[name]).tolist())
    different = sum(NUMBER.fullmatch(word) is not None for word in words)
    others = sorted(word for word in words if not NUMBER.fullmatch(word))
    if different > notation.FEW and len(others) <= SPARE:
        rows = sum(words[word] for word in others)
        first = int(np.isin(source.cells[name], others).argmax())
        raise UserError(
            f"column {name!r} of {source.file} holds {different} different numbers, and"
            f" {list_names(map(repr, others))} in {rows} of {count_noun(len(source), 'row')} (the first is"
            f" {source.unit} {source.lines[first]}). If {'that stands' if len(others) == 1 else 'those stand'} for a"
            f" missing value, set {format_option('missing', [*missing, *others])}; if the column holds categories,"
            f" {format_option('categorical', [*categorical, name])}"
        )


def _refuse_points_between_thousands(
    name: str, table: Table, categorical: Sequence[str], numeric: Sequence[str]
) -> None:
    """`1.100` beside `900` is likely 1100, and would be read as 1.1."""
    cells = table.cells[name]
    if cells.dtype == np.float64:  # the reader leaves a column that may be written so as text
        return
    if (first := notation.points_between_thousands(cells)) is not None:
        raise UserError(
            f"column {name!r}: {table.where(first)} holds {cells[first]!r} beside whole numbers: does the point stand"
            f" between thousands? It would be read as {float(cells[first]):g}. If so, set dataset.decimal=comma"
            " dataset.thousands=point, which holds for all files, or take such points out; if they are decimal points,"
            f" set {format_option('numeric', [*numeric, name])}; if the column holds categories,"
            f" {format_option('categorical', [*categorical, name])}"
        )
