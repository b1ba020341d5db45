"""Adversarial adaptation: features from which a critic can't tell the domains (DANN)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner import losses
from tl_runner.chance import chance_of
from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within


class DANN(Method):
    """CE(source) + weight · BCE(critic(reverse(f, ramp(p))), domain), the domain of source rows being 1.

    The critic descends on its loss at full strength; the features ascend on it, weighted by λ = ramp(p).
    A critic accuracy of one half says that it can't tell the domains. Ganin et al., JMLR 2016.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 0.2, hidden: int = 1024, dropout: float = 0.2, lr_critic: float = 1.0):
        super().__init__()
        within(0, weight=weight, lr_critic=lr_critic)
        within(1, hidden=hidden)
        within(0, 1, dropout=dropout)
        self.weight, self.hidden, self.dropout, self.lr_critic = weight, hidden, dropout, lr_critic

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        with chance_of(seed, "critic"):
            self.critic = nn.Sequential(
                nn.Linear(model.width, self.hidden),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, self.hidden),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, 1),
            )
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        critic = Group(self.critic.parameters(), lr=self.lr_critic)
        return [Phase("train", 1.0, [Group(model.parameters()), critic])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        logits = self.critic(losses.reverse(torch.cat([source, target]), losses.ramp(progress))).squeeze(1)
        domain = torch.cat([logits.new_ones(len(source)), logits.new_zeros(len(target))])
        self.notes["critic_accuracy"] = ((logits > 0) == (domain > 0)).float().mean()
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, "adversary": self.weight * F.binary_cross_entropy_with_logits(logits, domain)}
