"""SGD and AdamW on a CPU, to the last bit those of `torch.optim`, whose first step would load PyTorch's compiler.

That takes 2.6 s of a process that has run for 5. The arithmetic is torch's for single tensors, in its order.
"""

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
        self.states: dict[nn.Parameter, dict[str, Any]] = {}

    @abstractmethod
    def move(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        """Step one parameter, in place."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """In plain types and tensors: the state by the number of the parameter, over all groups."""
        return {"state": {at: self.states[p] for at, p in enumerate(self._parameters()) if p in self.states}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.states = {p: state["state"][at] for at, p in enumerate(self._parameters()) if at in state["state"]}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


class PlainSGD(PlainOptimizer):
    """b ← momentum · b + g with g = ∇ + weight_decay · w; w ← w − lr · (g + momentum · b if `nesterov`, else b)."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], momentum: float, nesterov: bool):
        super().__init__(groups)
        self.momentum, self.nesterov = momentum, nesterov

    def move(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if self.momentum != 0:
            if parameter in self.states:
                buffer = self.states[parameter]["momentum"].mul_(self.momentum).add_(gradient)
            else:
                buffer = gradient.detach().clone()
                self.states[parameter] = {"momentum": buffer}
            gradient = gradient.add(buffer, alpha=self.momentum) if self.nesterov else buffer
        parameter.add_(gradient, alpha=-group["lr"])


class PlainAdamW(PlainOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], betas: tuple[float, float], eps: float = 1e-8):
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    def move(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        if parameter not in self.states:
            mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self.states[parameter] = {"step": 0, "mean": mean, "square": square}
        state, (beta1, beta2), lr = self.states[parameter], self.betas, group["lr"]
        state["step"] += 1
        if group["weight_decay"] != 0:
            parameter.mul_(1 - lr * group["weight_decay"])
        mean, square = state["mean"].lerp_(gradient, 1 - beta1), state["square"]
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = lr / (1 - beta1 ** state["step"])
        root = (1 - beta2 ** state["step"]) ** 0.5
        parameter.addcdiv_(mean, (square.sqrt() / root).add_(self.eps), value=-size)
