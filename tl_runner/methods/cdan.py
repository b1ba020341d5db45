"""Conditional adversarial adaptation: the discriminator sees features with predictions (CDAN, CDAN+E)."""

import torch
from torch import Tensor

from tl_runner.core import Model, Resources
from tl_runner.domains import Pair
from tl_runner.functional import losses
from tl_runner.methods.discriminator import Adversarial, discriminator_loss

LARGEST, RANDOMISED = 4096, 1024  # columns up to which the product is taken whole; of its map


def multilinear(features: Tensor, predictions: Tensor) -> Tensor:
    """f ⊗ g row by row, (n, d), (n, C) -> (n, d·C): all products f_i g_j, those of one f_i together."""
    return (features[:, :, None] * predictions[:, None, :]).flatten(1)


class CDAN(Adversarial):
    """CE(source) + weight · BCE(D(reverse(f, schedule(p)) ⊗ g), domain), g = softmax(logits) without gradient.

    `entropy` (CDAN+E) weighs the rows of each domain by 1 + exp(−H(g)), with mean 1 and without gradient. Where the
    product has more than 4096 columns its place is taken by (R_f f) ∘ (R_g g) / √1024, with fixed standard normal
    matrices R_f (d, 1024) and R_g (C, 1024): inner products are kept in expectation. Long et al., NeurIPS 2018.
    """

    term = "conditional_adversary"
    of_features: Tensor
    of_predictions: Tensor

    def __init__(
        self,
        weight: float = 0.2,
        entropy: bool = True,
        hidden: int = 1024,
        dropout: float = 0.2,
        lr_critic: float = 1.0,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, hidden, dropout, lr_critic, schedule)
        self.entropy = entropy

    def discriminator_width(self, model: Model) -> int:
        return RANDOMISED if self.randomised else model.width * len(model.classes)

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        self.randomised = model.width * len(model.classes) > LARGEST
        if self.randomised:
            with resources.rng.child("multilinear map").as_default():
                self.register_buffer("of_features", torch.randn(model.width, RANDOMISED))
                self.register_buffer("of_predictions", torch.randn(len(model.classes), RANDOMISED))
        return super().prepare(model, pair, resources)

    def adversarial_loss(self, model: Model, source: Tensor, target: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        features, rows = torch.cat([source, target]), [len(source), len(target)]
        predictions = model.head(features).detach().float().softmax(-1)
        features = losses.reverse(features, self.reversal(progress))
        logits = self.discriminator(self.joint(features, predictions)).split(rows)
        weights = torch.cat([losses.certainty(domain) for domain in predictions.split(rows)]) if self.entropy else None
        return discriminator_loss(*logits, weights=weights)

    def joint(self, features: Tensor, predictions: Tensor) -> Tensor:
        """What the discriminator sees of features (n, d) and predictions (n, C): their product, or a map."""
        if not self.randomised:
            return multilinear(features, predictions)
        return (features @ self.of_features) * (predictions @ self.of_predictions) / RANDOMISED**0.5
