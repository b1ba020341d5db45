"""Two Gaussians whose density ratio is known, and how well weights rank as it does."""

import numpy as np
import torch
from scipy import stats

MOVE = 0.7  # of the target's mean: p_t/p_s = exp(0.7 x − 0.245) for N(0, 1) and N(0.7, 1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def gaussians(n: int, m: int, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(draw)
    return torch.tensor(rng.normal(size=(n, 1))).float(), torch.tensor(rng.normal(MOVE, size=(m, 1))).float()
