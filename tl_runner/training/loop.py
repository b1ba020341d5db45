"""The loop: a generator of `Point`s. It opens no file, prints nothing and evaluates nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from tl_runner.core import STREAMS, Group, Method, Model, Phase, Stream
from tl_runner.domains import Pair
from tl_runner.errors import DivergedError, UserError, check_range
from tl_runner.models.learning_rates import resolve_backbone_rates, with_rates
from tl_runner.options import NoEffect
from tl_runner.rng import Rng
from tl_runner.training.averaging import Average, Averaging
from tl_runner.training.batches import Augment, Balance, ByDomain, Chances, balance_classes, draw_batch
from tl_runner.training.checkpoint_selection import Evidence
from tl_runner.training.clipping import clip_gradients
from tl_runner.training.contract import check_terms, check_unread
from tl_runner.training.plain_optimizers import PlainOptimizer

SOURCE_MODEL = "source model"  # the phase of points of the source model's training, which trackers leave out
WAITING = "waiting"  # the phase of a point that is no step: the run waits for those that are trained with it


@dataclass(frozen=True)
class Train:
    """How every method is trained.

    steps: of the optimiser, over all phases. batch: rows per stream and step. evaluations: how often the run
    examines the model. log_every: steps between lines of the curve. clip: the largest norm of the gradient,
    None for any. batchnorm: see `Model`. average, average_decay: of the weights that are examined and saved, see
    `averaging`. precision: fp32, or bf16 autocast. channels_last, compile: a memory layout and compiled kernels, for
    speed. balance: rows are drawn as they come, or so that each of the classes is drawn as often as any other.
    domains: of several source domains each has as many rows of a batch, or by its size.
    """

    steps: int = 300
    batch: int = 64
    evaluations: int = 10
    log_every: int = 10
    clip: float | None = 1.0
    batchnorm: Literal["joint", "per_domain"] = "per_domain"
    average: Averaging = "none"
    average_decay: Annotated[float, NoEffect("average", "none", "swa")] = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    balance: Balance = "none"
    domains: ByDomain = "balanced"

    def __post_init__(self) -> None:
        check_range(1, steps=self.steps, evaluations=self.evaluations, log_every=self.log_every)
        check_range(2, batch=self.batch)  # BatchNorm has no variance of one row
        check_range(1e-6, clip=1.0 if self.clip is None else self.clip)
        check_range(0, 1, average_decay=self.average_decay)

    def examines(self, step: int) -> bool:
        """Whether the model is examined after this many steps: evenly, `evaluations` times, last at the end."""
        times = min(self.evaluations, self.steps)
        return step * times // self.steps > (step - 1) * times // self.steps


class Point(NamedTuple):
    """What is known of a run after a step."""

    step: int
    steps: int  # in all
    terms: Mapping[str, float]  # means of the method's terms and metrics since the point before
    rows: int  # read since the start
    phase: str = "train"
    streams: Set[Stream] = frozenset()  # whose rows training has read so far
    seconds: float = 0.0  # since the start, said by the run
    evidence: Evidence | None = None  # where the run examined the model


class Shares(Protocol):
    """By what chances (n,) source rows are drawn; None: all alike. See `evaluation.class_shares`."""

    chances: Tensor | None


@dataclass
class Cursor:
    """Where training stands at its last point. Training that was interrupted resumes from a stored cursor."""

    step: int = 0
    rows: int = 0  # read since the start
    points: int = 0
    optimizer_state: Mapping[str, Any] = field(default_factory=dict)  # to start from
    averaged: Mapping[str, Tensor] = field(default_factory=dict)  # to start from
    optimizer: Optimizer | PlainOptimizer | None = None  # in use
    average: Average | None = None  # in use

    def restore(self) -> None:
        """Set the optimiser and the average in use to what it starts from."""
        if self.optimizer:
            self.optimizer.load_state_dict({**self.optimizer_state})
        if self.average:
            self.average.load(self.averaged)

    def state(self) -> dict[str, Any]:
        state = self.optimizer.state_dict() if self.optimizer else {}
        averaged = self.average.tensors if self.average else {}
        done = {"step": self.step, "rows": self.rows, "points": self.points}
        return {**done, "optimizer_state": state, "averaged": averaged}


def train(
    model: Model,
    method: Method,
    pair: Pair,
    plan: Train,
    optimizer: Callable[[Sequence[Group]], Optimizer | PlainOptimizer],
    schedule: Callable[[float], float],
    augment: Augment,
    rng: Rng,
    cursor: Cursor,
    shares: Shares | None = None,
) -> Iterator[Point]:
    """Train in place, from the cursor on, which is moved along.

    Yields a point every `log_every` steps and wherever the model is to be examined. Between two points nothing waits
    for the device. The learning rate follows `schedule` over each phase; a method's `progress` runs over all of them.
    A method without phases has one point, at step 0. `shares` may change the chances of source rows between two points.
    Raises `DivergedError` where a term is not finite.
    """
    if unknown := set(method.needs) - set(STREAMS):
        raise UserError(f"{type(method).__name__}.needs names {min(unknown)!r}; a batch has source, target and granted")
    device = model.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16")
    window: list[dict[str, Tensor]] = []
    phases, read = method.phases(model), frozenset[Stream]()
    if not phases and not cursor.points:
        cursor.points = 1
        yield Point(0, 0, {}, 0, "prepared")
    for phase, first, steps in split_steps(phases, plan.steps):
        streams = list_streams(phase, method, pair)
        read |= streams if steps else frozenset()
        balanced: Chances = balance_classes(pair, plan.balance, streams)
        engine = cursor.optimizer = optimizer(resolve_backbone_rates(optimizer, begin_phase(phase, model, method)))
        average = cursor.average = begin_average(plan, model, steps)
        peaks = [group["lr"] for group in engine.param_groups]
        trained = [parameter for group in engine.param_groups for parameter in group["params"]]
        if first < cursor.step < first + steps:
            cursor.restore()
        set_training(model, method)
        for step in range(max(first, cursor.step), first + steps):
            local = step - first
            if phase.refresh and (step == first or plan.examines(step)):
                with torch.no_grad():
                    phase.refresh(model, pair)
                set_training(model, method)
            for group, peak in zip(engine.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(local / steps)
            chances: Chances = balanced if shares is None or shares.chances is None else {"source": shares.chances}
            batch = draw_batch(
                pair, streams, plan.batch, rng, step, augment, device, phase.episodes, chances, plan.domains
            )
            with precision:
                terms = method.terms(model, batch, step / plan.steps)
            watched = check_terms(terms, method, model)
            engine.zero_grad()
            torch.autograd.backward([*terms.values()])  # the gradient of their sum, without adding them up
            if plan.clip is not None:
                clip_gradients(trained, plan.clip)
            engine.step()
            if average:
                average.follow(local + 1)
            cursor.step, cursor.rows = step + 1, cursor.rows + len(batch)
            if local == 0:
                check_unread(batch, method)
            window.append({name: value.detach().to(device, torch.float32) for name, value in watched.items()})
            if cursor.step % plan.log_every == 0 or plan.examines(cursor.step):
                cursor.points += 1
                yield Point(cursor.step, plan.steps, _means(window, cursor.step), cursor.rows, phase.name, read)
                set_training(model, method)
                window.clear()


def begin_phase(phase: Phase, model: Model, method: Method) -> list[Group]:
    """Let what is in the phase's groups have a gradient, and nothing else; returns them as `with_rates` does."""
    model.freeze(phase.frozen)
    groups = with_rates(phase.groups, model, phase.pretrained)
    trained = {parameter for group in groups for parameter in group.parameters}
    for parameter in chain(model.parameters(), method.parameters()):
        parameter.requires_grad_(parameter in trained)
    return groups


def set_training(model: Model, method: Method) -> None:
    """The mode of training: whoever saw the model at a point may have left it in another."""
    model.train()
    method.train()


def begin_average(plan: Train, model: Model, steps: int) -> Average | None:
    """The average of what a phase of so many steps, which `begin_phase` has begun, trains; None if not wanted."""
    return None if plan.average == "none" else Average(model, plan.average, plan.average_decay, steps)


def list_streams(phase: Phase, method: Method, pair: Pair) -> Set[Stream]:
    """What a batch of this phase holds."""
    return phase.streams or (method.needs if pair.granted is None else {*method.needs, "granted"})


def split_steps(phases: Sequence[Phase], steps: int) -> Iterator[tuple[Phase, int, int]]:
    """Each phase, its first step and their number; shares are relative, and rounding neither loses nor adds a step."""
    whole, past = sum(phase.share for phase in phases), 0.0
    for phase in phases:
        first, past = round(steps * past / whole), past + phase.share
        yield phase, first, round(steps * past / whole) - first


def _means(window: Sequence[Mapping[str, Tensor]], step: int) -> dict[str, float]:
    """The mean of each name, by one transfer from the device."""
    flat = iter(torch.stack([value for row in window for value in row.values()]).tolist())
    return average_rows([{name: next(flat) for name in row} for row in window], step)


def average_rows(rows: Sequence[Mapping[str, float]], step: int) -> dict[str, float]:
    """The mean of each name over steps, of which this is the last. Raises at the first step that is not finite."""
    for at, row in enumerate(rows, start=step - len(rows) + 1):
        if not all(map(isfinite, row.values())):
            listed = ", ".join(f"{name}={value:.4g}" for name, value in row.items())
            raise DivergedError(f"the loss is not a finite number at step {at}: {listed}")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}
