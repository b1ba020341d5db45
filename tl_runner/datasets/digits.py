"""Digits without a download: rendered (glyphs of fonts) and handwritten (UCI), grey images of 8×8 samples.

Rendered -> handwritten is a real synthetic-to-real gap; handwritten -> handwritten has one by a named shift. The fonts'
families, `sans`, `serif` and `mono`, are domains too.
"""

from collections.abc import Collection, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.datasets.fonts import find_fonts
from tl_runner.datasets.halves import TargetShares, limit_shares
from tl_runner.datasets.image_shifts import GreyShift, severity_of, shift_images
from tl_runner.datasets.pool import pool
from tl_runner.datasets.source_names import name_sources
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.datasets.warp import warp
from tl_runner.errors import UserError, check_range
from tl_runner.rng import Rng

CANVAS = 64  # pixels on which a glyph is drawn before it is jittered
CLASSES = tuple("0123456789")
FAMILIES = {"DejaVuSans": "sans", "DejaVuSansMono": "mono", "DejaVuSerif": "serif"}  # of fonts, by files' names

DigitDomain = Literal["rendered", "handwritten", "sans", "serif", "mono"]


def digits(
    seed: int,
    source: DigitDomain | tuple[DigitDomain, ...] = "rendered",
    target: DigitDomain = "handwritten",
    samples: int = 2000,
    size: int = 16,
    shift: GreyShift = "none",
    severity: int | None = None,
    target_shares: TargetShares = None,
) -> Drawn:
    """Rendered digits -> the handwritten ones of scikit-learn, or one half of the handwritten -> the other.

    A domain is `handwritten`, `rendered` in all fonts, or rendered in those of one family. Several sources are pooled;
    `rendered` then leaves out the families that are domains of their own, so that no two domains share a font.
    samples: of each domain, at most: there are 1,797 handwritten digits. size: pixels a side, interpolated from 8×8.
    shift, severity (1–5, by default 3): what is done to the target's images, if anything. target_shares: see
    `halves.limit_shares`.
    """
    check_range(20, samples=samples)
    check_range(8, 512, size=size)
    severity = severity_of(shift, severity)
    if not (asked := name_sources(source)):
        raise UserError("dataset.source names no domain: digits has rendered, handwritten, sans, serif and mono")
    if target in asked and target != "handwritten":
        raise UserError(f"dataset.source and dataset.target are both {target}: there is nothing to transfer")
    rng = Rng(seed).child("digits")
    generator = rng.generator()
    if asked in [("rendered",), ("handwritten",)] and target == "handwritten":
        known, other = _draw_pair(asked[0], samples, generator)  # in the order in which the first runs drew
    else:
        known, other = _draw_domains(asked, target, samples, rng)
    known, other = (side._replace(x=_resize(side.x, size)) for side in (known, other))
    changed = "" if shift == "none" else f" {shift} {severity}"
    other = other._replace(name=f"{other.name}{changed}", x=shift_images(other.x, shift, severity, generator))
    other = limit_shares(other, target_shares, Rng(seed).child("target shares"))
    notes = {"shift": shift, "severity": severity if changed else None}
    if target != "handwritten":
        return Drawn(known, other, notes, fresh=True)
    return Drawn(known, other, notes, drawn_from=(len(handwritten()[1]), 0, 0))


def _draw_pair(source: str, samples: int, generator: torch.Generator) -> tuple[Raw, Raw]:
    """Rendered digits and all handwritten ones, or the two halves of these."""
    x, y = handwritten()
    if source == "rendered":
        return Raw("rendered", *rendered(samples, generator), CLASSES), Raw("handwritten", x, y, CLASSES)
    here, there = torch.randperm(len(x), generator=generator).chunk(2)
    known = Raw("handwritten", x[here][:samples], y[here][:samples], CLASSES)
    return known, Raw("handwritten", x[there], y[there], CLASSES)


def _draw_domains(sources: Sequence[str], target: str, samples: int, rng: Rng) -> tuple[Raw, Raw]:
    """The sources as one, and the target; of the handwritten digits each side has a half, if both have some."""
    named = {*sources, target}
    x, y = handwritten()
    halves = torch.randperm(len(x), generator=rng.child("halves").generator()).chunk(2)

    def draw(name: str, of_target: bool) -> Raw:
        if name == "handwritten":
            rows = halves[of_target] if target in sources else torch.cat(halves)
            rows = rows if of_target else rows[:samples]
            return Raw(name, x[rows], y[rows], CLASSES)
        families = [name] if name in FAMILIES.values() else [each for each in FAMILIES.values() if each not in named]
        if not families:
            raise UserError("dataset.source=rendered has no font left: leave out one of sans, serif and mono")
        return Raw(name, *rendered(samples, rng.child(name).generator(), families), CLASSES)

    return pool([draw(name, False) for name in sources]), draw(target, True)


def handwritten() -> tuple[Tensor, Tensor]:
    """The 1,797 test digits of the UCI "Optical Recognition of Handwritten Digits": (n, 1, 8, 8) in [0, 1]."""
    spec = find_spec("sklearn")
    assert spec and spec.submodule_search_locations, "scikit-learn is a dependency"
    file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",")  # not by load_digits: to load scikit-learn takes longer than `import torch`
    counts, y = table[:, :-1], table[:, -1].astype(int)  # of ink in 4×4 blocks, 0 to 16
    return torch.from_numpy(counts / 16).float().view(-1, 1, 8, 8), torch.from_numpy(y).long()


def rendered(
    n: int, generator: torch.Generator, families: Collection[str] = tuple(FAMILIES.values())
) -> tuple[Tensor, Tensor]:
    """n glyphs under random affine maps, then made as the UCI digits were: (n, 1, 8, 8) in [0, 1]."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    of_family = [FAMILIES[file.stem.partition("-")[0]] in families for file in find_fonts()]
    fonts = glyphs()[torch.tensor(of_family)]
    y = torch.randint(10, (n,), generator=generator)
    font = torch.randint(len(fonts), (n,), generator=generator)
    angle, shear, zero = uniform(-0.3, 0.3), uniform(-0.35, 0.35), torch.zeros(n)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 2, 2)
    slant = torch.stack([uniform(1.0, 1.6), shear, zero, uniform(0.8, 1.25)], -1).view(n, 2, 2)
    return through_8x8(warp(fonts[font, y][:, None], rotation @ slant)), y


@cache
def glyphs() -> Tensor:
    """The ten digits in each of the fonts: (fonts, 10, 64, 64) in [0, 1], ink is 1."""
    from PIL import Image, ImageDraw, ImageFont

    def drawn(file: Path, digit: int) -> np.ndarray:
        canvas = Image.new("L", (CANVAS, CANVAS))
        font = ImageFont.truetype(str(file), size=40)
        ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), str(digit), fill=255, font=font, anchor="mm")
        return np.asarray(canvas, dtype=np.float32) / 255

    return torch.from_numpy(np.stack([[drawn(file, digit) for digit in range(10)] for file in find_fonts()]))


def through_8x8(images: Tensor) -> Tensor:
    """Each image (n, 1, s, s) cropped to its ink, its aspect kept, and sampled as the UCI digits were.

    Those are bitmaps of 32×32 whose ink is counted in blocks of 4×4. Without the crop, a net that is trained
    on rendered digits does no better than chance on handwritten ones.
    """
    ink = images[:, 0] > 0.3
    (top, bottom), (left, right) = _extent(ink.any(2)), _extent(ink.any(1))
    half = torch.maximum(bottom - top, right - left) / 2
    matrix = half[:, None, None] * torch.eye(2)
    centre = torch.stack([left + right, top + bottom], -1) / 2
    return F.avg_pool2d(warp(images, matrix, centre, side=32), 4)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """Where the True of each row (n, s) begins and ends, on a scale from −1 to 1."""
    side = line.shape[1]
    first = line.float().argmax(1)
    end = side - line.flip(1).float().argmax(1)
    return 2 * first / side - 1, 2 * end / side - 1


def _resize(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
