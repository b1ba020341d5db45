"""The worst of several source domains decides: group distributionally robust optimisation (Group DRO)."""

from torch import Tensor

from tl_runner.core import Batch, Method, Model, Resources, Terms
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.functional import losses
from tl_runner.functional.groups import group_means
from tl_runner.tasks import EVERY_TASK


class GroupDRO(Method):
    """Σ_g q_g · loss_g over the source domains g, where q_g grows by exp(step_size · loss_g): the worst weighs most.

    No row of the target is read: it is for a target that is not known yet (domain generalisation). q is a distribution
    that starts uniform and is multiplied at every step, by exponentiated gradient ascent, for all groups together.
    Sagawa et al., ICLR 2020 (Algorithm 1, which draws one group a step); their groups are those of an attribute.
    """

    tasks = EVERY_TASK
    q: Tensor

    def __init__(self, step_size: float = 0.01):
        super().__init__()
        check_range(0, step_size=step_size)
        self.step_size = step_size

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        source, labels = pair.labelled_source
        if not source.members:
            raise UserError(
                "GroupDRO weighs several source domains, and there is one: name more, as in dataset.source=[a,b]"
            )
        groups = len(source.members)
        self.register_buffer("q", labels.train.new_ones(groups).float() / groups)
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen, rows = model.encode(batch), batch.source
        each = losses.row_losses(model.head(seen.source), rows.y)
        by_group = group_means(each if rows.w is None else rows.w * each, batch.domain, len(self.q))
        grown = self.q * (self.step_size * by_group.detach()).exp()
        self.q = grown / grown.sum()
        supervised = seen.supervise() if "granted" in batch.labelled else {}
        return Terms(
            {**supervised, "source": (self.q * by_group).sum()},
            metrics={"worst": by_group.detach().max(), "largest_q": self.q.max()},
        )
