"""Instance transfer by a density ratio in closed form (uLSIF)."""

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import kernel_ratio
from tl_runner.methods.weighting import Order, View, Weighting, check_folds


class ULSIF(Weighting):
    """w ≈ p_t/p_s by kernel ridge regression in closed form (uLSIF; Kanamori, Hido & Sugiyama, JMLR 2009).

    `kernel_ratio.ulsif` has the formula, and what it does not share with its authors' code; `centres` is the most
    kernels, `folds` the parts of the cross-validation that chooses their width and the ridge.
    """

    def __init__(self, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"):
        super().__init__(view, order)
        check_range(1, centres=centres)
        check_range(2, 100, folds=folds)
        self.centres, self.folds = centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, source, target)
        return kernel_ratio.ulsif(source, target, seed, self.centres, self.folds, others)
