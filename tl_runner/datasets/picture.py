"""One image file of any kind as a square of RGB bytes."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

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


def opened(path: Path, side: int) -> Image.Image:
    """The file's image, not yet decoded, to be closed; of a JPEG no more than `side` pixels a side asks for."""
    image = Image.open(path, formats=formats())
    image.draft(None, (DRAFT * side, DRAFT * side))
    return image


def square(path: Path, size: int) -> Square:
    """The first frame of the file as `squared` has it."""
    with opened(path, size) as image:
        return squared(image, size)


def squared(image: Image.Image, size: int) -> Square:
    """The image upright by its EXIF orientation, its central square resized with antialiasing; it is turned in place.

    Transparent pixels are laid on white; 16-bit grey is scaled from 0–65535, floating point from 0–1. Raises
    whatever Pillow's decoders do where the file is no image, is damaged or has too many pixels.
    """
    ImageOps.exif_transpose(image, in_place=True)
    eight_bit = Image.fromarray(np.round(_deep(image)).astype(np.uint8)) if _is_deep(image) else image
    opaque = _on_white(eight_bit) if eight_bit.has_transparency_data else eight_bit
    small = ImageOps.fit(opaque.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return Square(np.asarray(small).transpose(2, 0, 1).tobytes(), eight_bit.mode in GREY)


def fractions(image: Image.Image) -> NDArray[np.float32]:
    """All pixels of the image, (1 or 3, height, width) from black 0 to white 1, as exact as the file has them.

    Else as `squared`: upright, on white, and turned in place.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        return _deep(image)[None] / np.float32(255)
    opaque = _on_white(image) if image.has_transparency_data else image
    return np.asarray(opaque.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def trouble(error: Exception, empty: bool) -> str:
    """Why an image can't be read, in words; `empty` says that the file holds nothing."""
    if isinstance(error, UnidentifiedImageError):
        return "empty" if empty else "no image that Pillow knows"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _is_deep(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than eight bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _deep(image: Image.Image) -> NDArray[np.float32]:
    """The pixels (h, w) of such an image, scaled to 0–255 and not rounded."""
    values = np.asarray(image).astype(np.float32)
    white = 1.0 if image.mode == "F" else 65535.0
    unknown = image.mode == "I" and image.format not in SIXTEEN_BITS
    if unknown or not (values.min() >= 0 and values.max() <= white):  # NaN is neither
        raise ValueError("32 bits a pixel, and no telling which number is white")
    return values * np.float32(255 / white)


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white
