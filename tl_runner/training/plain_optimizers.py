"""SGD and AdamW on a CPU, to the last bit those of `torch.optim`, whose first step would load PyTorch's compiler.

That takes 2.6 s of a process that has run for 5. The arithmetic is torch's for single tensors, in its order: a
`_foreach` kernel does it to each of a list, and spares the calls that a small network's step would mostly be.
"""
# pyright: reportPrivateImportUsage=false

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PlainOptimizer(ABC):
    """What the loop uses of an optimiser: groups of parameters with their rates, a step, and a state to keep.

    `states` holds the tensors of each parameter that has been stepped, in the order of the groups.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]]):
        self.param_groups = [dict(group) for group in groups]
        self.states: dict[Tensor, dict[str, Any]] = {}

    @abstractmethod
    def move(self, parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> None:
        """Step these parameters of the group, in place."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            stepped = {parameter: parameter.grad for parameter in group["params"] if parameter.grad is not None}
            if stepped:
                self.move([*stepped], [*stepped.values()], group)

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """In plain types and tensors: the state by the number of the parameter, over all groups."""
        return {"state": {at: self.states[p] for at, p in enumerate(self._parameters()) if p in self.states}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, which stays as it is."""
        self.states = {
            parameter: {name: value.clone() if isinstance(value, Tensor) else value for name, value in kept.items()}
            for at, parameter in enumerate(self._parameters())
            if (kept := state["state"].get(at)) is not None
        }

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


class PlainSGD(PlainOptimizer):
    """b ← momentum · b + g with g = ∇ + weight_decay · w; w ← w − lr · (g + momentum · b if `nesterov`, else b)."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], momentum: float, nesterov: bool):
        super().__init__(groups)
        self.momentum, self.nesterov = momentum, nesterov

    def move(self, parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> None:
        if group["weight_decay"] != 0:
            gradients = [*torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])]
        if self.momentum != 0:
            for parameter in parameters:
                if parameter not in self.states:
                    self.states[parameter] = {"momentum": torch.zeros_like(parameter)}
            buffers = [self.states[parameter]["momentum"] for parameter in parameters]
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_add_(buffers, gradients)
            gradients = [*torch._foreach_add(gradients, buffers, alpha=self.momentum)] if self.nesterov else buffers
        torch._foreach_add_(parameters, gradients, alpha=-group["lr"])


class PlainAdamW(PlainOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], betas: tuple[float, float], eps: float = 1e-8):
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    def move(self, parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> None:
        for parameter in parameters:
            if parameter not in self.states:
                mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
                self.states[parameter] = {"step": 0, "mean": mean, "square": square}
            self.states[parameter]["step"] += 1
        states, (beta1, beta2), lr = [self.states[parameter] for parameter in parameters], self.betas, group["lr"]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        if group["weight_decay"] != 0:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2 ** state["step"]) ** 0.5 for state in states])
        torch._foreach_add_(roots, self.eps)
        torch._foreach_addcdiv_(parameters, means, roots, [-lr / (1 - beta1 ** state["step"]) for state in states])
