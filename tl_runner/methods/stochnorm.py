"""Fine-tuning with BatchNorm that takes batch or running statistics by chance (StochNorm)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_runner.core import Batch, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods.stage_groups import group_stages
from tl_runner.tasks import EVERY_TASK

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class StochasticNorm(_BatchNorm):
    """BatchNorm of (n, C, …) whose channels each take, with probability p in a training step, the running statistics.

    y = γ·(x − μ)/√(σ² + ε) + β; μ and σ² of a channel are those of the batch, or the running ones before this batch.
    The running ones move in every step, as BatchNorm's do. In evaluation it is BatchNorm. The authors' code calls p the
    probability of the batch's statistics: 1 − p here.
    """

    def __init__(self, norm: _BatchNorm, p: float):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.load_state_dict(norm.state_dict())
        self.to(cast(Tensor, norm.running_mean))
        self.p = p

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Any number of positions."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        mean, var = (cast(Tensor, running).clone() for running in (self.running_mean, self.running_var))
        by_running = F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        chosen = (torch.rand(self.num_features) < self.p).to(input.device, non_blocking=True)
        shape = (1, -1, *[1] * (input.ndim - 2))
        return torch.where(chosen.view(shape), by_running, super().forward(input))


def stochastic(net: nn.Module, p: float) -> int:
    """Replace every BatchNorm layer of `net`, in place, by a `StochasticNorm` of the same state; returns how many.

    Raises `UserError` for layers that do more than BatchNorm.
    """
    found = 0
    for name, layer in net.named_children():
        if type(layer) in PLAIN and layer.track_running_stats:
            setattr(net, name, StochasticNorm(cast(_BatchNorm, layer), p))
            found += 1
        elif isinstance(layer, _BatchNorm):
            raise UserError(
                f"stochnorm takes the place of BatchNorm with running statistics, and this network has"
                f" {type(layer).__name__}, which is another layer: use method=finetune"
            )
        else:
            found += stochastic(layer, p)
    return found


class StochNorm(Method):
    """CE(granted), the backbone's BatchNorm layers being `StochasticNorm` while it trains.

    What is saved is a network with BatchNorm, of the same parameters and running statistics. Kou et al., NeurIPS 2020.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(self, p: float = 0.5):
        super().__init__()
        check_range(0, 1, p=p)
        self.p = p

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        model = deepcopy(model)
        if not stochastic(model.backbone, self.p):
            raise UserError("stochnorm changes BatchNorm layers, and this backbone has none: use method=finetune")
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("tune", 1.0, group_stages(model))]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return model.encode(batch).supervise()
