"""The critic of adversarial adaptation: a network that is to tell source rows from target rows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def critic(width: int, hidden: int, dropout: float, outputs: int = 1) -> nn.Sequential:
    """Two hidden layers, from rows of `width` columns to `outputs` logits; with one, above 0 it says source."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


def judged(source: Tensor, target: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A critic's loss ½·mean_s w·BCE(·, 1) + ½·mean_t w·BCE(·, 0) and its accuracy, of its logits (n, 1), (m, 1).

    `weights` (n + m,) have mean 1 in each domain. A domain counts for half, however many rows it has: else a critic
    would learn which has more. An accuracy of one half says that it can't tell the domains.
    """
    n, m = len(source), len(target)
    logits = torch.cat([source, target]).squeeze(1).float()
    domain = torch.cat([logits.new_ones(n), logits.new_zeros(m)])
    half = torch.cat([logits.new_full((n,), (n + m) / (2 * n)), logits.new_full((m,), (n + m) / (2 * m))])
    correct = ((logits > 0) == (domain > 0)).float()
    loss = F.binary_cross_entropy_with_logits(logits, domain, half if weights is None else half * weights)
    return loss, (half * correct).mean()
