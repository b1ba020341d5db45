"""Deep adaptation by the maximum mean discrepancy of the features (DDC, DAN; also published as DDAN)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from tl_runner.functional import losses
from tl_runner.methods.discrepancy import Compared, Discrepancy


class MMD(Discrepancy):
    """CE(source) + weight · schedule(p) · Σ_layers MMD²(f_s, f_t), a sum of RBF kernels: see `losses.mmd2`.

    Tzeng et al. 2014 (arXiv:1412.3474); Long et al., ICML 2015 (several layers).
    """

    term = "mmd"

    def __init__(
        self,
        weight: float = 2.0,
        estimator: losses.Estimator = "biased",
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, layers, normalise, schedule)
        self.mmd2 = partial(losses.mmd2, estimator=estimator)

    def measure(self, compared: Compared) -> Tensor:
        return compared.add_up(self.mmd2)
