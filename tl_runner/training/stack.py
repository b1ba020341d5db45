"""Several runs trained as one program: runs that differ in their seeds and in numbers alone.

The parameters of M members are stacked, (M, …), and `torch.vmap` computes the method's terms for all of them at once:
one large kernel in place of M small ones. Batches, rates, decays and the norms of gradients stay each member's own.

A member's own network and optimiser hold views of the stack, so whoever examines, saves or resumes the member finds it
as if it had trained alone. All members take turns at each point: see `Seat.train`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tl_runner.core import Batch, Group, Method, Model, Phase, Terms
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import DivergedError
from tl_runner.models.features import FeatureModel
from tl_runner.models.learning_rates import resolve_backbone_rates
from tl_runner.rng import Rng
from tl_runner.training.batches import Augment, balance_classes, draw_batch
from tl_runner.training.loop import (
    WAITING,
    Cursor,
    Point,
    Shares,
    Train,
    average_rows,
    begin_average,
    begin_phase,
    check_terms,
    check_unread,
    list_streams,
    split_steps,
    train,
)
from tl_runner.training.stacked_numbers import Numbers, find_numbers
from tl_runner.training.stacked_optimizers import StackedOptimizer, check_kinds, stack_optimizers

log = logging.getLogger(__name__)


class UnstackableError(Exception):
    """These runs can't be one program; the message says why."""


@dataclass(eq=False)
class Member:
    """One of the runs: what `loop.train` takes, and the points that others have not taken from it yet."""

    model: Model
    method: Method
    pair: Pair
    plan: Train
    optimizer: Callable[[Sequence[Group]], Any]
    schedule: Callable[[float], float]
    augment: Augment
    rng: Rng
    cursor: Cursor
    shares: Shares | None = None
    ahead: deque[Point | DivergedError] = field(default_factory=deque)
    over: bool = False

    def train_alone(self) -> Iterator[Point]:
        return train(
            self.model, self.method, self.pair, self.plan, self.optimizer,
            self.schedule, self.augment, self.rng, self.cursor, self.shares,
        )  # fmt: skip


class Stack:
    """A group of runs, each of which trains through a seat of its own."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._programs: list[Iterator[None]] | None = None

    def advance(self) -> None:
        """Train every member up to its next point. Raises `UnstackableError`, before any step, where that can't be."""
        if self._programs is None:
            check_alike(self.members)
            steps = sorted({member.cursor.step for member in self.members})  # some may have been interrupted before
            at = [[member for member in self.members if member.cursor.step == step] for step in steps]
            self._programs = [_train_together(together) for together in at]
        for program in self._programs:
            next(program, None)


class Seat:
    """A run's place in a stack. `fused` says whether it trained there, or alone, and `why`."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._member: Member | None = None
        self.fused, self.why = False, ""

    @property
    def ready(self) -> bool:
        """Whether its run has come to its training."""
        return self._member is not None

    def train(self, *words: Any) -> Iterator[Point]:
        """As `loop.train`, with a first point, WAITING, after which all other members must have come as far.

        From then on the members take turns, each one point a turn: the first to ask trains all.
        """
        member = self._member = Member(*words)
        self._stack.members.append(member)
        yield Point(member.cursor.step, member.plan.steps, {}, member.cursor.rows, WAITING)
        try:
            while True:
                if not member.ahead:
                    self._stack.advance()
                if not member.ahead:
                    return
                self.fused = True
                point = member.ahead.popleft()
                if isinstance(point, DivergedError):
                    raise point
                yield point
        except UnstackableError as error:
            self.why = str(error)
        yield from member.train_alone()

    def leave(self) -> None:
        """Its run is over, or stops: the others go on without it."""
        if self._member:
            self._member.over = True


def check_alike(members: Sequence[Member]) -> None:
    """Raise `UnstackableError` where these runs can't be one program."""
    first = members[0]
    if len(members) < 2:
        raise UnstackableError("no other run is like it")
    for member in members:
        plan = member.plan
        phases = member.method.phases(member.model)
        if not phases:
            raise UnstackableError("the method takes no steps")
        if replace(plan, clip=None) != replace(first.plan, clip=None):
            raise UnstackableError("train differs in more than its clipping")
        if plan.precision != "fp32" or plan.compile or plan.channels_last:
            raise UnstackableError("train.precision, compile and channels_last are for one network at a time")
        if member.shares is not None:
            raise UnstackableError("shares= changes what is drawn between two points")
        if member.model.device.type != "cpu":
            raise UnstackableError("stacks are for a CPU")
        if any(phase.refresh or phase.episodes for phase in phases):
            raise UnstackableError("a phase of the method computes something from all rows, or draws small tasks")
        if dropped := [part for part in _parts(member).modules() if isinstance(part, nn.Dropout) and part.p > 0]:
            raise UnstackableError(f"dropout ({dropped[0].p}) draws from the process's generator")
    try:
        find_numbers([member.method for member in members])
        check_kinds([member.optimizer([Group(member.model.parameters())]) for member in members])
    except ValueError as error:
        raise UnstackableError(str(error)) from error
    _check_shapes(members)


def _check_shapes(members: Sequence[Member]) -> None:
    shapes = [{name: tensor.shape for name, tensor in _list_tensors(member).items()} for member in members]
    for other in shapes:
        if differing := [name for name in shapes[0].keys() | other.keys() if shapes[0].get(name) != other.get(name)]:
            raise UnstackableError(f"{min(differing)} has other shapes")


def _train_together(members: list[Member]) -> Iterator[None]:
    """`loop.train` of several members at the same step; the points are put `ahead` of each before every yield."""
    plan, start = members[0].plan, members[0].cursor.step
    phases = zip(*(split_steps(member.method.phases(member.model), plan.steps) for member in members), strict=True)
    read = frozenset()
    for parts in phases:
        (phase, first, steps), own = parts[0], {id(m): part[0] for m, part in zip(members, parts, strict=True)}
        streams = list_streams(phase, members[0].method, members[0].pair)
        read |= streams if steps else frozenset()
        if start >= first + steps:
            continue
        program = Program(members, [own[id(member)] for member in members], steps, first < start < first + steps)
        window: list[dict[str, Tensor]] = []
        for step in range(max(first, start), first + steps):
            local = step - first
            watched = program.step(step, local / steps, step / plan.steps, streams, is_first=local == 0)
            window.append(watched)
            for member in members:
                member.cursor.step, member.cursor.rows = step + 1, member.cursor.rows + program.rows
                if member.cursor.average:
                    member.cursor.average.follow(local + 1)
            if (step + 1) % plan.log_every == 0 or plan.examines(step + 1):
                for member, means in zip(members, _list_means(window, step + 1), strict=True):
                    member.cursor.points += 1
                    if isinstance(means, DivergedError):
                        member.ahead.append(means)
                    else:
                        rows = member.cursor.rows
                        member.ahead.append(Point(step + 1, plan.steps, means, rows, phase.name, read))
                window.clear()
                program.optimizer.note_steps()
                yield
                if any(member.over for member in members):
                    members = [member for member in members if not member.over]
                    if not members:
                        return
                    program = program.without_those_over(members)


def _list_means(window: Sequence[Mapping[str, Tensor]], step: int) -> list[dict[str, float] | DivergedError]:
    """The mean of each name for each member, by one transfer; the error of a member that has diverged."""
    found = iter(torch.stack([value for row in window for value in row.values()]).T.tolist())
    listed: list[dict[str, float] | DivergedError] = []
    for values in found:
        flat = iter(values)
        try:
            listed.append(average_rows([{name: next(flat) for name in row} for row in window], step))
        except DivergedError as error:
            listed.append(error)
    return listed


def _parts(member: Member) -> "Parts":
    return Parts(member.model, member.method)


Found = tuple[dict[str, Tensor], dict[str, Tensor]]  # terms and metrics by name


class Parts(nn.Module):
    """A method and its network as one module, whose call gives the terms: what `functional_call` can be asked for."""

    def __init__(self, model: Model, method: Method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, batch: Batch, progress: float, is_first: bool) -> Found:
        terms = self.method.terms(self.model, batch, progress)
        if is_first:
            check_unread(batch, self.method)
        return dict(terms), dict(terms.metrics) if isinstance(terms, Terms) else {}


class Program:
    """One phase of several members: their stacked tensors, and a step of all of them."""

    def __init__(self, members: Sequence[Member], phases: Sequence[Phase], steps: int, resumes: bool):
        self.members = members
        for member, phase in zip(members, phases, strict=True):
            groups = begin_phase(phase, member.model, member.method)
            optimizer = member.cursor.optimizer = member.optimizer(resolve_backbone_rates(member.optimizer, groups))
            member.cursor.average = begin_average(member.plan, member.model, steps)
            if resumes:
                optimizer.load_state_dict({**member.cursor.optimizer_state})
                if member.cursor.average:
                    member.cursor.average.load(member.cursor.averaged)
        self.chances = [
            balance_classes(m.pair, m.plan.balance, list_streams(phase, m.method, m.pair))
            for m, phase in zip(members, phases, strict=True)
        ]
        self._stack()

    def without_those_over(self, members: Sequence[Member]) -> "Program":
        """The same of fewer members: their tensors are stacked anew."""
        self.chances = [of for of, member in zip(self.chances, self.members, strict=True) if not member.over]
        self.members = members
        self._stack()
        return self

    def _stack(self) -> None:
        self.tensors = stack_tensors(self.members)
        self.numbers: Numbers = find_numbers([member.method for member in self.members])
        first = _parts(self.members[0])
        shared = {id(tensor): tensor for tensor in [*first.parameters(), *first.buffers()]}
        self.prototype = deepcopy(first, shared)  # it shares the tensors, and has attributes of its own
        self.prototype.train()
        optimizers: Sequence[Any] = [member.cursor.optimizer for member in self.members]
        names = {id(parameter): name for name, parameter in first.named_parameters()}
        self.optimizer: StackedOptimizer = stack_optimizers(optimizers, lambda p: self.tensors[names[id(p)]])
        clips = [float("inf") if m.plan.clip is None else m.plan.clip for m in self.members]
        self.clip = None if min(clips) == float("inf") else torch.tensor(clips)

    def step(self, step: int, done: float, progress: float, streams: Any, is_first: bool) -> dict[str, Tensor]:
        """One step of each member; the terms and metrics (M,) by name."""
        batch, blocks, dim = self._draw(step, streams)

        def compute(tensors: dict[str, Tensor], numbers: list[Tensor], parts: dict[str, Any]) -> Found:
            with self.numbers.set_on(self.prototype.method, numbers):
                labelled = {name: Labelled(*part) for name, part in parts.items() if isinstance(part, tuple)}
                own = Batch(**{**parts, **labelled}, blocks=blocks)
                return functional_call(self.prototype, tensors, (own, progress, is_first))

        terms, metrics = torch.vmap(compute, in_dims=(0, 0, dim))(self.tensors, self.numbers.values, batch)
        if is_first:
            of_one = [{name: value[0] for name, value in found.items()} for found in (terms, metrics)]
            check_terms(Terms(*of_one), self.prototype.method, self.prototype.model)
        self.optimizer.zero_grad()
        torch.autograd.backward([value.sum() for value in terms.values()])  # no member's loss depends on another's
        if self.clip is not None:
            self.optimizer.clip(self.clip)
        self.optimizer.step([member.schedule(done) for member in self.members])
        return {name: value.detach().float() for name, value in {**terms, **metrics}.items()}

    def _draw(self, step: int, streams: Any) -> tuple[dict[str, Any], Sequence[int], int | None]:
        """The batch of every member, stacked; or the batch of all where it is one, which is then on no dimension."""
        drawn: dict[Any, Batch] = {}
        keys = []
        for member, chances in zip(self.members, self.chances, strict=True):
            keys.append(key := (member.rng.seed, id(member.pair)))
            if key not in drawn:
                drawn[key] = draw_batch(
                    member.pair, streams, member.plan.batch, member.rng, step, member.augment,
                    member.model.device, None, chances, member.plan.domains,
                )  # fmt: skip
        first = drawn[keys[0]]
        self.rows = len(first)
        packed = {key: _pack(batch) for key, batch in drawn.items()}
        if len(drawn) == 1:
            return packed[keys[0]], first.blocks, None
        return _stack_trees([packed[key] for key in keys]), first.blocks, 0


def _pack(batch: Batch) -> dict[str, Any]:
    """What a batch is made of, without what is not there: `torch.vmap` takes tensors alone."""
    parts = {name: part for name, part in batch.parts().items() if part is not None}
    return {name: _without_none(part) if isinstance(part, Labelled) else part for name, part in parts.items()}


def _without_none(rows: Labelled) -> tuple[Tensor, ...]:
    return tuple(column for column in rows if column is not None)


def _stack_trees(trees: Sequence[Any]) -> Any:
    first = trees[0]
    if isinstance(first, dict):
        return {name: _stack_trees([tree[name] for tree in trees]) for name in first}
    if isinstance(first, tuple):
        return tuple(_stack_trees(column) for column in zip(*trees, strict=True))
    return torch.stack(list(trees))


def stack_tensors(members: Sequence[Member]) -> dict[str, Tensor]:
    """The members' parameters and buffers, (M, …) by name; each member's own become views of them.

    Of a network whose features are computed before, the backbone has no part in the terms and is left out.
    """
    named = [_list_tensors(member) for member in members]
    found = {}
    for name, tensor in named[0].items():
        of_all = [each[name] for each in named]
        stacked = torch.stack([each.detach() for each in of_all])
        for own, view in zip(of_all, stacked, strict=True):
            own.data = view
        found[name] = stacked.requires_grad_(tensor.requires_grad)
    return found


def _list_tensors(member: Member) -> dict[str, Tensor]:
    parts = _parts(member)
    left_out = "model.backbone." if isinstance(member.model, FeatureModel) else "\n"
    named = {**dict(parts.named_parameters()), **dict(parts.named_buffers())}
    return {name: tensor for name, tensor in named.items() if not name.startswith(left_out)}
