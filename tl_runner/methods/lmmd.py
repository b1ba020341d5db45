"""Deep adaptation by the maximum mean discrepancy of each class (local MMD, DSAN)."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.functional import losses
from tl_runner.functional.losses import raise_precision
from tl_runner.functional.mmd import RBF, sum_kernels
from tl_runner.methods.discrepancy import Compared, Discrepancy

MASS_FLOOR = 1e-6  # of a class without a row, whose weights would be 0/0


def lmmd2(source: Tensor, target: Tensor, labels: Tensor, predictions: Tensor) -> Tensor:
    """mean_c ‖Σ_i w_ic φ(s_i) − Σ_j v_jc φ(t_j)‖², φ that of the kernel `RBF`; (…, n, d), (…, m, d) -> (…).

    w_ic = [y_i = c]/n_c by the source's `labels` (…, n), v_jc = p_jc/Σ_j p_jc by the target's `predictions` (…, m, C),
    its softmax probabilities; both without gradient. The mean is over the classes that some source row has and some
    target row is predicted to be, as in the authors' code (the paper's runs over all; there the others are 0/0); it is
    0 where there are none. With one class it is the biased MMD². Zhu et al., TNNLS 2020 (DSAN).
    """
    classes = predictions.shape[-1]
    theirs = raise_precision(predictions.detach())
    mine = F.one_hot(labels, classes).to(theirs.dtype)
    shared = mine.any(-2) & F.one_hot(theirs.argmax(-1), classes).any(-2)
    weights = [side / side.sum(-2, keepdim=True).clamp_min(MASS_FLOOR) for side in (mine, theirs)]
    signed = torch.cat([weights[0], -weights[1]], dim=-2)
    share = shared.to(theirs.dtype) / shared.sum(-1, keepdim=True).clamp_min(1)  # of each class in the mean: (…, C)
    with torch.autocast(signed.device.type, enabled=False):
        pairs = (signed * share[..., None, :]) @ signed.mT
    return sum_kernels([(source, target)], pairs, [RBF()])


class LMMD(Discrepancy):
    """CE(source) + weight · schedule(p) · Σ_layers LMMD²(f_s, f_t): see `lmmd2`.

    The metric `predicted_classes` is the number of classes that are predicted in effect on the target. The authors'
    code weighs it 0.5, ours by default as the other losses, 1.
    """

    term = "lmmd"
    uses_logits = True

    def __init__(
        self,
        weight: float = 1.0,
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__(weight, layers, normalise, schedule)

    def measure(self, compared: Compared) -> Tensor:
        assert compared.logits is not None
        predictions = raise_precision(compared.logits[1].detach()).softmax(-1)
        return compared.add_up(partial(lmmd2, labels=compared.labels, predictions=predictions))

    def describe(self, compared: Compared, distance: Tensor) -> dict[str, Tensor]:
        assert compared.logits is not None
        return {"predicted_classes": losses.predicted_classes(compared.logits[1].detach())}
