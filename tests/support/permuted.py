"""The default pair with other answers: the target's labels permuted."""

import torch

from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import Drawn
from tl_runner.rng import derive


def mislabelled(seed: int, samples: int = 300, size: int = 8, severity: int | None = None) -> Drawn:
    """The default pair with the target's labels permuted: same inputs, other answers."""
    drawn = digits(seed, samples=samples, size=size)
    order = torch.randperm(len(drawn.target.y), generator=torch.Generator().manual_seed(derive(seed, "permutation")))
    return drawn._replace(target=drawn.target._replace(y=drawn.target.y[order]))
