"""Minimax entropy: a head of prototypes moves towards the target rows, the features gather around it (MME)."""

from collections.abc import Mapping
from copy import deepcopy

from torch import Tensor

from tl_runner.core import Batch, Method, Model, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength
from tl_runner.models.heads import Cosine


class MME(Method):
    """CE(source) + CE(granted) − weight · mean H(softmax(head(reverse(f_t, schedule(p))))), head = w_c · f/‖f‖ / T.

    The head ascends on the entropy of the unlabelled target rows, so that its prototypes w_c move towards them; the
    features descend on it, weighted by schedule(p), and gather around these. As in the authors' code features have
    length 1 and prototypes any; that code takes a step for the labelled rows and then one for the entropy, where here
    both are one step's. Semi-supervised. Saito et al., ICCV 2019.
    """

    needs = frozenset({"source", "target", "granted"})

    def __init__(self, weight: float = 0.1, temperature: float = 0.05, schedule: losses.Schedule = "constant"):
        super().__init__()
        check_range(0, weight=weight)
        check_range(1e-3, temperature=temperature)
        self.weight, self.temperature, self.reversal = weight, temperature, Strength(1.0, schedule)

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        model = deepcopy(model)
        with resources.rng.child("cosine head").as_default():
            model.head = Cosine(model.width, len(model.classes), self.temperature)
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        logits = model.head(losses.reverse(seen.target, self.reversal(progress)))
        return {**seen.supervise(), "mme": -self.weight * losses.uncertainty(logits).mean()}
