"""Margin disparity discrepancy: an adversarial head agrees with the head on source and differs on target (MDD)."""

from collections.abc import Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.models.heads import perceptron
from tl_runner.rng import chance_of


def log_others(logits: Tensor, labels: Tensor) -> Tensor:
    """log(1 − softmax(logits)_y) of each row, (n, C), (n,) -> (n,): finite where 1 − p would be 0; C ≥ 2, float32."""
    logits = logits.float()
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.logsumexp(1) - logits.logsumexp(1)


class MDD(Method):
    """CE(source) + weight · (margin · CE(h(r_s), ŷ_s) − mean log(1 − softmax(h(r_t))_ŷt)), r = reverse(f, schedule(p)).

    ŷ are the classes that the model's head predicts, h is an adversarial head on the same features, of the same form:
    both have one layer of `hidden` units with `dropout`, or none at hidden=0, where both are linear. It descends: it
    agrees with the model's on source and differs on target. The features ascend, weighted by schedule(p); the model's
    head gets nothing of it. `margin` is the factor γ (exp ρ of the margin ρ in the paper). Zhang et al., ICML 2019.
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 0.1,
        margin: float = 4.0,
        hidden: int = 1024,
        dropout: float = 0.2,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight)
        within(1, margin=margin)
        within(0, hidden=hidden)
        within(0, 1, dropout=dropout)
        self.weight, self.margin, self.hidden, self.dropout = weight, margin, hidden, dropout
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        if self.hidden:
            model = deepcopy(model)
            with chance_of(seed, "head"):
                model.head = self._head(model)
        with chance_of(seed, "adversarial head"):
            self.adversary = self._head(model)
        return model, pair

    def _head(self, model: Model) -> nn.Module:
        if not self.hidden:
            return nn.Linear(model.width, len(model.classes))
        return perceptron(model.width, self.hidden, self.dropout, len(model.classes))

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        rows = [len(source), len(target)]
        features = torch.cat([source, target])
        source_said, target_said = model.head(features).argmax(1).split(rows)
        strength = losses.scheduled(self.schedule, progress)
        source_other, target_other = self.adversary(losses.reverse(features, strength)).split(rows)
        disparity = (
            self.margin * F.cross_entropy(source_other, source_said) - log_others(target_other, target_said).mean()
        )
        differs = [
            (other.argmax(1) != said).float().mean()
            for other, said in ((source_other, source_said), (target_other, target_said))
        ]
        # how well the adversarial head tells the domains, by whether it differs: 0.5 says that it can't
        self.notes["critic_accuracy"] = 0.5 * (1.0 - differs[0] + differs[1])
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, "mdd": self.weight * disparity}
