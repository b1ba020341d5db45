"""Adversarial discriminative adaptation: a target encoder whose features pass for the source encoder's (ADDA)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.discriminator import critic, discriminator_loss
from tl_runner.methods.frozen_copy import Fixed
from tl_runner.rng import chance_of


class ADDA(Method):
    """BCE(critic(f⁰(x_s)), 1) + BCE(critic(f(x_t)), 0) trains the critic, weight · BCE(critic(f(x_t)), 1) the encoder.

    f⁰ is the source model's encoder as it was; the encoder f starts as its copy and is what is saved, under the source
    model's head, which stays as it is. The critic's loss is the half of the sum of its domains' means. It sees features
    without gradient, the encoder a critic without gradient; the paper alternates the two, here both losses are one
    step's. f's loss is weighted by schedule(p) too, as the critic knows nothing at first. Tzeng et al., CVPR 2017.
    """

    needs = frozenset({"source", "target"})
    keeps_source_task = False  # source rows are for the critic; their labels have done their work
    start = "source"

    def __init__(
        self,
        weight: float = 1.0,
        hidden: int = 1024,
        dropout: float = 0.2,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight)
        within(1, hidden=hidden)
        within(0, 1, dropout=dropout)
        self.weight, self.hidden, self.dropout = weight, hidden, dropout
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.source_model(model)
        requirements.trainable_backbone(model)
        self.source_encoder = Fixed(model.backbone)
        with chance_of(seed, "critic"):
            self.critic = critic(model.width, self.hidden, self.dropout)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("train", 1.0, [Group(model.backbone.parameters()), Group(self.critic.parameters())])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        labelled = batch.only({"granted"}).labelled  # the source's labels have done their work
        target, *granted = model.features(batch.target, *(rows.x for rows in labelled.values()))
        with torch.no_grad():
            source = self.source_encoder.net(batch.source.x)
        loss, self.notes["critic_accuracy"] = discriminator_loss(self.critic(source), self.critic(target.detach()))
        as_it_is = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        taken_for_source = functional_call(self.critic, as_it_is, (target,)).squeeze(1).float()
        fooled = F.binary_cross_entropy_with_logits(taken_for_source, torch.ones_like(taken_for_source))
        return {
            **losses.supervised(model.head, labelled, granted),
            "critic": loss,
            "adversary": self.weight * losses.scheduled(self.schedule, progress) * fooled,
        }
