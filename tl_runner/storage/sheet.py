"""Predictions as CSV, on stdout or in a file that is there whole or not at all."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tl_runner.errors import UserError
from tl_runner.storage.atomic import open_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("path", "predicted", "probability")  # before one for each class
OF_QUANTITY = COLUMNS[:2]


class Sheet:
    """Predictions as CSV: path, predicted class, its probability, and the probability of each class by its name.

    Where there are no classes a quantity is predicted: path, predicted.

    Numbers have the fewest digits that give the same float32 back. A class that is called as one of the first
    three columns has `class ` before its name.
    """

    def __init__(self, stream: IO[str], classes: Sequence[str]):
        self._writer = csv.writer(stream, lineterminator="\n")
        self.classes = tuple(classes)
        self._begun = False

    def add(self, names: Iterable[str], predicted: "NDArray[Any]") -> None:
        """A line for each row of these probabilities (n, C) or values (n, 1), after one of the columns' names."""
        if not self._begun:
            self._begun = True
            probabilities = [f"class {name}" if name in COLUMNS else name for name in self.classes]
            self._writer.writerow([*COLUMNS, *probabilities] if self.classes else OF_QUANTITY)
        if not self.classes:
            self._writer.writerows(zip(names, predicted[:, 0], strict=True))
            return
        for name, row, index in zip(names, predicted, predicted.argmax(-1).tolist(), strict=True):
            self._writer.writerow([name, self.classes[index], row[index], *row])


def writable(out: Path, ours: Callable[[Path], bool]) -> Path:
    """The path, if a file can be put there, in the place of none or of an earlier one of `ours`; raises `UserError`."""
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    if out.exists() and not (out.is_file() and (not out.stat().st_size or ours(out))):
        raise UserError(f"{out} exists and this command did not write it: choose another file")
    return out


def is_sheet(file: Path) -> bool:
    """Whether it begins as predictions do."""
    with file.open("rb") as stream:
        header = stream.readline().rstrip(b"\r\n") + b","
    return header == f"{','.join(OF_QUANTITY)},".encode() or header.startswith(f"{','.join(COLUMNS)},".encode())


@contextmanager
def open_sheet(out: Path | None) -> Iterator[IO[str]]:
    """Where lines go: the file, which appears once all is well, or stdout as they come. Names keep their bytes."""
    if out is None:
        with TextIOWrapper(os.fdopen(os.dup(1), "wb"), "utf-8", "surrogateescape", newline="") as stdout:
            yield stdout
        return
    with open_atomically(out) as file:
        text = TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        yield text
        text.flush()
        text.detach()  # it stays open, to be synced
