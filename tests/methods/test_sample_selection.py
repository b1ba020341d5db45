"""Selected source rows, and source and granted rows in fixed shares."""

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from support.densities import gaussians
from test_weighted import task

from tl_runner.errors import UserError
from tl_runner.methods.balanced import Balanced
from tl_runner.methods.sample_selection import SampleSelection
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.batches import draw_batch


@pytest.mark.parametrize(("fraction", "kept"), [(0.25, 10), (0.5, 20), (1.0, 40), (1e-6, 1)])
def test_the_rows_nearest_to_the_target_are_kept(fraction, kept):
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(40, 3, generator=generator), 1 + torch.randn(25, 3, generator=generator)
    weights = SampleSelection(fraction=fraction).weights(source, target, 0)
    nearest = cdist(source.double().numpy(), target.double().numpy()).min(1).argsort()
    assert weights.nonzero().squeeze(1).tolist() == sorted(nearest[:kept].tolist())
    assert weights.unique().tolist() == ([0.0, 1.0] if kept < 40 else [1.0])


def test_the_rows_likeliest_under_the_target_are_kept():
    """Of N(0, 1) against N(.7, 1) the ratio grows with x: the larger ones, but for what cross-fitting blurs."""
    source, target = gaussians(400, 300, 0)
    weights = SampleSelection("density_ratio", 0.25).weights(source, target, 0)
    largest = source[:, 0].argsort(descending=True)[:100]
    assert weights.sum() == 100 and weights[largest].sum() > 95


def test_of_rows_that_are_alike_as_many_are_kept():
    same = torch.ones(10, 2)
    assert SampleSelection().weights(same, same[:7], 0).tolist() == 5 * [1.0] + 5 * [0.0]


def test_more_folds_than_rows_are_refused():
    with pytest.raises(UserError, match=r"parts of 4 rows"):
        SampleSelection("density_ratio").weights(torch.randn(9, 1), torch.randn(4, 1), 0)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_each_side_has_its_share_of_the_loss_whatever_its_size(gamma):
    pair, model = task(granted=4)
    batch = draw_batch(pair, {"source", "granted"}, 32, Rng(0), 0, augment.none, torch.device("cpu"))
    assert len(batch.granted.y) < len(batch.source.y) == 32
    terms = Balanced(gamma).terms(model, batch, 0.0)
    sides = [torch.stack([F.cross_entropy(model(x[None]), y[None]) for x, y in zip(side.x, side.y, strict=True)])
             for side in (batch.source, batch.granted)]  # fmt: skip
    torch.testing.assert_close(sum(terms.values()), (1 - gamma) * sides[0].mean() + gamma * sides[1].mean())
    assert set(terms) == {"source", "granted"} and not batch.unread


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(wrong):
    with pytest.raises(UserError, match="gamma must be between 0 and 1"):
        Balanced(wrong)
