"""Deep adaptation by the confusion of the classes on the target (minimum class confusion, MCC)."""

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength

MASS_FLOOR = 1e-6  # a class that no row is given would divide 0 by 0


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """(Σ Ĉ − tr Ĉ)/C, Ĉ = YᵀWY with rows that sum to 1, Y = softmax(logits/T); (…, n, C) -> (…).

    W = n·(1+exp(−H_i)) / Σ_j (1+exp(−H_j)) weighs rows by their certainty, without gradient. 0 where each row is
    given to one class. Jin et al., ECCV 2020 (arXiv:1912.03699).
    """
    with torch.autocast(logits.device.type, enabled=False):
        predicted = (logits.float() / temperature).softmax(-1)
        confusion = (predicted * losses.certainty(predicted)[..., None]).mT @ predicted
        confusion = confusion / confusion.sum(-1, keepdim=True).clamp_min(MASS_FLOOR)
        trace = confusion.diagonal(dim1=-2, dim2=-1).sum(-1)
        return (confusion.sum((-2, -1)) - trace) / logits.shape[-1]


class MCC(Method):
    """CE(source) + weight · schedule(p) · confusion of the target's predictions: see `class_confusion`.

    The metric `predicted_classes` is the number of classes that are predicted in effect: near 1 is collapse.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 1.0, temperature: float = 2.5, schedule: losses.Schedule = "constant"):
        super().__init__()
        check_range(0.01, temperature=temperature)
        self.strength, self.temperature = Strength(weight, schedule), temperature

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        logits = model.head(seen.target)
        return Terms(
            {**seen.supervise(), "mcc": self.strength(progress) * class_confusion(logits, self.temperature)},
            metrics={"predicted_classes": losses.predicted_classes(logits.detach())},
        )
