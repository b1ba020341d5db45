"""Adversarial adaptation: features from which a discriminator can't tell the domains (DANN)."""

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.functional import losses
from tl_runner.methods.discriminator import Adversarial, discriminator_loss
from tl_runner.tasks import EVERY_TASK


class DANN(Adversarial):
    """CE(source) + weight · BCE(D(reverse(f, schedule(p))), domain), the domain of source rows being 1.

    D minimises the term; the gradient that reaches the features is reversed and multiplied by λ = schedule(p).
    An accuracy of one half says that it can't tell the domains. The authors' weight is 1; ours, and `dropout`,
    were chosen on the digits. Ganin et al., JMLR 2016.
    """

    term = "adversary"
    tasks = EVERY_TASK

    def __init__(
        self,
        weight: float = 0.2,
        hidden: int = 1024,
        dropout: float = 0.2,
        lr_critic: float = 1.0,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, hidden, dropout, lr_critic, schedule)

    def discriminator_width(self, model: Model) -> int:
        return model.width

    def adversarial_loss(self, model: Model, source: Tensor, target: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        features = losses.reverse(torch.cat([source, target]), self.reversal(progress))
        return discriminator_loss(*self.discriminator(features).split([len(source), len(target)]))
