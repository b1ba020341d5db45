"""Feature transfer: the backbone is frozen, its features are computed once, and a head is fitted to them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tl_runner import losses
from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import within
from tl_runner.features import at, frozen, whole
from tl_runner.heads import Neighbours, affine, expanded, linear_classifier

Head = Literal["linear", "logistic", "svm", "knn", "ncm"]


class FeatureExtract(Method):
    """A head on frozen features of the granted target rows, read at `layer` (a stage; null is the last).

    `linear` is trained by the loop; the others are fitted at once: `logistic` and `svm` by scikit-learn, with inverse
    regularisation `C` on columns of mean 0 and deviation 1, the scale folded into the head; `knn` by the vote of `k`
    neighbours; `ncm` by the nearest class mean μ_c (logit −‖f − μ_c‖², but for what all classes share).
    """

    needs = frozenset({"granted"})
    start = "source"
    across_labels = True
    once = True

    def __init__(self, head: Head = "logistic", layer: str | None = None, C: float = 1.0, k: int = 5):  # noqa: N803
        super().__init__()
        within(1e-9, C=C)
        within(1, k=k)
        self.head: Head = head
        self.layer, self.C, self.k = layer, C, k

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        model = at(model, self.layer, pair.shape) if self.layer else model
        model, pair = frozen(model, pair)
        if self.head != "linear":
            split, labels = pair.labels_granted
            model.head = self._fitted(whole(split), labels.cpu(), len(model.classes), seed)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("head", 1.0, [Group(model.head.parameters())], model.stages)] if self.head == "linear" else ()

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return losses.supervised(model.head, batch.labelled, model.features(*batch.inputs))

    def _fitted(self, x: Tensor, y: Tensor, classes: int, seed: int) -> nn.Module:
        if self.head in ("logistic", "svm"):
            return linear_classifier(self.head, x, y, classes, self.C, seed)
        if self.head == "knn":
            return Neighbours(x, y, classes, self.k)
        present = y.unique()
        means = torch.stack([x[y == c].double().mean(0) for c in present]).numpy()
        return affine(*expanded(2 * means, -np.square(means).sum(1), present.numpy(), classes))
