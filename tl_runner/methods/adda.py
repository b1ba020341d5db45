"""Adversarial discriminative adaptation: a target encoder whose features look like the source encoder's (ADDA)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.func import functional_call

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources, SourceLabels, Terms
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.discriminator import build_discriminator, discriminator_loss
from tl_runner.methods.frozen_copy import FrozenCopy
from tl_runner.methods.strength import Strength


class ADDA(Method):
    """BCE(D(f⁰(x_s)), 1) + BCE(D(f(x_t)), 0) trains the discriminator, weight · BCE(D(f(x_t)), 1) the encoder.

    f⁰ is the source model's encoder as it was; the encoder f starts as its copy and is what is saved, under the source
    model's head, which stays as it is. D's loss is the half of the sum of its domains' means. It sees features without
    gradient, the encoder a D without gradient; the paper alternates the two, here both losses are one step's. f's loss
    is weighted by schedule(p) too, as D knows nothing at first. Tzeng et al., CVPR 2017.
    """

    needs = frozenset({"source", "target"})
    start = "source"

    def __init__(
        self,
        weight: float = 1.0,
        hidden: int = 1024,
        dropout: float = 0.2,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        check_range(1, hidden=hidden)
        check_range(0, 1, dropout=dropout)
        self.strength, self.hidden, self.dropout = Strength(weight, schedule), hidden, dropout

    @property
    def source_labels(self) -> SourceLabels:
        return "start"  # source rows are for the discriminator; their labels have done their work

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.source_model(resources)
        requirements.trainable_backbone(model)
        self.source_encoder = FrozenCopy(model.backbone)
        with resources.rng.child("critic").as_default():  # the name makes the seed: another would make other weights
            self.discriminator = build_discriminator(model.width, self.hidden, self.dropout)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("train", 1.0, [Group(model.backbone.parameters()), Group(self.discriminator.parameters())])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch.only({"target", "granted"}))
        with torch.no_grad():
            source = self.source_encoder.net(batch.source.x)
        loss, accuracy = discriminator_loss(self.discriminator(source), self.discriminator(seen.target.detach()))
        as_it_is = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        taken_for_source = functional_call(self.discriminator, as_it_is, (seen.target,)).squeeze(1).float()
        fooled = F.binary_cross_entropy_with_logits(taken_for_source, torch.ones_like(taken_for_source))
        return Terms(
            {**seen.supervise(), "discriminator": loss, "adversary": self.strength(progress) * fooled},
            metrics={"discriminator_accuracy": accuracy},
        )
