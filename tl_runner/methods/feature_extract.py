"""Feature transfer: the backbone is frozen, its features are computed once, and a head is fitted to them."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.models.features import cut_model, gather_rows
from tl_runner.models.frozen_features import freeze_features
from tl_runner.models.heads import Fitted, InverseRegularisation, NumberOfNeighbours, fit_head, settle_head
from tl_runner.tasks import EVERY_TASK

Head = Literal["linear", Fitted]


class FeatureExtract(Method):
    """A head on frozen features of the granted target rows, read at `layer` (a stage; null is the last).

    `linear` is trained by the loop; the others are fitted (`models.heads.fit_head`): `logistic` and `svm`
    with inverse regularisation `C`, `knn` with `k` neighbours, `ncm` by the nearest class mean. A quantity has `ridge`,
    `svm` and `knn`; `auto` is logistic for classes, ridge for a quantity.
    """

    needs = frozenset({"granted"})
    start = "features"
    tasks = EVERY_TASK

    def __init__(
        self,
        head: Head = "auto",
        layer: str | None = None,
        C: InverseRegularisation = 1.0,  # noqa: N803
        k: NumberOfNeighbours = 5,
    ):
        super().__init__()
        check_range(1e-9, C=C)
        check_range(1, k=k)
        self.head: Head = head
        self.layer, self.C, self.k = layer, C, k

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        kind = self.head if self.head == "linear" else settle_head(self.head, model.task, others=["linear"])
        model = cut_model(model, self.layer, pair.shape) if self.layer else model
        model, pair = freeze_features(model, pair, resources.cache)
        if kind != "linear":
            split, labels = pair.labels_granted
            classes, seed = len(model.classes), resources.rng.seed
            model.head = fit_head(kind, gather_rows(split), labels.cpu(), classes, self.C, self.k, seed)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("head", 1.0, [Group(model.head.parameters())], model.stages)] if self.head == "linear" else ()

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return model.encode(batch).supervise()
