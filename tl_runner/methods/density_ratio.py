"""Instance transfer by a logistic regression of the domain."""

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import importance
from tl_runner.methods.weighting import Order, View, Weighting, check_folds


class DensityRatio(Weighting):
    """w(x) = P(t|x)/P(s|x) by a cross-fitted logistic regression of the domain.

    `importance.density_ratio` has the formula; `C` is the prior variance of its log-odds, `folds` the parts of the
    cross-fitting. Bickel, Brückner & Scheffer, JMLR 2009.
    """

    def __init__(self, C: float = 1.0, folds: int = 5, view: View = "inputs", order: Order = "joint"):  # noqa: N803
        super().__init__(view, order)
        check_range(1e-9, C=C)
        check_range(2, 100, folds=folds)
        self.C, self.folds = C, folds

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        check_folds(self.folds, source, target)
        return importance.density_ratio(source, target, seed, self.C, self.folds, others)
