"""Accuracy without target labels: right where the model is calibrated, and each formula by another computation."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, minimize_scalar
from torch import Tensor

from tl_runner.functional import estimated_accuracy as ea

RNG = np.random.default_rng(0)


def calibrated(n: int, classes: int = 4, sharpness: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities (n, C), and labels that are drawn from them: the model is calibrated by construction."""
    random = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(n, classes, generator=random, dtype=torch.double)).softmax(-1)
    return probabilities, torch.multinomial(probabilities, 1, generator=random)[:, 0]


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    return (probabilities.argmax(-1) == labels).double().mean().item()


def test_of_a_calibrated_model_without_shift_every_estimate_is_the_accuracy():
    """Within three standard errors of an accuracy on 1,000 rows, √(a(1 − a)/1000) ≤ 0.016, of both samples."""
    source, labels = calibrated(1000, seed=1)
    target, hidden = calibrated(1000, seed=2)
    found = ea.estimate_accuracy(target, source, labels, ea.fit_temperature(source, labels))
    assert {*found} == {"ac", "doc", "atc_mc", "atc_ne", "cot", "cott"}
    for name, value in found.items():
        assert value == pytest.approx(accuracy(target, hidden), abs=3 * 0.016 * 2**0.5), name


def test_on_the_sources_own_rows_doc_and_atc_are_its_accuracy():
    source, labels = calibrated(300)
    right = source.argmax(-1) == labels
    assert ea.difference_of_confidences(source, source, right) == pytest.approx(accuracy(source, labels))
    assert ea.share_above_threshold(ea.confidence(source), ea.confidence(source), int((~right).sum())) == accuracy(
        source, labels
    )
    costs = ea.transport_costs(source, ea.count_labels(labels, source.shape[-1]))
    assert ea.transport_share(costs, source, labels) == accuracy(source, labels)


def test_a_temperature_undoes_a_scaling_and_is_scipys():
    source, labels = calibrated(5000)
    for temperature in (0.3, 1.0, 4.0):
        sharp = ea.scale_temperature(source, 1 / temperature)  # too sure where the temperature is above 1
        found = ea.fit_temperature(sharp, labels)
        z = sharp.clamp_min(1e-12).log()
        doubt = 1 / (len(labels) + 2)
        loss = lambda t, z=z: F.cross_entropy(z / t, labels, label_smoothing=doubt).item()  # noqa: E731, B023
        expected: Any = minimize_scalar(loss, bounds=(0.05, 20), options={"xatol": 1e-9})
        assert found == pytest.approx(expected.x, rel=1e-4)
        assert found == pytest.approx(temperature, rel=0.1)
        torch.testing.assert_close(ea.scale_temperature(sharp, temperature), source, atol=2e-3, rtol=0)  # p ≥ 1e-12


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0, 300.0])
@pytest.mark.parametrize("flipped", [0.0, 0.3, 0.9])
def test_the_temperature_is_where_the_derivative_is_0_or_an_end(sharpness, flipped):
    """By bisection; of models that are nearly blind to nearly certain, and right to mostly wrong."""
    p, labels = calibrated(60, sharpness=sharpness, seed=4)
    labels = torch.where(torch.arange(60) < 60 * flipped, (labels + 1) % 4, labels)
    z, smooth = p.clamp_min(ea.TINY).log(), F.one_hot(labels, 4) * (1 - 1 / 62) + 1 / 62 / 4
    low, high, beta = 1 / ea.HOTTEST, 1 / ea.COLDEST, 1.0
    for _ in range(60):
        beta = (low + high) / 2
        cold = (((beta * z).softmax(-1) - smooth) * z).sum() < 0
        low, high = (beta, high) if cold else (low, beta)
    assert ea.fit_temperature(p, labels) == pytest.approx(1 / beta, rel=1e-7)


def test_a_model_that_is_right_on_every_row_is_not_made_sure_of_everything():
    """As if one of n + 2 rows were of any class: of two classes, the confidence is 1 − 1/(2·22)."""
    sure = torch.tensor([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    labels = torch.tensor([0] * 10 + [1] * 10)
    found = ea.scale_temperature(sure, ea.fit_temperature(sure, labels))
    assert found.max(-1).values.tolist() == pytest.approx([1 - 1 / 44] * 20)
    assert ea.fit_temperature(sure, 1 - labels) == pytest.approx(ea.HOTTEST)


def test_the_threshold_by_hand():
    """Two of five source rows are wrong, so the threshold is the second smallest score; two of four exceed it."""
    source = torch.tensor([0.9, 0.5, 0.6, 0.8, 0.7])
    assert ea.find_threshold(source, 2) == pytest.approx(0.6)
    assert ea.share_above_threshold(torch.tensor([0.95, 0.6, 0.61, 0.3]), source, 2) == 0.5
    assert ea.share_above_threshold(torch.tensor([0.1, 0.2]), source, 0) == 1.0
    assert ea.share_above_threshold(torch.tensor([0.99, 0.2]), source, 5) == 0.5


def test_binary_scores_of_both_kinds_order_rows_alike():
    source, labels = calibrated(200, classes=2)
    target, _ = calibrated(200, classes=2, sharpness=0.7, seed=3)
    found = ea.estimate_accuracy(target, source, labels, ea.fit_temperature(source, labels))
    assert found["atc_mc"] == found["atc_ne"]


@pytest.mark.parametrize("counts", [[7, 5, 8], [18, 1, 1], [20, 0, 0]])
def test_the_transport_is_that_of_a_linear_programme(counts):
    """min Σ γ_ij (1 − p_ij) with rows of 1/n and columns of the label shares."""
    rows, _ = calibrated(20, classes=3)
    n, c = rows.shape
    sums = [np.kron(np.eye(n), np.ones(c)), np.kron(np.ones(n), np.eye(c))]
    marginals = np.concatenate([np.full(n, 1 / n), np.array(counts) / n])
    expected = linprog((1 - rows).numpy().ravel(), A_eq=np.concatenate(sums), b_eq=marginals).fun
    assert ea.transport_costs(rows, torch.tensor(counts)).mean().item() == pytest.approx(expected)


def test_rows_are_shared_out_in_proportion():
    assert ea.share_out(10, torch.tensor([1, 1, 1])).tolist() == [4, 3, 3]
    assert ea.share_out(7, torch.tensor([50, 30, 20])).tolist() == [4, 2, 1]
    assert ea.share_out(3, torch.tensor([5, 0, 0])).tolist() == [3, 0, 0]
    for counts in RNG.integers(0, 30, size=(20, 6)):
        shared = ea.share_out(37, torch.tensor(counts))
        assert shared.sum() == 37 and np.abs(shared.numpy() - 37 * counts / counts.sum()).max() < 1


def test_a_shift_lowers_the_estimates():
    """The target's rows are the source's, with half of them replaced by rows of which the model knows little."""
    source, labels = calibrated(600, sharpness=4.0)
    unsure, _ = calibrated(300, sharpness=0.3, seed=5)
    target = torch.cat([source[:300], unsure])
    temperature = ea.fit_temperature(source, labels)
    before, after = (ea.estimate_accuracy(rows, source, labels, temperature) for rows in (source, target))
    assert all(after[name] < before[name] - 0.1 for name in before)


def test_an_estimate_of_few_rows_is_a_share():
    source, labels = calibrated(3, classes=2)
    found = ea.estimate_accuracy(source[:1], source, labels, ea.fit_temperature(source, labels))
    assert all(0 <= value <= 1 for value in found.values())


def test_the_interval_of_an_estimate_grows_with_the_share_of_rows_that_changed_and_with_fewer_rows():
    steady, wavering, alone = (ea.bound_estimate([0.6, 0.9, 0.8], changed, 10_000) for changed in (0.0, 0.2, None))
    assert steady == (0.8, pytest.approx(0.7, abs=1e-3), pytest.approx(0.85, abs=1e-3))
    assert wavering.low < steady.low and alone.low < steady.low and alone.high == 1.0
    few = ea.bound_estimate([0.6, 0.9, 0.8], 0.0, 20)
    assert few.low == pytest.approx(0.8 - (0.1**2 + 1.645**2 * 0.8 * 0.2 / 20) ** 0.5)
    assert ea.bound_estimate([0.1], 1.0, 100).low == 0.0


def test_the_share_of_rows_that_changed_by_hand():
    selected = torch.eye(2)[[0, 0, 1, 1]]
    others = [torch.eye(2)[[0, 1, 1, 1]], torch.eye(2)[[1, 1, 1, 1]], selected, selected]  # 1/4, 1/2, 0 and 0
    assert ea.share_changed(selected, others) == pytest.approx(0.1875)
    assert ea.share_changed(selected, others[:3]) is None
