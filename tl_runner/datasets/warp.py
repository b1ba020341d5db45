"""Images under affine maps, each by its own."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, matrix: Tensor, offset: Tensor | None = None, side: int | None = None) -> Tensor:
    """Each image (n, c, h, w) sampled at matrix · position + offset, positions in [−1, 1]; outside is 0.

    matrix (n, 2, 2), offset (n, 2); `side` is the height and width of the result, else those of x.
    """
    offset = torch.zeros(len(x), 2) if offset is None else offset
    size = [*x.shape[:2], *(x.shape[2:] if side is None else (side, side))]
    grid = F.affine_grid(torch.cat([matrix, offset[..., None]], -1), size, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
