"""Self-training by pseudo-labels that are as frequent as the source's classes (AdaMatch)."""

from copy import copy
from typing import Literal

import torch
from torch import Tensor, nn

from tl_runner.core import Batch, Model, Resources, Terms
from tl_runner.domains import Labelled, Pair
from tl_runner.functional import losses
from tl_runner.methods.self_training import SelfTraining, pseudo_label_loss
from tl_runner.models.batchnorm import keep_statistics

FLOOR = 1e-12  # a class that no row of a batch may be has a mean probability of 0


class AdaMatch(SelfTraining):
    """CE(source) + CE(strong source) + weight · schedule(p) · 1/n Σ_i [max q_i ≥ c] · CE(strong view of x_i, q_i).

    Source logits are λz' + (1−λ)z'', λ uniform for each of them: z' of a pass over all rows together, z'' of one over
    the source's alone, which leaves BatchNorm's running statistics. These two passes are the method's own way with
    domains: whatever `train.batchnorm` says, both domains are evaluated by the running statistics of the joint passes.
    q is `align_distribution` of it, without gradient; c is `threshold` times the mean of max softmax over the weak
    source rows; the curve notes it as `sure`, and `passed`, the share of target rows that pass. `labels`: `soft`, q_i
    itself, as the paper writes it, or `hard`, its class, as the authors' code has it. That code also takes class
    frequencies over many batches, and half of each source term. `magnitude` and `flip` as in FixMatch. Berthelot et
    al., ICLR 2022 (arXiv:2106.04732).
    """

    def __init__(
        self,
        weight: float = 1.0,
        threshold: float = 0.9,
        labels: Literal["soft", "hard"] = "soft",
        magnitude: float = 0.5,
        flip: bool = False,
        schedule: losses.Schedule = "cosine",
    ):
        super().__init__(weight, threshold, magnitude, flip, schedule)
        self.labels: Literal["soft", "hard"] = labels

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        model, pair = super().prepare(model, pair, resources)
        model = copy(model)  # the same parameters
        model.batchnorm = "joint"
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        source, target, *granted = batch.inputs
        views = [source, self.strong(source), self.strong(target), target, *granted]
        weak, strong, strong_target, weak_target, *of_granted = _together(model, views)
        with keep_statistics(model):
            alone = _together(model, views[:2])
        weak, strong = (mix_logits(one, other) for one, other in zip((weak, strong), alone, strict=True))
        with torch.no_grad():
            sure_source, guess = (logits.float().softmax(-1) for logits in (weak, weak_target))
            q = align_distribution(guess, sure_source)
            sure = self.threshold * sure_source.amax(-1).mean()
            passed = q.amax(-1) >= sure
            labels = q if self.labels == "soft" else q.argmax(-1)
        labelled: dict[str, Labelled] = {**batch.labelled, "source_strong": batch.source}
        terms = losses.supervised(nn.Identity(), labelled, [weak, *of_granted, strong])
        pseudo = self.strength(progress) * pseudo_label_loss(strong_target, labels, passed)
        return Terms({**terms, "pseudo": pseudo}, metrics={"sure": sure, "passed": passed.float().mean()})


def _together(model: Model, xs: list[Tensor]) -> tuple[Tensor, ...]:
    """The logits of each of these, in one pass over all rows as one batch."""
    return model(torch.cat(xs)).split([len(x) for x in xs])


def mix_logits(one: Tensor, other: Tensor) -> Tensor:
    """λ · one + (1−λ) · other, λ uniform on [0, 1] for each number."""
    share = torch.rand(one.shape).to(one.device, non_blocking=True)
    return share * one + (1 - share) * other


def align_distribution(target: Tensor, source: Tensor) -> Tensor:
    """normalise(q · mean(source) / mean(q)) for each row q of target: its classes become as frequent as the source's.

    Probabilities (n, C), (m, C) -> (n, C); rows sum to 1.
    """
    raised = target * (source.mean(0) / target.mean(0).clamp_min(FLOOR))
    return raised / raised.sum(-1, keepdim=True).clamp_min(FLOOR)
