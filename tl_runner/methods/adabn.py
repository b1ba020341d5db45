"""Adaptation without source rows and without training: BatchNorm's statistics of the target (AdaBN)."""

from collections.abc import Sequence
from copy import deepcopy

from tl_runner.core import Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods import requirements
from tl_runner.models.batchnorm import ROWS, renormalise
from tl_runner.tasks import EVERY_TASK


class AdaBN(Method):
    """The source model with BatchNorm statistics recomputed on the target's training rows; nothing is trained.

    The mean over batches of `rows` rows of each batch's mean and variance, all layers in one pass, in which each
    normalises by the batch at hand. Li et al. 2016 (arXiv:1603.04779).
    """

    needs = frozenset({"target"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(self, rows: int = ROWS):
        super().__init__()
        check_range(2, rows=rows)
        self.rows = rows

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.source_model(resources)
        if pair.granted is not None:
            raise UserError(
                "adabn uses only statistics of the inputs: granted labels have no effect. Use granted=0, or method=tent"
            )
        model = deepcopy(model)
        renormalise(model, pair.target.train, self.rows)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()
