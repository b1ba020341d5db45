"""Texts and their labels in the columns of tables: CSV, Parquet or JSON lines."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tl_runner.datasets.cells import Table, about_comment, map_words
from tl_runner.datasets.delimited import read_delimited
from tl_runner.datasets.dialect import SEPARATORS, Dialect
from tl_runner.datasets.json_lines import read_json_lines
from tl_runner.datasets.parquet import read_parquet
from tl_runner.datasets.read_table import read_files
from tl_runner.errors import UserError, list_names, nearest
from tl_runner.storage.table_files import GZIP, JSON_LINES, PARQUET, list_table_files

log = logging.getLogger(__name__)


class TextColumns(NamedTuple):
    """Which columns of a file hold what, and how its cells are told apart."""

    text: str
    label: str
    domain: str | None
    dialect: Dialect

    def read_literally(self, name: str, said: str = "") -> Table:
        """The columns in use as they are written; refuses a file without the text. `said` is what named the file."""
        said = said or name
        if (folder := Path(name).expanduser()).is_dir() and not list_table_files(name):
            root, domain = folder.absolute().parent, folder.name
            raise UserError(
                f"{said} is a folder: one with a folder of .txt files for each class is read as"
                f" dataset.root={root} and the name of the domain, {domain}"
            )
        others = [column for column in (self.label, self.domain) if column is not None]
        used, untouched = {self.text, *others}, replace(self.dialect, missing=())

        def read_file(file: str, said: str, mixed: Collection[str]) -> Table:
            if is_json(file):
                return read_json_lines(file, said, self.text, others, untouched.encoding)
            read = read_parquet if file.lower().endswith(PARQUET) else read_delimited
            return read(file, said, untouched, only=used, literal=used)

        table = read_files(name, said, read_file)
        self._check(table, "text", self.text)
        if self.domain is not None:
            self._check(table, "domain", self.domain)
        return table

    def read(self, file: str, said: str) -> Table:
        """The same, where labels and domains that are words for a missing value are None."""
        table = self.read_literally(file, said)
        absent = partial(self.dialect.is_absent, literal=True)
        known = {
            name: map_words(cells, {word: None if word is None or absent(word) else word for word in {*cells}})
            for name, cells in table.cells.items()
            if name != self.text
        }
        return replace(table, cells={**table.cells, **known})

    def warn_of_separator(self, files: Iterable[str]) -> None:
        """Warn of a separator that was set and that none of these files has, all being JSON lines."""
        if self.dialect.separator not in ("auto", "comma") and all(map(is_json, files)):
            log.warning(
                "dataset.separator=%s does nothing: it is for CSV files, and these are JSON lines",
                self.dialect.separator,
            )

    def check_label(self, table: Table) -> None:
        """Refuse a table without the label."""
        self._check(table, "label", self.label)

    def _check(self, table: Table, key: str, name: str) -> None:
        header = table.header
        if name not in header:
            other = [word for word, sign in SEPARATORS.items() if len(header) == 1 and sign in header[0]]
            raise UserError(
                f"dataset.{key}={name}: {table.file} has no such column{nearest(name, header)}"
                f" (it has {list_names(map(repr, header))}){about_comment(header)}"
                + (f". Set dataset.separator={other[0]}? It holds for all files" if other else "")
            )


def is_json(file: str) -> bool:
    """Whether a file's name says that it holds JSON lines."""
    return file.lower().removesuffix(GZIP).endswith(JSON_LINES)
