"""Self-training: what the model is sure of on one view of a target row, it learns on another (FixMatch)."""

import torch

from tl_runner.core import Batch, Model, Terms
from tl_runner.functional import losses
from tl_runner.methods.self_training import SelfTraining, pseudo_label_loss


class FixMatch(SelfTraining):
    """CE(source) + weight · schedule(p) · 1/n Σ_i [max q_i ≥ threshold] · CE(strong view of x_i, argmax q_i).

    q_i is the softmax of the target row as it was drawn, the weak view (`augment=weak` moves it), in a pass of its
    own without gradient. The strong view is `augment.strong_view` at `magnitude`, `flip` its mirror images. The curve
    notes `passed`, the share of rows that are sure enough. Sohn et al., NeurIPS 2020 (arXiv:2001.07685).
    """

    def __init__(
        self,
        weight: float = 1.0,
        threshold: float = 0.95,
        magnitude: float = 0.5,
        flip: bool = False,
        schedule: losses.Schedule = "constant",
    ):
        super().__init__(weight, threshold, magnitude, flip, schedule)

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch.with_inputs(target=self.strong(batch.target)))
        with torch.no_grad():  # after the pass that learns: autocast keeps the weights it casts, here without gradient
            confidence, labels = model(batch.target).float().softmax(-1).max(-1)
        passed = confidence >= self.threshold
        supervised = seen.supervise()
        pseudo = pseudo_label_loss(model.head(seen.target), labels, passed)
        return Terms(
            {**supervised, "pseudo": self.strength(progress) * pseudo}, metrics={"passed": passed.float().mean()}
        )
