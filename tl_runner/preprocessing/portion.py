"""Files on their way to a model, some rows at a time."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tl_runner.errors import Refused


class Input(NamedTuple):
    """A file that was asked for; of a table perhaps some lines alone, in this order."""

    path: Path
    lines: Sequence[int] | None = None


class Portion(NamedTuple):
    """Inputs x (n, …) with the name of each row, and what could not be read: name -> why."""

    names: list[str]
    x: Tensor
    bad: dict[str, str]


class Unknown:
    """Where the record tells no preprocessing: the model can be loaded all the same, and files can't be used."""

    takes = "tensors alone"
    endings: frozenset[str] = frozenset()

    def __init__(self, why: str, shape: Sequence[int]):
        self.why, self.shape = why, tuple(shape)
        self.facts: dict[str, Any] = {"kind": "unknown", "why": why}

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        return prod(self.shape)

    def __call__(self, *inputs: Any) -> Tensor:
        raise Refused(f"{self.why}: give the model a tensor (n, {', '.join(map(str, self.shape))}) of float32")

    def portions(self, inputs: Sequence[Input], at_most: int) -> Any:
        """Refuses, as a call does."""
        return self(*inputs)

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """Inputs (n, …), uniform between the least and the largest number that training met."""
        return low + (high - low) * torch.rand(n, *self.shape, generator=generator)
