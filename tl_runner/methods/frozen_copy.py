"""A network as it was: what a model in training is compared with."""

from copy import deepcopy
from typing import Generic, TypeVar

from torch import nn

Net = TypeVar("Net", bound=nn.Module)


class FrozenCopy(nn.Module, Generic[Net]):
    """A copy of `net` that stays in evaluation mode and belongs in no `Group`, whatever becomes of the original."""

    def __init__(self, net: Net):
        super().__init__()
        self.net: Net = deepcopy(net)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenCopy[Net]":
        return super().train(False)
