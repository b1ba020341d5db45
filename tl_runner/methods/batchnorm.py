"""BatchNorm's running statistics, where a method handles them: taken anew, or kept as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tl_runner.core import Model
from tl_runner.domains import Split
from tl_runner.errors import Refused

ROWS = 256  # of a batch whose statistics are taken


def batchnorms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]:
    """The layers with running statistics."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [part for part in model.modules() if isinstance(part, kinds) and part.track_running_stats]


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within, BatchNorm in training normalises by the batch's statistics as ever, and keeps no trace of them."""
    norms = batchnorms(model)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def renormalise(model: Model, split: Split, rows: int = ROWS) -> None:
    """Replace, in place, all running statistics by those of the split; the model is left in evaluation mode.

    The mean over batches of `rows` rows, or a few more, of each batch's mean and unbiased variance: all layers in one
    pass, each normalising by the batch at hand. Raises `Refused` where there is no BatchNorm, or but one row.
    """
    norms = batchnorms(model)
    if not norms:
        raise Refused(
            "this backbone has no BatchNorm whose statistics could follow the target (of images, small and the ResNets"
            " have some)"
        )
    if len(split) < 2:
        raise Refused("BatchNorm's statistics can't be taken of a single target row")
    model.eval()
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # each batch counts the same
    for part in torch.arange(len(split), device=model.device).tensor_split(max(1, len(split) // rows)):
        model.backbone(split.take(part))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    model.eval()
