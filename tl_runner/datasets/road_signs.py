"""Photographs of road signs, made on the spot: two cities with signs, streets and cameras of their own, and weather."""

from typing import Literal

import torch

from tl_runner.datasets.halves import TargetShares, limit_shares
from tl_runner.datasets.image_shifts import ImageShift, severity_of, shift_images
from tl_runner.datasets.sign_faces import FACES, Paint
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.datasets.street_views import Camera, City, photograph
from tl_runner.errors import UserError, check_range, nearest
from tl_runner.rng import Rng

NORTH = City(
    paint=Paint((190, 25, 35), (20, 70, 160), (240, 240, 240), (245, 195, 20), 0.2, 0.2, "DejaVuSans-Bold", "STOP"),
    camera=Camera(radius=(0.5, 0.68), height=(-0.3, 0.0), tilt=(-0.12, 0.12), narrow=(0.8, 1.0), flat=(0.92, 1.0)),
    skies=((205, 210, 215), (180, 195, 210)),
    walls=((150, 140, 130), (165, 110, 90), (120, 125, 130), (190, 180, 160)),
    horizon=(-1.2, -0.2),
    rough=0.06,
    windows=0.4,
    pole=(130, 130, 135),
)
SOUTH = City(
    paint=Paint((215, 70, 40), (0, 110, 130), (250, 225, 125), (250, 235, 140), 0.15, 0.16, "DejaVuSerif-Bold", "ALTO"),
    camera=Camera(radius=(0.45, 0.62), height=(-0.2, 0.1), tilt=(-0.2, 0.2), narrow=(0.7, 1.0), flat=(0.8, 0.97)),
    skies=((110, 165, 230), (150, 195, 240)),
    walls=((70, 115, 55), (110, 130, 60), (150, 125, 80)),
    horizon=(-0.4, 0.6),
    rough=0.2,
    windows=0.0,
    pole=(110, 80, 55),
)
CITIES = {"north": NORTH, "south": SOUTH}
CityName = Literal["north", "south"]


def road_signs(
    seed: int,
    source: CityName = "north",
    target: CityName = "north",
    samples: int = 1000,
    size: int = 32,
    shift: ImageShift | None = None,
    severity: int | None = None,
    target_shares: TargetShares = None,
) -> Drawn:
    """Road signs of a city in clear weather -> of this city or the other, in clear weather or under a shift.

    Both domains are drawn anew, so no photograph is in both. `samples` are of each domain; `size` is in pixels a side.
    shift, severity (1–5, by default 3): what is done to the target's images; None is fog within a city, and none from
    one city to the other. target_shares: see `halves.limit_shares`.
    """
    for key, city in (("source", source), ("target", target)):
        if city not in [*CITIES]:  # which may be a list, from Python
            raise UserError(f"dataset.{key}={city}: possible: {', '.join(CITIES)}{nearest(str(city), CITIES)}")
    check_range(20, samples=samples)
    check_range(8, 512, size=size)
    shift = shift or ("fog" if source == target else "none")
    severity = severity_of(shift, severity)
    rng = Rng(seed).child("road signs")

    def draw(role: str, city: str) -> Raw:
        generator = rng.child(role, city).generator()
        y = torch.randint(len(FACES), (samples,), generator=generator)
        return Raw(city, photograph(CITIES[city], y, size, generator), y, tuple(FACES))

    known, other = draw("source", source), draw("target", target)
    changed = "" if shift == "none" else f" {shift} {severity}"
    x = shift_images(other.x, shift, severity, rng.child("shift").generator())
    other = limit_shares(other._replace(name=f"{target}{changed}", x=x), target_shares, rng.child("target shares"))
    notes = {"shift": shift, "severity": severity if changed else None}
    return Drawn(known, other, notes, size, fresh=True)
