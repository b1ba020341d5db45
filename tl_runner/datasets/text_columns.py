"""Texts and their labels in the columns of a file, CSV or JSON lines."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tl_runner.datasets.cells import SEPARATORS, Cells, Table, about_comment, read_cells
from tl_runner.datasets.json_lines import ENDINGS, read_json_lines
from tl_runner.errors import UserError, list_names, nearest

log = logging.getLogger(__name__)


class TextColumns(NamedTuple):
    """Which columns of a file hold what, and how its cells are told apart."""

    text: str
    label: str
    domain: str | None
    missing: Sequence[str]
    separator: str

    def read_literally(self, file: str, said: str = "") -> Table:
        """The columns in use as they are written; refuses a file without the text. `said` is what named the file."""
        said = said or file
        if (folder := Path(file).expanduser()).is_dir():
            root, name = folder.absolute().parent, folder.name
            raise UserError(
                f"{said} is a folder: one with a folder of .txt files for each class is read as"
                f" dataset.root={root} and the name of the domain, {name}"
            )
        others = [name for name in (self.label, self.domain) if name is not None]
        if file.lower().endswith(ENDINGS):
            table = read_json_lines(file, said, self.text, others)
        else:
            table = read_cells(file, said, self.separator, missing=(), only={self.text, *others})
        self._check(table, "text", self.text)
        if self.domain is not None:
            self._check(table, "domain", self.domain)
        return table

    def read(self, file: str, said: str) -> Table:
        """The same, where labels and domains that are words for a missing value are None."""
        table = self.read_literally(file, said)
        absent = {word.strip().lower() for word in self.missing}

        def known(cells: Cells) -> Cells:
            return np.array([None if cell is None or cell.lower() in absent else cell for cell in cells], dtype=object)

        cells = {name: cells if name == self.text else known(cells) for name, cells in table.cells.items()}
        return replace(table, cells=cells)

    def warn_of_separator(self, files: Iterable[str]) -> None:
        """Warn of a separator that was set and that none of these files has, all being JSON lines."""
        if self.separator != "comma" and all(file.lower().endswith(ENDINGS) for file in files):
            log.warning(
                "dataset.separator=%s does nothing: it is for CSV files, and these are JSON lines", self.separator
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
