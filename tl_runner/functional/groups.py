"""Rows that fall into groups: a mean for each."""

import torch.nn.functional as F
from torch import Tensor


def group_means(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """The mean of the rows x (n, …) of each group, (groups, …); 0 of one without rows. `group` (n,) is their number."""
    member = F.one_hot(group, groups).T.to(x.dtype)  # a product, and no indexing: nothing waits for the device
    sums = member @ x.flatten(1) if x.ndim > 1 else member @ x
    counts = member.sum(1).clamp_min(1).view(-1, *[1] * (x.ndim - 1))
    return sums.view(groups, *x.shape[1:]) / counts
