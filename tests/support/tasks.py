"""Small tasks with their models, and a batch of them, for tests of methods."""

import torch
from torch import nn

from tl_runner.core import Batch, Method, Model, Phase, Resources, SourceModel, Stream
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Pair
from tl_runner.models.backbones import mlp, small
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.batches import draw_batch


def task(granted: str = "0", **options) -> tuple[Pair, Model]:
    pair, _, _ = split_domains(blobs(0, samples=200, **options), 0, Budget.parse(granted), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = mlp(pair.shape, width=8, depth=1)
        return pair, Model(backbone, width, pair.classes)


def images(granted: str) -> tuple[Pair, Model]:
    """A task that every method can serve: images, and a network with BatchNorm that stands for a source model."""
    pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget.parse(granted), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=8, channels=4)
        model = Model(backbone, width, pair.classes)
    return pair, model


def prepare(
    method: Method,
    model: Model,
    pair: Pair,
    seed: int = 0,
    source_head: nn.Module | None = None,
    has_source_model: bool = True,
) -> tuple[Model, Pair]:
    """What the method makes of model and pair; the model stands for a source model too, by its head or another."""
    head = model.head if source_head is None else source_head
    source_model = SourceModel(head, pair.classes) if has_source_model else None
    return method.prepare(model, pair, Resources(Rng(seed), source_model))


def batch_of(method: Method, pair: Pair, phase: Phase | None = None) -> Batch:
    streams: set[Stream] = {*method.needs, "granted"} if pair.granted else {*method.needs}
    said, tasks = (phase.streams or streams, phase.episodes) if phase else (streams, None)
    return draw_batch(pair, said, 16, rng=Rng(0), step=0, augment=augment.none, device=torch.device("cpu"), tasks=tasks)
