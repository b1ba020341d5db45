"""Every formula against a closed form or an independent computation, written from the papers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from tl_runner.domains import Labelled
from tl_runner.functional import losses


def features(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_distances_far_from_the_origin_keep_their_digits():
    a, b = features(20, 6, 0, shift=1000.0), features(15, 6, 1, shift=1000.0)
    expected = torch.cdist(a.double(), b.double()).square()
    torch.testing.assert_close(losses.squared_distances(a, b).double(), expected, rtol=1e-3, atol=1e-3)


def test_distances_are_float32_under_autocast():
    a = features(8, 4, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.squared_distances(a.bfloat16(), a.bfloat16()).dtype == torch.float32
        assert losses.coral(a.bfloat16(), a.bfloat16()).dtype == torch.float32


def test_float64_stays_float64_in_value():
    """Relative 1e-12, of which float32 would leave seven digits."""
    a, b = features(8, 4, 0).double() / 3, features(6, 4, 1).double() / 3
    squares = (a[:, None] - b).square().sum(-1)
    torch.testing.assert_close(losses.squared_distances(a, b), squares, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses.covariance(a), a.T.cov(), rtol=1e-12, atol=1e-12)


def test_coral_of_known_covariances():
    """±e_i rows have covariance diag(2/(n−1)); scaled by a and b the distance is known by hand."""
    d = 3
    corners = torch.cat([torch.eye(d), -torch.eye(d)])
    unit = 2 / (2 * d - 1)
    expected = d * (unit * (2.0**2 - 3.0**2)) ** 2 / (4 * d**2)
    assert losses.coral(2 * corners, 3 * corners).item() == pytest.approx(expected, rel=1e-6)
    assert losses.coral(2 * corners + 7, 2 * corners).item() == pytest.approx(0.0, abs=1e-9)  # blind to the mean


def test_coral_and_its_domainbed_form_against_numpy():
    source, target = features(12, 5, 0).double(), features(17, 5, 1, 0.5).double() * 2
    gap = np.cov(source.numpy(), rowvar=False) - np.cov(target.numpy(), rowvar=False)
    assert losses.coral(source, target).item() == pytest.approx(np.sum(gap**2) / (4 * 25), rel=1e-5)
    means = source.numpy().mean(0) - target.numpy().mean(0)
    expected = np.mean(means**2) + np.mean(gap**2)
    assert losses.domainbed_coral(source, target).item() == pytest.approx(expected, rel=1e-5)
    stacked = losses.coral(torch.stack([source[:10]] * 2), torch.stack([target[:10]] * 2))
    assert stacked.shape == (2,)


def test_reverse_is_the_identity_forward_and_flips_the_gradient_exactly():
    x = features(5, 3, 0).requires_grad_()
    y = losses.reverse(x, 0.3)
    assert torch.equal(y, x)
    weights = features(5, 3, 1)
    (y * weights).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, -0.3 * weights)


def test_ramp_goes_from_zero_to_one():
    assert losses.ramp(0.0) == 0.0
    assert losses.ramp(0.1) == pytest.approx(math.tanh(0.5))  # 2/(1+exp(−x)) − 1 = tanh(x/2)
    assert losses.ramp(1.0) == pytest.approx(math.tanh(5.0))


def test_entropy_against_scipy():
    p = torch.softmax(features(7, 4, 0), -1)
    np.testing.assert_allclose(losses.row_entropy(p), stats.entropy(p.numpy(), axis=-1), rtol=1e-5)
    assert losses.row_entropy(torch.tensor([1.0, 0.0])).item() == 0.0


def test_supervised_is_the_cross_entropy_of_each_stream():
    head = nn.Linear(3, 4)
    streams = {
        "source": Labelled(features(6, 3, 0), torch.arange(6) % 4),
        "granted": Labelled(features(2, 3, 1), torch.tensor([3, 0])),
    }
    terms = losses.supervised(head, streams, [rows.x for rows in streams.values()])
    for name, rows in streams.items():
        log_p = F.log_softmax(head(rows.x), -1)
        by_hand = -sum(log_p[i, label] for i, label in enumerate(rows.y)) / len(rows.y)
        torch.testing.assert_close(terms[name], by_hand)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_losses_of_rows_are_torchs_cross_entropy_to_the_bit(half):
    x, weight, w = features(64, 8, 0), features(8, 10, 1).requires_grad_(), features(64, 1, 2)[:, 0]
    y = torch.arange(64) % 10

    def differentiate(loss):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = loss(x @ weight, y)
            return found, *torch.autograd.grad((w * found).mean(), weight)

    found = differentiate(losses.row_losses)
    expected = differentiate(lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
