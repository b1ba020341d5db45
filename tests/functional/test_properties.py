"""What must hold of losses, scores and weights whatever the rows are."""

from math import log

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tl_runner.functional import importance, losses, mmd
from tl_runner.functional.importance import Mode

few = settings(derandomize=True, max_examples=30, deadline=None, database=None)


@st.composite
def rows(draw: st.DrawFn, at_least: int = 2, columns: int | None = None) -> Tensor:
    """(n, d) of normal numbers, near 0 or far from it, narrow or wide."""
    n, d, seed = draw(st.integers(at_least, 12)), columns or draw(st.integers(1, 5)), draw(st.integers(0, 2**31))
    scale, centre = draw(st.sampled_from([0.1, 1.0, 30.0])), draw(st.sampled_from([0.0, 1.0, -20.0]))
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + centre


@st.composite
def sides(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    d = draw(st.integers(1, 5))
    return draw(rows(columns=d)), draw(rows(columns=d))


def shuffled(side: Tensor) -> Tensor:
    return side[torch.randperm(len(side), generator=torch.Generator().manual_seed(len(side)))]


@few
@given(sides())
def test_mmd_is_a_squared_distance_of_sets(both):
    source, target = both
    found = mmd.mmd2(source, target)
    assert found >= -1e-5
    assert mmd.mmd2(source, source).abs() < 1e-5
    torch.testing.assert_close(mmd.mmd2(target, source), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mmd.mmd2(shuffled(source), shuffled(target)), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mmd.mmd2(3 * source + 1, 3 * target + 1), found, rtol=1e-2, atol=1e-3)


@few
@given(sides())
def test_the_unbiased_mmd_leaves_out_each_rows_kernel_with_itself(both):
    """Which is 1 a scale, so that the biased one is more by the rest of these means."""
    source, target = both
    n, m = len(source), len(target)
    kernel = mmd.rbf(torch.cat(both))
    within = sum(
        (len(mmd.MMD_SCALES) - (block.sum() - block.trace()) / (k * (k - 1))) / k
        for block, k in ((kernel[:n, :n], n), (kernel[n:, n:], m))
    )
    unbiased = mmd.mmd2(source, target, estimator="unbiased")
    torch.testing.assert_close(mmd.mmd2(source, target) - unbiased, within, rtol=1e-3, atol=1e-4)


@few
@given(sides())
def test_coral_is_a_squared_distance_of_covariances(both):
    source, target = both
    found = losses.coral(source, target)
    size = float(losses.covariance(torch.cat(both)).square().sum()) + 1e-6  # what single precision is relative to
    assert found >= 0 and losses.coral(source, shuffled(source)) < 1e-5 * size
    torch.testing.assert_close(losses.coral(target, source), found)
    torch.testing.assert_close(losses.coral(source + 5, target - 3), found, rtol=1e-2, atol=1e-5 * size)
    torch.testing.assert_close(losses.coral(2 * source, 2 * target), 16 * found, rtol=1e-4, atol=1e-5 * size)
    twice = losses.coral(torch.cat([source, source], -1), torch.cat([target, target], -1))
    torch.testing.assert_close(twice, found, rtol=1e-4, atol=1e-5 * size)  # of four blocks, by four times 4d²


@few
@given(sides(), sides())
def test_leading_dimensions_are_sets_of_their_own(one, other):
    n, m = (min(len(a), len(b)) for a, b in zip(one, other, strict=True))
    d = min(one[0].shape[-1], other[0].shape[-1])
    source = torch.stack([one[0][:n, :d], other[0][:n, :d]])
    target = torch.stack([one[1][:m, :d], other[1][:m, :d]])
    for distance in (mmd.mmd2, losses.coral):
        apart = torch.stack([distance(s, t) for s, t in zip(source, target, strict=True)])
        torch.testing.assert_close(distance(source, target), apart, rtol=1e-4, atol=1e-4)


@few
@given(rows(columns=4))
def test_scores_of_predictions_keep_their_bounds(logits):
    most, probabilities = log(4) + 1e-5, logits.softmax(-1)
    doubt = losses.row_entropy(probabilities)
    assert ((doubt >= 0) & (doubt <= most)).all()
    torch.testing.assert_close(losses.uncertainty(logits), doubt, rtol=1e-3, atol=1e-5)
    assert -1e-5 <= losses.logit_information(logits) <= most
    assert 1 - 1e-5 <= losses.predicted_classes(logits) <= 4 + 1e-4
    assert losses.certainty(probabilities).mean() == pytest.approx(1)
    swapped = logits[:, torch.tensor([2, 0, 3, 1])]  # classes by other names
    torch.testing.assert_close(
        losses.logit_information(swapped), losses.logit_information(logits), rtol=1e-3, atol=1e-5
    )
    assert losses.logit_information(logits[:1]).abs() < 1e-5  # one row tells nothing that its mean does not


@few
@given(sides(), st.sampled_from(["inverse", "rbf", "count", "distance"]))
def test_weights_by_distance_follow_their_rows(both, mode: Mode):
    source, target = both
    assume(float(importance.nearest_rows(source, target)[0].min()) > 0.01)  # else cancellation decides between copies
    found = importance.by_distance(source, target, mode)
    assert found.isfinite().all() and (found >= 0).all() and len(found) == len(source)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    again = importance.by_distance(source[order], shuffled(target), mode)
    torch.testing.assert_close(again, found[order], rtol=1e-2, atol=1e-3)


@few
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.floats(0.1, 10))
def test_effective_rows_are_between_one_and_all(weights, scale):
    found = float(importance.effective_rows(torch.tensor(weights)))
    assert 1 - 1e-4 <= found <= len(weights) + 1e-4
    assert float(importance.effective_rows(scale * torch.tensor(weights))) == pytest.approx(found, rel=1e-4)
    assert float(importance.effective_rows(torch.full((len(weights),), scale))) == pytest.approx(len(weights))


@few
@given(st.floats(0, 1), st.floats(0, 1))
def test_schedules_grow(one, other):
    low, high = sorted([one, other])
    for schedule in ("ramp", "linear", "constant", "cosine"):
        assert 0 <= losses.scheduled(schedule, low) <= losses.scheduled(schedule, high) + 1e-12 <= 1 + 1e-9
