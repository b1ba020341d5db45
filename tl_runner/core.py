"""The nouns of training: a `Batch`, a `Model`, and the contract of a `Method`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tl_runner.domains import Labelled, Pair
from tl_runner.errors import Refused, nearest

Stream = Literal["source", "target", "granted"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a batch lists its inputs


class Batch:
    """What a method sees of the data in one step; reading a stream that was not drawn raises and names `needs`.

    `rows` are the numbers of the rows that were drawn of each stream, for what a method keeps per row.
    """

    def __init__(
        self,
        source: Labelled | None = None,
        target: Tensor | None = None,
        granted: Labelled | None = None,
        rows: Mapping[Stream, Tensor] | None = None,
    ) -> None:
        self.rows = rows or {}
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

    def only(self, streams: Set[Stream]) -> "Batch":
        """The same rows of these streams alone; what is read there is read here."""
        labelled = {name: rows for name, rows in self._labelled.items() if name in streams}
        target = self._target if "target" in streams else None
        part = Batch(labelled.get("source"), target, labelled.get("granted"), self.rows)
        part._unread = self._unread
        return part

    def __len__(self) -> int:
        """Rows over all streams."""
        return sum(len(rows.y) for rows in self._labelled.values()) + (0 if self._target is None else len(self._target))

    def _read(self, stream: Stream) -> Labelled:
        if stream not in self._labelled:
            why = "the task grants no target labels" if stream == "granted" else "the method does not ask for them"
            raise LookupError(f"this batch has no {stream} rows: {why}; add {stream!r} to the method's `needs`")
        self._unread.discard(stream)
        return self._labelled[stream]


class Model(nn.Module):
    """backbone -> (n, width) features; head -> (n, classes) logits.

    `backbone` is a sequence of named stages, the first of which takes the data as it is (its normalisation
    belongs to the model, so that a saved model takes raw data too).

    `batchnorm`: with `joint` one pass sees all domains as one batch; with `per_domain` each stream is normalised by its
    own statistics while training. `models.batchnorm.by_domain_statistics` says what evaluation normalises by.
    """

    stage: str | None = None  # where the features are read, if not at the end: see `features.at`
    features_kept: Path | None = None  # the folder where features of the frozen backbone are kept for other runs
    pretrained = False  # whether the backbone's parameters were trained before: by weights, or on the source
    cached = False  # whether inputs have been through the backbone beforehand: see `models.features.freeze_features`

    def __init__(self, backbone: nn.Sequential, width: int, classes: Sequence[str], batchnorm: str = "joint"):
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(width, len(classes))
        self.width = width
        self.classes = tuple(classes)
        self.batchnorm = batchnorm
        self._frozen: tuple[str, ...] = ()
        self._memory: dict[Tensor, dict[str, Tensor]] | None = None
        self.taught: tuple[nn.Module, ...] = ()  # the source model's head; in a tuple it is no part of this module

    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def stages(self) -> tuple[str, ...]:
        """The names at which features can be read and training be frozen, first to last."""
        return tuple(name for name, _ in self.backbone.named_children())

    def upto(self, stage: str) -> tuple[str, ...]:
        """The stages up to and with this one; raises `Refused` where there is none of that name."""
        if stage not in self.stages:
            known = ", ".join(self.stages)
            raise Refused(f"this backbone has no stage {stage!r}{nearest(stage, self.stages)} (possible: {known})")
        return self.stages[: self.stages.index(stage) + 1]

    def freeze(self, stages: Sequence[str]) -> None:
        """Of the backbone, these stages get no gradient and keep their BatchNorm statistics; all others train."""
        self._frozen = tuple(stages)
        for name, stage in self.backbone.named_children():
            stage.requires_grad_(name not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Model":
        super().train(mode)
        for name in self._frozen:
            self.backbone.get_submodule(name).eval()
        return self

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The features of each tensor of inputs, in one pass over all of them."""
        if self.cached:
            return xs
        if self._memory is not None:
            return self.maps(*xs)[self.stages[-1]]
        if self.batchnorm == "per_domain":
            return tuple(self.backbone(x) for x in xs)
        return self.backbone(torch.cat(xs)).split([len(x) for x in xs])

    def maps(self, *xs: Tensor, at: Sequence[str] = ()) -> dict[str, tuple[Tensor, ...]]:
        """What each of these stages, and the last, makes of each tensor of inputs, by the stage's name; in one pass.

        That of the last are the features. Raises `Refused` for a stage that there is not.
        """
        for name in at:
            self.upto(name)
        last = self.stages[-1]
        if self.cached:
            if {*at} - {last}:
                raise Refused(f"features are computed once here, there are no maps of {', '.join(at)}")
            return {last: xs}
        if self._memory is None:
            return {name: found for name, found in self._by_stage(xs).items() if name in at or name == last}
        if unknown := tuple(x for x in xs if x not in self._memory):
            found = self._by_stage(unknown)
            self._memory |= {x: {name: of[i] for name, of in found.items()} for i, x in enumerate(unknown)}
        return {name: tuple(self._memory[x][name] for x in xs) for name in {*at, last}}

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within, what the stages make of a tensor of inputs is computed once, however many ask for it."""
        self._memory = {}
        try:
            yield
        finally:
            self._memory = None

    def _by_stage(self, xs: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        flows = list(xs) if self.batchnorm == "per_domain" else [torch.cat(xs)]
        found: dict[str, tuple[Tensor, ...]] = {}
        for name, stage in self.backbone.named_children():
            flows = [stage(x) for x in flows]
            found[name] = tuple(flows) if len(flows) == len(xs) else flows[0].split([len(x) for x in xs])
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if self.cached else self.backbone(x))


class Group(NamedTuple):
    """Parameters that share a learning rate; `decay` says whether they decay. See `learning_rates`.

    `lr` is a factor of the optimiser's rate; where `of_backbone` is true, of the backbone's (`optimizer.lr_backbone`).
    None leaves it to the loop: the backbone's rate for its parameters, the full rate for all others. The loop sets
    `pretrained`. A group that several phases share needs a list of parameters: an iterator is empty after the first.
    """

    parameters: Iterable[nn.Parameter]
    lr: float | None = None
    decay: bool = True
    of_backbone: bool = False
    pretrained: bool = False


class Episodes(NamedTuple):
    """Source rows drawn as small tasks, for meta-learning: `ways` classes, of each `shots` + `queries` rows.

    A batch holds `tasks` of them, its rows in the order task, class, row; see `rng.episodes`.
    """

    tasks: int
    ways: int
    shots: int
    queries: int


class Phase(NamedTuple):
    """A part of training with an optimiser of its own: its share of the steps, and what it trains.

    What is in no group gets no gradient. `frozen` are stages of the backbone that stay as they are, their BatchNorm
    statistics too (their parameters belong in no group), `streams` what a batch holds in this phase; None is what the
    method needs, and granted labels where there are some. `episodes` says how source rows are drawn, if not at random,
    `pretrained` that the phases before it are the backbone's pre-training.
    """

    name: str
    share: float
    groups: Sequence[Group]
    frozen: Sequence[str] = ()
    streams: Set[Stream] | None = None
    episodes: Episodes | None = None
    pretrained: bool = False


class Method(nn.Module):
    """A way of transferring.

    A subclass sets `needs`, the streams that a batch must hold, and writes `terms`. Its hyper-parameters are
    the parameters of its `__init__`, its parameters (a critic's, say) move and are saved as any module's.
    Granted target labels join by `batch.inputs` and `losses.supervised`; a method that leaves a stream
    unread is refused rather than let a label budget do nothing.

    `start` says what the model is when `prepare` gets it: the backbone as configured; `source`, trained on the
    labelled source before (`pretrain` in the configuration); or `scratch`, the same network with random weights.
    `across_labels` says whether the method can serve a target with other classes than the source, `once` whether
    it computes the features of each row once, so that random views of it can't be trained on. `idle` names options that
    do nothing with some values of another one, as {"k": ("head", {"ncm"})}: who sets them then is warned.

    `keeps_source_task` says whether the model, its features and its head, learns from source labels until the end.
    Only then is accuracy on the source a floor by which a checkpoint can be chosen. False where source rows serve
    another end than their labels, or serve it only at first; a method without source rows must set it to False.
    """

    needs: Set[Stream] = frozenset({"source"})
    start: Literal["backbone", "source", "scratch"] = "backbone"
    across_labels: bool = False
    keeps_source_task: bool = True
    once: ClassVar[bool] = False
    idle: ClassVar[Mapping[str, tuple[str, Set[str]]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Tensor] = {}  # scalars to log beside the terms, that are no part of the loss

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        """Once, before training: what the method needs to add or change. Returns new values, changes none.

        torch's default generator is seeded for it; `seed` is for other libraries, or for `chance_of(seed, name)`.
        """
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        """What is trained, and when; by default everything, all the time. None where `prepare` has done it all."""
        return [Phase("train", 1.0, [Group(model.parameters()), Group(self.parameters())])]

    def refresh(self, model: Model, pair: Pair) -> None:
        """Before the first step, and after each evaluation: what is computed anew from all rows now and then.

        The model comes as it is, in either mode; without a gradient.
        """

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        """The named scalars whose sum is the loss; `progress` is the fraction of training done, in [0, 1).

        Every method writes it, but one that has no phases.
        """
        raise Refused(f"{type(self).__name__} has phases to train and no `terms`: the named scalars of its loss")
