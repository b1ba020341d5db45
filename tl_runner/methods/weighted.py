"""Instance transfer by the distance to the nearest target row."""

from typing import Annotated

from torch import Tensor

from tl_runner.errors import check_range
from tl_runner.functional import importance
from tl_runner.methods.weighting import Order, View, Weighting
from tl_runner.options import NoEffect


class Weighted(Weighting):
    """w a function of the distance to the nearest target row: nearer weighs more.

    `mode` is that of `importance.by_distance`: rbf (with `bandwidth` in units of the median distance), inverse, count,
    or distance, the literal form of introductory articles, which favours far rows.
    """

    def __init__(
        self,
        mode: importance.Mode = "rbf",
        bandwidth: Annotated[float, NoEffect("mode", "inverse", "count", "distance")] = 1.0,
        view: View = "inputs",
        order: Order = "joint",
    ):
        super().__init__(view, order)
        check_range(1e-6, bandwidth=bandwidth)
        self.mode: importance.Mode = mode
        self.bandwidth = bandwidth

    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        return importance.by_distance(source, target, self.mode, self.bandwidth, others)
