"""Label-free validators against closed forms, double loops and the algorithm of their papers."""

from math import exp, log

import numpy as np
import pytest
import torch

from tl_runner.functional import label_free

P = torch.rand(40, 5, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
BALANCED = torch.eye(4).repeat(6, 1)  # sure of itself, all classes in equal parts
COLLAPSED = torch.eye(4)[:1].repeat(24, 1)  # one class, all of the time


def test_information_is_log_c_where_rows_are_sure_and_classes_even():
    assert label_free.information(BALANCED) == pytest.approx(log(4))
    assert label_free.information(COLLAPSED) == pytest.approx(0)
    assert label_free.information(torch.full((9, 4), 0.25)) == pytest.approx(0, abs=1e-6)


def test_information_and_entropy_in_numpy():
    p = P.double().numpy()
    rows = -(p * np.log(p)).sum(1).mean()
    whole = -(p.mean(0) * np.log(p.mean(0))).sum()
    assert label_free.entropy(P) == pytest.approx(rows, rel=1e-5)
    assert label_free.information(P) == pytest.approx(whole - rows, rel=1e-4)


def test_the_classes_in_use():
    assert label_free.classes_used(BALANCED) == pytest.approx(4)
    assert label_free.classes_used(COLLAPSED) == pytest.approx(1)
    assert label_free.classes_used(torch.eye(4)[[0, 0, 0, 1]]) == pytest.approx(exp(0.75 * log(4 / 3) + 0.25 * log(4)))


def test_the_nuclear_norm_is_that_of_numpy_and_1_at_its_best():
    assert label_free.relative_nuclear_norm(P) == pytest.approx(
        np.linalg.norm(P.double().numpy(), "nuc") / np.sqrt(P.numel())
    )
    assert label_free.relative_nuclear_norm(BALANCED) == pytest.approx(1)
    assert label_free.relative_nuclear_norm(COLLAPSED) == pytest.approx(0.5)  # √n / √(4n)


def test_the_density_by_a_double_loop():
    """SND: similarity of rows at length 1 over 0.05, softmax over the other rows, mean entropy."""
    rows = [p / np.linalg.norm(p) for p in P.double().numpy()]
    entropies = []
    for i, a in enumerate(rows):
        likeness = np.array([exp(a @ b / 0.05) for j, b in enumerate(rows) if j != i])
        share = likeness / likeness.sum()
        entropies.append(-(share * np.log(share)).sum())
    assert label_free.density(P) == pytest.approx(np.mean(entropies))
    assert label_free.density(COLLAPSED) == pytest.approx(log(23))  # which is why it is no default


def test_the_risk_by_the_algorithm_of_its_paper():
    """DEV as its authors write it, with numpy's covariance."""
    rng = np.random.default_rng(0)
    losses, weights = rng.exponential(size=50), rng.gamma(2, 0.5, size=50)
    cov = np.cov(weights * losses, weights)
    eta = -cov[0, 1] / cov[1, 1]
    expected = (weights * losses).mean() + eta * weights.mean() - eta
    assert label_free.risk(torch.tensor(losses), torch.tensor(weights)) == pytest.approx(expected)
    assert label_free.risk(torch.tensor(losses), torch.ones(50)) == pytest.approx(losses.mean())


def test_the_risk_is_that_of_the_target_and_varies_less_than_plain_weighting():
    """x ~ N(0, 1) to N(0.5, 1), loss x²: the target's risk is 1.25, and exact weights are exp(x/2 − 1/8)."""
    rng = np.random.default_rng(1)
    plain, controlled = [], []
    for _ in range(200):
        x = torch.tensor(rng.normal(size=300))
        weights = torch.exp(0.5 * x - 0.125)
        plain.append((weights * x**2).mean().item())
        controlled.append(label_free.risk(x**2, weights))
    assert np.mean(controlled) == pytest.approx(1.25, abs=0.03)  # its standard error is below 0.01
    assert np.std(controlled) < 0.9 * np.std(plain)
