"""Several runs trained as one program: runs that differ in their seeds and in numbers alone.

The parameters of M members are stacked, (M, …), and `torch.vmap` computes the method's terms for all of them at once:
one large kernel in place of M small ones. Batches, rates, decays and the norms of gradients stay each member's own.

A member's own network and optimiser hold views of the stack, so whoever examines, saves or resumes the member finds it
as if it had trained alone. All members take turns at each point: see `Seat.train`.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tl_runner.core import Group
from tl_runner.errors import DivergedError
from tl_runner.training.loop import (
    WAITING,
    Point,
    average_rows,
    list_streams,
    split_steps,
)
from tl_runner.training.stacked_numbers import find_numbers
from tl_runner.training.stacked_optimizers import check_kinds
from tl_runner.training.stacked_program import Member, Program, list_modules, list_tensors


class UnstackableError(Exception):
    """These runs can't be one program; the message says why."""


class Stack:
    """A group of runs, each of which trains through a seat of its own. Those of them that are alike are one program."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._programs: dict[Member, tuple[list[Member], Iterator[None]]] = {}

    def join(self, member: Member) -> None:
        self._members.append(member)

    def begin(self) -> None:
        """All that will train have joined: see which of them can be one program, and why others can't."""
        alike: dict[tuple[int, Hashable], list[Member]] = {}
        for member in self._members:
            if not member.over:  # some may have been interrupted before, at other steps
                alike.setdefault((member.cursor.step, _describe_likeness(member)), []).append(member)
        kinds = Counter(kind for _, kind in alike)
        for (_, kind), together in alike.items():
            try:
                check_alike(together)
                if len(together) == 1:
                    elsewhere = kinds[kind] > 1
                    raise UnstackableError(
                        "the runs like it stand at other steps" if elsewhere else "no other run is like it"
                    )
            except UnstackableError as error:
                for member in together:
                    member.alone = str(error)
            else:
                program = together, _train_together(together)
                self._programs |= dict.fromkeys(together, program)

    def advance(self, member: Member) -> None:
        """Train its program up to the next point, or to an error that is then each member's: one step is of all."""
        together, program = self._programs[member]
        try:
            next(program, None)
        except Exception as error:
            for each in together:
                if not each.over:
                    each.ahead.append(error)


class Seat:
    """A run's place in a stack."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._member: Member | None = None

    @property
    def ready(self) -> bool:
        """Whether its run has come to its training."""
        return self._member is not None

    @property
    def alone(self) -> str:
        """Why its run trains alone; empty where it trains in the stack."""
        return self._member.alone if self._member else ""

    def train(self, *words: Any) -> Iterator[Point]:
        """As `loop.train`, with a first point, WAITING, after which all other members must have come as far.

        From then on the members take turns, each one point a turn: the first to ask trains its whole program.
        """
        member = self._member = Member(*words)
        start = member.cursor.step
        self._stack.join(member)
        yield Point(start, member.plan.steps, {}, member.cursor.rows, WAITING)
        while not member.alone:
            if not member.ahead:
                self._stack.advance(member)
            if not member.ahead:
                return
            point = member.ahead.popleft()
            if isinstance(point, Point):
                assert point.step == member.cursor.step, "the weights are those of another point"
                yield point
            elif isinstance(point, DivergedError) or member.cursor.step > start:
                raise point
            else:  # no step was taken: alone, the run meets it by itself, or another one has caused it
                member.alone = f"the stack can't take a step ({type(point).__name__}: {point})"
        yield from member.train_alone()

    def leave(self) -> None:
        """Its run is over, or stops: the others go on without it."""
        if self._member:
            self._member.over = True


def _describe_likeness(member: Member) -> Hashable:
    """What members of a program have in common, beside the step at which they stand."""
    shapes = frozenset((name, tensor.shape) for name, tensor in list_tensors(member).items())
    return replace(member.plan, clip=None), member.threads, shapes


def check_alike(members: Sequence[Member]) -> None:
    """Raise `UnstackableError` where these runs, of one likeness, can't be one program."""
    for member in members:
        plan = member.plan
        phases = member.method.phases(member.model)
        if not phases:
            raise UnstackableError("the method takes no steps")
        if plan.precision != "fp32" or plan.compile or plan.channels_last:
            raise UnstackableError("train.precision, compile and channels_last are for one network at a time")
        if member.shares is not None:
            raise UnstackableError("shares= changes what is drawn between two points")
        if member.model.device.type != "cpu":
            raise UnstackableError("stacks are for a CPU")
        if any(phase.refresh or phase.episodes for phase in phases):
            raise UnstackableError("a phase of the method computes something from all rows, or draws small tasks")
        if any(isinstance(part, nn.Dropout) and part.p > 0 for part in list_modules(member)):
            raise UnstackableError("dropout draws from the process's generator")
    try:
        find_numbers([member.method for member in members])
        check_kinds([member.optimizer([Group(member.model.parameters())]) for member in members])
    except ValueError as error:
        raise UnstackableError(str(error)) from error


def _train_together(members: list[Member]) -> Iterator[None]:
    """`loop.train` of several members at the same step; the points are put `ahead` of each before every yield."""
    plan, start = members[0].plan, members[0].cursor.step
    phases = zip(*(split_steps(member.method.phases(member.model), plan.steps) for member in members), strict=True)
    read = frozenset()
    for parts in phases:
        (phase, first, steps), own = parts[0], {m: part[0] for m, part in zip(members, parts, strict=True)}
        streams = list_streams(phase, members[0].method, members[0].pair)
        read |= streams if steps else frozenset()
        if start >= first + steps:
            continue
        program = Program(members, [own[member] for member in members], steps, first < start < first + steps)
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
                    program.drop_ended()


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
