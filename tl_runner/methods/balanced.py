"""Source and granted target rows in one loss, each side with a share of it that does not depend on its size."""

from collections.abc import Mapping

from torch import Tensor

from tl_runner.core import Batch, Method, Model, SourceLabels
from tl_runner.errors import check_range
from tl_runner.tasks import EVERY_TASK


class Balanced(Method):
    """(1−γ) · CE(source) + γ · CE(granted): the few granted rows weigh γ in total, all source rows 1−γ.

    γ = 0 learns from the source alone, γ = 1 from the target alone (Ben-David et al., Mach. Learn. 2010, section 5: the
    best α lies in between, and nearer to the target the more labels it has and the farther the domains are apart).
    """

    needs = frozenset({"source", "granted"})
    tasks = EVERY_TASK

    def __init__(self, gamma: float = 0.5):
        super().__init__()
        check_range(0, 1, gamma=gamma)
        self.gamma = gamma

    @property
    def source_labels(self) -> SourceLabels:
        return "throughout" if self.gamma < 1 else "start"  # at 1 they count nothing

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        share = {"source": 1 - self.gamma, "granted": self.gamma}
        return {stream: share[stream] * value for stream, value in model.encode(batch).supervise().items()}
