"""Deep adaptation by the covariances of the features (Deep CORAL)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods.alignment import compare_layers

VARIANTS = {"paper": losses.coral, "domainbed": losses.domainbed_coral}


class CORAL(Method):
    """CE(source) + weight · schedule(p) · Σ_layers d(f_s, f_t), d by `variant`.

    `paper`: ‖C_s − C_t‖²_F / (4d²) (Sun & Saenko 2016, arXiv:1607.01719), which is small: its weight must be
    large. `domainbed`: mean((μ_s−μ_t)²) + mean((C_s−C_t)²) (Gulrajani & Lopez-Paz 2021, arXiv:2007.01434).
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 30.0,
        variant: Literal["paper", "domainbed"] = "paper",
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "constant",
    ):
        super().__init__()
        within(0, weight=weight)
        self.weight, self.layers, self.normalise = weight, layers, normalise
        self.distance = VARIANTS[variant]
        self.schedule: losses.Schedule = schedule

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        labelled, pairs = compare_layers(model, batch, self.layers, self.normalise)
        gap = torch.stack([self.distance(*pair) for pair in pairs]).sum()
        return {**labelled, "coral": self.weight * losses.scheduled(self.schedule, progress) * gap}
