"""Adaptation without source rows: train BatchNorm's scales and shifts for confident predictions (Tent)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.strength import Strength
from tl_runner.models.batchnorm import batchnorms, renormalise


class Tent(Method):
    """weight · schedule(p) · mean H(q) of target rows, q their softmax, by BatchNorm's scales and shifts alone.

    BatchNorm normalises by the target: by each batch while training, and in evaluation, where the paper continues with
    batches, by the statistics of its training rows. `lr_norm` is the factor of the learning
    rate: a third of the optimiser's 0.003 is the paper's 0.001. The paper passes once over the rows that it is tested
    on, one step a batch; here training rows are passed over for `train.steps`, and other rows are predicted. One pass
    is train.steps = rows / batch: on digits of 8 × 8, 600 rows, it ends at 72.4 % (validation, seeds 100–102, 10
    steps), and 150 steps at 73.1 %. Granted labels join by CE. Wang et al., ICLR 2021 (arXiv:2006.10726).
    """

    needs = frozenset({"target"})
    start = "source"

    def __init__(self, weight: float = 1.0, lr_norm: float = 0.333, schedule: losses.Schedule = "constant"):
        super().__init__()
        check_range(0, lr_norm=lr_norm)
        self.strength, self.lr_norm = Strength(weight, schedule), lr_norm

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.source_model(resources)
        model = deepcopy(model)
        renormalise(model, pair.target.train)
        if not scales_and_shifts(model):
            raise UserError("tent trains BatchNorm's scales and shifts, and those of this backbone have none")
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("adapt", 1.0, [Group(scales_and_shifts(model), lr=self.lr_norm, decay=False)])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        doubt = losses.uncertainty(model.head(seen.target)).mean()
        return {**seen.supervise(), "entropy": self.strength(progress) * doubt}


def scales_and_shifts(model: nn.Module) -> list[nn.Parameter]:
    """BatchNorm's affine parameters γ and β."""
    return [parameter for norm in batchnorms(model) for parameter in norm.parameters()]
