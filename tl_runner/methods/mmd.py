"""Deep adaptation by the maximum mean discrepancy of the features (DDC, DAN, "DDAN")."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods.alignment import compare_layers


class MMD(Method):
    """CE(source) + weight · schedule(p) · Σ_layers MMD²(f_s, f_t), a sum of RBF kernels: see `losses.mmd2`.

    Tzeng et al. 2014 (arXiv:1412.3474); Long et al., ICML 2015 (several layers).
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 2.0,
        estimator: losses.Estimator = "biased",
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight)
        self.weight, self.layers, self.normalise = weight, layers, normalise
        self.estimator: losses.Estimator = estimator
        self.schedule: losses.Schedule = schedule

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        labelled, pairs = compare_layers(model, batch, self.layers, self.normalise)
        gap = torch.stack([losses.mmd2(*pair, estimator=self.estimator) for pair in pairs]).sum()
        return {**labelled, "mmd": self.weight * losses.scheduled(self.schedule, progress) * gap}
