"""Relational transfer by a regulariser: any of several distances between the domains."""

from collections.abc import Sequence

from torch import Tensor

from tl_runner.functional import losses
from tl_runner.functional.distances import DISTANCES, Distance
from tl_runner.methods.discrepancy import Compared, Discrepancy
from tl_runner.tasks import EVERY_TASK


class Similarity(Discrepancy):
    """CE(source) + weight · schedule(p) · Σ_layers d(f_s, f_t), d one of `distances.DISTANCES`.

    With `mmd` and `coral` it is what the methods of these names do, at another weight. `distance` is the sum.
    """

    term = "similarity"
    tasks = EVERY_TASK

    def __init__(
        self,
        distance: Distance = "wasserstein",
        weight: float = 1.0,
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, layers, normalise, schedule)
        self.distance = DISTANCES[distance]

    def measure(self, compared: Compared) -> Tensor:
        return compared.add_up(self.distance)

    def describe(self, compared: Compared, distance: Tensor) -> dict[str, Tensor]:
        return {"distance": distance}
