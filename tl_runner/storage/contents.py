"""What files hold, as hashes: each file is read once, and known again by its size, its times and its inode.

The hashes are kept in outputs/cache/contents, a file for each folder or file that an option names. A kept hash is
used only while size, times (of content and of inode) and inode are those of its reading. As in git, a file that had
changed less than `MARGIN` before it was read is not kept: it could change again without another time. Needs no torch.
"""

import json
import logging
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b, md5
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG
from typing import IO, Any, NamedTuple
from unicodedata import normalize

from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.litter import is_litter

log = logging.getLogger(__name__)

MARGIN = 2 * 10**9  # ns; the times of some file systems are whole pairs of seconds
BLOCK = 2**20  # bytes read at a time
PATIENCE = 5.0  # seconds of reading after which progress is printed
PAUSE = 30.0  # seconds from one such word to the next


class FileContent(NamedTuple):
    """A file: its name relative to what was asked for, its bytes, and a hash of them."""

    name: str
    bytes: int
    hash: str


class _Listed(NamedTuple):
    name: str
    path: str  # a Path each would take as long as all of the rest, for files that are not read again
    stamp: tuple[int, ...]  # bytes, mtime and ctime in ns, inode; empty where it can't be told


class Contents:
    """The contents of files, each read once in the life of this object. Relative paths begin at the `home` folder.

    `outputs` is where hashes are kept from one process to the next; nothing in that folder counts as content. None
    keeps none. Processes may share it: each writes whole files, and nothing that can't be read is believed.
    """

    def __init__(self, outputs: Path | None = None):
        self.home = Path.cwd()
        self.outputs = self.home / outputs if outputs else None
        self._found: dict[tuple[Path, tuple[str, ...] | None], tuple[FileContent, ...]] = {}

    def of(self, path: Path, names: Sequence[str] | None = None) -> tuple[FileContent, ...]:
        """A file, or all files in a folder at any depth, by blake2b; of nothing where there is none.

        With `names` only these files in the folder, or these members of a tar file, by MD5. The order is that of the
        names. A file that can't be read counts as such.
        """
        whole = Path(os.path.abspath(self.home / path))  # noqa: PTH100  (a link keeps its own name)
        key = whole, None if names is None else tuple(names)
        if key not in self._found:
            self._found[key] = self._read(*key)
        return self._found[key]

    def _read(self, path: Path, names: Sequence[str] | None) -> tuple[FileContent, ...]:
        apart = _folder(self.outputs) if self.outputs else None
        listed = [*_list_files(path, names, frozenset([apart] if apart else []))]
        place = self._place(path, names)
        kept = _read_index(place) if place else {}
        same = [each for each in listed if each.stamp and kept.get(each.name, [])[:-1] == [*each.stamp]]
        values = {each.name: kept[each.name][-1] for each in same}
        new = [each for each in listed if each.stamp and each.name not in values]
        known = {each.name: kept[each.name] for each in same}
        progress = _Progress(path, sum(each.stamp[0] for each in new))
        members = () if names is not None and path.is_dir() else names  # to look up in a tar file
        for each in new:
            started = time.time_ns()
            values[each.name] = value = _value(Path(each.path), members, progress)
            settled = max(each.stamp[1:3]) < started - MARGIN and _stamp(Path(each.path)) == each.stamp
            if settled and not isinstance(value, str | None):
                known[each.name] = [*each.stamp, value]
        if place and any(each.name in known for each in new):
            _keep(place, path, known)
        return tuple(sorted(found for each in listed for found in _files(each, values.get(each.name))))

    def _place(self, path: Path, names: Sequence[str] | None) -> Path | None:
        if not self.outputs or self.outputs.is_file():  # for which the run is refused, in words of its own
            return None
        named = blake2b(os.fsencode(path) + repr(names).encode(), digest_size=10).hexdigest()
        return self.outputs / "cache" / "contents" / f"{named}.json"


class _Progress:
    """Says how much of a long reading is done."""

    def __init__(self, path: Path, total: int):
        self.path, self.total, self.read, self.next = path, total, 0, time.monotonic() + PATIENCE

    def __call__(self, read: int) -> None:
        self.read += read
        if time.monotonic() > self.next:
            self.next = time.monotonic() + PAUSE
            log.warning(
                "reading what is in %s, since a run is one of its data: %.1f of %.1f GiB; files that stay as they are"
                " are read once",
                self.path, self.read / 2**30, self.total / 2**30,
            )  # fmt: skip


def _list_files(path: Path, names: Sequence[str] | None, apart: frozenset[tuple[int, int]]) -> Iterator[_Listed]:
    """The files there, under the names that they go by, but for those in folders that are kept `apart`."""
    if not path.is_dir():
        if path.is_file():
            yield _Listed(path.name, str(path), _stamp(path))
    elif names is None:
        yield from _inside(str(path), "", apart)
    else:
        files = ((name, path / name) for name in names)
        yield from (_Listed(name, str(file), _stamp(file)) for name, file in files if file.is_file())


def _inside(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[_Listed]:
    """The regular files in a folder, at any depth, and links to nothing; a link back to a folder `above` is no way."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if not is_litter(entry.name)]
    except OSError as error:
        log.warning("%s can't be listed: %s", folder, error.strerror)
        return
    above |= {here} if (here := _folder(Path(folder))) else frozenset()
    for entry in inside:
        name = prefix + normalize("NFC", entry.name)  # macOS writes é as two characters
        try:
            found = entry.stat()
        except OSError:
            yield _Listed(name, entry.path, ())
            continue
        if S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in above:
            yield from _inside(entry.path, f"{name}/", above)
        elif S_ISREG(found.st_mode):
            yield _Listed(name, entry.path, _of(found))


def _folder(path: Path) -> tuple[int, int] | None:
    """What tells a folder from all others, by whatever path it is reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _of(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        return _of(path.stat())
    except OSError:
        return ()


def _value(path: Path, names: Sequence[str] | None, progress: Callable[[int], None]) -> Any:
    """What is kept of a file: [its hash], or of a tar file {member: [bytes, hash]}; why not, where it can't be read."""
    try:
        if names and path.name not in names:
            return _members(path, names, progress)
        with path.open("rb") as file:
            return [_hash(file, path.name, names is not None, progress)]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        return f"unreadable: {type(error).__name__}"


def _members(path: Path, names: Sequence[str], progress: Callable[[int], None]) -> dict[str, list[Any]]:
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            content = tar.extractfile(member) if name in names and member.isreg() else None
            if content:
                found[name] = [member.size, _hash(content, name, True, progress)]
    return found


def _hash(file: IO[bytes], name: str, published: bool, progress: Callable[[int], None]) -> str:
    """blake2b, or MD5 as those who publish files give it; of a list of words the words, however they are spaced."""
    digest = md5(usedforsecurity=False) if published else blake2b(digest_size=16)
    if published and name.endswith(".txt"):
        digest.update(b" ".join(file.read().split()))
    while block := file.read(BLOCK):
        digest.update(block)
        progress(len(block))
    return digest.hexdigest()


def _files(listed: _Listed, value: Any) -> Iterator[FileContent]:
    size = listed.stamp[0] if listed.stamp else 0
    if isinstance(value, Mapping):
        yield from (FileContent(name, *facts) for name, facts in value.items())
    else:
        yield FileContent(listed.name, size, value[0] if isinstance(value, list) else str(value or "unreadable"))


def _read_index(place: Path) -> dict[str, list[Any]]:
    """What an earlier process has kept: name -> stamp and value; nothing of a file that is not as it was written."""
    try:
        files = json.loads(place.read_text())["files"]
        whole = all(isinstance(each, list) and len(each) == 5 and _sound(each[-1]) for each in files.values())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s can't be used, and the files are read again: %s", place, error)
        return {}
    if not whole:
        log.warning("%s is damaged, and the files are read again", place)
    return files if whole else {}


def _sound(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(v, list) and [*map(type, v)] == [int, str] for v in value.values())
    return isinstance(value, list) and [*map(type, value)] == [str]


def _keep(place: Path, path: Path, known: Mapping[str, list[Any]]) -> None:
    content = {"path": str(path), "files": dict(known)}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(content, separators=(",", ":")).encode())
    except OSError as error:  # a full disk, say: then they are read again
        log.warning("could not cache the hashes of %s: %s", path, error)
