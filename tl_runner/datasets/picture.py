"""One image file of any kind as a square of RGB bytes."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

# What Pillow has a plugin for and is not read: EPS starts another program (Ghostscript) on the file, and the
# others are known by name only.
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
GREY = {"1", "L", "LA", "La"}
SIXTEEN_BITS = {"PNG", "PPM"}  # formats whose 32-bit integers are 16-bit numbers; in others, white is anyone's guess
DRAFT = 2  # a JPEG is unpacked at 1/2, 1/4 or 1/8, if that leaves this many times the pixels wanted a side


class Square(NamedTuple):
    """pixels: (3, size, size) bytes, red first; grey: whether the file holds no colour."""

    pixels: bytes
    grey: bool


@cache
def formats() -> tuple[str, ...]:
    """The names of the formats that are read, in the order in which Pillow tries them."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_READ)


def extensions() -> frozenset[str]:
    """The endings of their files, as in `.png`."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats())


def square(path: Path, size: int) -> Square:
    """The first frame, upright by its EXIF orientation, its central square resized with antialiasing.

    Transparent pixels are laid on white; 16-bit grey is scaled from 0–65535, floating point from 0–1. Raises
    whatever Pillow's decoders do where the file is no image, is damaged or has too many pixels.
    """
    with Image.open(path, formats=formats()) as image:
        image.draft(None, (DRAFT * size, DRAFT * size))
        ImageOps.exif_transpose(image, in_place=True)
        eight_bit = _eight_bit(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else image
        opaque = _on_white(eight_bit) if eight_bit.has_transparency_data else eight_bit
        small = ImageOps.fit(opaque.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
        return Square(np.asarray(small).transpose(2, 0, 1).tobytes(), eight_bit.mode in GREY)


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    white = 1.0 if image.mode == "F" else 65535.0
    unknown = image.mode == "I" and image.format not in SIXTEEN_BITS
    if unknown or not (values.min() >= 0 and values.max() <= white):  # NaN is neither
        raise ValueError("32 bits a pixel, and no telling which number is white")
    return Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white
