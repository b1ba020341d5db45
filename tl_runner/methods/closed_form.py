"""Closed-form feature alignment: align the features of a frozen source model in one computation, then fit a head.

The head learns from the aligned source rows, and from granted target rows where there are some, each weighing the same.
It is one of `models.heads.fit_head`: logistic, svm (`C`), knn (`k`) or ncm for classes, ridge, svm (`C`) or knn (`k`)
for a quantity; `auto` is logistic or ridge. Nothing is trained by the loop. What moves
source rows is in the pair that `prepare` returns, what all rows then go through is in the model: the recorded source
accuracy is that of aligned rows. The features are the source model's; `pretrain=none backbone=identity` makes them the
inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tl_runner.core import Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.models.features import gather_rows, move_source
from tl_runner.models.frozen_features import freeze_features
from tl_runner.models.heads import Fitted, fit_head, settle_head
from tl_runner.rng import Rng
from tl_runner.tasks import EVERY_TASK

Move = Callable[[Tensor], Tensor]
TINY = 1e-10  # of the largest singular value: a direction below it is none


class ClosedForm(Method, ABC):
    """A head on aligned features; a subclass says what aligns them."""

    needs = frozenset({"source", "target"})
    start = "features"
    tasks = EVERY_TASK

    def __init__(self, head: Fitted, C: float, k: int):  # noqa: N803
        super().__init__()
        check_range(1e-9, C=C)
        check_range(1, k=k)
        self.head: Fitted = head
        self.C, self.k = C, k

    @abstractmethod
    def align(self, source: Tensor, target: Tensor, seed: int) -> tuple[Move | None, nn.Module | None]:
        """Of training rows (n, d) and (m, d), float64: what moves source rows, and what all rows then go through."""

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        kind = settle_head(self.head, model.task)
        model, pair = freeze_features(model, pair, resources.cache)
        source, labels = pair.labelled_source
        move, project = self.align(
            gather_rows(source.train).double(), gather_rows(pair.target.train).double(), resources.rng.seed
        )
        if move:
            pair = move_source(pair, move)
            source, _ = pair.labelled_source
        x, y = gather_rows(source.train), labels.train.cpu()
        if pair.granted is not None:
            x, y = torch.cat([x, gather_rows(pair.granted.x)]), torch.cat([y, pair.granted.y.cpu()])
        with torch.no_grad():
            x = x if project is None else project(x)
            head = fit_head(kind, x, y, len(model.classes), self.C, self.k, resources.rng.seed)
        model.head = head if project is None else nn.Sequential(project, head)  # what all rows go through is part of it
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()


def affine_map(matrix: Tensor, source: Tensor, target: Tensor) -> Move:
    """x ↦ (x − μ_s) · matrix + μ_t, with the means of these rows."""
    before, after = source.mean(0), target.mean(0)

    def move(x: Tensor) -> Tensor:
        return (x - before.to(x)) @ matrix.to(x) + after.to(x)

    return move


def rank(values: Tensor) -> int:
    """How many of these singular values, in falling order, are not 0; one at least."""
    return max(1, int((values > TINY * values[0]).sum()))


def sample_rows(rows: Tensor, limit: int, seed: int, name: str) -> Tensor:
    """At most so many of the rows, drawn at random."""
    return rows[torch.randperm(len(rows), generator=Rng(seed).child("rows", name).generator())[:limit]]
