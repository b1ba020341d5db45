"""The faces of road signs as two cities have them: other paints, letters and strokes, the same ten meanings."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tl_runner.datasets.fonts import find_fonts

Colour = tuple[int, int, int]  # red, green and blue, 0 to 255
Point = tuple[float, float]

FINE = 4  # a face is drawn so many times as large as it is used, and then made smaller: edges are smooth
WHITE, BLACK = (245, 245, 245), (20, 20, 25)


class Paint(NamedTuple):
    """What the signs of a city have in common."""

    red: Colour
    blue: Colour
    ground: Colour  # of warnings and limits
    gold: Colour  # of the priority road
    rim: float  # of the face's radius
    stroke: float  # of pictures, of the same
    font: str  # a file of the DejaVu fonts
    word: str  # on a stop sign


class Face:
    """A square canvas whose positions are in [−1, 1], right and down, and that begins transparent."""

    def __init__(self, side: int, paint: Paint):
        self.side, self.paint = side * FINE, paint
        self.image = Image.new("RGBA", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)

    def at(self, point: Point) -> Point:
        return (point[0] + 1) * self.side / 2, (point[1] + 1) * self.side / 2

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.draw.polygon([self.at(point) for point in points], fill=colour)

    def disc(self, radius: float, colour: Colour, centre: Point = (0, 0)) -> None:
        x, y = centre
        ends = self.at((x - radius, y - radius)), self.at((x + radius, y + radius))
        self.draw.ellipse([*ends[0], *ends[1]], fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self.draw.line([self.at(point) for point in points], colour, round(width * self.side / 2), joint="curve")

    def write(self, text: str, height: float, colour: Colour) -> None:
        """A word about its centre, its capitals of this height."""
        (file,) = (file for file in find_fonts() if file.stem == self.paint.font)
        font = ImageFont.truetype(str(file), size=height * self.side / 2 / 0.73)  # of DejaVu's capitals
        left, top, right, bottom = font.getbbox(text)
        x, y = self.at((0, 0))
        self.draw.text((x - (left + right) / 2, y - (top + bottom) / 2), text, fill=colour, font=font)

    def sheet(self) -> Tensor:
        """Colours times opacity, and the opacity: (4, side, side) in [0, 1]."""
        small = self.image.convert("RGBa").reduce(FINE)
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)


def _corners(count: int, radius: float, turn: float) -> list[Point]:
    """Of a regular polygon, the first of them `turn` radians from the right, clockwise."""
    angles = [turn + 2 * math.pi * corner / count for corner in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _stop(face: Face) -> None:
    for radius, colour in ((0.95, WHITE), (0.95 - face.paint.rim / 2, face.paint.red)):
        face.polygon(_corners(8, radius, math.pi / 8), colour)
    face.write(face.paint.word, 0.44, WHITE)


def _triangle(face: Face, up: bool) -> None:
    side = -1 if up else 1
    for radius, colour in ((0.98, face.paint.red), (0.98 - 1.7 * face.paint.rim, face.paint.ground)):
        face.polygon(_corners(3, radius, side * math.pi / 2), colour)


def _give_way(face: Face) -> None:
    _triangle(face, up=False)


def _danger(face: Face) -> None:
    _triangle(face, up=True)
    face.line([(0, -0.32), (0, 0.14)], BLACK, 1.1 * face.paint.stroke)
    face.disc(0.6 * face.paint.stroke, BLACK, (0, 0.32))


def _pedestrians(face: Face) -> None:
    _triangle(face, up=True)
    width = 0.6 * face.paint.stroke
    face.disc(0.09, BLACK, (0.02, -0.3))
    face.line([(0, -0.2), (-0.02, 0.1), (-0.2, 0.36)], BLACK, width)
    face.line([(-0.02, 0.1), (0.2, 0.36)], BLACK, width)
    face.line([(-0.22, 0.06), (0, -0.14), (0.22, 0.06)], BLACK, width)


def _no_entry(face: Face) -> None:
    face.disc(0.95, face.paint.red)
    across, high = 0.68, 0.16
    face.polygon([(-across, -high), (across, -high), (across, high), (-across, high)], WHITE)


def _limit(speed: int) -> Callable[[Face], None]:
    def draw(face: Face) -> None:
        face.disc(0.95, face.paint.red)
        face.disc(0.95 - face.paint.rim, face.paint.ground)
        face.write(str(speed), 0.72, BLACK)

    return draw


def _priority(face: Face) -> None:
    for radius, colour in ((0.98, WHITE), (0.98 - face.paint.rim, face.paint.gold)):
        face.polygon(_corners(4, radius, 0), colour)


def _arrow(face: Face, tail: Point, tip: Point, head: float) -> None:
    (x, y), (to_x, to_y) = tail, tip
    length = math.hypot(to_x - x, to_y - y)
    along = (to_x - x) / length, (to_y - y) / length
    neck = to_x - head * along[0], to_y - head * along[1]
    face.line([tail, neck], WHITE, face.paint.stroke)
    aside = 0.75 * head * along[1], -0.75 * head * along[0]
    face.polygon([tip, (neck[0] + aside[0], neck[1] + aside[1]), (neck[0] - aside[0], neck[1] - aside[1])], WHITE)


def _keep_right(face: Face) -> None:
    face.disc(0.95, face.paint.blue)
    _arrow(face, (-0.5, -0.5), (0.52, 0.52), 0.5)


def _roundabout(face: Face) -> None:
    face.disc(0.95, face.paint.blue)
    for third in range(3):
        turn = 2 * math.pi * third / 3
        arc = [turn + step * 0.12 for step in range(10)]
        face.line([(0.5 * math.cos(a), 0.5 * math.sin(a)) for a in arc], WHITE, face.paint.stroke)
        last = arc[-1]
        tail = 0.5 * math.cos(last), 0.5 * math.sin(last)
        tip = tail[0] - 0.42 * math.sin(last), tail[1] + 0.42 * math.cos(last)
        _arrow(face, tail, tip, 0.4)


FACES: dict[str, Callable[[Face], None]] = {
    "stop": _stop,
    "give_way": _give_way,
    "no_entry": _no_entry,
    "speed_30": _limit(30),
    "speed_50": _limit(50),
    "priority": _priority,
    "keep_right": _keep_right,
    "roundabout": _roundabout,
    "pedestrians": _pedestrians,
    "danger": _danger,
}


@cache
def draw_faces(paint: Paint, side: int) -> Tensor:
    """All faces in a city's paint: (10, 4, side, side), colours times opacity, and the opacity."""
    sheets = list[Tensor]()
    for draw in FACES.values():
        face = Face(side, paint)
        draw(face)
        sheets.append(face.sheet())
    return torch.stack(sheets)
