"""The arithmetic of a stack: the tensors of several runs, (M, …), and a step of all of them by `torch.vmap`."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tl_runner.core import Batch, Group, Method, Model, Phase, Terms
from tl_runner.domains import Labelled, Pair
from tl_runner.models.frozen_features import FeatureModel
from tl_runner.models.learning_rates import resolve_backbone_rates
from tl_runner.rng import Rng
from tl_runner.training.batches import Augment, balance_classes, draw_batch
from tl_runner.training.contract import check_terms, check_unread
from tl_runner.training.loop import (
    Cursor,
    Point,
    Shares,
    Train,
    begin_average,
    begin_phase,
    list_streams,
    train,
)
from tl_runner.training.stacked_numbers import Numbers, find_numbers
from tl_runner.training.stacked_optimizers import StackedOptimizer, stack_optimizers

Found = tuple[dict[str, Tensor], dict[str, Tensor]]  # terms and metrics by name


@dataclass(eq=False)
class Member:
    """One of the runs: what `loop.train` takes, and its points that were trained and are not taken yet."""

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
    ahead: deque[Point | Exception] = field(default_factory=deque)
    over: bool = False
    alone: str = ""  # why it is in no program
    threads: int = field(default_factory=torch.get_num_threads)  # that it trains with

    def train_alone(self) -> Iterator[Point]:
        return train(
            self.model, self.method, self.pair, self.plan, self.optimizer,
            self.schedule, self.augment, self.rng, self.cursor, self.shares,
        )  # fmt: skip


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
            member.cursor.optimizer = member.optimizer(resolve_backbone_rates(member.optimizer, groups))
            member.cursor.average = begin_average(member.plan, member.model, steps)
            if resumes:
                member.cursor.restore()
        self.chances = [
            balance_classes(m.pair, m.plan.balance, list_streams(phase, m.method, m.pair))
            for m, phase in zip(members, phases, strict=True)
        ]
        self._stack()

    def drop_ended(self) -> None:
        """Go on without the members that are over: the tensors of the others are stacked anew."""
        self.chances = [of for of, member in zip(self.chances, self.members, strict=True) if not member.over]
        self.members = [member for member in self.members if not member.over]
        self._stack()

    def _stack(self) -> None:
        self.tensors = stack_tensors(self.members)
        self.numbers: Numbers = find_numbers([member.method for member in self.members])
        first = Parts(self.members[0].model, self.members[0].method)
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
    return {name: _list_columns(part) if isinstance(part, Labelled) else part for name, part in parts.items()}


def _list_columns(rows: Labelled) -> tuple[Tensor, ...]:
    """The inputs, labels and weights of the rows; classes without weights all weigh 1.

    `losses` has the mean of weighed rows from their own losses, which `torch.vmap` stacks as they are. Of rows without
    weights it is `F.cross_entropy`, for which torch has but a decomposition: twice as slow, after 0.4 s of imports.
    """
    x, y, w = rows
    if w is None:
        return (x, y) if y.is_floating_point() else (x, y, torch.ones(len(y), device=y.device))
    return x, y, w


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
    named = [list_tensors(member) for member in members]
    found = {}
    for name, tensor in named[0].items():
        of_all = [each[name] for each in named]
        stacked = torch.stack([each.detach() for each in of_all])
        for own, view in zip(of_all, stacked, strict=True):
            own.data = view
        found[name] = stacked.requires_grad_(tensor.requires_grad)
    return found


def list_tensors(member: Member) -> dict[str, Tensor]:
    """The parameters and buffers of a member by name, its method's among them."""
    parts = Parts(member.model, member.method)
    named = {**dict(parts.named_parameters()), **dict(parts.named_buffers())}
    return {name: tensor for name, tensor in named.items() if not _is_over(member, name)}


def list_modules(member: Member) -> list[nn.Module]:
    """What takes part in a member's steps."""
    parts = Parts(member.model, member.method)
    return [module for name, module in parts.named_modules() if not _is_over(member, name)]


def _is_over(member: Member, name: str) -> bool:
    """Whether this part of the network has done its work: the backbone, where features are computed before."""
    return isinstance(member.model, FeatureModel) and f"{name}.".startswith("model.backbone.")
