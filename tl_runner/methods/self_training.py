"""Self-training: what the model is sure of on one view of a target row, it learns on another (FixMatch, AdaMatch)."""

from abc import ABC
from collections.abc import Mapping
from copy import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import Refused, within
from tl_runner.functional import losses
from tl_runner.models.batchnorm import keep_statistics
from tl_runner.training.augment import strong_view

FLOOR = 1e-12  # a class that no row of a batch may be has a mean probability of 0


def pseudo_label_loss(logits: Tensor, labels: Tensor, passed: Tensor) -> Tensor:
    """1/n Σ_i passed_i · CE(logits_i, labels_i): over all n rows, those that did not pass count as 0.

    logits (n, C); labels (n,) classes or (n, C) probabilities; passed (n,) booleans.
    """
    return (passed * F.cross_entropy(logits.float(), labels, reduction="none")).mean()


class SelfTraining(Method, ABC):
    """CE(source) + a term of the target's pseudo-labels; a subclass says which rows have some, and which they are."""

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float, threshold: float, magnitude: float, flip: bool, schedule: losses.Schedule):
        super().__init__()
        within(0, weight=weight, threshold=threshold)
        within(0, 1, magnitude=magnitude)
        self.weight, self.threshold, self.magnitude, self.flip = weight, threshold, magnitude, flip
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        if self.flip and len(pair.shape) != 3:
            raise Refused("method.flip mirrors images, and these rows are not images")
        return model, pair

    def strong(self, x: Tensor) -> Tensor:
        """A strong view of the rows; its seed is drawn on the CPU, so that nothing waits for the device."""
        return strong_view(x, int(torch.randint(2**31, ())), self.magnitude, self.flip)


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

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = batch.inputs
        seen = model.features(source, self.strong(target), *granted)
        with torch.no_grad():  # after the pass that learns: autocast keeps the weights it casts, here without gradient
            confidence, labels = model(target).float().softmax(-1).max(-1)
        passed = confidence >= self.threshold
        self.notes["passed"] = passed.float().mean()
        scale = self.weight * losses.scheduled(self.schedule, progress)
        labelled = losses.supervised(model.head, batch.labelled, [seen[0], *seen[2:]])
        return {**labelled, "pseudo": scale * pseudo_label_loss(model.head(seen[1]), labels, passed)}


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

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        model, pair = super().prepare(model, pair, seed)
        model = copy(model)  # the same parameters
        model.batchnorm = "joint"
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
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
        self.notes |= {"sure": sure, "passed": passed.float().mean()}
        scale = self.weight * losses.scheduled(self.schedule, progress)
        labelled: dict[str, Labelled] = {**batch.labelled, "source_strong": batch.source}
        terms = losses.supervised(nn.Identity(), labelled, [weak, *of_granted, strong])
        return {**terms, "pseudo": scale * pseudo_label_loss(strong_target, labels, passed)}


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
