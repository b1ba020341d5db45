"""Image files as a run's model takes them."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tl_runner.datasets.arrays import NUMPY
from tl_runner.datasets.picture import (
    Square,
    copy_pixels,
    extensions,
    fractions,
    log_decoder_warnings,
    opened,
    resize_to_square,
    square,
    trouble,
)
from tl_runner.datasets.pixel_format import BY_FILE, RGB, PixelFormat
from tl_runner.errors import UserError
from tl_runner.preprocessing.batching import Input, Portion

Picture = str | os.PathLike[str] | Image.Image


@dataclass(frozen=True)
class Images:
    """Image -> (1, channels, height, width) float32 in [0, 1]: the central part of that aspect, resized.

    An image stands upright by its EXIF orientation, transparent pixels lie on white. `resize` is the dataset's own
    way: `pillow` rounds the square to bytes (`picture.square`), `torch` resizes the numbers of the pixels as a
    dataset of fixed size does. Grey images are repeated for a model of three channels; one of one channel refuses
    colour, which it never saw. `pixel_format` is that of the run's own files, where its dataset has one.
    """

    channels: int
    height: int
    width: int
    resize: Literal["pillow", "torch"]
    pixel_format: PixelFormat = BY_FILE

    takes: ClassVar[str] = "image files"

    @property
    def endings(self) -> frozenset[str]:
        """How the files are named that are taken from a folder; arrays where the run said how many bands they have."""
        return extensions() | ({NUMPY} if isinstance(self.pixel_format.channels, int) else frozenset())

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        return self.channels * self.height * self.width

    @property
    def facts(self) -> dict[str, Any]:
        """What somebody must know to do the same elsewhere, in JSON's words."""
        return {
            "kind": "image",
            "shape": [self.channels, self.height, self.width],
            "order": "channels (red first), height, width",
            "range": [0.0, 1.0],
            "crop": "the largest central part of this aspect",
            "resize": f"bilinear with antialiasing, by {self.resize}",
            "pixel_format": self.pixel_format._asdict(),
        }

    def __call__(self, *images: Picture) -> Tensor:
        """(n, channels, height, width), a row for each file or Pillow image; raises `UserError` at one it can't use."""
        if not images:
            raise UserError("name at least one image")
        rows = []
        for number, image in enumerate(images, 1):
            found = self._attempt(image)
            if isinstance(found, str):
                raise UserError(f"{f'image {number}' if isinstance(image, Image.Image) else os.fspath(image)}: {found}")
            rows.append(found)
        return torch.stack(rows)

    def portions(self, inputs: Sequence[Input], at_most: int) -> Iterator[Portion]:
        """The files in order, decoded `at_most` at a time, each by the path that it was asked for."""
        with log_decoder_warnings(), ThreadPoolExecutor() as pool:  # Pillow's decoders let go of the interpreter
            for start in range(0, len(inputs), at_most):
                names = [str(each.path) for each in inputs[start : start + at_most]]
                found = dict(enumerate(pool.map(self._attempt, names)))
                good = {index: row for index, row in found.items() if isinstance(row, Tensor)}
                bad = {names[index]: why for index, why in found.items() if isinstance(why, str)}
                x = torch.stack([*good.values()]) if good else torch.empty(0, self.channels, self.height, self.width)
                yield Portion([names[index] for index in good], x, bad)

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """Inputs (n, channels, height, width), each pixel uniform between the least and the largest of training."""
        return low + (high - low) * torch.rand(n, self.channels, self.height, self.width, generator=generator)

    def _attempt(self, image: Picture) -> Tensor | str:
        """The input (channels, height, width), or why there is none."""
        try:
            if isinstance(image, Image.Image):
                return self._row(copy_pixels(image))  # since it is turned in place
            if Path(image).is_dir():
                return "that is a folder"
            if self.resize == "pillow":
                return self._channels_of(self._pixels(square(Path(image), self.height, self.pixel_format)))
            with opened(Path(image), max(self.height, self.width)) as file:
                return self._row(file)
        except UserError as error:
            return str(error)
        except Exception as error:  # whatever a hostile file makes a decoder do
            file = None if isinstance(image, Image.Image) else Path(image)
            return trouble(error, empty=bool(file and _empty(file)), ending=file.suffix if file else "")

    def _row(self, image: Image.Image) -> Tensor:
        if self.resize == "pillow":
            return self._channels_of(self._pixels(resize_to_square(image, self.height, self.pixel_format)))
        return self._channels_of(self._resized(torch.from_numpy(np.ascontiguousarray(fractions(image)))))

    def _pixels(self, made: Square) -> Tensor:
        x = torch.frombuffer(bytearray(made.pixels), dtype=torch.uint8)
        return x.view(self.pixel_format.stored, self.height, self.width).float() / 255

    def _channels_of(self, x: Tensor) -> Tensor:
        if self.channels == self.pixel_format.bands:
            return x
        if self.channels == RGB:
            return x.expand(RGB, -1, -1).contiguous()
        if not bool((x == x[:1]).all()):
            raise UserError("it has colour, and this run was trained on grey images alone: convert it to grey first")
        return x[:1].contiguous()

    def _resized(self, x: Tensor) -> Tensor:
        high, wide = x.shape[1:]
        scale = min(high / self.height, wide / self.width)
        rows, columns = max(1, math.floor(scale * self.height)), max(1, math.floor(scale * self.width))
        top, left = (high - rows) // 2, (wide - columns) // 2
        part = x[:, top : top + rows, left : left + columns]
        if part.shape[1:] == (self.height, self.width):
            return part
        return F.interpolate(part[None], size=(self.height, self.width), mode="bilinear", antialias=True)[0]


def _empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size
