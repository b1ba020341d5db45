"""Features as data: read at a stage, passed through a network a batch at a time, moved.

Those of a network that stays as it is are computed once: see `models.frozen_features`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.domains import Pair, Split, look_ahead
from tl_runner.models.tokens import masked_mean

ROWS, NUMBERS = 1024, 2**20  # that a forward pass takes in, at most: large images a few at a time, whose maps an
# allocator keeps for the next ones (on a CPU, four times as many took a third longer)
TOKEN = 256  # numbers that a token stands for: 32 texts of 128 tokens (of 512 MiniLM took twice as long on a CPU)


def read_out(x: Tensor) -> Tensor:
    """One vector a row: the mean over the positions of a map (n, c, h, w) or the tokens (n, t, c); vectors stay.

    Padding, which is tokens of zeros, does not count.
    """
    return x.flatten(2).mean(-1) if x.ndim == 4 else masked_mean(x) if x.ndim == 3 else x.flatten(1)


class Readout(nn.Module):
    """`read_out` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return read_out(x)


class Moved:
    """A split of features whose rows a function has moved: (n, d) -> (n, d), row by row."""

    def __init__(self, split: Split, move: Callable[[Tensor], Tensor]):
        self.split, self.move = split, move

    def __len__(self) -> int:
        return len(self.split)

    def take(self, rows: Tensor) -> Tensor:
        return self.move(self.split.take(rows))


def move_source(pair: Pair, move: Callable[[Tensor], Tensor]) -> Pair:
    """The pair with all splits of its source moved by the function; the target stays."""
    source, _ = pair.labelled_source
    train, val, test = (Moved(split, move) for split in (source.train, source.val, source.test))
    return replace(pair, source=replace(source, train=train, val=val, test=test))


def iter_batches(split: Split, device: torch.device) -> Iterator[Tensor]:
    """All inputs of a split in order, as many at a time as a forward pass without gradients takes."""
    parts = torch.arange(len(split), device=device).split(batch_size(split, device))
    for rows, following in zip_longest(parts, parts[1:]):
        x = split.take(rows)
        if following is not None:
            look_ahead(split, following)
        yield x


def batch_size(split: Split, device: torch.device) -> int:
    """How many inputs of this split a forward pass without gradients takes."""
    row = split.take(torch.zeros(1, dtype=torch.long, device=device))
    return rows_per_batch(row.numel() * (TOKEN if row.dtype == torch.int64 else 1))


def rows_per_batch(numbers: int) -> int:
    """How many inputs of so many numbers a forward pass without gradients takes."""
    return min(ROWS, max(1, NUMBERS // numbers))


def gather_rows(split: Split, device: torch.device | str = "cpu") -> Tensor:
    """All rows of a split, flattened: (n, d) float32."""
    return split.take(torch.arange(len(split))).flatten(1).to(device)


def cut_model(model: Model, stage: str, shape: tuple[int, ...]) -> Model:
    """The part of the model that ends at this stage, with a fresh head on what is read there."""
    kept = OrderedDict((name, deepcopy(model.backbone.get_submodule(name))) for name in model.upto(stage))
    backbone = nn.Sequential(OrderedDict(kept, readout=Readout())).eval()
    device = model.device
    example = torch.zeros(2, *shape, dtype=getattr(backbone[0], "input_dtype", torch.float32), device=device)
    with torch.no_grad():
        width = backbone(example).shape[1]
    return Model(backbone, width, model.task, model.batchnorm, stage).to(device)
