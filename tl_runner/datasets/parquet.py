"""A Parquet file as a table. Errors name the row, counted from 1, and the column."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_runner.datasets.cells import Cells, Table, format_option
from tl_runner.datasets.column_reading import EXACT, LARGEST, ColumnReader, explain_no_number, warn_of_rounding
from tl_runner.datasets.dialect import Dialect
from tl_runner.errors import UserError, nearest
from tl_runner.storage.table_files import strip_endings

EXTRA = (
    "Parquet files are read by pyarrow, which is missing: pip install 'tl_runner[parquet]', or save the table as CSV"
)


def read_parquet(
    file: str,
    said: str,
    dialect: Dialect,
    drop: Sequence[str] = (),
    only: Collection[str] | None = None,
    literal: Collection[str] = (),
    as_text: Collection[str] = (),
) -> Table:
    """The table in a Parquet file; what the options mean is as in `delimited.read_delimited`.

    Numbers are numbers; null, NaN and the numbers that the dialect names have no value; true and false are the words
    True and False. Texts are read as cells of a CSV file are. Dates and times are read only where the dialect names
    them; lists and the like are refused.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(f"{said}: {EXTRA}") from error
    path = Path(file).expanduser()
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.glob("*") if entry.is_file())
        raise UserError(f"{said}: there is no such file{nearest(path.name, there)}")
    try:
        with pq.ParquetFile(path) as parquet:
            header = tuple(name.strip() for name in parquet.schema_arrow.names)
            used = [name for name in header if name not in drop and (only is None or name in only)]
            if twins := [name for name in used if header.count(name) > 1]:
                raise UserError(
                    f"{file} has {header.count(twins[0])} columns of the name {twins[0]!r}: rename all but one"
                )
            rows = parquet.metadata.num_rows
            names = [name for name in parquet.schema_arrow.names if name.strip() in used]
            columns = {name.strip(): parquet.read([name]) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} can't be read as Parquet: {str(error).splitlines()[0]}") from error
    if not rows:
        raise UserError(f"{file} has a header and no rows")
    cells, codes = dict[str, Cells](), dict[str, tuple[str, str]]()
    for name, column in columns.items():
        refuse_nested(file, name, column)
        values = _without_dictionary(column.column(0))
        if _is_text(values.type):
            reader = ColumnReader(name, dialect, file, name in literal, name in as_text, unit="row")
            strings = pc.cast(values, pa.large_string()).to_pylist()
            reader.take(["" if word is None else word for word in strings], range(1, rows + 1))
            cells[name] = reader.finish()
            codes |= {name: reader.code} if reader.code else {}
        else:
            cells[name] = _cells(file, name, values, dialect, name in literal, name in as_text)
    lines, found = np.arange(1, rows + 1), {"format": "Parquet"}
    return Table(strip_endings(path.name), file, header, lines, cells, found=found, unit="row", codes=codes)


def refuse_nested(file: str, name: str, column: Any) -> None:
    """A column of lists, of other columns, or of bytes."""
    import pyarrow.types as pt

    kind = column.schema.types[0]
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    if len(column.schema.names) > 1 or pt.is_nested(kind) or _is_bytes(kind):
        raise UserError(
            f"column {name!r} of {file} holds {kind}: a cell must be a number, a word or a date."
            f" {format_option('drop', [name])} leaves it out"
        )


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as pt

    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as pt

    numeric = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind)
    return not (numeric or pt.is_null(kind) or pt.is_temporal(kind) or pt.is_interval(kind))


def _without_dictionary(values: Any) -> Any:
    import pyarrow.compute as pc
    import pyarrow.types as pt

    return pc.cast(values, values.type.value_type) if pt.is_dictionary(values.type) else values


def _cells(file: str, name: str, values: Any, dialect: Dialect, literal: bool, as_text: bool) -> Cells:
    import pyarrow.types as pt

    kind = values.type
    if pt.is_null(kind):
        return np.full(len(values), None, dtype=object) if literal or as_text else np.full(len(values), np.nan)
    if pt.is_timestamp(kind) or pt.is_date(kind):
        if not literal:  # as are columns that the dialect names as dates
            raise UserError(
                f"column {name!r} of {file} holds dates ({kind}): dataset.dates takes them as days since 1970-01-01, as"
                f" in {format_option('dates', [*dialect.dates, name])}; {format_option('drop', [name])} leaves it out"
            )
        return _words([None if value is None else _iso(value) for value in values.to_pylist()])
    if pt.is_time(kind) or pt.is_duration(kind) or pt.is_interval(kind):
        raise UserError(
            f"column {name!r} of {file} holds times ({kind}): write numbers instead, such as minutes."
            f" {format_option('drop', [name])} leaves it out"
        )
    if not literal and not as_text and not pt.is_boolean(kind):
        return _numbers(file, name, values, _absent_values(kind, dialect))
    numbers = _absent_values(kind, dialect)
    return _words([None if _is_absent(value, numbers, dialect) else str(value) for value in values.to_pylist()])


def _iso(value: Any) -> str:
    """A date, or a time, as ISO 8601 writes it; pandas has nanoseconds, which are cut to microseconds."""
    return value.isoformat()[:10] if not hasattr(value, "hour") else value.isoformat()


def _words(words: Sequence[str | None]) -> Cells:
    return np.array(words, dtype=object)


def _absent_values(kind: Any, dialect: Dialect) -> set[float]:
    """The numbers that stand for a missing value, as a column of this kind holds them: in 32 bits -99.9 is another."""
    import pyarrow.types as pt

    rounded = np.float16 if pt.is_float16(kind) else np.float32 if pt.is_float32(kind) else np.float64
    return {float(rounded(value)) for value in dialect.absent_values if abs(value) <= float(np.finfo(rounded).max)}


def _is_absent(value: Any, numbers: Collection[float], dialect: Dialect) -> bool:
    """Whether a number, or true or false, is null, NaN, or stands for a missing value."""
    if value is None or isinstance(value, bool):
        return value is None or str(value).lower() in dialect.absent
    return float(value) in numbers or np.isnan(float(value))


def _numbers(file: str, name: str, values: Any, absent: Collection[float]) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    found = np.where(np.isin(found, [*absent]), np.nan, found)
    if (wrong := np.abs(found) > LARGEST).any():
        row = int(wrong.argmax())
        raise UserError(
            f"column {name!r}: row {row + 1} of {file} holds {found[row]:g}, {explain_no_number(f'{found[row]:g}')}"
            f" ({wrong.sum()} of {len(found)} rows). {format_option('drop', [name])} leaves the column out"
        )
    large = np.flatnonzero(np.abs(found) >= EXACT) if pa.types.is_integer(values.type) else ()
    if rounded := [row for row in map(int, large) if int(found[row]) != values[row].as_py()]:
        warn_of_rounding(name, f"row {rounded[0] + 1} of {file}", str(values[rounded[0]].as_py()))
    return found
