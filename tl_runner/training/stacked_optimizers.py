"""The arithmetic of `plain_optimizers` on stacked parameters (M, …): rates, decays and clipping are each member's own.

The members' own optimisers hold views of the state, so that each can be saved and resumed by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tl_runner.training.clipping import shrink_to
from tl_runner.training.plain_optimizers import PlainAdamW, PlainOptimizer, PlainSGD


class Slot:
    """A stacked parameter, the parameters of the members whose stack it is, and its state.

    `rates` and `decays` (M,) are float64: a rate is multiplied by its schedule before it is rounded.
    """

    def __init__(self, stacked: Tensor, own: Sequence[nn.Parameter], rates: Tensor, decays: Tensor):
        self.stacked, self.own, self.rates, self.decays = stacked, own, rates, decays
        self.state: dict[str, Tensor] = {}

    def along(self, values: Tensor) -> Tensor:
        """Values (M,) in the parameter's precision, with dimensions to multiply it by: (M, 1, …)."""
        return values.to(self.stacked.dtype).view(-1, *[1] * (self.stacked.ndim - 1))


class StackedOptimizer(ABC):
    """Optimisers of one kind, one for each member, as one. `keys` names the tensors of a parameter's state."""

    keys: tuple[str, ...]

    def __init__(self, optimizers: Sequence[PlainOptimizer], find_stack: Callable[[nn.Parameter], Tensor]):
        self.optimizers = optimizers
        self.slots: list[Slot] = []
        for groups in zip(*(optimizer.param_groups for optimizer in optimizers), strict=True):
            rates, decays = (
                torch.tensor([g[key] for g in groups], dtype=torch.double) for key in ("lr", "weight_decay")
            )
            for own in zip(*(group["params"] for group in groups), strict=True):
                self.slots.append(Slot(find_stack(own[0]), own, rates, decays))
        for slot in self.slots:
            slot.state = {key: self._stack_state(slot, key) for key in self.keys}

    @abstractmethod
    def move(self, slot: Slot, gradient: Tensor, rates: Tensor) -> None:
        """Step one stacked parameter, in place, at these rates (M,)."""

    @abstractmethod
    def note_steps(self) -> None:
        """Write into the members' own optimisers how many steps they have taken, which is no view of the stack."""

    def zero_grad(self) -> None:
        for slot in self.slots:
            slot.stacked.grad = None

    @torch.no_grad()
    def clip(self, largest: Tensor) -> None:
        """Scale each member's gradient down to its norm (M,), if it is longer."""
        moved = [slot for slot in self.slots if slot.stacked.grad is not None]
        lengths = [slot.stacked.grad.flatten(1).norm(dim=1) for slot in moved]  # pyright: ignore[reportOptionalMemberAccess]
        factor = shrink_to(largest, torch.stack(lengths, 1).norm(dim=1))
        for slot in moved:
            slot.stacked.grad.mul_(slot.along(factor))  # pyright: ignore[reportOptionalMemberAccess]

    @torch.no_grad()
    def step(self, factors: Sequence[float]) -> None:
        """One step, each member's rates multiplied by its factor."""
        scale = torch.tensor(factors, dtype=torch.double)
        for slot in self.slots:
            if slot.stacked.grad is not None:
                self.move(slot, slot.stacked.grad, slot.rates * scale)

    def _stack_state(self, slot: Slot, key: str) -> Tensor:
        """What the members' own optimisers have under this name, zeros where they have none; theirs become views."""
        kept = [optimizer.states.setdefault(own, {}) for optimizer, own in zip(self.optimizers, slot.own, strict=True)]
        found = [of.get(key) for of in kept]
        stacked = torch.stack([torch.zeros_like(slot.own[0]) if tensor is None else tensor for tensor in found])
        for of, view in zip(kept, stacked, strict=True):
            of[key] = view
        return stacked


class StackedSGD(StackedOptimizer):
    """See `PlainSGD`."""

    keys = ("momentum",)

    def __init__(self, optimizers: Sequence[PlainSGD], find_stack: Callable[[nn.Parameter], Tensor]):
        super().__init__(optimizers, find_stack)
        self.momenta = torch.tensor([optimizer.momentum for optimizer in optimizers], dtype=torch.double)
        self.nesterov = torch.tensor([optimizer.nesterov for optimizer in optimizers])

    def move(self, slot: Slot, gradient: Tensor, rates: Tensor) -> None:
        gradient = gradient + slot.stacked * slot.along(slot.decays)
        momentum = slot.along(self.momenta)
        buffer = slot.state["momentum"].mul_(momentum).add_(gradient)
        moved = torch.where(slot.along(self.nesterov).bool(), gradient + momentum * buffer, buffer)
        slot.stacked.sub_(slot.along(rates) * moved)

    def note_steps(self) -> None:
        """It counts none."""


class StackedAdamW(StackedOptimizer):
    """See `PlainAdamW`."""

    keys = ("mean", "square")

    def __init__(self, optimizers: Sequence[PlainAdamW], find_stack: Callable[[nn.Parameter], Tensor]):
        super().__init__(optimizers, find_stack)
        self.beta1, self.beta2 = torch.tensor([each.betas for each in optimizers], dtype=torch.double).T
        self.eps = torch.tensor([optimizer.eps for optimizer in optimizers], dtype=torch.double)
        self.steps = {slot: optimizers[0].states[slot.own[0]].get("step", 0) for slot in self.slots}

    def move(self, slot: Slot, gradient: Tensor, rates: Tensor) -> None:
        taken = self.steps[slot] = self.steps[slot] + 1
        slot.stacked.mul_(slot.along(1 - rates * slot.decays))
        mean = slot.state["mean"].lerp_(gradient, slot.along(1 - self.beta1))
        square = slot.state["square"].mul_(slot.along(self.beta2))
        square.add_(gradient.square().mul_(slot.along(1 - self.beta2)))
        size = rates / (1 - self.beta1**taken)
        root = (1 - self.beta2**taken).sqrt()
        spread = square.sqrt().div_(slot.along(root)).add_(slot.along(self.eps))
        slot.stacked.sub_((slot.along(size) * mean).div_(spread))

    def note_steps(self) -> None:
        for slot, taken in self.steps.items():
            for optimizer, own in zip(self.optimizers, slot.own, strict=True):
                optimizer.states[own]["step"] = taken


KINDS: dict[type[PlainOptimizer], type[StackedOptimizer]] = {PlainSGD: StackedSGD, PlainAdamW: StackedAdamW}


def check_kinds(optimizers: Sequence[object]) -> None:
    """Raise `ValueError` where they are not of one kind that can be stacked."""
    kinds = {type(optimizer) for optimizer in optimizers}
    if len(kinds) > 1 or not kinds <= KINDS.keys():
        raise ValueError(f"the optimiser {' and '.join(sorted(kind.__name__ for kind in kinds))} is not stacked")


def stack_optimizers(
    optimizers: Sequence[PlainOptimizer], find_stack: Callable[[nn.Parameter], Tensor]
) -> StackedOptimizer:
    """The optimisers as one; `find_stack` gives the stack that a parameter of the first is in."""
    return KINDS[type(optimizers[0])](optimizers, find_stack)
