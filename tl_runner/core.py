"""The nouns: what a run is made of, and the contract of a method.

Data is immutable and holds no label that a method may not see: a `Domain` of the target has no labels, a
`Batch` no field for them. The target's answers live in `Answers`, which `run` alone opens, once, at the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

Stream = Literal["source", "target", "granted"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a batch lists its inputs


class Labelled(NamedTuple):
    """Rows with labels: x (n, …) float32, y (n,) int64."""

    x: Tensor
    y: Tensor


class Split(Protocol):
    """Inputs without labels, wherever they live."""

    def __len__(self) -> int: ...
    def take(self, rows: Tensor) -> Tensor:
        """The inputs at these row numbers, on the device."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A split held whole on the device."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Tensor:
        return self.x[rows]


class Labels(NamedTuple):
    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True)
class Domain:
    """One side of a transfer. `labels` is None on the target: what is not there can't leak."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    labels: Labels | None = None


@dataclass(frozen=True)
class Pair:
    """All that methods, selection and diagnosis get to see.

    `granted` are the target labels that the task gives away for training, `held_out` those of them that are
    kept back to choose a checkpoint.
    """

    source: Domain
    target: Domain
    granted: Labelled | None = None
    held_out: Labelled | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input row."""
        return tuple(self.source.train.take(torch.zeros(1, dtype=torch.long)).shape[1:])


class Answers:
    """The target's test labels, sealed until a run's last step."""

    def __init__(self, labels: Tensor):
        self._labels: Tensor | None = labels

    def open(self) -> Tensor:
        """The labels, once: a second look would be a second chance to choose by them."""
        if self._labels is None:
            raise RuntimeError("the target's answers were opened before: they are for a run's last step only")
        labels, self._labels = self._labels, None
        return labels


class Batch:
    """What a method sees of the data in one step; reading a stream that was not drawn raises and names `needs`."""

    def __init__(
        self, source: Labelled | None = None, target: Tensor | None = None, granted: Labelled | None = None
    ) -> None:
        labelled: dict[Stream, Labelled | None] = {"source": source, "granted": granted}
        self._labelled: dict[Stream, Labelled] = {name: rows for name, rows in labelled.items() if rows is not None}
        self._target = target
        self._unread: set[Stream] = set(self._labelled)
        if target is not None:
            self._unread.add("target")

    @property
    def source(self) -> Labelled:
        return self._read("source")

    @property
    def target(self) -> Tensor:
        if self._target is None:
            raise LookupError("this batch has no target rows: add 'target' to the method's `needs`")
        self._unread.discard("target")
        return self._target

    @property
    def granted(self) -> Labelled:
        return self._read("granted")

    @property
    def labelled(self) -> dict[Stream, Labelled]:
        """The streams with labels that were drawn, by name: source, granted."""
        return {name: self._read(name) for name in self._labelled}

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of every stream that was drawn, in the order source, target, granted."""
        drawn = {name: rows.x for name, rows in self.labelled.items()}
        if self._target is not None:
            drawn["target"] = self.target
        return tuple(drawn[name] for name in STREAMS if name in drawn)

    @property
    def unread(self) -> Set[Stream]:
        """The streams that were drawn for nothing."""
        return self._unread

    def __len__(self) -> int:
        """Rows over all streams."""
        return sum(len(rows.y) for rows in self._labelled.values()) + (0 if self._target is None else len(self._target))

    def _read(self, stream: Stream) -> Labelled:
        if stream not in self._labelled:
            why = "the task grants no target labels" if stream == "granted" else "the method does not ask for them"
            raise LookupError(f"this batch has no {stream} rows: {why}; add {stream!r} to the method's `needs`")
        self._unread.discard(stream)
        return self._labelled[stream]


@lru_cache(maxsize=8)  # an epoch's order per stream: drawn once, sliced at every step
def _order(seed: int, stream: str, length: int, epoch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(derive(seed, stream, epoch))
    return torch.randperm(length, generator=generator).to(device)


def rows(seed: int, stream: str, length: int, n: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """The rows of a stream that a step draws: min(n, length) of them, from shuffled epochs end to end.

    Pure: the same arguments give the same rows, so that no sampler has a state to save. A batch is always
    full; one that crosses the end of an epoch goes on with the next.
    """
    n = min(n, length)
    first = step * n
    epochs = range(first // length, (first + n - 1) // length + 1)
    order = torch.cat([_order(seed, stream, length, epoch, torch.device(device)) for epoch in epochs])
    start = first - epochs[0] * length
    return order[start : start + n]


def derive(seed: int, *names: object) -> int:
    """An independent seed for a named use of randomness: what one part draws shifts no other part."""
    digest = blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


@contextmanager
def chance_of(seed: int, *names: object) -> Iterator[None]:
    """Within, torch's default generator is seeded for this named use; after, it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *names))
        yield


class Model(nn.Module):
    """backbone -> (n, width) features; head -> (n, classes) logits.

    `backbone` is a sequence of named stages, the first of which takes the data as it is (its normalisation
    belongs to the model, so that a saved model takes raw data too).

    `batchnorm`: with `joint` one pass sees all domains as one batch; with `per_domain` each stream is
    normalised by its own statistics while training. Evaluation uses the running statistics, which in both
    cases have seen every stream.
    """

    def __init__(self, backbone: nn.Sequential, width: int, classes: Sequence[str], batchnorm: str = "joint"):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, len(classes))
        self.width = width
        self.classes = tuple(classes)
        self.batchnorm = batchnorm

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.backbone.named_children())

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The features of each tensor of inputs, in one pass over all of them."""
        if self.batchnorm == "per_domain":
            return tuple(self.backbone(x) for x in xs)
        return self.backbone(torch.cat(xs)).split([len(x) for x in xs])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Group(NamedTuple):
    """Parameters that share a learning rate: `lr` is a factor of the optimiser's; `decay` says whether they decay."""

    parameters: Iterable[nn.Parameter]
    lr: float = 1.0
    decay: bool = True


class Phase(NamedTuple):
    """A part of training with an optimiser of its own: its share of the steps, and what it trains."""

    name: str
    share: float
    groups: Sequence[Group]


class Method(nn.Module, ABC):
    """A way of transferring.

    A subclass sets `needs`, the streams that a batch must hold, and writes `terms`. Its hyper-parameters are
    the parameters of its `__init__`, its parameters (a critic's, say) move and are saved as any module's.
    Granted target labels join by `batch.inputs` and `losses.supervised`; a method that leaves a stream
    unread is refused rather than let a label budget do nothing.

    `start` says what the model is when `prepare` gets it: the backbone as configured, or `scratch`, the same
    network with random weights.
    """

    needs: ClassVar[Set[Stream]] = frozenset({"source"})
    start: ClassVar[Literal["backbone", "scratch"]] = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Tensor] = {}  # scalars to log beside the terms, that are no part of the loss

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        """Once, before training: what the method needs to add or change. Returns new values, changes none.

        torch's default generator is seeded for it; `seed` is for other libraries, or for `chance_of(seed, name)`.
        """
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        """What is trained, and when; by default everything, all the time."""
        return [Phase("train", 1.0, [Group(model.parameters()), Group(self.parameters())])]

    @abstractmethod
    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        """The named scalars whose sum is the loss; `progress` is the fraction of training done, in [0, 1)."""
