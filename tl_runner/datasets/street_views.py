"""Photographs of road signs, drawn in batches: a face on a pole, seen by a city's camera before its streets."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.datasets.sign_faces import Colour, Paint, draw_faces
from tl_runner.datasets.warp import warp

CHUNK = 512 * 32**2  # pixels, before they are refined, that are drawn at one time
FINE = 2  # an image is drawn so many times as large, and then averaged
Range = tuple[float, float]

ASIDE: Range = (-0.2, 0.2)  # of a face's centre, to the right
# The light on a sign and its slope to the right, how faded its paint is, and the exposure of the photograph.
LIGHTS: tuple[Range, ...] = ((0.75, 1.05), (-0.15, 0.15), (0.0, 0.35), (0.8, 1.1))


class Camera(NamedTuple):
    """How signs are seen; each image draws from these ranges."""

    radius: Range  # of the face, where half of the image's side is 1
    height: Range  # of the face's centre: −1 is the upper edge, 1 the lower one
    tilt: Range  # radians
    narrow: Range  # the share of the width that a view from the side leaves
    flat: Range  # the share of the height that a view from above or below leaves


class City(NamedTuple):
    """What signs, streets and cameras of a city have in common."""

    paint: Paint
    camera: Camera
    skies: tuple[Colour, ...]
    walls: tuple[Colour, ...]  # what is below the horizon: façades, or hedges and hills
    horizon: Range  # −1 to 1, as a camera's height
    rough: float  # how uneven walls and the horizon are, as a share
    windows: float  # the share of the light that windows take; 0 is none
    pole: Colour


def photograph(city: City, y: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """An image of a sign of each class (n,) of y, as bytes (n, 3, side, side)."""
    faces, n = draw_faces(city.paint, max(64, FINE * side)), max(1, CHUNK // side**2)
    return torch.cat([_photograph(city, faces[part], FINE * side, generator) for part in y.split(n)])


def _photograph(city: City, faces: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Bytes (n, 3, side / FINE, side / FINE) of these faces (n, 4, …)."""
    n = len(faces)
    scene = _draw_street(city, n, side, generator)
    matrix, offset = _aim(city.camera, n, generator)
    sign = warp(faces, matrix, offset, side)
    down, right = torch.meshgrid(*[(2 * torch.arange(side) + 1) / side - 1] * 2, indexing="ij")
    at = torch.einsum("nij,jhw->nihw", matrix, torch.stack([right, down])) + offset[..., None, None]
    pole = ((at[:, :1].abs() < 0.1) & (at[:, 1:] > 0)).float()
    scene = torch.lerp(scene, _pick((city.pole,), n, generator), pole)
    light, slope, fading, exposure = (_draw(each, n, generator).view(-1, 1, 1, 1) for each in LIGHTS)
    faded = torch.lerp(sign[:, :3], sign[:, :3].mean(1, keepdim=True), fading)
    scene = faded * (light + slope * right) + scene * (1 - sign[:, 3:])
    x = F.avg_pool2d(scene, FINE)
    x = exposure * x + 0.02 * torch.randn(x.shape, generator=generator)
    return (255 * x.clamp(0, 1)).round().to(torch.uint8)


def _aim(camera: Camera, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What takes positions in the image to those on the face: matrix (n, 2, 2) and offset (n, 2)."""
    radius, height, tilt, narrow, flat = (_draw(each, n, generator) for each in camera)
    rotation = torch.stack([tilt.cos(), tilt.sin(), -tilt.sin(), tilt.cos()], -1).view(-1, 2, 2)
    matrix = rotation / torch.stack([radius * narrow, radius * flat], -1)[..., None]
    centre = torch.stack([_draw(ASIDE, n, generator), height], -1)
    return matrix, -(matrix @ centre[..., None])[..., 0]


def _draw_street(city: City, n: int, side: int, generator: torch.Generator) -> Tensor:
    """Sky, and below an uneven horizon walls, with windows if the city has some: (n, 3, side, side) in [0, 1]."""
    waves = torch.zeros(n, 1, side, side)
    for cells in (3, 6, 12, 24):
        noise = torch.randn(n, 1, cells, cells, generator=generator)
        waves += F.interpolate(noise, size=(side, side), mode="bilinear", align_corners=True) / cells**0.5

    def draw(low: float, high: float) -> Tensor:
        return _draw((low, high), n, generator).view(-1, 1, 1, 1)

    line = (2 * torch.arange(side) + 1) / side - 1
    down, right = line.view(-1, 1), line.view(1, -1)
    panes = [torch.frac(4 + draw(1.5, 3) * at + draw(0, 1)) < 0.45 for at in (down, right)]
    walls = _pick(city.walls, n, generator) * (1 - city.windows * (panes[0] & panes[1]).float() + city.rough * waves)
    sky = _pick(city.skies, n, generator) * (1 + 0.05 * waves)
    below = ((down - draw(*city.horizon) + 0.3 * city.rough * waves) * side / 4).clamp(0, 1)
    return torch.lerp(sky, walls, below).clamp(0, 1)


def _draw(between: Range, n: int, generator: torch.Generator) -> Tensor:
    """A number (n,) for each image."""
    low, high = between
    return low + (high - low) * torch.rand(n, generator=generator)


def _pick(colours: tuple[Colour, ...], n: int, generator: torch.Generator) -> Tensor:
    """One of these for each image, a little off: (n, 3, 1, 1)."""
    which = torch.randint(len(colours), (n,), generator=generator)
    table = torch.tensor(colours, dtype=torch.float32) / 255
    return table[which].view(n, 3, 1, 1) + 0.06 * torch.randn(n, 3, 1, 1, generator=generator)
