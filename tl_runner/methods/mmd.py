"""Deep adaptation by the maximum mean discrepancy of the features (DDC, DAN; also published as DDAN)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from tl_runner.functional import losses, mmd
from tl_runner.methods.discrepancy import Compared, Discrepancy
from tl_runner.tasks import EVERY_TASK

TINY = 1e-8  # below which MMD² has no root to differentiate: an unbiased estimate may be negative


class MMD(Discrepancy):
    """CE(source) + weight · schedule(p) · Σ_layers MMD²(f_s, f_t), a sum of RBF kernels: see `mmd.mmd2`.

    Tzeng et al. 2014 (arXiv:1412.3474); Long et al., ICML 2015 (several layers). With `squared=false` each layer adds
    MMD, the root, whose gradient does not vanish as the domains draw near.
    """

    term = "mmd"
    tasks = EVERY_TASK

    def __init__(
        self,
        weight: float = 2.0,
        estimator: mmd.Estimator = "biased",
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
        squared: bool = True,
    ):
        super().__init__(weight, layers, normalise, schedule)
        self.mmd2 = partial(mmd.mmd2, estimator=estimator)
        self.squared = squared

    def measure(self, compared: Compared) -> Tensor:
        return compared.add_up(self.mmd2 if self.squared else self._mmd)

    def _mmd(self, source: Tensor, target: Tensor) -> Tensor:
        return self.mmd2(source, target).clamp_min(TINY).sqrt()
