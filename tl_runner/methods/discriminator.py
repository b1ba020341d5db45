"""What adversarial adaptation shares: a critic, which is to tell source rows from target rows, trained along."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.rng import chance_of


class Adversarial(Method, ABC):
    """CE(source) + an adversary's term; a subclass says what the critic sees and what its loss is.

    `weight` is that of the term, `lr_critic` the critic's factor of the learning rate, `schedule` the reversal's.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float, hidden: int, dropout: float, lr_critic: float, schedule: losses.Schedule):
        super().__init__()
        within(0, weight=weight, lr_critic=lr_critic)
        within(1, hidden=hidden)
        within(0, 1, dropout=dropout)
        self.weight, self.hidden, self.dropout, self.lr_critic = weight, hidden, dropout, lr_critic
        self.schedule: losses.Schedule = schedule

    @abstractmethod
    def columns(self, model: Model) -> int:
        """How many numbers of a row the critic sees."""

    @abstractmethod
    def adversary(self, model: Model, source: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """The critic's loss on these features (n, d), (m, d), times the weight, under a name of its own."""

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        with chance_of(seed, "critic"):
            self.critic = critic(self.columns(model), self.hidden, self.dropout)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        critic = Group(self.critic.parameters(), lr=self.lr_critic)
        return [Phase("train", 1.0, [Group(model.parameters()), critic])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, **self.adversary(model, source, target, progress)}


def critic(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two hidden layers, from rows of `width` columns to one logit: above 0 it says source."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 1),
    )


def discriminator_loss(source: Tensor, target: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A critic's loss ½·mean_s w·BCE(·, 1) + ½·mean_t w·BCE(·, 0) and its accuracy, of its logits (n, 1), (m, 1).

    `weights` (n + m,) have mean 1 in each domain. A domain counts for half, however many rows it has: else a critic
    would learn which has more. An accuracy of one half says that it can't tell the domains.
    """
    n, m = len(source), len(target)
    logits = torch.cat([source, target]).squeeze(1).float()
    domain = torch.cat([logits.new_ones(n), logits.new_zeros(m)])
    half = torch.cat([logits.new_full((n,), (n + m) / (2 * n)), logits.new_full((m,), (n + m) / (2 * m))])
    correct = ((logits > 0) == (domain > 0)).float()
    loss = F.binary_cross_entropy_with_logits(logits, domain, half if weights is None else half * weights)
    return loss, (half * correct).mean()
