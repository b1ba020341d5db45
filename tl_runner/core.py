"""The types of training: a `Batch`, a `Model`, and the contract of a `Method`."""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tl_runner.domains import Labelled, Pair
from tl_runner.errors import UserError, nearest
from tl_runner.functional import losses
from tl_runner.rng import Rng
from tl_runner.tasks import Classification, Task, TaskName

Stream = Literal["source", "target", "granted"]
STREAMS: tuple[Stream, ...] = get_args(Stream)  # in the order in which a batch lists its inputs


class Batch:
    """What a method sees of the data in one step; reading a stream that was not drawn raises and names `needs`.

    `rows` are the numbers of the rows that were drawn of each stream, for what a method keeps per row. Where the source
    is a pool of domains, `domain` (n,) is the position of each source row's own among them. If the rows come one domain
    after the other, and BatchNorm may normalise each domain apart, `blocks` says how many rows each has: not where the
    batch has no rows of the target, which will then meet the statistics of all source domains together.
    """

    def __init__(
        self,
        source: Labelled | None = None,
        target: Tensor | None = None,
        granted: Labelled | None = None,
        rows: Mapping[Stream, Tensor] | None = None,
        domain: Tensor | None = None,
        blocks: Sequence[int] = (),
    ) -> None:
        self.rows = rows or {}
        self._domain, self.blocks = domain, blocks
        self._split: dict[Tensor, tuple[Tensor, ...]] = {}
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
    def domain(self) -> Tensor:
        """The position (n,) of each source row's domain among those that were pooled; 0 where there is one."""
        return torch.zeros_like(self.source.y, dtype=torch.long) if self._domain is None else self._domain

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
        self._unread.clear()
        return tuple(self.get_inputs().values())

    @property
    def unread(self) -> Set[Stream]:
        """The streams that were drawn for nothing."""
        return self._unread

    def only(self, streams: Set[Stream]) -> "Batch":
        """The same rows of these streams alone; what is read there is read here."""
        labelled: dict[Stream, Labelled] = {name: rows for name, rows in self._labelled.items() if name in streams}
        target = self._target if "target" in streams else None
        return self._with(labelled, target)

    def with_inputs(self, **inputs: Tensor) -> "Batch":
        """The same rows with other inputs in the streams that are named, such as random views of them."""
        held = self._labelled.items()
        rows: dict[Stream, Labelled] = {name: rows._replace(x=inputs.get(name, rows.x)) for name, rows in held}
        return self._with(rows, inputs.get("target", self._target))

    def parts(self) -> dict[str, Any]:
        """What the same batch is made of again, but for its `blocks`; this does not count as reading."""
        source, granted = self._labelled.get("source"), self._labelled.get("granted")
        named = {"source": source, "target": self._target, "granted": granted, "rows": self.rows}
        return {**named, "domain": self._domain}

    def __len__(self) -> int:
        """Rows over all streams."""
        return sum(len(rows.y) for rows in self._labelled.values()) + (0 if self._target is None else len(self._target))

    def get_inputs(self) -> dict[Stream, Tensor]:
        """The inputs of every stream by its name, in the order of `inputs`; this does not count as reading them."""
        drawn = {name: rows.x for name, rows in self._labelled.items()}
        if self._target is not None:
            drawn["target"] = self._target
        return {name: drawn[name] for name in STREAMS if name in drawn}

    def _with(self, labelled: Mapping[Stream, Labelled], target: Tensor | None) -> "Batch":
        """These rows in place of its own; what is read there is read here."""
        source, granted = labelled.get("source"), labelled.get("granted")
        part = Batch(source, target, granted, self.rows, self._domain, self.blocks)
        part._unread, part._split = self._unread, self._split
        return part

    def split_source(self, x: Tensor) -> tuple[Tensor, ...]:
        """What was made of the source's rows, domain by domain: the same tensors when asked again."""
        if x not in self._split:
            self._split[x] = x.split([*self.blocks])
        return self._split[x]

    def _read(self, stream: Stream) -> Labelled:
        if stream not in self._labelled:
            why = "the task grants no target labels" if stream == "granted" else "the method does not ask for them"
            raise LookupError(f"this batch has no {stream} rows: {why}; add {stream!r} to the method's `needs`")
        self._unread.discard(stream)
        return self._labelled[stream]


class Encoded:
    """A batch after the backbone: the features (n, width) of each stream, and its maps at some stages."""

    def __init__(self, batch: Batch, head: nn.Module, maps: Mapping[str, Mapping[Stream, Tensor]]):
        self._batch, self._head, self._maps = batch, head, maps
        self._last = [*maps][-1]

    @property
    def source(self) -> Tensor:
        return self.get_map(self._last, "source")

    @property
    def target(self) -> Tensor:
        return self.get_map(self._last, "target")

    @property
    def granted(self) -> Tensor:
        return self.get_map(self._last, "granted")

    def get_map(self, stage: str, stream: Stream) -> Tensor:
        """What this stage made of the stream's rows, (n, …); raises as `Batch` does where the stream was not drawn."""
        getattr(self._batch, stream)
        return self._maps[stage][stream]

    def supervise(self, head: nn.Module | None = None) -> dict[str, Tensor]:
        """The loss of each labelled stream under the stream's name, by the model's head or another one.

        Cross-entropy of classes, the squared error of a quantity: see `losses.supervised`.
        """
        labelled = self._batch.labelled
        features = [self.get_map(self._last, name) for name in labelled]
        return losses.supervised(self._head if head is None else head, labelled, features)


class Model(nn.Module):
    """backbone -> (n, width) features; head -> (n, classes) logits, or (n, 1) a quantity in standard units.

    `backbone` is a sequence of named stages, the first of which takes the data as it is (its normalisation
    belongs to the model, so that a saved model takes raw data too). `stage` names the stage of a larger network that
    the backbone ends at, if it is a part of one: see `models.features.cut`.

    `batchnorm`: with `joint` one pass sees all domains as one batch; with `per_domain` each domain is normalised by its
    own statistics while training, and so is each of several source domains. `models.batchnorm.by_domain_statistics`
    says what evaluation normalises by.
    """

    pretrained = False  # whether the backbone's parameters were trained before: by weights, or on the source
    untrained: tuple[str, ...] = ()  # where they were, the stages that were not: `pretrain.transfer` left them out

    def __init__(
        self,
        backbone: nn.Sequential,
        width: int,
        task: Task | Sequence[str],
        batchnorm: str = "joint",
        stage: str | None = None,
    ):
        """`task` may be the names of the classes."""
        super().__init__()
        self.task: Task = Classification(tuple(task)) if isinstance(task, Sequence) else task
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(width, self.task.outputs)
        self.width = width
        self.batchnorm = batchnorm
        self.stage = stage
        self._frozen: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """None where a quantity is to be predicted."""
        return self.task.classes

    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def stages(self) -> tuple[str, ...]:
        """The names at which features can be read and training be frozen, first to last."""
        return tuple(name for name, _ in self.backbone.named_children())

    def upto(self, stage: str) -> tuple[str, ...]:
        """The stages up to and with this one; raises `UserError` where there is none of that name."""
        if stage not in self.stages:
            known = ", ".join(self.stages)
            raise UserError(f"this backbone has no stage {stage!r}{nearest(stage, self.stages)} (possible: {known})")
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

    def encode(self, batch: Batch, at: Sequence[str] = ()) -> Encoded:
        """The features of every stream of the batch, and the maps at these stages, in one pass over all of them."""
        inputs = batch.get_inputs()  # they count as read when their features are
        xs, sizes = [*inputs.values()], [1] * len(inputs)
        if self.batchnorm == "per_domain" and batch.blocks and "source" in inputs:
            xs, sizes = [*batch.split_source(xs[0]), *xs[1:]], [len(batch.blocks), *sizes[1:]]
        found = self.maps(*xs, at=at) if at else {self.stages[-1]: self.features(*xs)}
        joined = {name: _join(ys, sizes) for name, ys in found.items()}
        return Encoded(batch, self.head, {name: dict(zip(inputs, ys, strict=True)) for name, ys in joined.items()})

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The features of each tensor of inputs, in one pass over all of them."""
        if self.batchnorm == "per_domain":
            return tuple(self.backbone(x) for x in xs)
        return self.backbone(torch.cat(xs)).split([len(x) for x in xs])

    def maps(self, *xs: Tensor, at: Sequence[str] = ()) -> dict[str, tuple[Tensor, ...]]:
        """What each of these stages, and the last, makes of each tensor of inputs, by the stage's name; in one pass.

        That of the last are the features; they come last. Raises `UserError` for a stage that there is not.
        """
        for name in at:
            self.upto(name)
        flows = list(xs) if self.batchnorm == "per_domain" else [torch.cat(xs)]
        found: dict[str, tuple[Tensor, ...]] = {}
        for name, stage in self.backbone.named_children():
            flows = [stage(x) for x in flows]
            if name in at or name == self.stages[-1]:
                found[name] = tuple(flows) if len(flows) == len(xs) else flows[0].split([len(x) for x in xs])
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def _join(xs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """So many of the tensors at a time, one after the other, as one."""
    rest = iter(xs)
    return [torch.cat([next(rest) for _ in range(size)]) if size > 1 else next(rest) for size in sizes]


class Group(NamedTuple):
    """Parameters that share a learning rate. See `models/learning_rates.py`.

    A group that several phases share needs a list of parameters: an iterator is empty after the first.
    """

    parameters: Iterable[nn.Parameter]
    lr: float | None = None  # a factor of the optimiser's rate; None: the backbone's rate for its parameters, else 1
    decay: bool = True  # whether weight decay applies
    of_backbone: bool = False  # `lr` is a factor of the backbone's rate, `optimizer.lr_backbone`
    pretrained: bool = False  # set by the loop: these parameters were trained before


class Episodes(NamedTuple):
    """Source rows drawn as small tasks, for meta-learning: `ways` classes, of each `shots` + `queries` rows.

    A batch holds `tasks` of them, its rows in the order task, class, row; see `rng.episodes`.
    """

    tasks: int
    ways: int
    shots: int
    queries: int


class Phase(NamedTuple):
    """A part of training with an optimiser of its own. Parameters that are in none of its groups get no gradient.

    `refresh` is for what is computed from all rows now and then, such as centroids: it is called before the first step
    and after each evaluation, without gradients, with the model in either mode.
    """

    name: str  # as the curve has it
    share: float  # of the steps
    groups: Sequence[Group]  # what it trains
    frozen: Sequence[str] = ()  # stages of the backbone that do not change, not even their BatchNorm statistics
    streams: Set[Stream] | None = None  # what a batch holds; None: the method's needs, and granted labels if there are
    episodes: Episodes | None = None  # how source rows are drawn; None: at random
    pretrained: bool = False  # the phases before it were the backbone's pre-training
    refresh: Callable[[Model, Pair], None] | None = None


class SourceModel(NamedTuple):
    """The head of the source model, where all of it was copied: its backbone is `model.backbone`."""

    head: nn.Module
    classes: tuple[str, ...]  # the source's


class TokenIds(NamedTuple):
    """The token ids of texts: how many there are, and what some of them stand for."""

    size: int
    pad: int
    mask: int | None = None  # for a token that is hidden
    special: tuple[int, ...] = ()  # for no piece of a text


class Resources(NamedTuple):
    """What `Method.prepare` may use beside the model and the data.

    `rng` is the run's randomness: build a layer within `rng.child("name").as_default()`; `rng.seed` is for libraries
    that take a seed. `source_model` is None where the run has none, or `pretrain.transfer` copies a part of it alone;
    `cache` is a folder for what other runs can use, None where nothing is kept; `tokens` is None but of texts.
    """

    rng: Rng
    source_model: SourceModel | None = None
    cache: Path | None = None
    tokens: TokenIds | None = None


class Terms(dict[str, Tensor]):
    """The named scalars whose sum is the loss; `metrics` are named scalars to log beside them, no part of the loss."""

    def __init__(self, terms: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None):
        super().__init__(terms)
        self.metrics = dict(metrics or {})


INTERNAL = {*vars(nn.Module())}  # attributes of every module, which are not its own

Start = Literal["backbone", "source", "features", "scratch"]
SourceLabels = Literal["throughout", "start", "unused"]


class Method(nn.Module):
    """A way of transferring: a subclass sets `needs`, the streams that a batch must hold, and writes `terms`.

    The arguments of `__init__` are its hyper-parameters, and the keys of its YAML. Parameters, such as a
    discriminator's, are trained and saved with the model. `model.encode(batch).supervise()` uses granted target labels
    where there are some. A method that never reads a stream which it needs is refused: labels would have no effect.

    `start` says what the model is when `prepare` gets it: the `backbone` as configured; `source`, trained on the
    labelled source before (`pretrain` in the configuration, whose `transfer` may leave stages as configured);
    `features`, the same, of which the method computes the features of each row once, so that random views can't be
    trained on; `scratch`, the network with random weights.

    `tasks` says what the method can predict: a class, a quantity (`regression`), or both.
    """

    needs: Set[Stream] = frozenset({"source"})
    start: Start = "backbone"
    tasks: Set[TaskName] = frozenset({"classification"})

    def __init__(self) -> None:
        super().__init__()  # without this signature nn.Module's would be the options of a method that has none

    @property
    def source_labels(self) -> SourceLabels:
        """When the model's head learns from the source's labels.

        `throughout`: until the last step, so that the source's validation rows help to select a checkpoint.
        `start`: only at first, or by starting from the source model's head. Both domains need the same classes.
        `unused`: never; it learns from target labels alone, and the domains may have different classes.
        """
        if "source" in self.needs:
            return "throughout"
        return "unused" if "granted" in self.needs else "start"

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        """Once, before training: what the method needs to add or change. Returns new values, changes none."""
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        """What is trained, and when; by default everything, all the time. None where `prepare` has done it all."""
        return [Phase("train", 1.0, [Group(model.parameters()), Group(self.parameters())])]

    def settle(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The parameters, by name, of the model that the run examines and saves where training has come to these.

        By default they are those; another tensor in place of one replaces it there, and training goes on without it.
        """
        return weights

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        """The named scalars whose sum is the loss; `progress` is the fraction of training done, in [0, 1).

        With scalars to log beside them they are `Terms`. Every method writes it, but one that has no phases.
        """
        raise UserError(f"{type(self).__name__} has phases to train and no `terms`: the named scalars of its loss")
