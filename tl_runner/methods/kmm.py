"""Instance transfer by weights that give the source the target's mean in a kernel's space (KMM)."""

from torch import Tensor

from tl_runner.errors import UserError, check_range
from tl_runner.functional import kernel_ratio
from tl_runner.methods.weighting import Order, View, Weighting

MOST = 20_000  # source rows of kmm, whose kernel then takes 1.6 GB


class KMM(Weighting):
    """w such that the weighted source has the target's mean in a kernel's space (KMM; Huang et al., NeurIPS 2006).

    `kernel_ratio.kmm` has the formula; `bandwidth` is the kernel's, in units of the median distance, `bound` the most
    that a row weighs before the weights are brought to mean 1.
    """

    def __init__(self, bandwidth: float = 1.0, bound: float = 1000.0, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        check_range(1e-6, bandwidth=bandwidth)
        check_range(1, bound=bound)  # below, no weights have mean 1
        self.bandwidth, self.bound = bandwidth, bound

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        if len(source) > MOST:
            raise UserError(
                f"kmm compares every source row with every other, {len(source):,} are too many (at most {MOST:,}):"
                " method=kliep or method=ulsif take any number, or set dataset.samples"
            )
        return kernel_ratio.kmm(source, target, self.bandwidth, self.bound, others)
