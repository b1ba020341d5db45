"""Fine-tuning that also trains the source's head, on the source classes that a target class resembles (co-tuning)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.methods import requirements
from tl_runner.methods.frozen_copy import FrozenCopy
from tl_runner.methods.stage_groups import group_stages
from tl_runner.models.features import iter_batches


def relation(predicted: Tensor, y: Tensor, classes: int) -> Tensor:
    """p(y_s | y_t) = the mean prediction over the rows of y_t; (n, C_s) probabilities, (n,) -> (classes, C_s).

    The row of a class that has no row is 0: no label asks for it.
    """
    members = F.one_hot(y, classes).to(predicted.dtype)
    return members.T @ predicted / members.sum(0).clamp_min(1.0)[:, None]


class CoTuning(Method):
    """CE(granted) + weight · mean_i −Σ_s p(s | y_i) log q(s | x_i), s the source's classes.

    q are the predictions of the backbone in training under a copy of the source model's head, which trains along at the
    backbone's rate; p(y_s | y_t), see `relation`, is of the source model as it was, on the granted rows: the direct
    approach of You et al., NeurIPS 2020. They calibrate its predictions first, and their code inverts p(y_t | y_s) by a
    classifier that is chosen on validation labels; here few rows are granted.
    """

    needs = frozenset({"granted"})
    start = "source"
    relation: Tensor

    def __init__(self, weight: float = 2.3):
        super().__init__()
        check_range(0, weight=weight)
        self.weight = weight

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        self.source_head = requirements.source_head(resources)
        x, y = pair.labels_granted
        was = FrozenCopy(torch.nn.Sequential(model.backbone, self.source_head)).net
        with torch.no_grad():
            predicted = torch.cat([was(rows).float().softmax(-1) for rows in iter_batches(x, model.device)])
        self.register_buffer("relation", relation(predicted, y, len(model.classes)))
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        head = Group(self.source_head.parameters(), 1.0, of_backbone=True)
        return [Phase("tune", 1.0, [*group_stages(model), head])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        supervised = seen.supervise()
        soft = F.cross_entropy(self.source_head(seen.granted), self.relation[batch.granted.y])
        return {**supervised, "co_tuning": self.weight * soft}
