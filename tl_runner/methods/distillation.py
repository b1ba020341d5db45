"""One model that learns what several others say of the target (distillation)."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Method, Model, SourceLabels
from tl_runner.errors import check_range


class Distillation(Method):
    """CE(source) + weight · 1/n Σ_i CE(t_i, q_i) of target rows: q_i is the softmax of a row, t_i what it is taught.

    `teacher` are probabilities (n, C) of the target's training rows, such as the mean prediction of other models
    (Hinton, Vinyals & Dean 2015, at temperature 1). `method=auto` makes this method; it is no option of its own.
    """

    needs = frozenset({"source", "target"})
    teacher: Tensor

    def __init__(self, teacher: Tensor, weight: float = 1.0):
        super().__init__()
        check_range(0, weight=weight)
        self.weight = weight
        self.register_buffer("teacher", teacher)

    @property
    def source_labels(self) -> SourceLabels:
        """Not `throughout`, though it learns from them: they say nothing of what the teacher adds.

        Calibrated on them, an early checkpoint looked best, and cost 2 points on rotation.
        """
        return "start"

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        taught = self.teacher[batch.rows["target"]]
        return {**seen.supervise(), "taught": self.weight * F.cross_entropy(model.head(seen.target), taught)}
