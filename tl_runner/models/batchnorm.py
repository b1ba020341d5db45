"""BatchNorm's statistics, domain by domain: a network normalises the rows of a domain by that domain's own.

While training, `Model.features` normalises each stream by its batch. PyTorch's running averages mix all streams and lag
behind the weights, so evaluation does not use them where the rows are at hand: `by_domain_statistics` takes the
statistics of each domain exactly, from its training rows and the weights as they are. Chang et al., CVPR 2019, keep an
average per domain; the pass over the rows is the "precise BN" of Wu & Johnson 2021.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_runner.core import Model, Stream
from tl_runner.domains import Pair, Split, Subset
from tl_runner.errors import UserError
from tl_runner.models.features import rows_per_batch
from tl_runner.models.frozen_features import FeatureModel
from tl_runner.models.lora import merge_adapters, remove_adapters
from tl_runner.models.substitution import substitute_tensors

ROWS = 256  # of a batch whose statistics are taken
FEWEST = 64  # rows of such a batch where the inputs are large: as many as a training step has
MOST = 2048  # rows of a domain whose statistics are taken: a standard error of 2 % of a deviation
SOURCE = "source_statistics."  # prefix of the source's statistics in a file of weights
MEMBER = "source_{}_statistics."  # and of those of each of several source domains, by its position

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Side = Literal["source", "target"]
Statistics = Mapping[str, Tensor]  # running means, variances and counts by their names in the network


@dataclass(frozen=True)
class SideBySide:
    """Rows of several splits as one batch has them: as many of each, a shorter one again from its start."""

    splits: Sequence[Split]

    def __len__(self) -> int:
        return max(map(len, self.splits))

    def take(self, rows: Tensor) -> Tensor:
        return torch.cat([split.take(rows % len(split)) for split in self.splits])


class DomainModels(NamedTuple):
    """One network for the rows of each domain: the same parameters, each domain's own BatchNorm statistics.

    Where several source domains are normalised apart, `members` are theirs, and `source` has the statistics of all.
    """

    source: Model
    target: Model
    members: tuple[Model, ...] = ()


def batchnorms(model: nn.Module) -> list[Norm]:
    """The layers with running statistics."""
    return [part for part in model.modules() if isinstance(part, Norm) and part.track_running_stats]


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[None]:
    """Within, BatchNorm in training normalises by the batch's statistics as ever, and keeps no trace of them."""
    norms = batchnorms(model)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the running statistics of all BatchNorm layers, by their names in the network."""
    return {name: buffer.detach().clone() for name, buffer in _buffers(model).items()}


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running means and variances themselves, by their names in the network."""
    return {name: buffer for name, buffer in _buffers(model).items() if buffer.is_floating_point()}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": buffer
        for name, part in model.named_modules()
        if isinstance(part, _BatchNorm)
        for key, buffer in part.named_buffers()
    }


def by_domain_statistics(
    model: Model, pair: Pair, read: Set[Stream], start: Statistics, own: bool = True
) -> DomainModels:
    """The network as each domain's rows meet it, after a training that has read these streams so far.

    A domain whose rows were read has their statistics: the source of its training rows, the target of its unlabelled
    training rows, or of the granted ones where the method reads no others. A source that was not read keeps the
    statistics of the `start`; a target that was not read meets the network as the source does, or where neither was
    read (a method that trains nothing) as `prepare` left it. Layers that training leaves alone, in frozen stages, and
    layers that are no plain BatchNorm (stochnorm's) keep theirs. With `batchnorm="joint"` training normalises a batch
    of both domains as one, and so do the running averages; where these are not the model's `own`, but of other weights
    (an average's), they are taken anew from such batches. Several source domains have statistics of their own where
    the target has, too; else the target will meet those of them all, and so do they (see `Model.encode`). The model is
    left in evaluation mode, its own statistics as they were.
    """
    model.train()
    live = [name for name, part in model.named_modules() if isinstance(part, Norm) and part.training]
    model.eval()
    if isinstance(model, FeatureModel) or not any(isinstance(part, _BatchNorm) for part in model.modules()):
        return DomainModels(model, model)
    source_rows = pair.source.train if pair.source and "source" in read else None
    granted_rows = pair.granted.x if pair.granted and "granted" in read else None
    unlabelled = pair.target.train if "target" in read else None
    target_rows = granted_rows if unlabelled is None else unlabelled
    if model.batchnorm == "joint" and source_rows is not None and target_rows is not None:
        joint = SideBySide([rows for rows in (source_rows, unlabelled, granted_rows) if rows is not None])
        both = model if own else _measure_statistics(model, live, joint)
        return DomainModels(both, both)
    source = _with(model, start) if source_rows is None else _measure_statistics(model, live, source_rows)
    if target_rows is not None:
        members: list[Model] = []
        if pair.source is not None and source_rows is not None:
            apart = [Subset(source_rows, each.train) for each in pair.source.members]
            members = [_measure_statistics(model, live, rows) for rows in apart]
        return DomainModels(source, _measure_statistics(model, live, target_rows), tuple(members))
    return DomainModels(source, model if source_rows is None else source)


def pack_statistics(sides: DomainModels) -> dict[str, Tensor]:
    """The weights of both, as a file holds them: the target's network, and beside it the source's statistics.

    Adapters are merged into the weights that they are beside.
    """
    apart = {} if sides.source is sides.target else {SOURCE: statistics(sides.source)}
    apart |= {MEMBER.format(position): statistics(each) for position, each in enumerate(sides.members)}
    named = {prefix + name: tensor for prefix, found in apart.items() for name, tensor in found.items()}
    return {**merge_adapters(sides.target.state_dict()), **named}


def unpack_statistics(weights: Mapping[str, Tensor], side: Side) -> dict[str, Tensor]:
    """The state of the network of one side, from weights that `pack_statistics` made."""
    prefixes = (SOURCE, *(MEMBER.format(position) for position in range(_count_members(weights))))
    state = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)}
    return state | _of_prefix(weights, SOURCE) if side == "source" else state


def _of_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _count_members(weights: Mapping[str, Tensor]) -> int:
    """How many source domains have statistics of their own."""
    return next(n for n in count() if not any(name.startswith(MEMBER.format(n)) for name in weights))


def load_statistics(model: Model, weights: Mapping[str, Tensor]) -> DomainModels:
    """Both sides with these weights, those of `pack_statistics`; the target's is the model itself, in place.

    Of a model with adapters it is a copy without.
    """
    model = remove_adapters(model)
    model.load_state_dict(unpack_statistics(weights, "target"))
    apart = _of_prefix(weights, SOURCE)
    prefixes = (MEMBER.format(position) for position in range(_count_members(weights)))
    members = tuple(_with(model, _of_prefix(weights, prefix)) for prefix in prefixes)
    return DomainModels(_with(model, apart) if apart else model, model, members)


@torch.no_grad()
def renormalise(model: Model, split: Split, rows: int = ROWS, norms: Sequence[Norm] | None = None) -> None:
    """Replace, in place, the running statistics of these layers, all if not said, by those of the split.

    The mean over equal batches, of `rows` rows at least where there are so many, of each batch's mean and unbiased
    variance: all layers in one pass, each normalising by the batch at hand. The model is left in evaluation mode.
    Raises `UserError` where there is no BatchNorm, or a single row, which has no variance.
    """
    norms = batchnorms(model) if norms is None else norms
    if not norms:
        raise UserError(
            "this backbone has no BatchNorm whose statistics could follow the target (of images, small and the ResNets"
            " have some)"
        )
    if len(split) < 2:
        raise UserError("BatchNorm's statistics can't be taken of a single target row")
    model.eval()
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # each batch counts the same
    network = model if any(norm in norms for norm in batchnorms(model.head)) else model.backbone
    for part in torch.arange(len(split), device=model.device).tensor_split(max(1, len(split) // rows)):
        network(split.take(part))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    model.eval()


def _measure_statistics(model: Model, live: Sequence[str], split: Split) -> Model:
    """The network with the statistics of the split in its live layers; as it is where one row has none to give."""
    if not live or len(split) < 2:
        return model
    twin = _twin(model)
    if len(split) > MOST:  # rows of a split are in no order
        split = Subset(split, torch.arange(MOST, device=model.device))
    numbers = split.take(torch.zeros(1, dtype=torch.long, device=model.device)).numel()
    norms = [norm for norm in map(twin.get_submodule, live) if isinstance(norm, Norm)]
    renormalise(twin, split, min(ROWS, max(FEWEST, rows_per_batch(numbers))), norms)
    return twin


def _with(model: Model, known: Statistics) -> Model:
    """The network with these statistics, where it has layers of these names."""
    twin = _twin(model)
    for name, buffer in twin.named_buffers():
        if name in known:
            buffer.copy_(known[name])
    return twin


def _twin(model: Model) -> Model:
    """The same network in evaluation mode: its parameters are the model's own, its BatchNorm statistics are copies."""
    return substitute_tensors(model, statistics(model)).eval()
