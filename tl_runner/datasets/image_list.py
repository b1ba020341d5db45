"""A user's own images by lists of them: a file of lines `path label` for each domain."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from tl_runner.datasets.decoded_once import File
from tl_runner.datasets.labelled import TEST, TRAIN, ScoreOn, WhetherLabelled
from tl_runner.datasets.listed_images import Reading, draw_images
from tl_runner.datasets.listing import ClassFolder, Listing, quoted
from tl_runner.datasets.native_size import Size
from tl_runner.datasets.pixel_format import Channels
from tl_runner.datasets.source_names import Several, name_sources, refuse_one_place_twice
from tl_runner.datasets.split import Drawn
from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun
from tl_runner.storage.image_lists import Line, read_list

log = logging.getLogger(__name__)

SHOWN = 5  # missing files that are named


def image_list(
    seed: int,
    cache: Path,
    source: Several = None,
    target: str | None = None,
    test: str | None = None,
    root: str | None = None,
    class_names: str | None = None,
    labels: Literal["same", "shared", "differ"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    size: Size = "auto",
    bit_depth: int | None = None,
    channels: Channels | None = None,
    on_bad: Literal["error", "skip"] = "error",
    memory: float = 2.0,
) -> Drawn:
    """Images by lists of lines `path label`: see `storage.image_lists`.

    source, target, test: the lists; several sources are pooled, a source of None is in the backbone's weights, and the
    files of `test` are the target's test split. root: the folder where paths begin, and that none leaves; None is
    that of each list. class_names: a file of names, a line each, of which numbers in the lists are positions from
    0. labelled: whether labels in the target's list are read. For the other options see `Reading`. The seed decides
    nothing here.
    """
    reading = Reading(labels, label_set, score_on, size, bit_depth, channels, on_bad, memory).checked()
    if target is None:
        raise UserError("name the lists, with dataset.source=… dataset.target=…, or only the target where the source"
                        " is in the backbone's weights")  # fmt: skip
    asked: dict[str, Several] = {"source": source, "target": target, "test": test}
    named = {role: name_sources(name) for role, name in asked.items()}
    places = {role: [Path(name).expanduser() for name in each] for role, each in named.items() if each}
    refuse_one_place_twice([(role, str(place), place) for role, each in places.items() for place in each], "images")
    names = None if class_names is None else _read_names(Path(class_names).expanduser())
    base = None if root is None else Path(root).expanduser()
    listed = {
        role: [image._replace(member=k) for k, place in enumerate(each) for image in list_images(place, base, names)]
        for role, each in places.items()
    }
    if labelled == "no":
        listed["target"] = [each._replace(label=None) for each in listed["target"]]
    for role, each in listed.items():
        if role != "target" or labelled == "yes":
            _refuse_unlabelled(role, each)
    if "test" in listed:
        own = [each._replace(part=TRAIN) for each in listed["target"]]
        listed["target"] = [*own, *(each._replace(part=TEST) for each in listed.pop("test"))]
    why = "dataset.labelled=no" if labelled == "no" else "lines of a path alone"
    found = {role: Listing([*_by_class(each)], ()) for role, each in listed.items()}
    return draw_images(found, places, reading, why, cache)


def list_images(place: Path, root: Path | None, names: Sequence[str] | None) -> list[ClassFolder]:
    """The images of one list, as folders of a class are listed; refuses files that are not there or stand there twice.

    A folder per line: `path` says where a class was named, `files` holds the line's one file.
    """
    lines = read_list(place)
    if not lines:
        raise UserError(f"{place} names no image")
    base = place.parent if root is None else root
    if not base.is_dir():
        raise UserError(f"there is no folder {str(base)!r}: set dataset.root=…")
    first, missing = dict[str, Line](), list[Line]()
    found = []
    for line in lines:
        path = os.path.normpath(base / line.path)
        where = f"{place}:{line.number}"
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(base)):  # noqa: PTH100  (a link may lead out)
            raise UserError(
                f"{where}: {line.path} leaves the folder {base}: set dataset.root=… to one that holds all files"
            )
        if (other := first.setdefault(path, line)) is not line:
            differ = "" if other.label == line.label else f", once as {other.label!r} and once as {line.label!r}"
            raise UserError(f"{where}: {line.path} is in line {other.number}, too{differ}: leave one out")
        try:
            stat = os.stat(path)  # noqa: PTH116  (many files)
        except OSError:
            missing.append(line)
            continue
        stamp = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        file = File(Path(path), os.path.relpath(path, base), stamp)
        found.append(ClassFolder(_name(line, names, where), None, Path(where), (file,), 0, frozenset(), True))
    if missing:
        slashes = "; write / for \\ in them" if any("\\" in line.path for line in missing) else ""
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        named = [f"{place}:{line.number}: {line.path}{_in_other_case(base, line.path)}" for line in missing[:SHOWN]]
        raise UserError(
            f"{count_noun(len(missing), 'file')} of {len(lines)} can't be found in {str(base)!r}:"
            f" {'; '.join(named)}{more}. Paths begin at dataset.root=…, or where the list lies{slashes}"
        )
    return found


def _in_other_case(base: Path, path: str) -> str:
    """That a file which is not there is so in other capitals: some file systems take them for one."""
    place = base
    for name in Path(os.path.normpath(path)).parts:
        try:
            there = [each.name for each in place.iterdir()]
        except OSError:
            return ""
        alike = [each for each in there if each.casefold() == name.casefold()]
        if not alike:
            return ""
        place /= name if name in alike else alike[0]
    return f" (there is {place.relative_to(base)}, which differs in case alone)"


def _name(line: Line, names: Sequence[str] | None, where: str) -> str | None:
    """The class of a line, by its name."""
    if line.label is None or names is None:
        return line.label and normalize("NFC", line.label)
    if line.label.isdecimal():
        if int(line.label) < len(names):
            return names[int(line.label)]
        raise UserError(
            f"{where}: class {line.label} has no name: dataset.class_names holds {len(names)}, for 0 to"
            f" {len(names) - 1}"
        )
    if (label := normalize("NFC", line.label)) not in names:
        raise UserError(f"{where}: {label!r} is not in dataset.class_names{nearest(label, names)}")
    return label


def _read_names(place: Path) -> list[str]:
    try:
        names = [normalize("NFC", line.strip()) for line in place.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset.class_names={place} can't be read as text: {error}") from error
    while names and not names[-1]:
        names.pop()
    if again := {name for name in names if names.count(name) > 1}:
        raise UserError(f"dataset.class_names={place} holds {quoted(sorted(again))} more than once")
    return names


def _by_class(listed: Sequence[ClassFolder]) -> list[ClassFolder]:
    """One for each class of a part, with all its files."""
    groups: dict[tuple[int, int | None, str | None], list[ClassFolder]] = {}
    for each in listed:
        groups.setdefault((each.member, each.part, each.label), []).append(each)

    def order(group: tuple[tuple[int, int | None, str | None], list[ClassFolder]]) -> tuple[int, int, bool, str]:
        member, part, label = group[0]
        return member, part or 0, label is not None, label or ""

    ordered = sorted(groups.items(), key=order)
    return [each[0]._replace(files=tuple(sorted(one.files[0] for one in each))) for _, each in ordered]


def _refuse_unlabelled(role: str, listed: Sequence[ClassFolder]) -> None:
    bare = [str(each.path) for each in listed if each.label is None]
    if bare:
        raise UserError(f"{role}: {count_noun(len(bare), 'line')} of {len(listed)} without a label: {bare[0]}")
