"""Maximum classifier discrepancy: two heads differ on target rows as they can, the features avoid it (MCD)."""

from collections.abc import Mapping

from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength


def discrepancy(logits: Tensor, others: Tensor) -> Tensor:
    """The mean over rows and classes of |softmax(a) − softmax(b)|; (n, C), (n, C) -> ()."""
    return (logits.float().softmax(-1) - others.float().softmax(-1)).abs().mean()


class MCD(Method):
    """CE(F₁(f_s)) + CE(F₂(f_s)) − weight · mean |softmax F₁(r) − softmax F₂(r)|, r = reverse(f_t, schedule(p)).

    The heads ascend on their discrepancy on the target, the features descend on it, weighted by schedule(p). The paper
    alternates the two (three kinds of steps, the last repeated); here both are one step, by gradient reversal. F₁ is
    the model's head; F₂ starts elsewhere, learns from the same labels, and is dropped at the end. Both are linear; the
    authors' have two or three layers. Saito et al., CVPR 2018.
    """

    needs = frozenset({"source", "target"})

    def __init__(self, weight: float = 1.0, schedule: losses.Schedule = "ramp"):
        super().__init__()
        check_range(0, weight=weight)
        self.weight, self.reversal = weight, Strength(1.0, schedule)

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        with resources.rng.child("second head").as_default():
            self.second = nn.Linear(model.width, len(model.classes))
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        supervised = seen.supervise()
        second = {f"second_{name}": term for name, term in seen.supervise(self.second).items()}
        target = losses.reverse(seen.target, self.reversal(progress))
        gap = discrepancy(model.head(target), self.second(target))
        return {**supervised, **second, "mcd": -self.weight * gap}
