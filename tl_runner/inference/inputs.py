"""What a person names to be predicted, as a list of files: looked up before a model is loaded."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun, pluralize
from tl_runner.preprocessing.batching import Input, Preprocessing
from tl_runner.preprocessing.images import Images
from tl_runner.preprocessing.sounds import Sounds
from tl_runner.preprocessing.texts import PLAIN, Texts
from tl_runner.storage.image_lists import read_list
from tl_runner.storage.litter import is_litter

LISTS = (".txt", ".csv", ".tsv", ".lst")  # no image file ends so


def list_inputs(paths: Sequence[Path], preprocessing: Preprocessing) -> list[Input]:
    """The files as named, and for each folder those at any depth in it that end as they should, sorted by path.

    A list of images (`storage.image_lists`) stands for what it names; paths begin where it lies. Hidden entries and
    what other programs leave (`@eaDir`) are passed over, as in training; links to folders are not followed. Refuses
    what is not there, and a folder that holds nothing of the kind.
    """
    return [Input(file) for path in paths for file in _files(path, preprocessing)]


def list_test_inputs(run: Path, preprocessing: Preprocessing) -> list[Input]:
    """The files or lines of the target's test split, in the order of the run's predictions, by its test.csv."""
    file = run / "test.csv"
    if not file.is_file():
        raise UserError(f"{run} has no test.csv: its dataset is not made of files")
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        names = [row[0] for row in csv.reader(lines)][1:]
    plain = isinstance(preprocessing, Texts) and names[0].lower().endswith(PLAIN)
    if plain or isinstance(preprocessing, Images | Sounds):
        found = [Input(Path(name)) for name in names]
    else:
        places = [name.rpartition(":") for name in names]
        found = [
            Input(Path(path), [int(line) for _, _, line in group])
            for path, group in groupby(places, key=lambda place: place[0])
        ]
    if isinstance(preprocessing, Sounds) and preprocessing.shift != "none":
        raise UserError(
            f"the files of {file} are not what the run was scored on, which is their sound after dataset.shift="
            f"{preprocessing.shift}: name them to predict them as they are"
        )
    if absent := [str(path) for path, _ in found if not path.is_file()]:
        raise UserError(
            f"{len(absent)} of {count_noun(len(found), 'file')} of {file} {pluralize(len(absent), 'is')} missing, such"
            f" as {absent[0]}: the run recorded these names; the working folder is {Path.cwd()}"
        )
    return found


def _files(path: Path, preprocessing: Preprocessing) -> Iterable[Path]:
    if not path.exists():
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: there is no such file or folder{nearest(path.name, there)}")
    if not path.is_dir():
        if isinstance(preprocessing, Images) and path.suffix.lower() in LISTS:
            return [path.parent / line.path for line in read_list(path)]
        return [path]
    found = sorted(file for file in _below(path) if file.name.lower().endswith(tuple(preprocessing.endings)))
    if not found:
        others = sum(1 for _ in _below(path))
        raise UserError(f"{path} holds no {preprocessing.takes} (other files, at any depth: {others})")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder at any depth, without what is hidden or left by other programs."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} can't be listed: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_litter(name)]
        yield from (Path(place) / name for name in files if not is_litter(name))
