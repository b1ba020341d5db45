"""Class shares against a known mixture, closed forms and SciPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from tl_runner.functional.class_shares import (
    ESTIMATORS,
    bbse,
    bootstrap_bbse,
    confusion,
    count_shares,
    fit_bias_and_scale,
    mlls,
    rlls,
)

MEANS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
SOURCE, TARGET = (0.5, 0.3, 0.2), (0.15, 0.25, 0.6)


def rows(n: int, shares: tuple[float, ...], seed: int) -> tuple[Tensor, Tensor]:
    """The posterior under the source's shares of rows of three Gaussian classes with these, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator)
    x = MEANS[y] + torch.randn(n, 2, generator=generator)
    logits = -(x[:, None] - MEANS).square().sum(-1) / 2 + torch.tensor(SOURCE).log()
    return logits.softmax(-1), y


def sharpened(p: Tensor, power: float = 3.0) -> Tensor:
    """The same classes, too sure of themselves."""
    return (power * p.log()).softmax(-1)


@pytest.mark.parametrize("by", ESTIMATORS)
@pytest.mark.parametrize("shares", [SOURCE, TARGET])
def test_known_shares_come_back_also_from_a_model_that_is_too_sure(by, shares):
    """20,000 rows make about ±0.01, whether the shares differ or not."""
    (source, labels), (target, _) = rows(20_000, SOURCE, 0), rows(20_000, shares, 1)
    for change in (lambda p: p, sharpened):
        found = ESTIMATORS[by](change(target), change(source), labels)
        assert found.tolist() == pytest.approx(shares, abs=0.02) and found.sum().item() == pytest.approx(1)


def test_bbse_solves_the_system_of_the_confusion():
    """By hand: the model gets 3 of 4 rows of class 0 right and all of class 1; of 2 target rows it calls one 0."""
    source, labels = torch.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1]], torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert torch.equal(confusion(source, labels), torch.tensor([[0.375, 0.0], [0.125, 0.5]], dtype=torch.double))
    target = torch.eye(2)[[0, 1]]
    assert bbse(target, source, labels).tolist() == pytest.approx([2 / 3, 1 / 3])  # it finds 3/4 of 2/3: one half
    assert bbse(torch.eye(2)[[0, 0]], source, labels).tolist() == [1.0, 0.0]  # clipped: 4/3 and −1/3


def test_rlls_is_the_least_of_its_loss_and_stays_at_the_sources_shares_with_few_rows():
    (source, labels), (target, _) = rows(300, SOURCE, 0), rows(200, TARGET, 1)
    joint, q = confusion(source, labels).numpy(), target.double().mean(0).numpy()
    strength = (1 / 300 + 1 / 200) * float((q * (1 - q)).mean())
    least = minimize(lambda w: ((joint @ w - q) ** 2).sum() + strength * ((w - 1) ** 2).sum(), np.ones(3), tol=1e-14).x
    expected = least * count_shares(labels, 3).numpy()
    np.testing.assert_allclose(rlls(target, source, labels), expected / expected.sum(), atol=1e-5)
    blind = torch.full((5, 3), 1 / 3)  # of a model that tells nothing apart
    y = torch.tensor([0, 0, 1, 1, 2])
    assert rlls(blind, blind, y).tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_mlls_is_the_most_likely_mixture():
    """The shares that maximise Σ log Σ_c π_c p_c / p_s(c), by a grid."""
    (source, labels), (target, _) = rows(500, SOURCE, 0), rows(300, TARGET, 1)
    scale, bias = fit_bias_and_scale(source, labels)
    calibrated = (scale * target.double().log() + bias).softmax(-1) / count_shares(labels, 3)
    a = torch.linspace(0, 1, 201, dtype=torch.double)
    grid = torch.stack([a[:, None].expand(201, 201), a[None].expand(201, 201)], -1).reshape(-1, 2)
    grid = torch.cat([grid, 1 - grid.sum(-1, keepdim=True)], -1)
    grid = grid[(grid >= 0).all(-1)]
    best = grid[(calibrated @ grid.T).log().sum(0).argmax()]
    assert mlls(target, source, labels).tolist() == pytest.approx(best.tolist(), abs=0.01)


def test_calibration_undoes_a_scale_and_a_bias():
    """Of logits that were multiplied by 3 and moved by b, so that β = 1/3 and −b/3 bring them back."""
    p, y = rows(20_000, SOURCE, 0)
    moved = torch.tensor([0.0, 1.0, -2.0])
    scale, bias = fit_bias_and_scale((3 * p.log() + moved).softmax(-1), y)
    assert scale.item() == pytest.approx(1 / 3, rel=0.05)
    found = bias - bias[0] + moved.double() / 3
    assert found.tolist() == pytest.approx([0, 0, 0], abs=0.1)


def test_a_class_without_a_row_has_no_share_to_give():
    """The source has no row of class 2: its share is nobody's to know, and nothing is infinite."""
    source, labels = rows(200, (0.6, 0.4, 0.0), 0)
    target, _ = rows(200, (0.3, 0.7, 0.0), 1)
    for estimate in ESTIMATORS.values():
        found = estimate(target, source, labels)
        assert torch.isfinite(found).all() and found[2] < 0.02 and found[1] > 0.5


def test_the_interval_is_that_of_estimates_on_rows_drawn_again():
    """One draw at a time, from the same seed, by the pseudo-inverse; two rows are of class 2: some draws lack it."""
    (source, labels), (target, _) = rows(60, (0.6, 0.4, 0.0), 3), rows(50, TARGET, 1)
    labels[:2] = 2
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(200):
        of_source = torch.randint(60, (60,), generator=generator)
        of_target = torch.randint(50, (50,), generator=generator)
        joint = confusion(source[of_source], labels[of_source])
        ratio = torch.linalg.pinv(joint) @ target[of_target].double().mean(0)
        shares = (ratio * count_shares(labels[of_source], 3)).clamp_min(0)
        found.append(shares / shares.sum())
    assert 0 < sum(float(each[2]) == 0 for each in found) < 200
    ends = torch.tensor([0.05 / 6, 1 - 0.05 / 6], dtype=torch.double)
    expected = torch.stack(found).quantile(ends, dim=0)
    # probabilities are float32: the shares of labels and the sums of the confusion's columns differ by that
    torch.testing.assert_close(torch.stack(bootstrap_bbse(target, source, labels)), expected, rtol=0, atol=1e-5)


def test_the_interval_holds_the_truth_and_narrows_with_the_rows():
    widths = []
    for n in (150, 2400):
        (source, labels), (target, _) = rows(n, SOURCE, 0), rows(n, TARGET, 1)
        low, high = bootstrap_bbse(target, source, labels)
        assert ((low <= torch.tensor(TARGET)) & (torch.tensor(TARGET) <= high)).all()
        widths.append((high - low).mean().item())
    assert 2.5 < widths[0] / widths[1] < 6  # √16 = 4
