"""Margin disparity discrepancy: an adversarial head agrees with the head on source and differs on target (MDD)."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model, Resources, Terms
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.strength import Strength
from tl_runner.models.heads import perceptron


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
        check_range(0, weight=weight)
        check_range(1, margin=margin)
        check_range(0, hidden=hidden)
        check_range(0, 1, dropout=dropout)
        self.weight, self.margin, self.hidden, self.dropout = weight, margin, hidden, dropout
        self.reversal = Strength(1.0, schedule)

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        if self.hidden:
            model = deepcopy(model)
            with resources.rng.child("head").as_default():
                model.head = self._head(model)
        with resources.rng.child("adversarial head").as_default():
            self.adversary = self._head(model)
        return model, pair

    def _head(self, model: Model) -> nn.Module:
        if not self.hidden:
            return nn.Linear(model.width, len(model.classes))
        return perceptron(model.width, self.hidden, self.dropout, len(model.classes))

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        rows = [len(seen.source), len(seen.target)]
        features = torch.cat([seen.source, seen.target])
        y_source, y_target = model.head(features).argmax(1).split(rows)
        other_source, other_target = self.adversary(losses.reverse(features, self.reversal(progress))).split(rows)
        disparity = self.margin * F.cross_entropy(other_source, y_source) - log_others(other_target, y_target).mean()
        differs_on_source = (other_source.argmax(1) != y_source).float().mean()
        differs_on_target = (other_target.argmax(1) != y_target).float().mean()
        # how well the adversarial head tells the domains, by whether it differs: 0.5 says that it can't
        accuracy = 0.5 * (1.0 - differs_on_source + differs_on_target)
        return Terms({**seen.supervise(), "mdd": self.weight * disparity}, {"discriminator_accuracy": accuracy})
