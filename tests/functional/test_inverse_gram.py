"""DARE-GRAM's distances against NumPy's pseudo-inverse, and where the inverse does not exist."""

import numpy as np
import pytest
import torch

from tl_runner.functional.inverse_gram import count_leading, inverse_gram_distances


def rows(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=torch.Generator().manual_seed(9))
    return mixed + shift


def by_numpy(source: np.ndarray, target: np.ndarray, share: float) -> tuple[float, float]:
    """In float64, by the singular vectors, column by column."""
    grams, spectra = [], []
    for features in (source, target):
        a = np.concatenate([np.ones((len(features), 1)), features], 1)
        grams.append(a.T @ a * len(source) / len(features))
        spectra.append(np.linalg.svd(grams[-1])[1])
    k = max(next(k for k in range(2, len(s) + 1) if s[:k].sum() > share * s.sum() or k == len(s)) for s in spectra)
    inverses = []
    for gram in grams:
        u, s, v = np.linalg.svd(gram)
        inverses.append(sum(np.outer(v[i], u[:, i]) / s[i] for i in range(k)))
    columns = zip(inverses[0].T, inverses[1].T, strict=True)
    angles = [abs(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in columns]
    return float(np.mean(angles)), float(np.linalg.norm(spectra[0][:k] - spectra[1][:k]) / k)


@pytest.mark.parametrize("share", [0.0, 0.6, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("m", [40, 25])
def test_the_distances_are_those_of_numpys_pseudo_inverse(m, share):
    source, target = rows(40, 6, 0), rows(m, 6, 1, 0.5)
    found = inverse_gram_distances(source, target, share)
    expected = by_numpy(source.double().numpy(), target.double().numpy(), share)
    assert [value.item() for value in found] == pytest.approx(expected, rel=2e-3, abs=1e-5)  # inverted in float32
    assert expected[0] > 0.01 and expected[1] > 0.1


def test_batches_may_be_many():
    source, target = torch.stack([rows(30, 4, 0), rows(30, 4, 1)]), torch.stack([rows(30, 4, 2), rows(30, 4, 3, 1.0)])
    angles, scales = inverse_gram_distances(source, target)
    assert angles.shape == scales.shape == (2,)
    for at in range(2):
        one = inverse_gram_distances(source[at], target[at])
        torch.testing.assert_close((angles[at], scales[at]), one, rtol=1e-4, atol=1e-6)


def without_full_rank() -> dict[str, torch.Tensor]:
    few, dead = rows(3, 8, 0), rows(30, 8, 1).relu()
    dead[:, [2, 5]] = 0.0
    return {"few rows": few, "dead columns": dead, "equal rows": torch.ones(30, 8), "zeros": torch.zeros(30, 8)}


@pytest.mark.parametrize("name", without_full_rank())
def test_equal_batches_are_no_distance_apart_and_gradients_are_finite_without_full_rank(name):
    batch = without_full_rank()[name]
    angle, scale = inverse_gram_distances(batch, batch.clone(), 0.99)
    assert angle.item() == pytest.approx(0, abs=1e-5) and scale.item() == 0
    for other in (batch.clone(), rows(30, 8, 4, 0.3), rows(30, 8, 4).relu()):
        pair = batch.clone().requires_grad_(), other.clone().requires_grad_()
        for first, second in (pair, pair[::-1]):
            angle, scale = inverse_gram_distances(first, second, 0.99)
            assert 0 <= angle.item() <= 2 + 1e-5 and torch.isfinite(scale)
            for gradient in torch.autograd.grad(angle + scale, pair):
                assert torch.isfinite(gradient).all()


def test_the_gradient_of_the_angle_is_that_of_differences():
    """Where no eigenvalue is cut off: by central differences of the value in NumPy's float64."""
    generator = torch.Generator().manual_seed(0)  # plain features: the matrix of `rows` costs float32 two digits
    source, target = (torch.randn(30, 3, generator=generator).double().numpy() + shift for shift in (0, 0.5))
    x = torch.tensor(source, dtype=torch.float32, requires_grad=True)
    (gradient,) = torch.autograd.grad(inverse_gram_distances(x, torch.tensor(target).float(), 1.0)[0], x)
    for row, column in ((0, 0), (7, 2), (20, 1)):
        moved = np.zeros_like(source)
        moved[row, column] = 1e-4
        ahead, behind = (by_numpy(source + sign * moved, target, 1.0)[0] for sign in (1, -1))
        assert gradient[row, column].item() == pytest.approx((ahead - behind) / 2e-4, rel=1e-2, abs=1e-6)


def test_the_angle_knows_no_unit_and_the_scale_does():
    """Twice as many rows of the same kind change nothing; longer features change the scale of the eigenvalues."""
    source, target = rows(40, 5, 0), rows(40, 5, 1, 0.5)
    once = inverse_gram_distances(source, target)
    torch.testing.assert_close(once, inverse_gram_distances(source, target.repeat(2, 1)), rtol=1e-4, atol=1e-5)
    assert inverse_gram_distances(source, 3 * source)[1] > 100


def test_as_many_eigenvalues_lead_as_exceed_the_share():
    values = torch.tensor([[6.0, 3.0, 1.0, 0.0], [9.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert count_leading(values, 0.85).tolist() == [2, 2, 4]
    assert count_leading(values, 0.95).tolist() == [3, 2, 4]
    assert count_leading(values, 0.5).tolist() == [2, 2, 3]
