"""Features as data: read at a stage, and computed once where the network below them stays as it is.

Once means once a machine: they are kept under a hash of the network, the rows and what computes them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.domains import InputKind, Pair, Split, look_ahead
from tl_runner.errors import UserError
from tl_runner.models.tokens import masked_mean
from tl_runner.storage.cache import keep_cached, load_cached

ROWS, NUMBERS = 1024, 2**20  # that a forward pass takes in, at most: large images a few at a time, whose maps an
# allocator keeps for the next ones (on a CPU, four times as many took a third longer)
TOKEN = 256  # numbers that a token stands for: 32 texts of 128 tokens (of 512 MiniLM took twice as long on a CPU)

INCOMPARABLE: Mapping[InputKind, str] = {  # why inputs themselves are not compared
    "text": "these rows are texts, and the numbers of their words say nothing of how alike two texts are",
    "audio": "these rows are waveforms, whose samples say nothing of how alike two sounds are",
}


def read_out(x: Tensor) -> Tensor:
    """One vector a row: the mean over the positions of a map (n, c, h, w) or the tokens (n, t, c); vectors stay.

    Padding, which is tokens of zeros, does not count.
    """
    return x.flatten(2).mean(-1) if x.ndim == 4 else masked_mean(x) if x.ndim == 3 else x.flatten(1)


class Readout(nn.Module):
    """`read_out` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return read_out(x)


class Embedded:
    """A split seen through a model's backbone in evaluation mode; computed whole when it is first read.

    Or taken from the folder `cache`, where this or another run has computed the same before.
    """

    def __init__(self, split: Split, model: Model, cache: Path | None = None):
        self.split, self.model, self.cache = split, model, cache

    def __len__(self) -> int:
        return len(self.split)

    def take(self, rows: Tensor) -> Tensor:
        return self._features[rows]

    @cached_property
    def _features(self) -> Tensor:
        self.model.eval()
        file = self.cache and self.cache / f"{_key(self.model, self.split)}.safetensors"
        if file and (found := load_cached(file)):
            return found["features"].to(self.model.device)
        with torch.no_grad():
            features = torch.cat([self.model.backbone(x).float() for x in iter_batches(self.split, self.model.device)])
        if file:
            keep_cached(file, {"features": features})
        return features


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
    row = split.take(torch.zeros(1, dtype=torch.long, device=device))
    numbers = row.numel() * (TOKEN if row.dtype == torch.int64 else 1)
    parts = torch.arange(len(split), device=device).split(rows_per_batch(numbers))
    for rows, following in zip_longest(parts, parts[1:]):
        x = split.take(rows)
        if following is not None:
            look_ahead(split, following)
        yield x


def rows_per_batch(numbers: int) -> int:
    """How many inputs of so many numbers a forward pass without gradients takes."""
    return min(ROWS, max(1, NUMBERS // numbers))


def _key(model: Model, split: Split) -> str:
    """A hash of all that the features depend on: network, weights, rows, and the last bits' library and machine."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    digest = blake2b(
        repr((model.backbone, torch.__version__, device, torch.get_num_threads())).encode(), digest_size=16
    )
    for name, tensor in model.backbone.state_dict().items():
        digest.update(name.encode() + _bytes(tensor))
    for x in iter_batches(split, model.device):
        digest.update(repr((x.shape, x.dtype)).encode() + _bytes(x))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


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


class FeatureModel(Model):
    """A copy of a model with its backbone frozen, which takes the backbone's features in place of inputs.

    Its weights are those of the whole model: saved and loaded again, it maps inputs to classes.
    """

    def __init__(self, model: Model):
        nn.Module.__init__(self)
        self.__dict__.update(deepcopy(model.__dict__))  # not Model.__init__, which would draw a new head
        self.freeze(self.stages)

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return xs

    def maps(self, *xs: Tensor, at: Sequence[str] = ()) -> dict[str, tuple[Tensor, ...]]:
        last = self.stages[-1]
        if other := {*at} - {last}:
            raise UserError(f"features are computed once here, there are no maps of {', '.join(sorted(other))}")
        return {last: xs}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def freeze_features(model: Model, pair: Pair, cache: Path | None = None) -> tuple[FeatureModel, Pair]:
    """The model with its backbone frozen, and the pair of what the backbone makes of each split, computed once.

    Training and evaluation then run on features. `cache` is a folder where other runs find them.
    """
    frozen = FeatureModel(model)
    return frozen, pair.mapped(lambda split: Embedded(split, frozen, cache))


def rows_to_compare(
    model: Model, pair: Pair, view: Literal["inputs", "features"], cache: Path | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Training rows of source and target (n, d), (m, d), and the source's validation rows (k, d), on the CPU.

    They are flattened inputs, or the model's features. Raises `UserError` where inputs are texts, whose token ids are
    names and no numbers, or waveforms, which differ in all samples where they are heard alike.
    """
    if view == "inputs" and (why := INCOMPARABLE.get(pair.input)):
        raise UserError(f"{why}: compare what the source model makes of them by method.view=features")
    source, _ = pair.labelled_source
    if view == "features":
        _, pair = freeze_features(model, pair, cache)
        source, _ = pair.labelled_source
    return gather_rows(source.train), gather_rows(pair.target.train), gather_rows(source.val)
