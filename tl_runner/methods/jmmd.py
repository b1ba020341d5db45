"""Deep adaptation by the joint distribution of features and predictions (joint MMD, JAN)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_runner.core import Batch, Method, Model
from tl_runner.errors import within
from tl_runner.functional import losses
from tl_runner.methods.alignment import HEAD, compare_layers


def jmmd2(layers: Sequence[tuple[Tensor, Tensor]], predictions: tuple[Tensor, Tensor], sigma: float = 0.92) -> Tensor:
    """Squared MMD under the product of the layers' kernels and that of the predictions; (…, n, d)s, (…, m, d)s -> (…).

    A layer's kernel is the sum of RBF kernels of `losses.rbf`, that of the softmax predictions (…, n, C) and (…, m, C)
    is exp(−‖p−q‖²/2σ²). The V-statistic, which is ≥ 0. Long et al., ICML 2017 (arXiv:1605.06636).
    """
    joint = torch.cat(predictions, dim=-2)
    kernel = torch.exp(losses.squared_distances(joint, joint) / (-2.0 * sigma**2))
    for pair in layers:
        kernel = kernel * losses.rbf(torch.cat(pair, dim=-2))
    return losses.mmd2_of(kernel, layers[0][0].shape[-2])


class JMMD(Method):
    """CE(source) + weight · schedule(p) · JMMD² of the features and the predictions of both domains: see `jmmd2`."""

    needs = frozenset({"source", "target"})

    def __init__(
        self,
        weight: float = 2.0,
        sigma: float = 0.92,
        layers: Sequence[str] = (),
        normalise: bool = False,
        schedule: losses.Schedule = "ramp",
    ):
        super().__init__()
        within(0, weight=weight)
        within(0.01, sigma=sigma)
        self.weight, self.sigma, self.layers, self.normalise = weight, sigma, layers, normalise
        self.schedule: losses.Schedule = schedule

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        labelled, (*pairs, logits) = compare_layers(
            model, batch, [*(self.layers or model.stages[-1:]), HEAD], self.normalise
        )
        source, target = (side.float().softmax(-1) for side in logits)
        gap = jmmd2(pairs, (source, target), self.sigma)
        return {**labelled, "jmmd": self.weight * losses.scheduled(self.schedule, progress) * gap}
