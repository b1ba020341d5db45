"""Random views of the training rows, as pure functions `name(x, seed, **options)` of a batch (n, …).

They are computed in one piece on the batch's device; equal seeds give equal views. Only training sees them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.domains import kind_of_input
from tl_runner.errors import UserError, check_range
from tl_runner.rng import Rng
from tl_runner.training.sound_views import mask, move_and_amplify

NO_VIEWS = "texts have no random views here, and this learns from them"


def none(x: Tensor, seed: int) -> Tensor:
    """The rows as they are."""
    return x


def shift(x: Tensor, seed: int, shift: float = 0.125) -> Tensor:
    """Each image (n, c, h, w) moved by up to `shift` of its sides, its edges mirrored: the weak view without a flip.

    Of sound (n, 1, samples) it is the weak view at the recording's own loudness.
    """
    return weak(x, seed, shift, flip=False, gain=0.0)


def weak(x: Tensor, seed: int, shift: float = 0.125, flip: bool = True, gain: float = 6.0) -> Tensor:
    """Each image (n, c, h, w) moved by up to `shift` of its sides, its edges mirrored, and half of them flipped.

    Whole pixels, so that no value changes: the view of FixMatch (Sohn et al. 2020). Sound (n, 1, samples) is moved by
    up to `shift` of its length, and up to `gain` dB louder or softer: see `sound_views`.
    """
    check_range(0, 0.5, shift=shift)
    check_range(0, 60, gain=gain)
    if kind_of_input(x) == "audio":
        return move_and_amplify(x, _uniform(x, seed, 2), shift, gain)
    _images(x)
    n, _, height, width = x.shape
    chance = _uniform(x, seed, 3)
    down, right = ((2 * chance[i] - 1) * shift * side for i, side in ((0, height), (1, width)))
    line = _mirrored(torch.arange(height, device=x.device) + down.round().long()[:, None], height)
    column = _mirrored(torch.arange(width, device=x.device) + right.round().long()[:, None], width)
    if flip:
        column = torch.where(chance[2][:, None] < 0.5, column.flip(1), column)
    image, channel = torch.arange(n, device=x.device), torch.arange(x.shape[1], device=x.device)
    return x[image[:, None, None, None], channel[:, None, None], line[:, None, :, None], column[:, None, None, :]]


def strong(
    x: Tensor, seed: int, shift: float = 0.125, flip: bool = True, magnitude: float = 0.5, gain: float = 6.0
) -> Tensor:
    """The weak view, then each image turned, scaled, sheared, its light changed, and a square of it made grey.

    At `magnitude` 1: up to 45°, a scale of 1 ± 0.5, a shear of ±0.5, brightness ±0.5, contrast × (1 ± 0.9), a square
    of half the height; every amount is drawn per image, uniformly, and in proportion to `magnitude`. In the
    spirit of RandAugment (Cubuk et al. 2020), whose many operations it folds into one warp and one map of colours.
    From sound (n, 1, samples) bands of frequency and spans of time are taken, each up to 40 % at 1: see `sound_views`.
    """
    check_range(0, 1, magnitude=magnitude)
    x = weak(x, seed, shift, flip, gain)
    if kind_of_input(x) == "audio":
        return mask(x, _uniform(x, Rng(seed).child("strong").seed, 8), magnitude)
    height, width = x.shape[2:]
    turn, scale, shear, light, contrast, top, left = 2 * _uniform(x, Rng(seed).child("strong").seed, 7) - 1
    angle, zoom = math.pi / 4 * magnitude * turn, 1 + 0.5 * magnitude * scale
    rows = [
        torch.stack([zoom * angle.cos(), zoom * (0.5 * magnitude * shear - angle.sin()), torch.zeros_like(turn)], -1),
        torch.stack([zoom * angle.sin(), zoom * angle.cos(), torch.zeros_like(turn)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    mean = x.mean((1, 2, 3), keepdim=True)
    factor, offset = 1 + 0.9 * magnitude * contrast, 0.5 * magnitude * light
    x = (mean + _each(factor) * (x - mean) + _each(offset)).clamp(0, 1)
    side = 0.5 * magnitude
    inside = [
        ((torch.arange(length, device=x.device) + 0.5) / length - (0.5 + 0.5 * centre[:, None])).abs() < side / 2
        for centre, length in ((top, height), (left, width))
    ]
    return torch.where(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0.5, x)


def corrupt_columns(x: Tensor, seed: int, share: float = 0.6) -> Tensor:
    """Each column of a row, with probability `share`, replaced by that of another row of the batch; (n, …).

    The other row is drawn anew for each: a draw from the column's own distribution (SCARF; Bahri et al. 2022).
    """
    check_range(0, 1, share=share)
    if not x.is_floating_point():
        raise UserError(NO_VIEWS)
    flat = x.flatten(1)
    n, columns = flat.shape
    chance, other = _uniform(x, seed, 2 * columns).split(columns)
    row = (torch.arange(n, device=x.device) + 1 + (other * (n - 1)).long()) % n  # of one row, it is the row itself
    replaced = chance.t() < share
    return torch.where(replaced, flat.gather(0, row.t()), flat).reshape(x.shape)


def strong_view(x: Tensor, seed: int, magnitude: float = 0.5, flip: bool = False) -> Tensor:
    """A strong view of rows: `strong` of images and sound, `corrupt_columns` of a table, its share the `magnitude`."""
    if kind_of_input(x) in ("images", "audio"):
        return strong(x, seed, flip=flip, magnitude=magnitude)
    return corrupt_columns(x, seed, magnitude)


def _uniform(x: Tensor, seed: int, k: int) -> Tensor:
    """(k, n) numbers in [0, 1), the same on every device."""
    return torch.rand(k, len(x), generator=Rng(seed).generator()).to(x.device, non_blocking=True)


def _mirrored(position: Tensor, length: int) -> Tensor:
    """Positions outside of [0, length) mirrored at the edge pixels."""
    position = position.abs()
    return torch.where(position >= length, 2 * (length - 1) - position, position)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _images(x: Tensor) -> None:
    if x.ndim != 4:
        raise UserError(
            "augment=shift, weak and strong are random views of images and of sound, and these rows are neither: use"
            " augment=none"
        )
