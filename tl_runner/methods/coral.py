"""Deep adaptation by the covariances of the features (Deep CORAL)."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from tl_runner.functional import losses
from tl_runner.methods.discrepancy import Compared, Discrepancy
from tl_runner.tasks import EVERY_TASK

VARIANTS = {"paper": losses.coral, "domainbed": losses.domainbed_coral}


class CORAL(Discrepancy):
    """CE(source) + weight · schedule(p) · Σ_layers d(f_s, f_t), d by `variant`.

    `paper`: ‖C_s − C_t‖²_F / (4d²) (Sun & Saenko 2016, arXiv:1607.01719), which is small: its weight must be
    large. `domainbed`: mean((μ_s−μ_t)²) + mean((C_s−C_t)²) (Gulrajani & Lopez-Paz 2021, arXiv:2007.01434).
    """

    term = "coral"
    tasks = EVERY_TASK

    def __init__(
        self,
        weight: float = 30.0,
        variant: Literal["paper", "domainbed"] = "paper",
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "constant",
    ):
        super().__init__(weight, layers, normalise, schedule)
        self.distance = VARIANTS[variant]

    def measure(self, compared: Compared) -> Tensor:
        return compared.add_up(self.distance)
