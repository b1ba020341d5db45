"""Clipping against PyTorch's own."""

import pytest
import torch
from torch import nn

from tl_runner.training.clipping import clip_gradients


def network() -> list[nn.Parameter]:
    """Parameters with gradients of a joint norm above 1, but for the first, which has none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))
    net(torch.randn(16, 7)).square().sum().backward()
    return [nn.Parameter(torch.zeros(3)), *net.parameters()]


@pytest.mark.parametrize("limit", [0.1, 3.0, 1e3])
def test_clipping_is_pytorchs_to_the_last_bit(limit):
    ours, theirs = network(), network()
    clip_gradients(ours, limit)
    norm = nn.utils.clip_grad_norm_(theirs, limit)
    assert 3.0 < norm < 1e3
    assert ours[0].grad is None
    for mine, its in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=0, atol=0)


def test_no_gradient_is_nothing_to_clip():
    clip_gradients([nn.Parameter(torch.zeros(3))], 1.0)
