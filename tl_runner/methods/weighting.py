"""Instance transfer: source rows are weighted by how much they look like the target, in the usual cross-entropy.

The weights have mean 1 and are computed once, from unlabelled rows of both domains: their flattened inputs
(`view=inputs`), or the features of the source model, from which training then starts (`view=features`). `order=joint`
trains on the weighted source and on granted labels, where there are some, in one loss; `then_finetune` on the weighted
source over the first half of the steps and on the granted labels over the second. The curve has the weights'
effective number of rows, (Σw)²/Σw². Rows of the source's validation split weigh by the same estimate, so that the
floor by which a checkpoint is chosen is the accuracy on the source as it is weighed.

`Weighting` is what they share; its subclasses say what w is: `weighted.py`, `density_ratio.py`, `kmm.py` and others.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Literal

from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources, SourceLabels, Stream, Terms
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.functional import importance
from tl_runner.methods import requirements
from tl_runner.models.frozen_features import rows_to_compare
from tl_runner.tasks import EVERY_TASK

log = logging.getLogger(__name__)
FEW = 0.05  # of the source's rows
View = Literal["inputs", "features"]
Order = Literal["joint", "then_finetune"]
START: Mapping[View, Literal["backbone", "source"]] = {"inputs": "backbone", "features": "source"}
NEEDS: Mapping[Order, Set[Stream]] = {
    "joint": frozenset({"source"}),
    "then_finetune": frozenset({"source", "granted"}),
}


def count_effective_rows(weights: Tensor) -> Tensor:
    """As `importance.effective_rows`, with a warning where few are left."""
    left = importance.effective_rows(weights)
    if left < FEW * len(weights):
        log.warning(
            "the weights have an effective sample size of %.0f of %d source rows: the domains hardly overlap in the"
            " space compared; see method.view=features, and for density_ratio a smaller method.C", left, len(weights),
        )  # fmt: skip
    return left


def check_folds(folds: int, *sides: Tensor) -> None:
    """Refuse a cross-validation in more parts than there are rows."""
    if (fewest := min(map(len, sides))) < folds:
        raise UserError(f"method.folds={folds} parts of {fewest} rows can't be made")


class Weighting(Method, ABC):
    """CE(source, w) [+ CE(granted)]; a subclass says what w is."""

    tasks = EVERY_TASK

    def __init__(self, view: View, order: Order):
        super().__init__()
        self.view: View = view
        self.order: Order = order
        self.start, self.needs = START[view], NEEDS[order]

    @property
    def source_labels(self) -> SourceLabels:
        return "throughout" if self.order == "joint" else "start"  # then_finetune ends on granted labels alone

    @abstractmethod
    def weights(self, source: Tensor, target: Tensor, seed: int, others: Tensor | None = None) -> Tensor:
        """Of rows (n, d) and (m, d) on the CPU the weights (n,) of the first: finite, none below 0, in any scale.

        With `others` (k, d), source rows that the estimate is not made from, (n + k,): theirs follow.
        """

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        if self.view == "features":
            requirements.trained_features(model, resources)
        source, target, val = rows_to_compare(model, pair, self.view, resources.cache)
        weights, of_val = self.weights(source, target, resources.rng.seed, val).split([len(source), len(val)])
        self.effective_rows = count_effective_rows(weights).to(model.device)  # the loop would bring it at each step
        return model, pair.weighted(weights, of_val)

    def phases(self, model: Model) -> Sequence[Phase]:
        """One phase with all labelled rows, or one with the source's and then one with the granted target's."""
        everything = [Group([*model.parameters()])]
        if self.order == "joint":
            return [Phase("train", 1.0, everything)]
        one_by_one: tuple[Stream, Stream] = ("source", "granted")
        return [Phase(stream, 0.5, everything, streams=frozenset({stream})) for stream in one_by_one]

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        return Terms(model.encode(batch).supervise(), metrics={"effective_rows": self.effective_rows})
