"""Fine-tuning that shrinks the directions in which features hardly vary (batch spectral shrinkage)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Phase
from tl_runner.errors import UserError, check_range
from tl_runner.methods.stage_groups import group_stages
from tl_runner.tasks import EVERY_TASK


def shrinkage(features: Tensor, k: int) -> Tensor:
    """Σ_{i ≤ k} σ_{−i}², the squares of the k smallest of the min(n, d) singular values; (…, n, d) -> (…), float32.

    Raises `UserError` where there are fewer than k.
    """
    n, d = features.shape[-2:]
    if k > min(n, d):
        raise UserError(
            f"method.k={k} singular values are asked for, and a batch of {n} rows × {d} features has {min(n, d)}"
        )
    with torch.autocast(features.device.type, enabled=False):
        return torch.linalg.svdvals(features.float())[..., -k:].square().sum(-1)  # they come in descending order


class BSS(Method):
    """CE(granted) + weight · Σ_{i ≤ k} σ_{−i}², σ_{−i} the i-th smallest singular value of the batch of features.

    What small singular values carry does not transfer. Chen et al., NeurIPS 2019.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(self, weight: float = 1e-3, k: int = 1):
        super().__init__()
        check_range(0, weight=weight)
        check_range(1, k=k)
        self.weight, self.k = weight, k

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("tune", 1.0, group_stages(model))]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        return {**seen.supervise(), "bss": self.weight * shrinkage(seen.granted, self.k)}
