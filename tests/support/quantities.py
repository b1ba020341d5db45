"""A quantity to be predicted, in two domains."""

import torch

from tl_runner.datasets.split import Drawn, Raw
from tl_runner.rng import Rng


def sums(seed: int, samples: int = 200, spread: float = 0.1, strength: None = None) -> Drawn:
    """price = 1000 + 50 (x₀ + 2x₁) + noise; the target's rows are moved along x₀."""

    def side(name: str, moved: float) -> Raw:
        generator = Rng(seed).child("sums", name).generator()
        x = torch.randn(samples, 3, generator=generator)
        x[:, 0] += moved
        noise = spread * torch.randn(samples, generator=generator)
        return Raw(name, x, 1000 + 50 * (x[:, 0] + 2 * x[:, 1] + noise).double(), (), quantity="price")

    return Drawn(side("shops", 0.0), side("markets", 0.7), {}, fresh=True)
