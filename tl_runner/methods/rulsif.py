"""Instance transfer by a bounded density ratio (RuLSIF)."""

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import kernel_ratio
from tl_runner.methods.weighting import Order, View, Weighting, check_folds


class RULSIF(Weighting):
    """w ≈ p_t / (α p_t + (1−α) p_s), which no more than 1/α can weigh (RuLSIF; Yamada et al., NeurIPS 2011).

    `kernel_ratio.rulsif` has the formula; α = 0 is uLSIF, `centres` and `folds` are as there.
    """

    def __init__(
        self, alpha: float = 0.1, centres: int = 100, folds: int = 5, view: View = "inputs", order: Order = "joint"
    ):
        super().__init__(view, order)
        check_range(0, 0.99, alpha=alpha)  # at 1 all rows weigh the same
        check_range(1, centres=centres)
        check_range(2, 100, folds=folds)
        self.alpha, self.centres, self.folds = alpha, centres, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, source, target)
        return kernel_ratio.rulsif(source, target, seed, self.alpha, self.centres, self.folds, others)
