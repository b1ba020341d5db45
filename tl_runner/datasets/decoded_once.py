"""Many files as one file of rows of bytes, decoded once and then mapped.

Of `<rows>.u8` and `<rows>.json` the first holds the rows one after another; the second, written last, says which files
are missing from it, and why. Both are renamed into place, so that a decode that was killed leaves nothing that is
believed, and two at a time do no harm.
"""

import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.plurals import count_noun
from tl_runner.storage.atomic import open_atomically

log = logging.getLogger(__name__)

AHEAD = 64  # files decoded ahead of being written
PATIENCE = 30.0  # seconds after which progress is printed


class File(NamedTuple):
    """A file as it was found: a change of what it holds shows in its stamp."""

    path: Path
    name: str  # relative to the folder of its domain
    stamp: tuple[int, ...]  # bytes, and the times of its last changes in nanoseconds; empty for a dangling link


class Told(Protocol):
    """What was met in decoding files, to be joined with what was met in others, and kept in JSON's words."""

    def joined(self, other: Any) -> Any: ...
    def facts(self) -> dict[str, Any]: ...


T = TypeVar("T", bound=Told)


class Decoder(NamedTuple, Generic[T]):
    """How files become rows of `size` bytes each.

    `made_by` is all that rows depend on beside the files. `decode` gives a row and what was met, or why there is none.
    `nothing` is what is told of no file; `read` takes from JSON what `Told.facts` gave, and raises `KeyError`,
    `TypeError` or `ValueError` where it is something else. `smaller` says which option makes rows smaller.
    """

    noun: str
    size: int
    made_by: tuple[Any, ...]
    decode: Callable[[File], tuple[bytes, T] | str]
    nothing: T
    read: Callable[[Mapping[str, Any]], T]
    smaller: str


class Rows(NamedTuple, Generic[T]):
    """Rows (n, size) uint8, memory-mapped, of the files that can be read, in the order given; why others can't be."""

    x: Tensor
    bad: dict[int, str]
    told: T


def decode_once(files: Sequence[File], how: Decoder[T], cache: Path, name: str) -> Rows[T]:
    """The files as rows, from the folder `cache` or by way of it; `name` is what to call them."""
    folder = cache / f"{how.noun}s"
    key = _key(files, how)
    rows, said = folder / f"{key}.u8", folder / f"{key}.json"
    found = _believed(rows, said, len(files), how)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        _room(folder, how.size * len(files), how)
        with open_atomically(rows) as out:
            found = _decode(files, how, out, name)
        with open_atomically(said) as out:
            out.write(json.dumps({"bad": found[0], **found[1].facts()}).encode())
    bad, told = found
    n = len(files) - len(bad)
    if not n:
        return Rows(torch.empty(0, how.size, dtype=torch.uint8), bad, told)
    flat = torch.from_file(str(rows), shared=False, size=n * how.size, dtype=torch.uint8)
    return Rows(flat.view(n, how.size), bad, told)


def _key(files: Sequence[File], how: Decoder[Any]) -> str:
    digest = blake2b(repr(how.made_by).encode(), digest_size=16)
    for file in files:
        digest.update(repr((os.fsencode(file.name), file.stamp)).encode())
    return digest.hexdigest()


def _believed(rows: Path, said: Path, n: int, how: Decoder[T]) -> tuple[dict[int, str], T] | None:
    """What an earlier decode said, if its bytes are all there."""
    try:
        content = json.loads(said.read_text())
        bad = {int(index): str(reason) for index, reason in content["bad"].items()}
        told = how.read(content)
        whole = rows.stat().st_size == (n - len(bad)) * how.size
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged, decoding again: %s", said, error)
        return None
    if not whole:
        log.warning("%s is truncated: decoding again", rows)
    return (bad, told) if whole else None


def _room(folder: Path, needed: int, how: Decoder[Any]) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the decoded {how.noun}s take {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} free:"
            f" set a smaller {how.smaller}, or outputs= to a folder on a larger disk"
        )


def _decode(files: Sequence[File], how: Decoder[T], out: IO[bytes], name: str) -> tuple[dict[int, str], T]:
    log.info("decoding %s of %s (only once: the result is cached)", count_noun(len(files), how.noun), name)
    bad, told, since = dict[int, str](), how.nothing, time.monotonic()
    with ThreadPoolExecutor() as pool:  # decoders let go of the interpreter
        for index, result in enumerate(_in_order(pool, files, how.decode)):
            if isinstance(result, str):
                bad[index] = result
            else:
                out.write(result[0])
                if result[1] != how.nothing:
                    told = told.joined(result[1])
            if time.monotonic() - since > PATIENCE:
                since = time.monotonic()
                log.warning("decoded %d of %d %ss of %s", index + 1, len(files), how.noun, name)
    return bad, told


def _in_order(
    pool: ThreadPoolExecutor, files: Sequence[File], decode: Callable[[File], tuple[bytes, T] | str]
) -> Iterator[tuple[bytes, T] | str]:
    """What the files hold, in their order, while the pool is at work on those that follow: it never waits for us."""
    pending = deque[Future[tuple[bytes, T] | str]]()
    for file in files:
        pending.append(pool.submit(decode, file))
        if len(pending) > AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
