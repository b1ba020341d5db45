"""One image file of any kind as a square of RGB bytes."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tl_runner.datasets.pixel_format import BY_FILE, DEEP_WHITE, PixelCounts, PixelFormat, Span

# What Pillow has a plugin for and is not read: EPS starts another program (Ghostscript) on the file, and the
# others are known by name only.
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
GREY = {"1", "L", "LA", "La"}
SIXTEEN_BITS = {"PNG", "PPM"}  # formats whose 32-bit integers are 16-bit numbers; in others, white is anyone's guess
BITS_A_SAMPLE = 258  # a TIFF's tag
BITS = "tl_runner bits a sample"  # where a copy, which has no tags, keeps it
DRAFT = 2  # a JPEG is unpacked at 1/2, 1/4 or 1/8, if that leaves this many times the pixels wanted a side


class Square(NamedTuple):
    """pixels: (3, size, size) bytes, red first; grey: whether the file holds no colour; what its numbers were."""

    pixels: bytes
    grey: bool
    numbers: PixelCounts = PixelCounts()


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


def copy_pixels(image: Image.Image) -> Image.Image:
    """A copy that still says what its numbers mean: the format of its file, and the bits of a TIFF's sample."""
    copy = image.copy()
    copy.format = image.format
    copy.info[BITS] = _bits_a_sample(image)
    return copy


def square(path: Path, size: int, how: PixelFormat = BY_FILE) -> Square:
    """The first frame of the file as `squared` has it."""
    with opened(path, size) as image:
        return resize_to_square(image, size, how)


def resize_to_square(image: Image.Image, size: int, how: PixelFormat = BY_FILE) -> Square:
    """The image upright by its EXIF orientation, its central square resized with antialiasing; it is turned in place.

    Unless `how` says otherwise, transparent pixels are laid on white; 16-bit grey is scaled from 0–65535, floating
    point from 0–1. Raises whatever Pillow's decoders do where the file is no image, is damaged or has too many pixels.
    """
    raw = _raw_modes(image)  # known before the pixels are decoded
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        levels, span = _deep(image, how.bit_depth)
        eight_bit, numbers = Image.fromarray(np.round(levels).astype(np.uint8)), PixelCounts(deep=span, deep_images=1)
    else:
        eight_bit, numbers = image, _numbers(image, raw, how)
    on_white = how.channels in (None, "rgba") and eight_bit.has_transparency_data
    opaque = _on_white(eight_bit) if on_white else eight_bit
    small = ImageOps.fit(opaque.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    if how.channels == 1:
        small = small.convert("L").convert("RGB")
    grey = how.channels == 1 or (how.channels is None and eight_bit.mode in GREY)
    return Square(np.asarray(small).transpose(2, 0, 1).tobytes(), grey, numbers)


def fractions(image: Image.Image) -> NDArray[np.float32]:
    """All pixels of the image, (1 or 3, height, width) from black 0 to white 1, as exact as the file has them.

    Else as `squared`: upright, on white, and turned in place.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        return _deep(image)[0][None] / np.float32(255)
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


def _deep(image: Image.Image, bits: int | None = None) -> tuple[NDArray[np.float32], Span | None]:
    """The pixels (h, w) of such an image, scaled to 0–255 and not rounded, and the span of its 16-bit numbers.

    White is 2^bits − 1; without `bits` it is what the file's format says. There is no span where the user or the file
    states another depth than 16.
    """
    values = np.asarray(image).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    white = 1.0 if bits is None and image.mode == "F" else 2.0 ** (bits or _bits_a_sample(image)) - 1
    unknown = bits is None and image.mode == "I" and image.format not in SIXTEEN_BITS
    inside = low >= 0 and high <= white  # NaN is neither
    if bits is not None and not inside:
        raise ValueError(f"its pixels go from {low:g} to {high:g}, and {bits} bits (dataset.bit_depth) to {white:g}")
    if unknown or not inside:
        raise ValueError(
            f"32 bits a pixel from {low:g} to {high:g}, and no telling which number is white: dataset.bit_depth=BITS"
        )
    return values * np.float32(255 / white), (low, high) if bits is None and white == DEEP_WHITE else None


def _bits_a_sample(image: Image.Image) -> int:
    """As a TIFF says it, which may be 12; else 16."""
    return int(image.info.get(BITS) or getattr(image, "tag_v2", {}).get(BITS_A_SAMPLE, (16,))[0])


def _raw_modes(image: Image.Image) -> tuple[str, ...]:
    """How the file holds its pixels, as Pillow names it: `RGB;16B`. Empty where they are decoded already."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    return tuple(str(each[0] if isinstance(each, tuple) and each else each) for each in arguments)


def _numbers(image: Image.Image, raw: tuple[str, ...], how: PixelFormat) -> PixelCounts:
    """What is to be told of an image of bytes."""
    cut = None
    if any(";16" in mode for mode in raw):
        extrema = image.convert("RGB").getextrema()
        cut = _span(*extrema)
        if how.bit_depth is not None:
            raise ValueError(
                "16 bits a channel, of which Pillow gives the upper 8, so that dataset.bit_depth can't be followed:"
                " convert it to grey or to 8 bits a channel"
            )
    if image.mode == "RGB" and any(mode.startswith("RGBX") for mode in raw):
        return PixelCounts(cut=cut, dropped=1)
    if not image.has_transparency_data:
        return PixelCounts(cut=cut)
    low, high = _span(image.convert("RGBA").getchannel("A").getextrema())
    return PixelCounts(cut=cut, fourth=(low, high) if image.format == "TIFF" else None, clear=int(high == 0))


def _span(*extrema: object) -> Span:
    """The least and the largest of what `Image.getextrema` says of each band."""
    bounds = np.array(extrema, dtype=np.float64)
    return float(bounds.min()), float(bounds.max())


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white
