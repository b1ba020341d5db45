"""What lies in a folder of folders of images or texts: its domains, and a domain's classes, parts and files.

    root/<domain>/<class>/…  or  root/<domain>/{train,val,test}/<class>/…

In a target a folder `unlabelled` may stand beside the classes or in place of them, or files without any folder.
Nothing is opened. What is hidden or left by other programs is passed over, and said. A link to a folder must stay
inside the root, unless links are followed (`root` is then None): they may lead anywhere, but to no folder twice.
Where a folder holds but one folder, which holds the classes, these are taken, and that is said.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from tl_runner.datasets.arrays import NUMPY
from tl_runner.datasets.decoded_once import File
from tl_runner.datasets.labelled import WhetherLabelled
from tl_runner.datasets.part_names import parts_among
from tl_runner.datasets.picture import extensions
from tl_runner.datasets.recording import SOUND_ENDINGS
from tl_runner.datasets.split import PARTS
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun
from tl_runner.storage.litter import is_litter

log = logging.getLogger(__name__)

MANY = 12  # names are listed up to this many
UNLABELLED = ("unlabelled", "unlabeled")  # a folder of files whose class is not known
FOLLOW = "follow_links"  # the option of a dataset
DEEP = 3  # folders that hold nothing but a folder are looked through


class FileKind(NamedTuple):
    """Which files are rows: those whose names have one of the `endings`, in lower case; and words for them."""

    noun: str
    one: str
    example: str
    ending: str  # what the names of other files lack
    endings: Callable[[], frozenset[str]]
    advice: str = ""  # where there are files, and none of the kind


IMAGES = FileKind(
    "image", "an image", "IMAGE.png", "an image extension", extensions,
    "; .npy arrays are read if dataset.channels says how many bands they have",
)  # fmt: skip
IMAGES_AND_ARRAYS = IMAGES._replace(endings=lambda: extensions() | {NUMPY}, advice="")
RECORDINGS = FileKind(
    "recording", "a recording", "RECORDING.wav",
    "the extension of a sound file (.wav, .flac, .ogg, .opus, .mp3, .aiff, .aif)", lambda: SOUND_ENDINGS,
)  # fmt: skip
TEXTS = FileKind("text", "a text", "TEXT.txt", "the extension .txt", lambda: frozenset({".txt"}))


class ClassFolder(NamedTuple):
    """The files of one class in one part (a position in `PARTS`; None where the domain is not divided).

    `label` is None where their class is not known. `others` are files whose names do not end like those of their kind;
    `inner` are the folders in it, `direct` says whether files of the kind lie beside them. Of several source domains
    `member` is the position of its own.
    """

    label: str | None
    part: int | None
    path: Path
    files: tuple[File, ...]
    others: int
    inner: frozenset[str]
    direct: bool
    member: int = 0


class Listing(NamedTuple):
    """A domain's class folders, by part and name, and what was passed over on the way."""

    folders: list[ClassFolder]
    passed: tuple[Path, ...]


def folders(parent: Path, root: Path | None, passed: list[Path] | None = None) -> dict[str, Path]:
    """The folders in a folder, by name; what is passed over is added to a list. `root` None: links are followed."""
    found = {}
    for entry in _entries(parent, passed):
        if not entry.is_dir():
            continue
        if not entry.name.isprintable():
            raise UserError(f"the name of the folder {entry.path!r} is no printable text: rename it")
        if root and entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{entry.path} is a link that leaves {root}: put the folder itself there; where the link belongs there,"
                f" dataset=image_folder takes dataset.{FOLLOW}=true"
            )
        name = normalize("NFC", entry.name)  # macOS writes é as two characters, others as one
        if name in found:
            raise UserError(f"{parent} holds two folders whose names look alike, {name!r}: put their files into one")
        found[name] = Path(entry.path)
    return found


def class_folders(
    domain: Path,
    root: Path | None,
    kind: FileKind,
    labelled: WhetherLabelled = "yes",
    known: Collection[str | None] = (),
) -> Listing:
    """The class folders of a domain, by part and name; refuses a domain that has none. `root` None: links are followed.

    With `labelled=auto` a part without a folder, and the folder `unlabelled` unless that is a `known` class, hold
    files of no known class; with `no` all do, in whatever folders they lie.
    """
    passed: list[Path] = []
    visited = None if root else _visit_above(domain)
    top = _stay_inside(domain, root, kind) if labelled != "no" else domain
    inside = folders(top, root, passed)
    loose = 0
    by_part: dict[int | None, Path] = {None: top}
    parts = parts_among(inside)
    if parts:
        loose = _loose(top, kind)
        by_part = {
            part: _stay_inside(inside[name], root, kind) if labelled != "no" else inside[name]
            for part, name in _by_part(domain, inside, parts).items()
        }
    elif labelled != "no":
        _refuse_a_part_among_classes(top, inside, root)
    found: list[ClassFolder] = []
    for part, path in by_part.items():
        classes = inside if part is None else folders(path, root, passed)
        if labelled == "no" or (labelled == "auto" and not classes and _loose(path, kind)):
            found.append(_class_folder(None, part, path, domain, kind, passed, visited))
            continue
        if not classes:
            raise UserError(f"{path} holds no class folder: {kind.one} lies at {path / 'CLASS' / kind.example}")
        loose += _loose(path, kind)
        for name, place in classes.items():
            label = None if labelled == "auto" and name in UNLABELLED and name not in known else name
            found.append(_class_folder(label, part, place, domain, kind, passed, visited))
    if loose:
        move = f": move them into a folder {UNLABELLED[0]!r} to use them" if labelled == "auto" else ""
        log.warning("%s: ignored %s beside the class folders%s", domain, count_noun(loose, kind.noun), move)
    _question_inner_folders(domain, [each for each in found if each.label is not None])
    _tell_passed(domain, passed, kind)
    return Listing(found, tuple(passed))


def _by_part(domain: Path, inside: Iterable[str], parts: dict[str, int | None]) -> dict[int, str]:
    """The folder of each part, train first; refuses what leaves a doubt, and says which other names were taken."""
    inside = list(inside)
    by_part = {part: name for name, part in parts.items() if part is not None}
    if 0 not in by_part or len(by_part) < len(inside):
        raise UserError(
            f"{domain} holds {quoted(inside)}: a divided domain holds train and, where there are such, val and"
            " test, one folder for each and nothing else; rename or move the others"
        )
    if other := [f"{name!r} for {PARTS[part]}" for part, name in sorted(by_part.items()) if name != PARTS[part]]:
        log.warning("%s: %s: they are treated as its splits, not as classes", domain, ", ".join(other))
    return dict(sorted(by_part.items()))


def _refuse_a_part_among_classes(domain: Path, inside: dict[str, Path], root: Path | None) -> None:
    """A folder named as a part beside classes, and in it folders of their names: `cup`, `pen` and `test/cup`."""
    for name, path in inside.items():
        if parts_among([name]) and (classes := folders(path, root).keys() & inside.keys()):
            raise UserError(
                f"{path} is named as a part of the domain and holds {quoted(sorted(classes))}, as {domain} itself does:"
                f" put the classes beside it into {domain / PARTS[0]}, or rename it if it is a class"
            )


def _stay_inside(place: Path, root: Path | None, kind: FileKind) -> Path:
    """The folder itself, or one below it: where it holds nothing but a folder, and so on, down to several or parts."""
    below = place
    for _ in range(DEEP):
        inside = folders(below, root)
        if len(inside) != 1 or parts_among(inside) or _loose(below, kind) or {*inside} <= {*UNLABELLED}:
            break
        below = next(iter(inside.values()))
    inside = folders(below, root)
    if below == place or _loose(below, kind) or not (len(inside) > 1 or parts_among(inside)):
        return place
    log.warning(
        "%s holds one folder, %s: the %d folders in it are treated as what %s should hold (%s)",
        place, below.relative_to(place), len(inside), place.name, quoted(inside),
    )  # fmt: skip
    return below


def _loose(place: Path, kind: FileKind) -> int:
    """How many files of the kind lie in a folder itself."""
    return sum(not entry.is_dir() and _is_of_kind(entry, kind) for entry in _entries(place))


def _question_inner_folders(domain: Path, found: Sequence[ClassFolder]) -> None:
    """Folders within classes are no error, unless they are parts; the same ones in all classes may be the classes."""
    for each in found:
        if len(parts := parts_among(each.inner)) > 1:
            raise UserError(
                f"{each.path} holds {quoted(sorted(parts))}, parts of a domain, which must stand above its classes:"
                f" {domain}/train/{each.label}, not {domain}/{each.label}/train"
            )
    if len(found) < 2:
        return
    common = frozenset.intersection(*(each.inner for each in found))
    if len(common) > 1 and not any(each.direct for each in found):
        labels = sorted({str(each.label) for each in found})
        log.warning(
            "%s: the folders %s are treated as the classes, and each holds the folders %s: if these are the classes,"
            " move them up, or set dataset.root and the domains one folder deeper",
            domain, quoted(labels), quoted(sorted(common)),
        )  # fmt: skip


def _tell_passed(domain: Path, passed: Sequence[Path], kind: FileKind) -> None:
    """What was passed over; loudly where a person could have meant it: folders, and hidden files of the kind."""
    if not passed:
        return
    meant = [path for path in passed if path.is_dir() or _is_named_like(path.name, kind)]
    names = quoted(dict.fromkeys(path.name for path in meant or passed))
    log.log(
        logging.WARNING if meant else logging.INFO,
        "%s: ignored %s, hidden or left by other programs: %s",
        domain, "1 file or folder" if len(passed) == 1 else f"{len(passed)} files and folders", names,
    )  # fmt: skip


def quoted(names: Iterable[str]) -> str:
    """Some names for a sentence; not all, where there are many."""
    names = list(names)
    rest = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(map(repr, names[:MANY])) + rest


Visited = dict[tuple[int, int], Path]  # folders by what the file system knows them by, however they were reached


def _class_folder(
    label: str | None,
    part: int | None,
    path: Path,
    domain: Path,
    kind: FileKind,
    passed: list[Path],
    visited: Visited | None,
) -> ClassFolder:
    """What lies in the folder at any depth; links to folders are followed where the `visited` ones are kept."""
    files, others, pending = [], 0, [path]
    while pending:
        folder = pending.pop()
        if visited is not None:
            _visit_once(folder, visited)
        for entry in _entries(folder, passed):
            if entry.is_dir(follow_symlinks=False) or (visited is not None and entry.is_dir()):
                pending.append(Path(entry.path))
            elif entry.is_dir():
                raise UserError(
                    f"{entry.path!r} is a link to a folder within a class: put the {kind.noun}s themselves there"
                    + (f", or set dataset.{FOLLOW}=true" if kind.noun == "image" else "")
                )
            elif _is_of_kind(entry, kind):
                files.append(File(Path(entry.path), entry.path.removeprefix(f"{domain}{os.sep}"), _stamp(entry)))
            else:
                others += 1
    if others:
        log.info("%s: ignored %s without %s", path, count_noun(others, "file"), kind.ending)
    inner = frozenset(file.path.relative_to(path).parts[0] for file in files if file.path.parent != path)
    direct = any(file.path.parent == path for file in files)
    return ClassFolder(label, part, path, tuple(sorted(files)), others, inner, direct)


def _visit_above(domain: Path) -> Visited:
    """The domain's folder and all above it: a link to one of them would never end."""
    here = domain.resolve()
    return {_known_by(folder): folder for folder in (*reversed(here.parents), here)}


def _visit_once(folder: Path, visited: Visited) -> None:
    """Refuse a folder that links lead to twice, or round in a circle: its images would be in two places."""
    first = visited.setdefault(_known_by(folder), folder)
    if first != folder:
        raise UserError(
            f"dataset.{FOLLOW}=true: {str(folder)!r} is the same folder as {str(first)!r}, so that its files would be"
            " read twice, or without end: remove one of the two links"
        )


def _known_by(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_of_kind(entry: os.DirEntry[str], kind: FileKind) -> bool:
    """By its ending; a pipe or a device is none, whatever its name, and a dangling link may be one some day."""
    regular = entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    return regular and os.path.splitext(entry.name)[1].lower() in kind.endings()  # noqa: PTH122  (many files)


def _is_named_like(name: str, kind: FileKind) -> bool:
    """Among hidden files; `._x.jpg` is what macOS keeps beside x.jpg on foreign disks, and no image."""
    return not name.startswith("._") and Path(name).suffix.lower() in kind.endings()


def _stamp(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        found = entry.stat()
    except FileNotFoundError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns  # archives unpack with times of their own choosing


def _entries(folder: Path, passed: list[Path] | None = None) -> Sequence[os.DirEntry[str]]:
    """What is in a folder, by name; what is passed over is added to a list."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{str(folder)!r} can't be listed: {error.strerror}") from error
    if passed is not None:
        passed += [Path(entry.path) for entry in found if is_litter(entry.name)]
    return [entry for entry in found if not is_litter(entry.name)]
