"""Deep adaptation by features whose norm grows step by step (adaptive feature norm, SAFN)."""

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength


def norm_step(features: Tensor, step: float = 1.0) -> Tensor:
    """mean_i (‖f_i‖ − (‖f_i‖.detach() + Δ))², Δ the step; (…, n, d) -> (…).

    Its value is always Δ²; its gradient, −2Δ·f_i/(n·‖f_i‖), makes every row a little longer than it is.
    """
    lengths = torch.linalg.vector_norm(features.float(), dim=-1)
    return (lengths - (lengths.detach() + step)).square().mean(-1)


def mean_norm(features: Tensor) -> Tensor:
    """mean_i ‖f_i‖, without gradient; (…, n, d) -> (…)."""
    return torch.linalg.vector_norm(features.detach().float(), dim=-1).mean(-1)


class AFN(Method):
    """CE(source) + weight · schedule(p) · (norm step of f_s + norm step of f_t): see `norm_step`.

    The metrics are the mean norms of both sides. The paper's weight is 0.05, under SGD; with AdamW norms grow without
    end, and AFN loses at every weight that was tried (digits, validation, seeds 100–109: 49.5 % at 0.05, 67.4 % at
    0.0005, source-only 70.9 %). Xu et al., ICCV 2019 (arXiv:1811.07456), the stepwise form.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 5e-4, step: float = 1.0, schedule: losses.Schedule = "constant"):
        super().__init__()
        check_range(0, step=step)
        self.strength, self.step = Strength(weight, schedule), step

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        longer = norm_step(seen.source, self.step) + norm_step(seen.target, self.step)
        return Terms(
            {**seen.supervise(), "afn": self.strength(progress) * longer},
            metrics={"norm_source": mean_norm(seen.source), "norm_target": mean_norm(seen.target)},
        )
