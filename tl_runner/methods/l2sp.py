"""Parameter transfer: fine-tuning that holds the parameters near the source model's (L2-SP)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods.stage_groups import group_stages
from tl_runner.models.learning_rates import new_parameters, old_parameters
from tl_runner.tasks import EVERY_TASK


class L2SP(Method):
    """CE(granted) + ½ · weight_backbone · ‖w − w⁰‖² + ½ · weight_head · ‖v‖², in place of weight decay.

    w are the backbone's parameters, w⁰ what they were at the start – in the source model, or as initialised where
    `pretrain.transfer` copies no such stage –, v the head's and a bottleneck's. Li, Grandvalet & Davoine, ICML 2018.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(self, weight_backbone: float = 0.01, weight_head: float = 0.01):
        super().__init__()
        check_range(0, weight_backbone=weight_backbone, weight_head=weight_head)
        self.weight_backbone, self.weight_head = weight_backbone, weight_head

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        start = [parameter.detach().clone() for parameter in old_parameters(model)]
        if not start:
            raise UserError("l2sp holds a backbone's parameters near the source's, and this backbone has none")
        for index, tensor in enumerate(start):
            self.register_buffer(f"start{index}", tensor)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("tune", 1.0, group_stages(model, decay=False))]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        drift = torch.stack(
            [(now - then).square().sum() for now, then in zip(old_parameters(model), self.buffers(), strict=True)]
        ).sum()
        head = torch.stack([p.square().sum() for p in [*model.head.parameters(), *new_parameters(model)]]).sum()
        return {
            **model.encode(batch).supervise(),
            "l2sp": 0.5 * self.weight_backbone * drift,
            "l2_head": 0.5 * self.weight_head * head,
        }
