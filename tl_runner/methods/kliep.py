"""Instance transfer by the density ratio under which the target is likeliest (KLIEP)."""

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import kernel_ratio
from tl_runner.methods.weighting import Order, View, Weighting, check_folds


class KLIEP(Weighting):
    """w ≈ p_t/p_s, the mixture of kernels under which the target is likeliest (KLIEP; Sugiyama et al., NeurIPS 2008).

    `kernel_ratio.kliep` has the formula; `centres` is the most kernels, `folds` the parts of the likelihood
    cross-validation that chooses their width.
    """

    def __init__(self, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        check_range(1, centres=centres)
        check_range(2, 100, folds=folds)
        self.centres, self.folds = centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, target)
        return kernel_ratio.kliep(source, target, seed, self.centres, self.folds, others)
