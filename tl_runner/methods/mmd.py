"""Deep adaptation by the maximum mean discrepancy of the features (DDC, DAN, "DDAN")."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from tl_runner import losses
from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within


class MMD(Method):
    """CE(source) + weight · ramp(p) · MMD²(f_s, f_t), a sum of RBF kernels: see `losses.mmd2`.

    Tzeng et al. 2014 (arXiv:1412.3474); Long et al., ICML 2015.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 2.0, estimator: Literal["biased", "unbiased"] = "biased"):
        super().__init__()
        within(0, weight=weight)
        self.weight = weight
        self.estimator: Literal["biased", "unbiased"] = estimator

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        gap = losses.mmd2(source, target, estimator=self.estimator)
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, "mmd": self.weight * losses.ramp(progress) * gap}
