"""Instance transfer that keeps some source rows and leaves the others: weights of 1 and 0."""

from typing import Literal

import torch
from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import importance
from tl_runner.methods.weighting import Order, View, Weighting, check_folds

FOLDS = 5  # of the density ratio's cross-fitting


class SampleSelection(Weighting):
    """w = 1 for the share `fraction` of the source rows that are most like the target, 0 for the others.

    `by=distance`: the nearest to any target row. `by=density_ratio`: those with the largest P(t|x)/P(s|x), as
    `importance.density_ratio` has it. Of rows that are alike the first is kept. The rows kept are chosen without their
    labels, so that a class may lose more rows than another (Jiang & Zhai, ACL 2007, prune by labels instead).
    """

    def __init__(
        self,
        by: Literal["distance", "density_ratio"] = "distance",
        fraction: float = 0.5,
        view: View = "inputs",
        order: Order = "joint",
    ):
        super().__init__(view, order)
        check_range(1e-6, 1, fraction=fraction)
        self.by, self.fraction = by, fraction

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        n = len(source)
        if self.by == "distance":
            unlike = importance.by_distance(source, target, "distance", others=others)
        else:
            check_folds(FOLDS, source, target)
            unlike = -importance.density_ratio(source, target, seed, folds=FOLDS, others=others)
        kept = unlike[:n].argsort(stable=True)[: max(1, round(self.fraction * n))]
        chosen = torch.zeros(n).index_fill(0, kept, 1.0)
        return torch.cat([chosen, (unlike[n:] <= unlike[kept[-1]]).float()])  # others as far as the last one kept
