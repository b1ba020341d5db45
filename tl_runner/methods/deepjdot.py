"""Deep adaptation by the optimal transport of features and labels together (DeepJDOT)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.methods.strength import Strength


def joint_cost(source: Tensor, target: Tensor, labels: Tensor, logits: Tensor, alpha: float, label: float) -> Tensor:
    """alpha · ‖s_i − t_j‖² + label · CE(y_i, logits_j) of all pairs: (n, d), (m, d), (n,), (m, C) -> (n, m)."""
    surprise = -logits.float().log_softmax(-1)
    return alpha * losses.squared_distances(source, target) + label * surprise[:, labels].mT


def transport(cost: Tensor) -> Tensor:
    """The plan (n, m) of least total cost, rows of 1/n and columns of 1/m: exact, by POT's network simplex.

    POT works on the CPU: the cost leaves the device and the plan comes back, so each step waits for it.
    """
    import ot

    found = torch.nan_to_num(cost.detach()).double().cpu().numpy()  # a loss that is not finite is for the loop to tell
    return torch.from_numpy(ot.emd([], [], found)).to(cost)


class DeepJDOT(Method):
    """CE(source) + weight · schedule(p) · Σ_ij γ_ij (α · ‖f_i − f_j‖² + λ · CE(y_i, g(f_j))).

    γ is the optimal plan between the batch's source rows i and target rows j under that very cost, anew at each step
    and without gradient. `cost_features` is the paper's α, `cost_labels` its λ, as in the authors'
    code for SVHN -> MNIST: λ is so small that the plan follows the features, and no wrong plan is learnt by heart. That
    code plans by ‖y_i − softmax‖² in place of CE, from a source model on, on batches of 500 source rows with as many of
    each class. Damodaran et al., ECCV 2018.
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 1.0,
        cost_features: float = 0.001,
        cost_labels: float = 1e-4,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        check_range(0, cost_features=cost_features, cost_labels=cost_labels)
        self.strength = Strength(weight, schedule)
        self.cost_features, self.cost_labels = cost_features, cost_labels

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        logits = model.head(seen.target)
        cost = joint_cost(seen.source, seen.target, batch.source.y, logits, self.cost_features, self.cost_labels)
        moved = (transport(cost) * cost).sum()
        return {**seen.supervise(), "deepjdot": self.strength(progress) * moved}
