"""Fine-tuning that keeps the feature maps of the backbone's stages near the source model's (DELTA)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Encoded, Method, Model, Phase, Resources
from tl_runner.domains import LabelledSplit, Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods.frozen_copy import FrozenCopy
from tl_runner.methods.stage_groups import group_stages, list_trained_stages
from tl_runner.models.heads import linear_classifier
from tl_runner.rng import Rng
from tl_runner.tasks import EVERY_TASK

ROWS = 256  # granted rows by which channels are judged: each channel costs a pass over them


def channels_first(maps: Tensor) -> Tensor:
    """Any stage's maps as (n, channels, positions): images (n, c, h, w), tokens (n, t, c) or vectors (n, d)."""
    return maps.mT if maps.ndim == 3 else maps.flatten(2) if maps.ndim > 3 else maps[..., None]


def drift(now: Tensor, then: Tensor, attention: Tensor) -> Tensor:
    """½ · Σ over rows, mean over positions, of Σ_j C·a_j · (now − then)²_j; (n, C, positions) twice and (C,) -> scalar.

    `attention` sums to 1: the uniform one weighs every channel 1.
    """
    gap = (now.float() - then.float()).square().mean(2).sum(0)
    return 0.5 * len(attention) * (attention * gap).sum()


def supervised_attention(model: Model, granted: LabelledSplit, at: Sequence[str], rng: Rng) -> Iterator[Tensor]:
    """The attention (C,) of each of these stages: softmax_j(CE with channel j of its map set to 0 − CE), see `Delta`.

    By a logistic classifier of the model's features; on all granted rows, or `ROWS` of them drawn at random.
    """
    order = torch.randperm(len(granted.x), generator=rng.child("attention").generator())
    rows = order[:ROWS].to(granted.y.device)
    y = granted.y[rows]
    maps = model.maps(granted.x.take(rows), at=at)
    (features,) = maps[model.stages[-1]]
    head = linear_classifier("logistic", features.cpu(), y.cpu(), len(model.classes), C=1.0).to(features.device)
    for name in at:
        above = [model.backbone.get_submodule(stage) for stage in model.stages[len(model.upto(name)) :]]
        (found,) = maps[name]

        def harm(channel: int, found: Tensor = found, above: Sequence[nn.Module] = above) -> Tensor:
            without = found.clone()
            channels_first(without)[:, channel] = 0.0
            for stage in above:
                without = stage(without)
            return F.cross_entropy(head(without), y)

        each = torch.stack([harm(channel) for channel in range(channels_first(found).shape[1])])
        yield (each - F.cross_entropy(head(features), y)).softmax(0)


def maps_of(seen: Encoded, stages: Sequence[str]) -> Iterator[Tensor]:
    """The granted rows' maps at these stages, (n, C, positions)."""
    return (channels_first(seen.get_map(name, "granted")) for name in stages)


class Delta(Method):
    """CE(granted) + weight · Σ_layers ½ · Σ_x Σ_j C·a_j · ‖map_j(x) − map⁰_j(x)‖² / positions.

    map⁰ is the map of the source model with its running BatchNorm statistics, j its C channels, `layers` the stages
    of the backbone, all that have parameters where none are named. `attention` a is `uniform`, 1/C, or `supervised`:
    a = softmax_j(CE without channel j − CE) of the source model's frozen features under a classifier fitted to
    granted rows, a channel being left out by setting its map to 0. CE is the mean over the batch, the other term its
    sum, as in the authors' code: of a batch of another size the weight means another strength. That code standardises
    the costs of the channels and divides them by 5 before the softmax. Li et al., ICLR 2019.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(
        self,
        weight: float = 0.01,
        layers: Sequence[str] = (),
        attention: Literal["uniform", "supervised"] = "uniform",
    ):
        super().__init__()
        check_range(0, weight=weight)
        self.weight, self.layers = weight, layers
        self.kind: Literal["uniform", "supervised"] = attention

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        self.at = list(dict.fromkeys(self.layers or list_trained_stages(model)))
        if not self.at:
            raise UserError("delta holds the maps of trained stages near the source's, and this backbone has none")
        if self.kind == "supervised" and not pair.classes:
            raise UserError(
                "method.attention=supervised judges channels by a classifier, and there are no classes: set uniform"
            )
        self.source = FrozenCopy(model)
        with torch.no_grad():
            weights = [*self._attention(pair, resources.rng)]
        for index, found in enumerate(weights):
            self.register_buffer(f"attention{index}", found)
        return model, pair

    def _attention(self, pair: Pair, rng: Rng) -> Iterator[Tensor]:
        if self.kind == "supervised":
            return supervised_attention(self.source.net, pair.labels_granted, self.at, rng)
        x = pair.target.train.take(torch.zeros(1, dtype=torch.long))
        maps = self.source.net.maps(x, at=self.at)
        channels = [channels_first(maps[name][0]).shape[1] for name in self.at]
        return (x.new_full((number,), 1 / number) for number in channels)

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("tune", 1.0, group_stages(model))]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch, at=self.at)
        with torch.no_grad():
            then = self.source.net.encode(batch, at=self.at)
        drifts = [
            drift(now, before, self.get_buffer(f"attention{index}"))
            for index, (now, before) in enumerate(zip(maps_of(seen, self.at), maps_of(then, self.at), strict=True))
        ]
        return {**seen.supervise(), "delta": self.weight * torch.stack(drifts).sum()}
