"""Adversarial adaptation: features from which a critic can't tell the domains (DANN)."""

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.functional import losses
from tl_runner.methods.discriminator import Adversarial, discriminator_loss


class DANN(Adversarial):
    """CE(source) + weight · BCE(critic(reverse(f, schedule(p))), domain), the domain of source rows being 1.

    The critic descends on its loss at full strength; the features ascend on it, weighted by λ = schedule(p).
    A critic accuracy of one half says that it can't tell the domains. The authors' weight is 1; ours, and `dropout`,
    were chosen on the digits. Ganin et al., JMLR 2016.
    """

    def __init__(
        self,
        weight: float = 0.2,
        hidden: int = 1024,
        dropout: float = 0.2,
        lr_critic: float = 1.0,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, hidden, dropout, lr_critic, schedule)

    def columns(self, model: Model) -> int:
        return model.width

    def adversary(self, model: Model, source: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        features = losses.reverse(torch.cat([source, target]), losses.scheduled(self.schedule, progress))
        logits = self.critic(features).split([len(source), len(target)])
        loss, self.notes["critic_accuracy"] = discriminator_loss(*logits)
        return {"adversary": self.weight * loss}
