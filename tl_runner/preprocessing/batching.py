"""Files on their way to a model, some rows at a time."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor

from tl_runner.errors import UserError


class Input(NamedTuple):
    """A file that was asked for; of a table perhaps some lines alone, in this order."""

    path: Path
    lines: Sequence[int] | None = None


class Portion(NamedTuple):
    """Inputs x (n, …) with the name of each row, and what could not be read: name -> why."""

    names: list[str]
    x: Tensor
    bad: dict[str, str]


class Preprocessing(Protocol):
    """What makes inputs of files; `takes` says of which, `endings` how those in a folder are named."""

    takes: ClassVar[str]

    @property
    def endings(self) -> frozenset[str]: ...
    @property
    def facts(self) -> dict[str, Any]:
        """What somebody must know to do the same elsewhere, in JSON's words."""
        ...

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        ...

    def __call__(self, *inputs: Any) -> Tensor:
        """Inputs (n, …) of what a user has; raises `UserError` in words."""
        ...

    def portions(self, inputs: Sequence[Input], at_most: int) -> Iterator[Portion]:
        """The inputs of these files in order, `at_most` at a time."""
        ...

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """n inputs that no file holds, of numbers between the least and the largest that training met."""
        ...


class Unknown:
    """Where the record tells no preprocessing: the model can be loaded all the same, and files can't be used."""

    takes: ClassVar[str] = "tensors alone"

    def __init__(self, why: str, shape: Sequence[int]):
        self.why, self.shape = why, tuple(shape)

    @property
    def endings(self) -> frozenset[str]:
        return frozenset()

    @property
    def facts(self) -> dict[str, Any]:
        return {"kind": "unknown", "why": self.why, "shape": list(self.shape)}

    @property
    def numbers(self) -> int:
        return prod(self.shape)

    def __call__(self, *inputs: Any) -> NoReturn:
        raise UserError(f"{self.why}: give the model a tensor (n, {', '.join(map(str, self.shape))}) of float32")

    def portions(self, inputs: Sequence[Input], at_most: int) -> NoReturn:
        raise UserError(f"{self.why}: no file can be predicted")

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        return low + (high - low) * torch.rand(n, *self.shape, generator=generator)
