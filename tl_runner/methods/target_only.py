"""Only the architecture is transferred: what the granted target labels are worth without any source."""

from collections.abc import Mapping

from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.tasks import EVERY_TASK


class TargetOnly(Method):
    """Cross-entropy on the granted target labels: CE(head(f(x_g)), y_g), from scratch.

    `backbone.weights` are ignored, with a warning: with them it would no longer be from scratch.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "scratch"

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return model.encode(batch).supervise()
