"""Adaptation without source rows: a source model meets the target's rows alone (SHOT, Tent, AdaBN)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import Refused, within
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.models.batchnorm import ROWS, batchnorms, renormalise
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
    keeps_source_task = False
    start = "source"
    labels: Tensor

    def __init__(self, weight: float = 1.0, beta: float = 0.3, schedule: losses.Schedule = "constant"):
        super().__init__()
        within(0, weight=weight, beta=beta)
        self.weight, self.beta = weight, beta
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.source_model(model)
        requirements.trainable_backbone(model)
        self.register_buffer("labels", torch.zeros(len(pair.target.train), dtype=torch.long))
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("adapt", 1.0, [Group(model.backbone.parameters())])]

    def refresh(self, model: Model, pair: Pair) -> None:
        model.eval()
        found = torch.cat([model.backbone(x).float() for x in iter_batches(pair.target.train, model.device)])
        self.labels.copy_(by_centroid(found, model.head(found).softmax(-1)))

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        target, *granted = model.features(*batch.inputs)
        logits = model.head(target)
        scale = self.weight * losses.scheduled(self.schedule, progress)
        return {
            **losses.supervised(model.head, batch.labelled, granted),
            "information": -scale * losses.information(logits),
            "pseudo": scale * self.beta * F.cross_entropy(logits, self.labels[batch.rows["target"]]),
        }


class Tent(Method):
    """weight · schedule(p) · mean H(q) of target rows, q their softmax, by BatchNorm's scales and shifts alone.

    BatchNorm normalises by the target: by each batch while training, and in evaluation, where the paper goes on with
    batches, by the statistics of its training rows. `lr_norm` is the factor of the learning
    rate: a third of the optimiser's 0.003 is the paper's 0.001. The paper passes once over the rows that it is tested
    on, one step a batch; here training rows are passed over for `train.steps`, and other rows are predicted. One pass
    is train.steps = rows / batch: on digits of 8 × 8, 600 rows, it ends at 72.4 % (validation, seeds 100–102, 10
    steps), and 150 steps at 73.1 %. Granted labels join by CE. Wang et al., ICLR 2021 (arXiv:2006.10726).
    """

    needs = frozenset({"target"})
    keeps_source_task = False
    start = "source"

    def __init__(self, weight: float = 1.0, lr_norm: float = 0.333, schedule: losses.Schedule = "constant"):
        super().__init__()
        within(0, weight=weight, lr_norm=lr_norm)
        self.weight, self.lr_norm = weight, lr_norm
        self.schedule: losses.Schedule = schedule

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.source_model(model)
        model = deepcopy(model)
        renormalise(model, pair.target.train)
        if not scales_and_shifts(model):
            raise Refused("tent trains BatchNorm's scales and shifts, and those of this backbone have none")
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("adapt", 1.0, [Group(scales_and_shifts(model), lr=self.lr_norm, decay=False)])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        target, *granted = model.features(*batch.inputs)
        doubt = losses.uncertainty(model.head(target)).mean()
        scale = self.weight * losses.scheduled(self.schedule, progress)
        return {**losses.supervised(model.head, batch.labelled, granted), "entropy": scale * doubt}


class AdaBN(Method):
    """The source model with BatchNorm's statistics taken anew from the target's training rows; nothing is trained.

    The mean over batches of `rows` rows of each batch's mean and variance, all layers in one pass, in which each
    normalises by the batch at hand. Li et al. 2016 (arXiv:1603.04779).
    """

    needs = frozenset({"target"})
    keeps_source_task = False
    start = "source"

    def __init__(self, rows: int = ROWS):
        super().__init__()
        within(2, rows=rows)
        self.rows = rows

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.source_model(model)
        if pair.granted is not None:
            raise Refused(
                "adabn uses only statistics of the inputs: granted labels have no effect. Use granted=0, or method=tent"
            )
        model = deepcopy(model)
        renormalise(model, pair.target.train, self.rows)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()


def scales_and_shifts(model: nn.Module) -> list[nn.Parameter]:
    """BatchNorm's affine parameters γ and β."""
    return [parameter for norm in batchnorms(model) for parameter in norm.parameters()]


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
