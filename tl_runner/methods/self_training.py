"""Self-training: what the model is sure of on one view of a target row, it learns on another (FixMatch, AdaMatch)."""

from abc import ABC

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Method, Model, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength
from tl_runner.training.augment import NO_VIEWS, strong_view


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
        check_range(0, threshold=threshold)
        check_range(0, 1, magnitude=magnitude)
        self.strength = Strength(weight, schedule)
        self.threshold, self.magnitude, self.flip = threshold, magnitude, flip

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        if pair.input == "text":
            raise UserError(
                f"{type(self).__name__}: {NO_VIEWS}; mcc, im and shot learn from unlabelled rows without views"
            )
        if self.flip and len(pair.shape) != 3:
            raise UserError("method.flip mirrors images, and these rows are not images")
        return model, pair

    def strong(self, x: Tensor) -> Tensor:
        """A strong view of the rows; its seed is drawn on the CPU, so that nothing waits for the device."""
        return strong_view(x, int(torch.randint(2**31, ())), self.magnitude, self.flip)
