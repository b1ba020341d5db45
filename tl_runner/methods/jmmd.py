"""Deep adaptation by the joint distribution of features and predictions (joint MMD, JAN)."""

from collections.abc import Sequence

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.functional.losses import raise_precision
from tl_runner.functional.mmd import RBF, sum_kernels, weigh_pairs
from tl_runner.methods.discrepancy import Compared, Discrepancy


def jmmd2(layers: Sequence[tuple[Tensor, Tensor]], predictions: tuple[Tensor, Tensor], sigma: float = 0.92) -> Tensor:
    """Squared MMD under the product of the layers' kernels and that of the predictions; (…, n, d)s, (…, m, d)s -> (…).

    A layer's kernel is the sum of RBF kernels of `mmd2`, that of the softmax predictions (…, n, C) and (…, m, C)
    is exp(−‖p−q‖²/2σ²). The V-statistic, which is ≥ 0. Long et al., ICML 2017 (arXiv:1605.06636).
    """
    source, target = predictions
    weights = weigh_pairs(source.shape[-2], target.shape[-2], source)
    return sum_kernels([predictions, *layers], weights, [RBF((2.0,), sigma**2), *(RBF() for _ in layers)])


class JMMD(Discrepancy):
    """CE(source) + weight · schedule(p) · JMMD² of the features and the predictions of both domains: see `jmmd2`."""

    term = "jmmd"
    uses_logits = True

    def __init__(
        self,
        weight: float = 2.0,
        sigma: float = 0.92,
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, layers, normalise, schedule)
        check_range(0.01, sigma=sigma)
        self.sigma = sigma

    def measure(self, compared: Compared) -> Tensor:
        assert compared.logits is not None
        source, target = (raise_precision(side).softmax(-1) for side in compared.logits)
        return jmmd2(compared.layers, (source, target), self.sigma)
