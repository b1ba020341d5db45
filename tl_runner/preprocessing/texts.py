"""Texts as a run's model takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tl_runner.datasets.clean_text import clean_text
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.text_columns import TextColumns
from tl_runner.datasets.text_files import read_text
from tl_runner.errors import UserError
from tl_runner.models.tokens import Tokenizer
from tl_runner.preprocessing.batching import Input, Portion
from tl_runner.preprocessing.tables import take_lines
from tl_runner.storage.table_files import ENDINGS

PLAIN = ".txt"


@dataclass(frozen=True)
class Texts:
    """Texts -> token ids (n, t) int64, by the run's own tokenizer.

    A file .txt is one text; a table, CSV or JSON lines, has one in each row, in the `column` of this name. Texts are
    cleaned as the run's were: see `clean_text`. `dialect` says how the run's files are written.
    """

    tokenizer: Tokenizer
    column: str = "text"
    dialect: Dialect = field(default_factory=Dialect)

    takes: ClassVar[str] = "text files, CSV, Parquet or JSON lines"

    @property
    def endings(self) -> frozenset[str]:
        """How the files are named that are taken from a folder."""
        return frozenset({PLAIN, *ENDINGS})

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        return self.tokenizer.length

    @property
    def facts(self) -> dict[str, Any]:
        """What somebody must know to do the same elsewhere, in JSON's words: the tokenizer as a run keeps it."""
        return {
            "kind": "text",
            "input": "token ids, int64, padded at the end",
            "length": self.tokenizer.length,
            "pad": self.tokenizer.pad,
            "tokenizer": self.tokenizer.state(),
        }

    def __call__(self, *texts: str | PathLike[str]) -> Tensor:
        """Token ids (n, t): a row for each text, and for each path as many as its file holds."""
        if not texts:
            raise UserError("name at least one text, or a Path of a file")
        found = [clean_text(text) for each in texts for text in ([each] if isinstance(each, str) else self._read(each))]
        if (empty := [number for number, text in enumerate(found, 1) if not text]) and found:
            raise UserError(f"text {empty[0]} of {len(found)} is empty: there is nothing to predict")
        return self.tokenizer(found)

    def portions(self, inputs: Sequence[Input], at_most: int) -> Iterator[Portion]:
        """The texts of the files in order, `at_most` at a time, by the names `file`, or `file:line` in a table."""
        names, texts, bad = list[str](), list[str](), dict[str, str]()
        for name, found in self._texts(inputs):
            if isinstance(found, UserError):
                bad[name] = str(found)
            elif not (text := clean_text(found or "")):
                bad[name] = "it is empty: there is nothing to predict"
            else:
                names.append(name)
                texts.append(text)
            if len(names) + len(bad) == at_most:
                yield Portion(names, self.tokenizer(texts), bad)
                names, texts, bad = [], [], {}
        if names or bad:
            yield Portion(names, self.tokenizer(texts), bad)

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """Ids (n, t) of texts of random tokens and any length: numbers do not count here, but for those of ids."""
        length, pad = self.tokenizer.length, self.tokenizer.pad
        ids = torch.randint(self.tokenizer.size, (n, length), generator=generator)
        ids = torch.where(ids == pad, (pad + 1) % self.tokenizer.size, ids)
        reads = torch.randint(1, length + 1, (n, 1), generator=generator)
        return torch.where(torch.arange(length) < reads, ids, pad)

    def _texts(self, inputs: Sequence[Input]) -> Iterator[tuple[str, str | UserError | None]]:
        """The name of each text with the text, None where a cell is empty, or why a file is not to be read."""
        for path, lines in inputs:
            if path.suffix.lower() == PLAIN:
                try:
                    yield str(path), read_text(str(path), str(path), self.dialect.encoding)
                except UserError as error:
                    yield str(path), error
            else:
                table = TextColumns(self.column, self.column, None, self.dialect).read_literally(str(path))
                table = table if lines is None else take_lines(table, lines)
                yield from zip(table.places(), table.cells[self.column], strict=True)

    def _read(self, file: PathLike[str]) -> list[str]:
        found = [*self._texts([Input(Path(fspath(file)))])]
        if refused := [text for _, text in found if isinstance(text, UserError)]:
            raise refused[0]
        return [text or "" for _, text in found if not isinstance(text, UserError)]
