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


def mmd2_by_loops(source: np.ndarray, target: np.ndarray, unbiased: bool) -> float:
    """Gretton et al. 2012, equations (3) and (5), pair by pair in float64; the width as Long et al. take it."""
    joint = np.concatenate([source, target])
    pairs = [(i, j) for i in range(len(joint)) for j in range(len(joint)) if i != j]
    width = np.mean([np.sum((joint[i] - joint[j]) ** 2) for i, j in pairs])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-np.sum((a - b) ** 2) / (scale * width)) for scale in (0.25, 0.5, 1, 2, 4))

    def check_range(rows: np.ndarray) -> float:
        return float(
            np.mean([k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j or not unbiased])
        )

    between = float(np.mean([k(a, b) for a in source for b in target]))
    return check_range(source) + check_range(target) - 2 * between


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_mmd2_equals_the_double_loop(estimator, shift):
    source, target = features(9, 4, 0), features(13, 4, 1, shift)
    expected = mmd2_by_loops(source.double().numpy(), target.double().numpy(), estimator == "unbiased")
    # float32 against float64: a few units in the seventh digit of kernels that sum to about five
    assert losses.mmd2(source, target, estimator=estimator).item() == pytest.approx(expected, abs=5e-6)


def test_mmd2_of_gaussians_is_the_closed_form():
    """E exp(−‖z‖²/w) for z ~ N(δ, 2I) in d dimensions is (1 + 4/w)^(−d/2) · exp(−‖δ‖²/(w + 4))."""
    n, d, shift = 4000, 3, 0.8
    gap = d * shift**2
    width = 2 * d + gap / 2  # half of all pairs are within a domain, half between
    expected = 0.0
    for scale in losses.MMD_SCALES:
        w = scale * width
        expected += 2 * (1 + 4 / w) ** (-d / 2) * (1 - math.exp(-gap / (w + 4)))
    value = losses.mmd2(features(n, d, 0), features(n, d, 1, shift), estimator="unbiased").item()
    assert value == pytest.approx(expected, rel=0.05)  # three standard errors at this n are about 4 %


def test_the_unbiased_mmd2_averages_to_zero_where_source_and_target_are_one():
    values = torch.stack(
        [losses.mmd2(features(16, 3, i), features(16, 3, 10_000 + i), estimator="unbiased") for i in range(400)]
    )
    assert abs(values.mean()) < 3 * values.std() / 20  # three standard errors of the mean of 400
    assert values.min() < 0  # which only an unbiased estimate can be
    biased = losses.mmd2(features(16, 3, 0), features(16, 3, 1))
    assert biased > 0


def test_mmd2_takes_leading_batch_dimensions():
    source, target = torch.randn(2, 3, 8, 5), torch.randn(2, 3, 6, 5)
    for estimator in ("biased", "unbiased"):
        whole = losses.mmd2(source, target, estimator=estimator)
        assert whole.shape == (2, 3)
        torch.testing.assert_close(whole[1, 2], losses.mmd2(source[1, 2], target[1, 2], estimator=estimator))


def test_mmd2_of_collapsed_features_is_zero_with_a_finite_gradient():
    source = torch.ones(8, 4, requires_grad=True)
    value = losses.mmd2(source, torch.ones(8, 4))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert source.grad is not None and torch.isfinite(source.grad).all()


def test_the_width_of_mmd2_carries_no_gradient():
    """Scaling both domains leaves MMD² alone, through a width that follows; the gradient must not know that.

    With a detached width the derivative along the scaling is that of a fixed kernel, which is not zero.
    """
    source, target = features(16, 4, 0), features(16, 4, 1, 2.0)
    scale = torch.ones((), requires_grad=True)
    value = losses.mmd2(source * scale, target * scale)
    value.backward()
    torch.testing.assert_close(value, losses.mmd2(3 * source, 3 * target), rtol=1e-4, atol=1e-5)
    assert scale.grad is not None and abs(scale.grad) > 1e-3


def test_mmd2_refuses_one_row_where_it_is_unbiased():
    with pytest.raises(ValueError, match="at least 2 rows"):
        losses.mmd2(torch.ones(1, 2), torch.ones(4, 2), estimator="unbiased")


def test_distances_far_from_the_origin_keep_their_digits():
    a, b = features(20, 6, 0, shift=1000.0), features(15, 6, 1, shift=1000.0)
    expected = torch.cdist(a.double(), b.double()).square()
    torch.testing.assert_close(losses.squared_distances(a, b).double(), expected, rtol=1e-3, atol=1e-3)


def test_distances_are_float32_under_autocast():
    a = features(8, 4, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.squared_distances(a.bfloat16(), a.bfloat16()).dtype == torch.float32
        assert losses.coral(a.bfloat16(), a.bfloat16()).dtype == torch.float32


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
