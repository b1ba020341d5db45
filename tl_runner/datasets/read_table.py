"""Tables of a user's own by the name of a file, of a folder or by a pattern: text that is divided, and Parquet."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tl_runner.datasets.cells import Table, join_tables
from tl_runner.datasets.dates import read_dates
from tl_runner.datasets.delimited import read_delimited
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.parquet import read_parquet
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun
from tl_runner.storage.litter import is_litter
from tl_runner.storage.table_files import ENDINGS, PARQUET, is_pattern, list_table_files, strip_endings

log = logging.getLogger(__name__)

ReadFile = Callable[[str, str, Collection[str]], Table]  # of a path, what named it, columns that stay text


def read_table(
    name: str,
    said: str,
    dialect: Dialect,
    drop: Sequence[str] = (),
    only: Collection[str] | None = None,
    literal: Collection[str] = (),
    as_text: Collection[str] = (),
) -> Table:
    """The rows of one domain: of a file, of all that match a pattern, or of the tables in a folder.

    `said` is what named it, as it was typed. See `delimited.read_delimited` for the rest. The dialect's `dates` become
    numbers: days since 1970-01-01.
    """
    dates = {*dialect.dates}

    def read_file(file: str, said: str, mixed: Collection[str]) -> Table:
        read = read_parquet if file.lower().endswith(PARQUET) else read_delimited
        return read(file, said, dialect, drop, only, {*literal, *dates}, {*as_text, *mixed})

    table = read_files(name, said, read_file)
    days = {column: read_dates(table, column, "dataset.dates takes") for column in table.cells if column in dates}
    return replace(table, cells={**table.cells, **days}) if days else table


def read_files(name: str, said: str, read_file: ReadFile) -> Table:
    """The rows of the file that is named, or of all that a pattern or a folder leads to, as one table."""
    folder = Path(name).expanduser().is_dir()
    if not folder and not is_pattern(name):
        return read_file(name, said, ())
    files = [str(file) for file in list_table_files(name)]
    if not files:
        what = f"the folder holds no table (such as {', '.join(ENDINGS[:4])})" if folder else "no file is named so"
        raise UserError(f"{said}: {what}")
    if folder:
        _tell_others(Path(name).expanduser(), files)
    tables = [read_file(file, file, ()) for file in files]
    log.info("%s: %s, %s", said, count_noun(len(files), "file"), count_noun(sum(map(len, tables)), "row"))
    columns = [column for column in tables[0].cells if all(column in table.cells for table in tables)]
    kinds = {column: {table.cells[column].dtype == np.float64 for table in tables} for column in columns}
    if mixed := {column for column, found in kinds.items() if len(found) > 1}:  # text in one file makes it text in all
        again = {
            at: read_file(table.file, table.file, mixed)
            for at, table in enumerate(tables)
            if any(table.cells[column].dtype == np.float64 for column in mixed)
        }
        tables = [again.get(at, table) for at, table in enumerate(tables)]
    return join_tables(strip_endings(Path(name).expanduser().name), name, tables)


def read_alike(
    tables: Mapping[tuple[str, str], Table], read_again: Callable[[str, str, Collection[str]], Table]
) -> dict[tuple[str, str], Table]:
    """The tables by role and name, columns as text that a source has as text: a category may be `1` elsewhere.

    `read_again` takes a role, a name, and such columns that it has as numbers.
    """
    sources = [table for (role, _), table in tables.items() if role == "source"]
    text = {name for table in sources for name, cells in table.cells.items() if cells.dtype != np.float64}

    def alike(role: str, name: str, table: Table) -> Table:
        mixed = {column for column, cells in table.cells.items() if column in text and cells.dtype == np.float64}
        return read_again(role, name, mixed) if mixed else table

    return {(role, name): alike(role, name, table) for (role, name), table in tables.items()}


def _tell_others(folder: Path, read: Sequence[str]) -> None:
    """Say which files of a folder are no tables, and which folders in it are not looked into."""
    others = sorted(each.name for each in folder.iterdir() if not is_litter(each.name) and str(each) not in read)
    if others:
        log.warning("%s: read %s; not read: %s", folder, count_noun(len(read), "table"), list_names(others))
