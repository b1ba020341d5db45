"""One image file of any kind as a square of bytes: of RGB, or of as many bands as are asked for."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from tl_runner.datasets.arrays import NUMPY, TIFF, measure, read_npy, read_tiff
from tl_runner.datasets.pixel_format import BY_FILE, DEEP_WHITE, RGB, PixelCounts, PixelFormat, Span
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

# What Pillow has a plugin for and is not read: EPS starts another program (Ghostscript) on the file, and the
# others are known by name only.
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
GREY = {"1", "L", "LA", "La"}
SIXTEEN_BITS = {"PNG", "PPM"}  # formats whose 32-bit integers are 16-bit numbers; in others, white is anyone's guess
BITS_A_SAMPLE = 258  # a TIFF's tag
BITS = "tl_runner bits a sample"  # where a copy, which has no tags, keeps it
DRAFT = 2  # a JPEG is unpacked at 1/2, 1/4 or 1/8, if that leaves this many times the pixels wanted a side


class Plugin(NamedTuple):
    """A package that teaches Pillow a format: what it is called, the module, and what the names of its files end in."""

    package: str
    module: str
    format: str
    endings: tuple[str, ...]


HEIC = Plugin("pillow-heif", "pillow_heif", "HEIC", (".heic", ".heif", ".hif"))
AVIF = Plugin("pillow-avif-plugin", "pillow_avif", "AVIF", (".avif",))  # Pillow reads it by itself since 11.3


class Square(NamedTuple):
    """pixels: (3 or bands, size, size) bytes, red first; grey: whether the file holds no colour; and its numbers."""

    pixels: bytes
    grey: bool
    numbers: PixelCounts = PixelCounts()


@cache
def formats() -> tuple[str, ...]:
    """The names of the formats that are read, in the order in which Pillow tries them; those of plugins too."""
    Image.init()
    for plugin in plugins():
        module = import_module(plugin.module)
        if plugin is HEIC:
            module.register_heif_opener()
    return tuple(name for name in Image.ID if name not in NOT_READ)


@cache
def plugins() -> tuple[Plugin, ...]:
    """Those that are installed and of use."""
    wanted = [HEIC] if features.check("avif") else [HEIC, AVIF]
    return tuple(plugin for plugin in wanted if find_spec(plugin.module))


@cache
def extensions() -> frozenset[str]:
    """The endings of their files, as in `.png`; of a plugin's, too, where it is missing: each such file says so."""
    known = formats()  # first: it registers plugins
    registered = {ending for ending, name in Image.registered_extensions().items() if name in known}
    return frozenset(registered).union(*(plugin.endings for plugin in (HEIC, AVIF)))


def readers(how: PixelFormat = BY_FILE) -> tuple[str, ...]:
    """What reads images beside Pillow, with versions: by it a file may be read that could not be before."""
    of_tiffs = [name for name in ("tifffile", "imagecodecs") if how.bands and find_spec(name)]
    return tuple(f"{name} {version(name)}" for name in (*(plugin.package for plugin in plugins()), *of_tiffs))


@contextmanager
def log_decoder_warnings() -> Iterator[None]:
    """Within, in all threads, what decoders warn of is logged, not printed; images of too many pixels are refused."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
    for each in dict.fromkeys(str(warning.message).strip() for warning in found):
        log.info("a decoder of images warned: %s", each)


def opened(path: Path, side: int) -> Image.Image:
    """The file's image, not yet decoded, to be closed; of a JPEG no more than `side` pixels a side asks for."""
    image = Image.open(path, formats=formats())
    image.draft(None, (DRAFT * side, DRAFT * side))
    return image


def shorter_side(path: Path, how: PixelFormat = BY_FILE) -> int:
    """The pixels of the image's shorter side; raises whatever its reader does."""
    if path.suffix.lower() == NUMPY:
        return min(measure(path)[:2])
    try:
        with Image.open(path, formats=formats()) as image:
            return min(image.size)
    except UnidentifiedImageError:
        if how.bands is None or path.suffix.lower() not in TIFF:
            raise
        return min(measure(path)[:2])


def copy_pixels(image: Image.Image) -> Image.Image:
    """A copy that still says what its numbers mean: the format of its file, and the bits of a TIFF's sample."""
    copy = image.copy()
    copy.format = image.format
    copy.info[BITS] = _bits_a_sample(image)
    return copy


def square(path: Path, size: int, how: PixelFormat = BY_FILE) -> Square:
    """The first frame of the file as `resize_to_square` has it, an array as `resize_bands`."""
    if path.suffix.lower() == NUMPY:
        return resize_array(read_npy(path), size, how)
    try:
        with opened(path, size) as image:
            if how.bands is None or _holds(image, how.bands) or path.suffix.lower() not in TIFF:
                return resize_to_square(image, size, how)
    except UnidentifiedImageError:
        if how.bands is None or path.suffix.lower() not in TIFF:
            raise
    return resize_array(read_tiff(path), size, how)


def _holds(image: Image.Image, bands: int) -> bool:
    """Whether Pillow gives all bands of the file, and all bits of them."""
    return len(image.getbands()) == bands and not any(";16" in mode for mode in _raw_modes(image))


def resize_to_square(image: Image.Image, size: int, how: PixelFormat = BY_FILE) -> Square:
    """The image upright by its EXIF orientation, its central square resized with antialiasing; it is turned in place.

    Unless `how` says otherwise, transparent pixels are laid on white; 16-bit grey is scaled from 0–65535, floating
    point from 0–1. Raises whatever Pillow's decoders do where the file is no image, is damaged or has too many pixels.
    """
    raw = _raw_modes(image)  # known before the pixels are decoded
    ImageOps.exif_transpose(image, in_place=True)
    if how.bands:
        return resize_bands(np.asarray(image), size, how.bands, _numbers(image, raw, how))
    if _is_deep(image):
        levels, span = _deep(image, how.bit_depth)
        eight_bit, numbers = Image.fromarray(_as_bytes(levels)), PixelCounts(deep=span, deep_images=1)
    else:
        eight_bit, numbers = image, _numbers(image, raw, how)
    return _resize_picture(eight_bit, size, how, numbers)


def resize_array(values: NDArray[np.generic], size: int, how: PixelFormat) -> Square:
    """The central square of an array (h, w, bands); as a picture where one or three channels are asked for."""
    if values.dtype == np.uint8:
        levels, numbers = values.astype(np.uint8), PixelCounts()
    else:
        white = 1.0 if values.dtype.kind in "bf" else DEEP_WHITE if values.dtype == np.uint16 else None
        scaled, span = _scaled(values.astype(np.float32), white, how.bit_depth, f"numbers of {values.dtype}")
        levels, numbers = _as_bytes(scaled), PixelCounts(deep=span, deep_images=int(values.dtype.kind != "b"))
    if how.bands:
        return resize_bands(levels, size, how.bands, numbers)
    if levels.shape[2] not in (1, RGB):
        raise ValueError(_other_bands(levels, "1 or 3"))
    return _resize_picture(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), size, how, numbers)


def resize_bands(levels: NDArray[np.uint8], size: int, bands: int, numbers: PixelCounts) -> Square:
    """The central square of the bytes (h, w, bands), each band resized as `resize_to_square` does it."""
    levels = levels if levels.ndim == 3 else levels[..., None]
    if levels.shape[2] != bands:
        raise ValueError(_other_bands(levels, f"dataset.channels={bands}"))
    each = [Image.fromarray(np.ascontiguousarray(levels[..., band])) for band in range(bands)]
    small = [np.asarray(ImageOps.fit(band, (size, size), Image.Resampling.BILINEAR)) for band in each]
    return Square(np.stack(small).tobytes(), False, numbers)


def _other_bands(levels: NDArray[np.uint8], asked: str) -> str:
    height, width, bands = levels.shape
    first = f" (bands come last: is it {height} bands of {width}×{bands}?)" if height < min(width, bands) else ""
    return f"{height}×{width} pixels of {count_noun(bands, 'band')}, and {asked} is asked for{first}"


def _as_bytes(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(levels).astype(np.uint8)


def _resize_picture(eight_bit: Image.Image, size: int, how: PixelFormat, numbers: PixelCounts) -> Square:
    on_white = how.channels in (None, "rgba") and eight_bit.has_transparency_data
    opaque = _on_white(eight_bit) if on_white else eight_bit
    small = ImageOps.fit(opaque.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    if how.channels == 1:
        small = small.convert("L").convert("RGB")
    grey = how.channels == 1 or (how.channels is None and eight_bit.mode in GREY)
    return Square(np.asarray(small).transpose(2, 0, 1).tobytes(), grey, numbers)


def fractions(image: Image.Image) -> NDArray[np.float32]:
    """All pixels of the image, (1 or 3, height, width) from black 0 to white 1, as exact as the file has them.

    Else as `resize_to_square`: upright, on white, and turned in place.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        return _deep(image)[0][None] / np.float32(255)
    opaque = _on_white(image) if image.has_transparency_data else image
    return np.asarray(opaque.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def trouble(error: Exception, empty: bool, ending: str = "") -> str:
    """Why an image can't be read, in words; `empty`: the file holds nothing; `ending`: what its name ends in."""
    if isinstance(error, UnidentifiedImageError):
        missing = [one for one in (HEIC, AVIF) if ending.lower() in one.endings and one not in plugins()]
        if missing and not (missing == [AVIF] and features.check("avif")):
            return f"{missing[0].format} images need a plugin of Pillow: pip install {missing[0].package}"
        bands = ": dataset.channels=N reads a TIFF of N bands" if ending.lower() in TIFF else ""
        return "empty" if empty else f"no image that Pillow knows{bands}"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UserError | ValueError):  # these are in words of ours, or in numpy's
        return str(error)
    return f"{type(error).__name__}: {error}"


def _is_deep(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than eight bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _deep(image: Image.Image, bits: int | None = None) -> tuple[NDArray[np.float32], Span | None]:
    """The pixels (h, w) of such an image, scaled to 0–255 and not rounded, and the span of its 16-bit numbers.

    White is 2^bits − 1; without `bits` it is what the file's format says. There is no span where the user or the file
    states another depth than 16.
    """
    if image.mode == "F":
        white = 1.0
    elif image.mode == "I" and image.format not in SIXTEEN_BITS:
        white = None
    else:
        white = 2.0 ** _bits_a_sample(image) - 1
    return _scaled(np.asarray(image).astype(np.float32), white, bits, "32 bits a pixel")


def _scaled(
    values: NDArray[np.float32], white: float | None, bits: int | None, what: str
) -> tuple[NDArray[np.float32], Span | None]:
    """The values from 0 to 255, as `_deep` gives them; `white` is the number that the file's format makes it."""
    low, high = float(values.min()), float(values.max())
    if bits is not None:
        white = 2.0**bits - 1
    inside = white is not None and low >= 0 and high <= white  # NaN is neither
    if bits is not None and not inside:
        raise ValueError(f"its pixels go from {low:g} to {high:g}, and {bits} bits (dataset.bit_depth) to {white:g}")
    if white is None or not inside:
        raise ValueError(
            f"{what} from {low:g} to {high:g}, and no telling which number is white: dataset.bit_depth=BITS"
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
