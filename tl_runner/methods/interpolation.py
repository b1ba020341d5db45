"""The weights between those that fine-tuning started from and those that it came to (WiSE-FT)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.models.lora import DOWN


class Interpolation(nn.Module):
    """(1−α)·w⁰ + α·w of a model's parameters w, w⁰ what they were when `begin` was called first.

    Of an adapter B·A only B is interpolated: it starts from 0, and so the merged weights W + SCALE·BA are. Wortsman et
    al., CVPR 2022 (arXiv:2109.01903).
    """

    begun: Tensor

    def __init__(self, model: Model, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.names = [name for name, _ in model.named_parameters() if not name.endswith(DOWN)]
        self.register_buffer("begun", torch.tensor(False))  # a buffer: checkpoints hold it, with the start
        for index, tensor in enumerate(self._read(dict(model.named_parameters()))):
            self.register_buffer(f"start{index}", tensor.detach().clone())

    @torch.no_grad()
    def begin(self, model: Model) -> None:
        """Note what the parameters are, unless an earlier call did."""
        if not self.begun:
            for start, tensor in zip(self._start(), self._read(dict(model.named_parameters())), strict=True):
                start.copy_(tensor)
            self.begun.fill_(True)

    @torch.no_grad()
    def apply_to(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The parameters, by name, between the start and these; these until there is a start."""
        if not self.begun:
            return weights
        between = [start.lerp(now, self.alpha) for start, now in zip(self._start(), self._read(weights), strict=True)]
        return {**weights, **dict(zip(self.names, between, strict=True))}

    def _read(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        return [weights[name] for name in self.names]

    def _start(self) -> list[Tensor]:
        return [self.get_buffer(f"start{index}") for index in range(len(self.names))]
