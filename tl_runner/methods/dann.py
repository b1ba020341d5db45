"""Adversarial adaptation: features from which a critic can't tell the domains (DANN)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner import losses
from tl_runner.chance import chance_of
from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.methods.critic import critic, judged


class DANN(Method):
    """CE(source) + weight · BCE(critic(reverse(f, schedule(p))), domain), the domain of source rows being 1.

    The critic descends on its loss at full strength; the features ascend on it, weighted by λ = schedule(p).
    A critic accuracy of one half says that it can't tell the domains. Ganin et al., JMLR 2016.
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 0.2,
        hidden: int = 1024,
        dropout: float = 0.2,
        lr_critic: float = 1.0,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight, lr_critic=lr_critic)
        within(1, hidden=hidden)
        within(0, 1, dropout=dropout)
        self.weight, self.hidden, self.dropout, self.lr_critic = weight, hidden, dropout, lr_critic
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        with chance_of(seed, "critic"):
            self.critic = critic(model.width, self.hidden, self.dropout)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        critic = Group(self.critic.parameters(), lr=self.lr_critic)
        return [Phase("train", 1.0, [Group(model.parameters()), critic])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, **self.adversary(model, source, target, progress)}

    def adversary(self, model: Model, source: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """The critic's loss on these features (n, d), (m, d), times the weight."""
        features = losses.reverse(torch.cat([source, target]), losses.scheduled(self.schedule, progress))
        logits = self.critic(features).split([len(source), len(target)])
        loss, self.notes["critic_accuracy"] = judged(*logits)
        return {"adversary": self.weight * loss}
