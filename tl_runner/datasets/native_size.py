"""How large images are used where nobody says it: as they are, up to a size that networks from scratch learn from."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Literal

from tl_runner.datasets.picture import log_decoder_warnings, shorter_side
from tl_runner.datasets.pixel_format import BY_FILE, PixelFormat
from tl_runner.storage.sections import ImageSize

log = logging.getLogger(__name__)

Size = int | Literal["auto"]

LEAST, LARGEST = 8, 64  # pixels a side
LOOKED_AT = 500  # files of a domain whose headers are read


def choose_size(files: Mapping[str, Sequence[Path]], how: PixelFormat = BY_FILE) -> ImageSize:
    """The smaller domain's median shorter side, from 8 to 64 pixels, so that at most half of its images are enlarged.

    Of a large domain the headers of 500 files at even distances are read; of an even number of sides the median is the
    lower one. Files that can't be read do not count, and where none can be the size is 64.
    """
    native = {}
    for role, paths in files.items():
        step = -(-len(paths) // LOOKED_AT) or 1
        with log_decoder_warnings():
            sides = [*_sides(paths[::step], how)]
        if sides:
            native[role] = median_low(sides)
    pixels = max(LEAST, min([LARGEST, *native.values()]))
    told = ", ".join(f"{side} of the {role}'s" for role, side in native.items())
    log.info("dataset.size=auto: %d pixels a side (the median shorter side is %s)", pixels, told or "not known")
    return ImageSize(pixels, "files", native)


def _sides(paths: Iterable[Path], how: PixelFormat) -> Iterable[int]:
    for path in paths:
        try:
            yield shorter_side(path, how)
        except Exception as error:  # whatever a hostile file makes a reader do: decoding it will say so
            log.debug("%s: %s", path, error)
