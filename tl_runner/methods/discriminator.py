"""What adversarial adaptation shares: a domain discriminator, which learns to tell source rows from target rows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources, Terms
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.strength import Strength


class Adversarial(Method, ABC):
    """CE(source) + a discriminator's loss; a subclass says what the discriminator sees and what its loss is.

    `weight` is that of the term, `lr_critic` the discriminator's factor of the learning rate, `schedule` that of
    the reversal.
    """

    needs = frozenset({"source", "target"})
    term: ClassVar[str]  # the name of the loss in the curve

    def __init__(self, weight: float, hidden: int, dropout: float, lr_critic: float, schedule: losses.Schedule):
        super().__init__()
        check_range(0, weight=weight, lr_critic=lr_critic)
        check_range(1, hidden=hidden)
        check_range(0, 1, dropout=dropout)
        self.weight, self.hidden, self.dropout, self.lr_critic = weight, hidden, dropout, lr_critic
        self.reversal = Strength(1.0, schedule)

    @abstractmethod
    def discriminator_width(self, model: Model) -> int:
        """How many numbers of a row the discriminator sees."""

    @abstractmethod
    def adversarial_loss(self, model: Model, source: Tensor, target: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The discriminator's loss on these features (n, d), (m, d), which they ascend on, and its accuracy."""

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        with resources.rng.child("critic").as_default():  # the name makes the seed: another would make other weights
            self.discriminator = build_discriminator(self.discriminator_width(model), self.hidden, self.dropout)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        discriminator = Group(self.discriminator.parameters(), lr=self.lr_critic)
        return [Phase("train", 1.0, [Group(model.parameters()), discriminator])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        supervised = seen.supervise()
        loss, accuracy = self.adversarial_loss(model, seen.source, seen.target, progress)
        return Terms({**supervised, self.term: self.weight * loss}, {"discriminator_accuracy": accuracy})


def build_discriminator(width: int, hidden: int, dropout: float) -> nn.Sequential:
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
    """The loss ½·mean_s w·BCE(·, 1) + ½·mean_t w·BCE(·, 0) and the accuracy of a discriminator's logits (n, 1), (m, 1).

    `weights` (n + m,) have mean 1 in each domain. A domain counts for half, however many rows it has: else it
    would learn which has more. An accuracy of one half says that it can't tell the domains.
    """
    n, m = len(source), len(target)
    logits = torch.cat([source, target]).squeeze(1).float()
    domain = torch.cat([logits.new_ones(n), logits.new_zeros(m)])
    half = torch.cat([logits.new_full((n,), (n + m) / (2 * n)), logits.new_full((m,), (n + m) / (2 * m))])
    correct = ((logits > 0) == (domain > 0)).float()
    loss = F.binary_cross_entropy_with_logits(logits, domain, half if weights is None else half * weights)
    return loss, (half * correct).mean()
