"""No transfer at all: the baseline that every method must beat."""

from collections.abc import Mapping

from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.tasks import EVERY_TASK


class SourceOnly(Method):
    """Cross-entropy on the source, and on granted target labels if there are any.

    Loss: CE(head(f(x_s)), y_s). The target's inputs are never seen.
    """

    needs = frozenset({"source"})
    tasks = EVERY_TASK

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return model.encode(batch).supervise()
