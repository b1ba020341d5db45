"""Clipping of the gradients by their joint norm."""
# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Scale the gradients, in place, to a joint norm of `limit` where it is larger: ∇ ← ∇ · min(1, limit / ‖∇‖).

    `nn.utils.clip_grad_norm_` to the last bit, at half its cost for a small network, since all parameters are on one
    device. Nothing waits for it. Pascanu et al., ICML 2013.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        norm = torch.linalg.vector_norm(torch.stack([*torch._foreach_norm(gradients)]))
        torch._foreach_mul_(gradients, clipping_factor(limit, norm))


def clipping_factor(limit: float | Tensor, norm: Tensor) -> Tensor:
    """What a gradient of this norm is multiplied by: min(1, limit / ‖∇‖), with torch's 1e-6 beside the norm."""
    return (limit / (norm + 1e-6)).clamp(max=1.0)
