"""Many image files as one file of bytes, decoded once and then mapped.

`images/<hash>.u8` in the cache holds the squares one after another; `<hash>.json`, written last, says which files
are missing from it, and why. Both are renamed into place, so that a decode that was killed leaves nothing that is
believed, and two at a time do no harm.
"""

import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import IO, NamedTuple

import PIL
import torch
from torch import Tensor

from tl_runner.datasets.picture import Square, log_decoder_warnings, readers, square, trouble
from tl_runner.datasets.pixel_format import BY_FILE, PixelCounts, PixelFormat
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun
from tl_runner.storage.atomic import open_atomically

log = logging.getLogger(__name__)

VERSION = 2  # of what is stored: to be raised when the same files would give other bytes
AHEAD = 64  # images decoded ahead of being written
NOTHING_TOLD = PixelCounts()  # of most images
PATIENCE = 30.0  # seconds after which progress is printed


class File(NamedTuple):
    """An image file as it was found: a change of what it holds shows in its stamp."""

    path: Path
    name: str  # relative to the folder of its domain
    stamp: tuple[int, ...]  # bytes, and the times of its last changes in nanoseconds; empty for a dangling link


class Facts(NamedTuple):
    """What was met in decoding: why the files at these positions can't be read, whether the others are all grey, and
    what their numbers were."""

    bad: dict[int, str]
    grey: bool
    numbers: PixelCounts


class Decoded(NamedTuple):
    """x (n, 3 or bands, size, size) uint8, memory-mapped: the files that can be read, in the order given."""

    x: Tensor
    facts: Facts


def decode_images(files: Sequence[File], size: int, cache: Path, name: str, how: PixelFormat = BY_FILE) -> Decoded:
    """The files as squares of `size` pixels a side, from the cache or by way of it; `name` is what to call them."""
    folder = cache / "images"
    key = _key(files, size, how)
    pixels, said = folder / f"{key}.u8", folder / f"{key}.json"
    row = how.stored * size * size
    facts = _believed(pixels, said, len(files), row)
    if facts is None:
        folder.mkdir(parents=True, exist_ok=True)
        _room(folder, row * len(files))
        with open_atomically(pixels) as out:
            facts = _decode(files, size, out, name, how)
        with open_atomically(said) as out:
            out.write(json.dumps({**facts._asdict(), "numbers": facts.numbers._asdict()}).encode())
    n = len(files) - len(facts.bad)
    if not n:
        return Decoded(torch.empty(0, how.stored, size, size, dtype=torch.uint8), facts)
    flat = torch.from_file(str(pixels), shared=False, size=n * row, dtype=torch.uint8)
    return Decoded(flat.view(n, how.stored, size, size), facts)


def _key(files: Sequence[File], size: int, how: PixelFormat) -> str:
    digest = blake2b(repr((VERSION, PIL.__version__, size, *how, *readers(how))).encode(), digest_size=16)
    for file in files:
        digest.update(repr((os.fsencode(file.name), file.stamp)).encode())
    return digest.hexdigest()


def _believed(pixels: Path, said: Path, n: int, row: int) -> Facts | None:
    """What an earlier decode said, if its bytes are all there."""
    try:
        content = json.loads(said.read_text())
        bad = {int(index): str(reason) for index, reason in content["bad"].items()}
        facts = Facts(bad, bool(content["grey"]), PixelCounts.read(content["numbers"]))
        whole = pixels.stat().st_size == (n - len(facts.bad)) * row
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged, decoding again: %s", said, error)
        return None
    if not whole:
        log.warning("%s is truncated: decoding again", pixels)
    return facts if whole else None


def _room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the decoded images take {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} free:"
            " set a smaller dataset.size, or outputs= to a folder on a larger disk"
        )


def _decode(files: Sequence[File], size: int, out: IO[bytes], name: str, how: PixelFormat) -> Facts:
    log.info("decoding %s of %s (only once: the result is cached)", count_noun(len(files), "image"), name)
    bad, grey, numbers, told = {}, True, PixelCounts(), time.monotonic()
    with log_decoder_warnings(), ThreadPoolExecutor() as pool:  # Pillow's decoders let go of the interpreter
        for index, result in enumerate(_in_order(pool, files, size, how)):
            if isinstance(result, Square):
                out.write(result.pixels)
                grey &= result.grey
                if result.numbers != NOTHING_TOLD:
                    numbers = PixelCounts.together([numbers, result.numbers])
            else:
                bad[index] = result
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                log.warning("decoded %d of %d images of %s", index + 1, len(files), name)
    return Facts(bad, grey, numbers)


def _in_order(pool: ThreadPoolExecutor, files: Sequence[File], size: int, how: PixelFormat) -> Iterator[Square | str]:
    """What the files hold, in their order, while the pool is at work on those that follow: it never waits for us."""
    pending = deque[Future[Square | str]]()
    for file in files:
        pending.append(pool.submit(_attempt, file, size, how))
        if len(pending) > AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _attempt(file: File, size: int, how: PixelFormat) -> Square | str:
    """The square, or why there is none."""
    try:
        return square(file.path, size, how)
    except Exception as error:  # whatever a hostile file makes a decoder do
        return trouble(error, not any(file.stamp[:1]), file.path.suffix)
