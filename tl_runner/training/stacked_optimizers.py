"""The arithmetic of `plain_optimizers` on stacked parameters (M, …): rates, decays and clipping are each member's own.

The members' own optimisers hold views of the state, so that each can be saved and resumed by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tl_runner.training.clipping import clipping_factor
from tl_runner.training.plain_optimizers import PlainAdamW, PlainOptimizer, PlainSGD


class StackedParameter:
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
        self.parameters: list[StackedParameter] = []
        for groups in zip(*(optimizer.param_groups for optimizer in optimizers), strict=True):
            rates, decays = (
                torch.tensor([g[key] for g in groups], dtype=torch.double) for key in ("lr", "weight_decay")
            )
            for own in zip(*(group["params"] for group in groups), strict=True):
                self.parameters.append(StackedParameter(find_stack(own[0]), own, rates, decays))
        for parameter in self.parameters:
            parameter.state = {key: self._stack_state(parameter, key) for key in self.keys}

    @abstractmethod
    def move(self, parameter: StackedParameter, gradient: Tensor, rates: Tensor) -> None:
        """Step one stacked parameter, in place, at these rates (M,)."""

    @abstractmethod
    def note_steps(self) -> None:
        """Write into the members' own optimisers how many steps they have taken, which is no view of the stack."""

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.stacked.grad = None

    @torch.no_grad()
    def clip(self, largest: Tensor) -> None:
        """Scale each member's gradient down to its norm (M,), if it is longer; infinity leaves it as it is."""
        moved = [parameter for parameter in self.parameters if parameter.stacked.grad is not None]
        lengths = [parameter.stacked.grad.flatten(1).norm(dim=1) for parameter in moved]  # pyright: ignore[reportOptionalMemberAccess]
        factor = clipping_factor(largest, torch.stack(lengths, 1).norm(dim=1))
        factor = factor.masked_fill(largest.isinf(), 1.0)  # which of an infinite gradient would be none
        for parameter in moved:
            parameter.stacked.grad.mul_(parameter.along(factor))  # pyright: ignore[reportOptionalMemberAccess]

    @torch.no_grad()
    def step(self, factors: Sequence[float]) -> None:
        """One step, each member's rates multiplied by its factor."""
        scale = torch.tensor(factors, dtype=torch.double)
        for parameter in self.parameters:
            if parameter.stacked.grad is not None:
                self.move(parameter, parameter.stacked.grad, parameter.rates * scale)

    def _stack_state(self, parameter: StackedParameter, key: str) -> Tensor:
        """What the members' own optimisers have under this name, zeros where they have none; theirs become views."""
        kept = [
            optimizer.states.setdefault(own, {}) for optimizer, own in zip(self.optimizers, parameter.own, strict=True)
        ]
        found = [of.get(key) for of in kept]
        stacked = torch.stack([torch.zeros_like(parameter.own[0]) if tensor is None else tensor for tensor in found])
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

    def move(self, parameter: StackedParameter, gradient: Tensor, rates: Tensor) -> None:
        gradient = gradient + parameter.stacked * parameter.along(parameter.decays)
        momentum = parameter.along(self.momenta)
        buffer = parameter.state["momentum"].mul_(momentum).add_(gradient)
        moved = torch.where(parameter.along(self.nesterov).bool(), gradient + momentum * buffer, buffer)
        parameter.stacked.sub_(parameter.along(rates) * moved)

    def note_steps(self) -> None:
        """It counts none."""


class StackedAdamW(StackedOptimizer):
    """See `PlainAdamW`."""

    keys = ("mean", "square")

    def __init__(self, optimizers: Sequence[PlainAdamW], find_stack: Callable[[nn.Parameter], Tensor]):
        super().__init__(optimizers, find_stack)
        self.beta1, self.beta2 = torch.tensor([each.betas for each in optimizers], dtype=torch.double).T
        self.eps = torch.tensor([optimizer.eps for optimizer in optimizers], dtype=torch.double)
        self.steps = {parameter: optimizers[0].states[parameter.own[0]].get("step", 0) for parameter in self.parameters}

    def move(self, parameter: StackedParameter, gradient: Tensor, rates: Tensor) -> None:
        taken = self.steps[parameter] = self.steps[parameter] + 1
        parameter.stacked.mul_(parameter.along(1 - rates * parameter.decays))
        mean = parameter.state["mean"].lerp_(gradient, parameter.along(1 - self.beta1))
        square = parameter.state["square"].mul_(parameter.along(self.beta2))
        square.add_(gradient.square().mul_(parameter.along(1 - self.beta2)))
        size = rates / (1 - self.beta1**taken)
        root = (1 - self.beta2**taken).sqrt()
        spread = square.sqrt().div_(parameter.along(root)).add_(parameter.along(self.eps))
        parameter.stacked.sub_((parameter.along(size) * mean).div_(spread))

    def note_steps(self) -> None:
        for parameter, taken in self.steps.items():
            for optimizer, own in zip(self.optimizers, parameter.own, strict=True):
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
