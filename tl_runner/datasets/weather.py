"""What weather and light do to images: fog, rain, snow, dusk and glare, each with a severity from 1 to 5.

Each takes (n, c, h, w) in [0, 1] of any size, grey or in colour, and may leave [0, 1]: `image_shifts` clips. With one
generator the same drops and flakes fall at every severity, and more of them. Snow is made as the corruption benchmark
makes it (Hendrycks and Dietterich 2019: thresholded noise, zoom, motion blur, a blend with a whiter image); rain, dusk
and glare are not in it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.datasets.warp import warp

LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)
BLUE_HOUR = (0.08, 0.04, 0.0)  # of red, green and blue: what dusk takes, a severity


def luma_of(x: Tensor) -> Tensor:
    """How bright pixels look, (n, 1, h, w): the luma of three channels, the mean of others."""
    weights = torch.tensor(LUMA) if x.shape[1] == len(LUMA) else torch.full((x.shape[1],), 1 / x.shape[1])
    return (x * weights.view(-1, 1, 1)).sum(1, keepdim=True)


def fog(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Towards white, smoothly uneven, each image in its own way: by at most 0.18 to 0.9, and at least half that."""
    drops = torch.rand(len(x), 1, 4, 4, generator=generator)
    clouds = F.interpolate(drops, size=x.shape[-2:], mode="bilinear", align_corners=True)
    return x + 0.09 * severity * (1 + clouds) * (1 - x)


def rain(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Distances to the image's mean times 0.92 to 0.6, under light streaks.

    A streak is a fifth of the height long and as slanted as the others of its image. Streaks would cover 6 to 30 % of
    the pixels if none crossed another, and go 0.7 of the way to white.
    """
    n, _, height, width = x.shape
    length = max(2, round(0.2 * height))
    noise = torch.rand(n, 1, height + length - 1, 2 * width, generator=generator)
    lean = 0.6 * (2 * torch.rand(n, generator=generator) - 1)
    streaks = blur_falling((noise < 0.06 * severity / length).float(), length, lean).clamp(max=1)
    mean = x.mean((-3, -2, -1), keepdim=True)
    dull = mean + (1 - 0.08 * severity) * (x - mean)
    return dull + 0.7 * streaks * (1 - dull)


def snow(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """0.94 to 0.7 of the image and the rest of a whiter one, max(x, 1.5 luma + 0.5), plus flakes and the same turned.

    Flakes are normal noise of mean 0.05 to 0.25 and deviation 0.3 where it exceeds 0.55, of 1/32 of the height, blurred
    by motion along a tenth of it.
    """
    n, _, height, width = x.shape
    length = max(2, round(0.1 * height))
    rows, columns = height + length - 1, 2 * width
    flake = max(1.0, height / 32)
    noise = torch.randn(n, 1, math.ceil(rows / flake), math.ceil(columns / flake), generator=generator)
    if flake > 1:  # between two draws the deviation of their mean is less: 2/3, over all places between four
        noise = 1.5 * F.interpolate(noise, size=(rows, columns), mode="bilinear")
    lean = 2 * torch.rand(n, generator=generator) - 1
    layer = 0.05 * severity + 0.3 * noise
    flakes = blur_falling(torch.where(layer > 0.55, layer.clamp(max=1), 0.0), length, lean) / length
    whiter = torch.maximum(x, 1.5 * luma_of(x) + 0.5)
    return torch.lerp(x, whiter, 0.06 * severity) + flakes + flakes.flip((-2, -1))


def blur_falling(drops: Tensor, length: int, lean: Tensor) -> Tensor:
    """The sum along the `length` pixels that each drop falls, (n, 1, h, w), slanted.

    drops (n, 1, h + length − 1, 2w): those above and beside the image fall into it, too. lean (n,) in [−1, 1]: how far
    to the right from the bottom to the top, in widths.
    """
    width = drops.shape[-1] // 2
    upright = F.conv2d(drops, torch.ones(1, 1, length, 1))
    slant = torch.eye(2).repeat(len(drops), 1, 1)
    slant[:, 0, 1] = lean / 2
    return warp(upright, slant)[..., width // 2 : width // 2 + width]


def dusk(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """g · x^γ with g = 0.88 to 0.4 and γ = 1.16 to 1.8, and a camera's noise of deviation 0.01 to 0.05.

    Of three channels red loses another 0.08 to 0.4 and green half that, so that what is left looks blue.
    """
    dark = (1 - 0.12 * severity) * x.clamp(min=0) ** (1 + 0.16 * severity)
    if x.shape[1] == len(BLUE_HOUR):
        dark = dark * (1 - severity * torch.tensor(BLUE_HOUR).view(-1, 1, 1))
    return dark + 0.01 * severity * torch.randn(x.shape, generator=generator)


def glare(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Towards white by a · exp(−d² / 2r²) at a distance d from a light, a = 0.19 to 0.95 and r half the image.

    Each image has its light anywhere in it; d and r are shares of the sides.
    """
    n, _, height, width = x.shape
    down, right = torch.rand(2, n, 1, 1, 1, generator=generator)
    y, x_at = ((torch.arange(size) + 0.5) / size for size in (height, width))
    distance2 = (y.view(-1, 1) - down).square() + (x_at - right).square()
    return x + 0.19 * severity * torch.exp(-distance2 / (2 * 0.5**2)) * (1 - x)
