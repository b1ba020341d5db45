"""Many image files as squares of bytes, decoded once: see `decoded_once`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from torch import Tensor

from tl_runner.datasets.decoded_once import Decoder, File, decode_once
from tl_runner.datasets.picture import log_decoder_warnings, readers, square, trouble
from tl_runner.datasets.pixel_format import BY_FILE, PixelCounts, PixelFormat

VERSION = 2  # of what is stored: to be raised when the same files would give other bytes


class Facts(NamedTuple):
    """What was met in decoding: whether all images are grey, and what their numbers were."""

    grey: bool = True
    numbers: PixelCounts = PixelCounts()

    def joined(self, other: "Facts") -> "Facts":
        return Facts(self.grey and other.grey, PixelCounts.together([self.numbers, other.numbers]))

    def facts(self) -> dict[str, Any]:
        return {"grey": self.grey, "numbers": self.numbers._asdict()}


class Decoded(NamedTuple):
    """x (n, 3 or bands, size, size) uint8, memory-mapped: the files that can be read, in the order given.

    `bad` says why the files at these positions can't be read.
    """

    x: Tensor
    bad: dict[int, str]
    facts: Facts


def decode_images(files: Sequence[File], size: int, cache: Path, name: str, how: PixelFormat = BY_FILE) -> Decoded:
    """The files as squares of `size` pixels a side, from the cache or by way of it; `name` is what to call them."""
    made_by = (VERSION, PIL.__version__, size, *how, *readers(how))
    attempt = partial(_attempt, size=size, how=how)
    decoder = Decoder("image", how.stored * size * size, made_by, attempt, Facts(), _read_facts, "dataset.size")
    with log_decoder_warnings():
        rows = decode_once(files, decoder, cache, name)
    return Decoded(rows.x.view(-1, how.stored, size, size), rows.bad, rows.told)


def _read_facts(said: Mapping[str, Any]) -> Facts:
    return Facts(bool(said["grey"]), PixelCounts.read(said["numbers"]))


def _attempt(file: File, size: int, how: PixelFormat) -> tuple[bytes, Facts] | str:
    """The square, or why there is none."""
    try:
        made = square(file.path, size, how)
    except Exception as error:  # whatever a hostile file makes a decoder do
        return trouble(error, not any(file.stamp[:1]), file.path.suffix)
    return made.pixels, Facts(made.grey, made.numbers)
