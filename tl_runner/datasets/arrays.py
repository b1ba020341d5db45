"""Image files that hold more bands than a picture has, and more than Pillow reads: `.npy` arrays and TIFFs."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_runner.errors import UserError

NUMPY = ".npy"
TIFF = (".tif", ".tiff")
INSTALL = 'pip install "tl_runner[bands]"'


class Shape(NamedTuple):
    """Of an image: pixels down and across, and how many numbers a pixel has."""

    height: int
    width: int
    bands: int


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array (h, w, bands) in a file of NumPy's, which holds no object and so no code; (h, w) is one band."""
    return _with_bands(_load(path))


def read_tiff(path: Path) -> NDArray[np.generic]:
    """The first image (h, w, bands) of a TIFF by tifffile, whether its bands lie pixel by pixel, in planes or pages."""
    with _tifffile().TiffFile(path) as file:
        series = file.series[0]
        try:
            values = series.asarray()
        except ValueError as error:  # it asks for another package in such words
            if "imagecodecs" in str(error):
                raise ValueError(f"its compression needs the package imagecodecs: {INSTALL}") from error
            raise
        axes = series.axes
    if not {"Y", "X"} <= {*axes} or values.ndim > 3:
        raise ValueError(f"its axes are {axes}, and those of an image are rows (Y), columns (X) and bands")
    last = [axes.index("Y"), axes.index("X"), *(at for at, axis in enumerate(axes) if axis not in "YX")]
    return _with_bands(values.transpose(last))


def measure(path: Path) -> Shape:
    """The shape of such a file, its numbers unread."""
    if path.suffix.lower() == NUMPY:
        return Shape(*_with_bands(_load(path, mmap_mode="r")).shape)
    with _tifffile().TiffFile(path) as file:
        series = file.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
    height, width = sizes.pop("Y"), sizes.pop("X")
    return Shape(height, width, int(np.prod([*sizes.values()])))


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[np.generic]:
    try:
        return np.load(path, mmap_mode, allow_pickle=False)
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise ValueError("it is no array of numbers: objects of Python would run code as they are read") from error


def _with_bands(values: NDArray[np.generic]) -> NDArray[np.generic]:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not values.size:
        raise ValueError(f"its array has the shape {values.shape}, and an image has rows, columns and bands")
    if values.dtype.kind not in "buif":
        raise ValueError(f"its array holds {values.dtype}, and an image holds numbers")
    return values


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise UserError(f"a TIFF of other bands than Pillow reads needs the package tifffile: {INSTALL}") from error
    return tifffile
