"""Adaptation without source rows: the backbone follows clusters of target rows under the source's head (SHOT)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.strength import Strength
from tl_runner.models.features import iter_batches

FLOOR = 1e-8  # a class that no row is given has no mass to divide by


class SHOT(Method):
    """weight · schedule(p) · (mean H(q) − H(mean q) + beta · CE(q, ŷ)) of target rows, the source's head left as it is.

    q is the softmax of a row: each is to be sure, all together of every class. ŷ is the row's class by `by_centroid`,
    made anew from all target rows at every evaluation. Only the backbone is trained; granted labels join by CE. The
    authors also train the source model with smoothed labels, a bottleneck and a weight-normalised head: here it is the
    one of all methods. Liang, Hu & Feng, ICML 2020 (arXiv:2002.08546).
    """

    needs = frozenset({"target"})
    start = "source"
    labels: Tensor

    def __init__(self, weight: float = 1.0, beta: float = 0.3, schedule: losses.Schedule = "constant"):
        super().__init__()
        check_range(0, beta=beta)
        self.strength, self.beta = Strength(weight, schedule), beta

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.source_model(resources)
        requirements.trainable_backbone(model)
        self.register_buffer("labels", torch.zeros(len(pair.target.train), dtype=torch.long))
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("adapt", 1.0, [Group(model.backbone.parameters())], refresh=self.relabel)]

    def relabel(self, model: Model, pair: Pair) -> None:
        """Give each target row its class anew."""
        model.eval()
        found = torch.cat([model.backbone(x).float() for x in iter_batches(pair.target.train, model.device)])
        self.labels.copy_(by_centroid(found, model.head(found).softmax(-1)))

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        logits, scale = model.head(seen.target), self.strength(progress)
        return {
            **seen.supervise(),
            "information": -scale * losses.logit_information(logits),
            "pseudo": scale * self.beta * F.cross_entropy(logits, self.labels[batch.rows["target"]]),
        }


def by_centroid(features: Tensor, probabilities: Tensor) -> Tensor:
    """The class of each row whose centroid is nearest by its cosine; (n, d), (n, C) -> (n,).

    Centroids are the means of the rows (f, 1) / ‖(f, 1)‖ weighted by the probabilities, and then once again, by the
    classes so found (Liang et al. 2020, equations 4 to 6, on the rows of the authors' code). In each round only the
    classes that some row was predicted as have one: a class that the target lacks would draw rows to a mean of little
    weights of all others.
    """
    rows, weights = losses.extended(features), probabilities
    labels = weights.argmax(-1)
    for _ in range(2):
        predicted = F.one_hot(labels, weights.shape[1]).any(0)
        centroids = weights.T @ rows / weights.sum(0).clamp_min(FLOOR)[:, None]
        cosines = rows @ F.normalize(centroids, dim=-1).T
        labels = cosines.masked_fill(~predicted, -torch.inf).argmax(-1)
        weights = F.one_hot(labels, weights.shape[1]).to(rows.dtype)
    return labels
