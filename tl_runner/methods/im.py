"""Deep adaptation by the entropies of the target's predictions (information maximisation, entropy minimisation)."""

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength


class IM(Method):
    """CE(source) + weight · schedule(p) · (mean H(p) − H(mean p)), p the target's predictions; see `information`.

    The first part makes each row sure, the second (`diversity`) keeps all classes predicted; without it this is entropy
    minimisation (Grandvalet & Bengio, NIPS 2004), which one class for all rows satisfies. The metric
    `predicted_classes` is the number of classes predicted in effect: near 1 is collapse. Krause et al., NIPS 2010.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 0.1, diversity: bool = True, schedule: losses.Schedule = "ramp"):
        super().__init__()
        self.strength, self.diversity = Strength(weight, schedule), diversity

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        logits = model.head(seen.target)
        doubt = -losses.logit_information(logits) if self.diversity else losses.uncertainty(logits).mean()
        return Terms(
            {**seen.supervise(), "im": self.strength(progress) * doubt},
            metrics={"predicted_classes": losses.predicted_classes(logits.detach())},
        )
