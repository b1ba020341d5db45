"""The types of data: what a run transfers between. All of it is immutable.

No label is in it that a method may not see: a `Domain` of the target has none. The target's answers live in
`Answers`, which `run` alone opens, once, at the end.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.tasks import Task

UNKNOWN = -1  # the class number of a row that has no label; a quantity that is not known is NaN
IMAGE, WAVE = 3, 2  # dimensions of an input: channels, height, width; one channel, samples
FULL_SCALE = 2**15  # of a waveform of whole numbers: what ±1 is

InputKind = Literal["images", "table", "text", "audio"]
Part = Literal["train", "val", "test"]


def has_label(y: Tensor) -> Tensor:
    """Which of these labels (n,) are known."""
    return ~y.isnan() if y.is_floating_point() else y != UNKNOWN


def kind_of_input(x: Tensor) -> InputKind:
    """What rows of inputs (n, …) are made of.

    Token ids are whole numbers, an image has three dimensions, and a waveform is (1, samples).
    """
    if x.dtype == torch.int64:
        return "text"
    if x.ndim == 1 + WAVE and x.shape[1] == 1:
        return "audio"
    return "images" if x.ndim == 1 + IMAGE else "table"


class Labelled(NamedTuple):
    """Rows with labels: x (n, …) float32, or token ids int64; y (n,) int64, or float32 of a quantity in standard units.

    w (n,) is their importance, None where all weigh 1.
    """

    x: Tensor
    y: Tensor
    w: Tensor | None = None


class Split(Protocol):
    """Inputs without labels, wherever they live."""

    def __len__(self) -> int: ...
    def take(self, rows: Tensor) -> Tensor:
        """The inputs at these row numbers on the device: float32, or int64 where they are token ids."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A split held whole on the device: rows of float32 or of token ids, images as bytes, waveforms as int16.

    Bytes are made float32 in [0, 1] when taken, int16 in [−1, 1]. Images come out with `size` pixels a side, if that
    is set. `texts` (n,) are what token ids were made of, to be shown.
    """

    x: Tensor
    size: int | None = None
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Tensor:
        return _as_input(self.x[rows], self.size)


@dataclass(frozen=True)
class OnDisk:
    """Rows of a memory-mapped tensor of image bytes or waveforms, brought to the device a batch at a time.

    `look_ahead` has a thread read the rows of the next batch while the network is at work on this one. `take` waits for
    them if it is asked for just these, and reads others itself: a wrong guess costs time and changes nothing.
    """

    x: Tensor
    rows: Tensor
    device: torch.device
    size: int | None = None
    ahead: list[tuple[Tensor, Future[Tensor]]] = field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> Tensor:
        rows = rows.cpu()
        guessed, found = self.ahead.pop() if self.ahead else (None, None)
        there = found is not None and guessed is not None and torch.equal(guessed, rows)
        read = found.result() if found is not None and there else self._read(rows)
        return _as_input(read.to(self.device, non_blocking=True), self.size)

    def look_ahead(self, rows: Tensor) -> None:
        """Begin to read these rows, in place of those of an earlier guess."""
        self.ahead[:] = [(rows.cpu(), _reader(os.getpid()).submit(self._read, rows.cpu()))]

    def _read(self, rows: Tensor) -> Tensor:
        """The bytes of the rows, by NumPy: one thread is enough to copy them, and torch would wake them all."""
        read = torch.from_numpy(self.x.numpy()[self.rows[rows].numpy()])
        return read.pin_memory() if self.device.type == "cuda" else read


@cache
def _reader(process: int) -> ThreadPoolExecutor:
    """One thread that reads for all splits of a process; a process that was forked off has none yet."""
    return ThreadPoolExecutor(1, f"read ahead {process}")


def look_ahead(split: Split, rows: Tensor) -> None:
    """Tell a split which rows will be taken next: where they lie on a disk, they are read meanwhile."""
    if isinstance(split, OnDisk):
        split.look_ahead(rows)
    elif isinstance(split, Subset):
        look_ahead(split.whole, split.rows[rows])


def _as_input(x: Tensor, size: int | None) -> Tensor:
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float() / FULL_SCALE if x.dtype == torch.int16 else x
    if size is None or x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Subset:
    """Some rows of a split."""

    whole: Split
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> Tensor:
        return self.whole.take(self.rows[rows])


class LabelledSplit(NamedTuple):
    """A split whose labels y (n,) are known."""

    x: Split
    y: Tensor


class Labels(NamedTuple):
    train: Tensor
    val: Tensor
    test: Tensor


class Member(NamedTuple):
    """A domain that was pooled with others: its name, and which rows (n,) of each split of the pool are its own."""

    name: str
    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True)
class Domain:
    """One side of a transfer. `labels` is None on the target: what is not there can't leak.

    A source may be a pool of domains: these are its `members`, and there are none where it is one domain.
    """

    name: str
    task: Task
    train: Split
    val: Split
    test: Split
    labels: Labels | None = None
    members: tuple[Member, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """None where a quantity is to be predicted."""
        return self.task.classes

    @cached_property
    def rows_by_member(self) -> list[Tensor]:
        """The training rows of each member, on the CPU."""
        return [member.train.cpu() for member in self.members]

    @cached_property
    def train_members(self) -> Tensor:
        """The position (n,) among the members of the domain that each training row comes from."""
        numbers = torch.zeros(len(self.train), dtype=torch.long)
        for position, own in enumerate(self.rows_by_member):
            numbers[own] = position
        return numbers.to(self.members[0].train.device) if self.members else numbers


@dataclass(frozen=True)
class Pair:
    """All that methods, selection and diagnosis get to see.

    `source` is None where the source is in the backbone's weights. `granted` are the target labels that the
    task gives away for training, `held_out` those of them that are kept back to choose a checkpoint. `weights`
    (n,) are the importance of the source's training rows, None where all weigh 1, and `val_weights` (k,) that of its
    validation rows, None where it is not known.
    """

    source: Domain | None
    target: Domain
    granted: LabelledSplit | None = None
    held_out: LabelledSplit | None = None
    weights: Tensor | None = None
    val_weights: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input row."""
        return tuple(self._first_row.shape[1:])

    @property
    def input(self) -> InputKind:
        """What one input row is made of."""
        return kind_of_input(self._first_row)

    @property
    def _first_row(self) -> Tensor:
        return self.target.train.take(torch.zeros(1, dtype=torch.long))

    @property
    def task(self) -> Task:
        """What is to be predicted, on the target."""
        return self.target.task

    @property
    def classes(self) -> tuple[str, ...]:
        """The target's classes; none where a quantity is to be predicted."""
        return self.target.classes

    @property
    def shared_labels(self) -> bool:
        """Whether the source has the target's classes, or its quantity."""
        return self.source is not None and self.source.classes == self.target.classes

    @property
    def labelled_source(self) -> tuple[Domain, Labels]:
        """The source and its labels; `LookupError` where the task has no source domain."""
        if self.source is None or self.source.labels is None:
            raise LookupError("this task has no source domain: its source is in the backbone's weights")
        return self.source, self.source.labels

    @property
    def labels_granted(self) -> LabelledSplit:
        """The granted target rows; `LookupError` where the task grants none."""
        if self.granted is None:
            raise LookupError("this task grants no target labels")
        return self.granted

    def weighted(self, weights: Tensor, val: Tensor | None = None) -> "Pair":
        """The same pair, its source's training rows weighing this (n,), normalised to mean 1.

        `val` (k,) are the weights of its validation rows by the same measure, in any scale. Without them the accuracy
        on these rows is no floor to choose a checkpoint by.
        """
        _, labels = self.labelled_source
        for given, of in ((weights, labels.train), (val, labels.val)):
            if given is not None and not (
                given.shape == of.shape and bool((torch.isfinite(given) & (given >= 0)).all())
            ):
                raise ValueError(f"{len(of)} finite weights, none below 0, are needed, got {given}")
        if not weights.sum() > 0:
            raise UserError("all source rows would weigh 0: the weights leave nothing to train on")
        weights = (weights / weights.double().mean()).float().to(labels.train.device)
        return replace(self, weights=weights, val_weights=val)

    def mapped(self, features: Callable[[Split], Split]) -> "Pair":
        """The same pair, every split replaced by what the function makes of it."""

        def domain(side: Domain) -> Domain:
            return replace(side, train=features(side.train), val=features(side.val), test=features(side.test))

        def labelled(rows: LabelledSplit | None) -> LabelledSplit | None:
            return rows and rows._replace(x=features(rows.x))

        source = self.source and domain(self.source)
        return replace(
            self, source=source, target=domain(self.target),
            granted=labelled(self.granted), held_out=labelled(self.held_out),
        )  # fmt: skip


class Places(NamedTuple):
    """Which files or lines the rows of a domain are: their `names`, and by part which of these its rows are."""

    names: tuple[str, ...]
    train: Tensor
    val: Tensor
    test: Tensor

    @property
    def of_test(self) -> tuple[str, ...]:
        """The names of the test rows, in their order."""
        return tuple(self.names[row] for row in self.test.tolist())


class Answers:
    """The target's test labels, sealed until a run's last step; `UNKNOWN` where a row has none.

    `places` says which files or lines the target's rows are, None where they are no user's. It is kept here, away from
    methods and selection, since a path often names the class.
    """

    def __init__(self, labels: Tensor, places: Places | None = None):
        self._labels: Tensor | None = labels
        self.places = places

    def open(self) -> Tensor:
        """The labels, once: a second look would be a second chance to choose by them."""
        if self._labels is None:
            raise RuntimeError("the target's answers were opened before: they are for a run's last step only")
        labels, self._labels = self._labels, None
        return labels
