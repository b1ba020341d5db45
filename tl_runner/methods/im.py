"""Deep adaptation by the entropies of the target's predictions (information maximisation, entropy minimisation)."""

from collections.abc import Mapping

from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within
from tl_runner.functional import losses


class IM(Method):
    """CE(source) + weight · schedule(p) · (mean H(p) − H(mean p)), p the target's predictions; see `information`.

    The first part makes each row sure, the second (`diversity`) keeps all classes predicted; without it this is entropy
    minimisation (Grandvalet & Bengio, NIPS 2004), which one class for all rows satisfies. The note `predicted_classes`
    is the number of classes that are predicted in effect: near 1 is collapse. Krause et al., NIPS 2010.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 0.1, diversity: bool = True, schedule: losses.Schedule = "ramp"):
        super().__init__()
        within(0, weight=weight)
        self.weight, self.diversity = weight, diversity
        self.schedule: losses.Schedule = schedule

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        source, target, *granted = model.features(*batch.inputs)
        logits = model.head(target)
        self.notes["predicted_classes"] = losses.predicted_classes(logits.detach())
        found = -losses.information(logits) if self.diversity else losses.uncertainty(logits).mean()
        labelled = losses.supervised(model.head, batch.labelled, [source, *granted])
        return {**labelled, "im": self.weight * losses.scheduled(self.schedule, progress) * found}
