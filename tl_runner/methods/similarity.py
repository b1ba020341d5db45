"""Relational transfer by a regulariser: the distance of the domains, whichever one takes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.functional.distances import DISTANCES, Distance
from tl_runner.methods.alignment import compare_layers


class Similarity(Method):
    """CE(source) + weight · schedule(p) · Σ_layers d(f_s, f_t), d one of `distances.DISTANCES`.

    With `mmd` and `coral` it is what the methods of these names do, at another weight. The note `distance` is the sum.
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        distance: Distance = "wasserstein",
        weight: float = 1.0,
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight)
        self.weight, self.layers, self.normalise = weight, layers, normalise
        self.distance: Distance = distance
        self.schedule: losses.Schedule = schedule

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        labelled, pairs = compare_layers(model, batch, self.layers, self.normalise)
        found = torch.stack([DISTANCES[self.distance](*pair) for pair in pairs]).sum()
        self.notes["distance"] = found.detach()
        return {**labelled, "similarity": self.weight * losses.scheduled(self.schedule, progress) * found}
