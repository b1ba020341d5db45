"""Deep adaptation by the nuclear norm of the target's predictions (batch nuclear-norm maximisation, BNM)."""

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength


def nuclear_norm(logits: Tensor) -> Tensor:
    """‖softmax(logits)‖_* / n, the sum of the singular values of the (n, C) predictions; (…, n, C) -> (…).

    1/√(nC) where all rows are undecided, 1/√n where all are surely of one class, at most √(C/n).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return torch.linalg.svdvals(logits.float().softmax(-1)).sum(-1) / logits.shape[-2]


class BNM(Method):
    """CE(source) − weight · schedule(p) · ‖softmax(target)‖_* / n: predictions that are sure and of many classes.

    The metric `predicted_classes` is their number in effect. Cui et al., CVPR 2020 (arXiv:2003.12237).
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 1.0, schedule: losses.Schedule = "constant"):
        super().__init__()
        self.strength = Strength(weight, schedule)

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        logits = model.head(seen.target)
        return Terms(
            {**seen.supervise(), "bnm": -self.strength(progress) * nuclear_norm(logits)},
            metrics={"predicted_classes": losses.predicted_classes(logits.detach())},
        )
