"""Methods that bring the domains' features together: a distance of their rows at one or more layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Encoded, Method, Model, Terms
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength
from tl_runner.models.features import read_out

HEAD = "head"  # the layer of the logits


class Compared(NamedTuple):
    """The rows of both domains that a distance compares: of source (n, d) and target (m, d) at each layer."""

    layers: Sequence[tuple[Tensor, Tensor]]
    labels: Tensor  # (n,), the source's
    logits: tuple[Tensor, Tensor] | None  # (n, C) and (m, C), where the method asks for them

    def add_up(self, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Σ_layers distance(source, target)."""
        return reduce(torch.add, [distance(source, target) for source, target in self.layers])


class Discrepancy(Method, ABC):
    """CE(source) + weight · schedule(p) · d; a subclass says what d measures.

    `layers` are stages of the backbone, whose maps are averaged over their positions, or `head`, the logits; none are
    the features. With `normalise` each row is brought to length 1, but for logits, whose length says how sure they are.
    """

    needs = frozenset({"source", "target"})
    term: ClassVar[str]  # the name of d in the curve
    uses_logits: ClassVar[bool] = False

    def __init__(self, weight: float, layers: Sequence[str], normalise: bool, schedule: losses.Schedule):
        super().__init__()
        self.strength, self.layers, self.normalise = Strength(weight, schedule), layers, normalise

    @abstractmethod
    def measure(self, compared: Compared) -> Tensor:
        """d, a scalar."""

    def describe(self, compared: Compared, distance: Tensor) -> dict[str, Tensor]:
        """Metrics to log beside it."""
        return {}

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch, at=[name for name in self.layers if name != HEAD])
        supervised = seen.supervise()
        layers = [self._compare(layer, seen, model) for layer in self.layers or model.stages[-1:]]
        logits = (model.head(seen.source), model.head(seen.target)) if self.uses_logits else None
        compared = Compared(layers, batch.source.y, logits)
        distance = self.measure(compared)
        return Terms(
            {**supervised, self.term: self.strength(progress) * distance}, self.describe(compared, distance.detach())
        )

    def _compare(self, layer: str, seen: Encoded, model: Model) -> tuple[Tensor, Tensor]:
        if layer == HEAD:
            return model.head(seen.source), model.head(seen.target)
        source, target = read_out(seen.get_map(layer, "source")), read_out(seen.get_map(layer, "target"))
        return (F.normalize(source, dim=-1), F.normalize(target, dim=-1)) if self.normalise else (source, target)
