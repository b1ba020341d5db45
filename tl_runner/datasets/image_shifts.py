"""What turns the images of a source into those of a target: named shifts with a severity from 1 to 5.

A shift takes (n, c, h, w) in [0, 1] and is computed in one batch; `weather` has those of weather and light. Most names
are those of the corruption benchmarks (Hendrycks and Dietterich 2019); the strengths are this package's own.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.datasets.shifts import strength_of
from tl_runner.datasets.warp import warp
from tl_runner.datasets.weather import LUMA, dusk, fog, glare, luma_of, rain, snow
from tl_runner.errors import UserError, check_range

ImageShift = Literal[
    "none", "noise", "blur", "contrast", "brightness", "fog", "rain", "snow", "dusk", "glare", "pixelate", "grayscale",
    "invert", "rotate",
]  # fmt: skip
GreyShift = Literal[
    "none", "noise", "blur", "contrast", "brightness", "fog", "rain", "snow", "dusk", "glare", "pixelate", "invert",
    "rotate",
]  # fmt: skip

SEVERITY = 3  # noise takes the small backbone from 88 to 44 % on Fashion-MNIST, and MMD brings it back to 77 %
CHUNK = 2048  # images of bytes that are floats at one time


def _noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Normal noise of deviation 0.08 to 0.4."""
    return x + 0.08 * severity * torch.randn(x.shape, generator=generator)


def _blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A Gaussian of 2 to 10 % of the image's height."""
    deviation = 0.02 * severity * x.shape[-2]
    reach = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype)
    weights = torch.exp(-offsets.square() / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, weights[:, :, None, :], groups=x.shape[1])
    return F.conv2d(x, weights[:, :, :, None], groups=x.shape[1])


def _contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Distances to the image's mean, times 0.75 to 0.1."""
    mean = x.mean((-3, -2, -1), keepdim=True)
    return mean + (0.75, 0.5, 0.35, 0.2, 0.1)[severity - 1] * (x - mean)


def _brightness(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Lighter by 0.1 to 0.5; what is light already turns white."""
    return x + 0.1 * severity


def _pixelate(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Means of blocks, 80 to 25 % as many a side as there were pixels."""
    share = (0.8, 0.6, 0.45, 0.35, 0.25)[severity - 1]
    blocks = max(1, round(share * x.shape[-2])), max(1, round(share * x.shape[-1]))
    return F.interpolate(F.adaptive_avg_pool2d(x, blocks), size=x.shape[-2:], mode="nearest")


def _grayscale(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A fifth to all of the way to the luma, equal in all three channels."""
    if x.shape[1] != len(LUMA):
        raise UserError(f"dataset.shift=grayscale takes colours away, and these images have {x.shape[1]} channel(s)")
    return torch.lerp(x, luma_of(x).expand_as(x), severity / 5)


def _invert(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Towards the negative, x + 0.2·severity·(1 − 2x): flatter at 1 and 2, inverted from 3 on, the negative at 5."""
    return x + 0.2 * severity * (1 - 2 * x)


def _rotate(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Each image by an angle of its own around 12° to 60°, give or take a fifth."""
    angle = math.radians(12 * severity) * (0.8 + 0.4 * torch.rand(len(x), generator=generator))
    return warp(x, torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2))


IMAGE_SHIFTS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "fog": fog,
    "rain": rain,
    "snow": snow,
    "dusk": dusk,
    "glare": glare,
    "pixelate": _pixelate,
    "grayscale": _grayscale,
    "invert": _invert,
    "rotate": _rotate,
}


def severity_of(shift: str, given: int | None) -> int:
    """How severe a shift is: as given, or 3; 0 for `none`, which takes no severity."""
    severity = int(strength_of(shift, given, SEVERITY))
    check_range(0 if shift == "none" else 1, 5, severity=severity)
    return severity


def shift_images(x: Tensor, shift: str, severity: int, generator: torch.Generator) -> Tensor:
    """The images under a named shift, clipped to [0, 1]; `none` returns them as they are.

    Images of bytes stay bytes, rounded, and are never floats all at once.
    """
    if shift == "none":
        return x
    if x.dtype != torch.uint8:
        return IMAGE_SHIFTS[shift](x, severity, generator).clamp(0, 1)
    shifted = torch.empty_like(x)
    for before, after in zip(x.split(CHUNK), shifted.split(CHUNK), strict=True):
        after.copy_(shift_images(before.float() / 255, shift, severity, generator).mul_(255).round_())
    return shifted
