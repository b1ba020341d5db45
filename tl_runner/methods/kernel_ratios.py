"""Instance transfer by a density ratio that Gaussian kernels estimate; mathematics: `functional.kernel_ratio`."""

from torch import Tensor

from tl_runner.errors import Refused, within
from tl_runner.functional import kernel_ratio
from tl_runner.methods.weighted import Order, View, Weighting, check_folds

MOST = 20_000  # source rows of kmm, whose kernel then takes 1.6 GB


class ULSIF(Weighting):
    """w ≈ p_t/p_s by kernel ridge regression in closed form (uLSIF; Kanamori, Hido & Sugiyama, JMLR 2009).

    `kernel_ratio.ulsif` has the formula, and what it does not share with its authors' code; `centres` is the most
    kernels, `folds` the parts of the cross-validation that chooses their width and the ridge.
    """

    def __init__(self, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        within(1, centres=centres)
        within(2, 100, folds=folds)
        self.centres, self.folds = centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, source, target)
        return kernel_ratio.ulsif(source, target, seed, self.centres, self.folds, others)


class RULSIF(Weighting):
    """w ≈ p_t / (α p_t + (1−α) p_s), which no more than 1/α can weigh (RuLSIF; Yamada et al., NeurIPS 2011).

    `kernel_ratio.rulsif` has the formula; α = 0 is uLSIF, `centres` and `folds` are as there.
    """

    def __init__(
        self, alpha: float = 0.1, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"
    ):
        super().__init__(view, order)
        within(0, 0.99, alpha=alpha)  # at 1 all rows weigh the same
        within(1, centres=centres)
        within(2, 100, folds=folds)
        self.alpha, self.centres, self.folds = alpha, centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, source, target)
        return kernel_ratio.rulsif(source, target, seed, self.alpha, self.centres, self.folds, others)


class KLIEP(Weighting):
    """w ≈ p_t/p_s, the mixture of kernels under which the target is likeliest (KLIEP; Sugiyama et al., NeurIPS 2008).

    `kernel_ratio.kliep` has the formula; `centres` is the most kernels, `folds` the parts of the likelihood
    cross-validation that chooses their width.
    """

    def __init__(self, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        within(1, centres=centres)
        within(2, 100, folds=folds)
        self.centres, self.folds = centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, target)
        return kernel_ratio.kliep(source, target, seed, self.centres, self.folds, others)


class KMM(Weighting):
    """w such that the weighted source has the target's mean in a kernel's space (KMM; Huang et al., NeurIPS 2006).

    `kernel_ratio.kmm` has the formula; `bandwidth` is the kernel's, in units of the median distance, `bound` the most
    that a row weighs before the weights are brought to mean 1.
    """

    def __init__(self, bandwidth: float = 1.0, bound: float = 1000.0, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        within(1e-6, bandwidth=bandwidth)
        within(1, bound=bound)  # below, no weights have mean 1
        self.bandwidth, self.bound = bandwidth, bound

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        if len(source) > MOST:
            raise Refused(
                f"kmm compares every source row with every other, {len(source):,} are too many (at most {MOST:,}):"
                " method=kliep or method=ulsif take any number, or set dataset.samples"
            )
        return kernel_ratio.kmm(source, target, self.bandwidth, self.bound, others)
