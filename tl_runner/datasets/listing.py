"""What lies in a folder of image folders: its domains, and a domain's classes, parts and files.

    root/<domain>/<class>/…  or  root/<domain>/{train,val,test}/<class>/…

Nothing is opened. Hidden entries are passed over; a link to a folder must stay inside the root.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from tl_runner.datasets.decoded import File
from tl_runner.datasets.picture import extensions
from tl_runner.datasets.split import PARTS
from tl_runner.errors import Refused

log = logging.getLogger(__name__)

# What people call the parts of a divided domain; two of them side by side are no classes.
PART_LIKE = {*PARTS, "training", "testing", "valid", "validation", "dev", "eval"}
MANY = 12  # names are listed up to this many


class ClassFolder(NamedTuple):
    """The images of one class in one part (a position in `PARTS`; None where the domain is not divided).

    `others` are files whose names do not end like an image's.
    """

    label: str
    part: int | None
    path: Path
    files: tuple[File, ...]
    others: int


def folders(parent: Path, root: Path) -> dict[str, Path]:
    """The folders in a folder, by name."""
    found = {}
    for entry in _entries(parent):
        if not entry.is_dir():
            continue
        if not entry.name.isprintable():
            raise Refused(f"the name of the folder {entry.path!r} is no printable text: rename it")
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
            raise Refused(f"{entry.path} is a link that leaves {root}: put the folder itself there")
        found[normalize("NFC", entry.name)] = Path(entry.path)  # macOS writes é as two characters, others as one
    return found


def class_folders(domain: Path, root: Path) -> list[ClassFolder]:
    """The class folders of a domain, by part and name; refuses a domain that has none."""
    inside = folders(domain, root)
    parts = sorted(PART_LIKE & inside.keys())
    if len(parts) > 1 or len(parts) == len(inside) == 1:  # one among others is a class of that name
        if not {"train"} <= inside.keys() <= set(PARTS):
            raise Refused(
                f"{domain} holds {quoted(inside)}: a divided domain holds train and, where there are such, val and"
                " test, and nothing else; rename or move the others"
            )
        by_part = {PARTS.index(part): folders(inside[part], root) for part in inside}
    else:
        by_part = {None: inside}
    if empty := [part for part, classes in by_part.items() if not classes]:
        path = domain if empty[0] is None else domain / PARTS[empty[0]]
        raise Refused(f"{path} holds no class folder: an image lies at {path / 'CLASS' / 'IMAGE.png'}")
    return [
        _class_folder(label, part, path, domain) for part, named in by_part.items() for label, path in named.items()
    ]


def quoted(names: Iterable[str]) -> str:
    """Some names for a sentence; not all, where there are many."""
    names = list(names)
    rest = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(map(repr, names[:MANY])) + rest


def _class_folder(label: str, part: int | None, path: Path, domain: Path) -> ClassFolder:
    files, others, pending = [], 0, [path]
    while pending:
        for entry in _entries(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_dir():
                raise Refused(f"{entry.path!r} is a link to a folder within a class: put the images themselves there")
            elif _like_an_image(entry):
                files.append(File(Path(entry.path), os.path.relpath(entry.path, domain), _stamp(entry)))
            else:
                others += 1
    if others:
        log.info("%s: %d files do not end like an image that can be read, and are left out", path, others)
    return ClassFolder(label, part, path, tuple(sorted(files)), others)


def _like_an_image(entry: os.DirEntry[str]) -> bool:
    """By its ending; a pipe or a device is none, whatever its name, and a dangling link may be one some day."""
    regular = entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    return regular and Path(entry.name).suffix.lower() in extensions()


def _stamp(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        found = entry.stat()
    except FileNotFoundError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns  # archives unpack with times of their own choosing


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise Refused(f"{str(folder)!r} can't be listed: {error.strerror}") from error
