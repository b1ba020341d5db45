"""Averages of the weights over training steps: the run evaluates and saves them in place of the last step's weights.

Training itself goes on with the unaveraged weights. Each phase starts a new average, over the parameters that it
trains; all other weights stay as they are. BatchNorm's running statistics are averaged too, but evaluation measures
them anew with the averaged weights wherever it has rows of the domain (see `models.batchnorm`).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from tl_runner.core import Method, Model
from tl_runner.models.batchnorm import running_statistics
from tl_runner.models.substitution import substitute_tensors

Averaging = Literal["none", "ema", "swa"]


def weigh_ema(step: int, decay: float) -> float:
    """What the weights after a step, counted from 1, have in the exponential average: 1 − min(decay, (1+t)/(10+t)).

    The second lets an average of few steps forget its start: it is of the last t/9 in effect, at most of the last
    1/(1 − decay). Polyak & Juditsky 1992; Tarvainen & Valpola, NeurIPS 2017; Morales-Brotons et al., TMLR 2024. This
    warm-up is that of TensorFlow's `ExponentialMovingAverage`.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


def weigh_swa(step: int, steps: int) -> float:
    """What they have in the equal average over the last quarter of the steps: 1/k in its k-th; before it, 1.

    Stochastic weight averaging: Izmailov et al., UAI 2018, who average at a constant or a cyclic learning rate.
    """
    return 1 / max(1, step - 3 * steps // 4)


class Average:
    """The running average θ̄ ← θ̄ + w_t · (θ_t − θ̄) of what a phase of `steps` steps trains of the model."""

    def __init__(self, model: Model, kind: Averaging, decay: float, steps: int):
        trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
        live = {**trained, **running_statistics(model)}
        self.tensors = {name: tensor.detach().clone() for name, tensor in live.items()}
        self._live = [*live.values()]
        self._kind, self._decay, self._steps = kind, decay, steps

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after this step of the phase, counted from 1; nothing waits for the device."""
        weight = weigh_ema(step, self._decay) if self._kind == "ema" else weigh_swa(step, self._steps)
        if self._live:  # where a phase trains parts of the method alone, there may be none
            mine = [*self.tensors.values()]
            torch._foreach_lerp_(mine, self._live, weight)  # pyright: ignore[reportPrivateImportUsage]

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Continue from the tensors of an interrupted phase."""
        for name, tensor in self.tensors.items():
            tensor.copy_(kept[name])


def settle_weights(model: Model, method: Method, average: Average | None) -> Model:
    """The model that the run examines and saves: of averaged weights, which the method may change; or itself."""
    averaged = average.tensors if average else {}
    trained = {**dict(model.named_parameters()), **averaged}
    settled = {name: tensor for name, tensor in method.settle(trained).items() if tensor is not trained[name]}
    replaced = {**averaged, **settled}
    return substitute_tensors(model, replaced) if replaced else model
