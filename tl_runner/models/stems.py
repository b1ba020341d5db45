"""The stem of a ResNet, its first layers: how far it reduces an image, and which stem suits which size."""

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

Stem = Literal["imagenet", "halving", "cifar"]

# The shorter side, in pixels, from which on `auto` takes a stem: the cheapest one behind which at least 8 pixels are
# left (16 from 32 on), so that the map of the last layer has more than one. See docs/decisions.md, 2026-11-27.
FROM: dict[Stem, int] = {"imagenet": 64, "halving": 16, "cifar": 0}

FIRST = re.compile(r"(?<!\d\.)\bconv1\.weight$")  # the stem's, behind whatever prefix; layer1.0.conv1 is a block's


def build_stem(stem: Stem, channels: int = 3) -> tuple[nn.Conv2d, nn.Module]:
    """The first convolution and the pooling behind it: (n, channels, h, w) -> (n, 64, h / r, w / r).

    imagenet: 7×7 by steps of 2, then 3×3 pooling by steps of 2; r = 4. halving: 3×3 by steps of 2; r = 2. cifar: 3×3;
    r = 1. The first and the last are those of He et al. 2016.
    """
    if stem == "imagenet":
        return nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Conv2d(channels, 64, 3, stride=2 if stem == "halving" else 1, padding=1, bias=False), nn.Identity()


def choose_stem(shape: tuple[int, ...], state: Mapping[str, Tensor] | None) -> Stem:
    """The stem that suits images (channels, height, width); with weights, `state`, the one that they were trained with.

    Weights whose first convolution is 3×3 are of CIFAR's stem, all others of ImageNet's.
    """
    if state is not None:
        kernels = {tensor.shape[-1] for name, tensor in state.items() if FIRST.search(name)}
        return "cifar" if kernels == {3} else "imagenet"
    return next(stem for stem, least in FROM.items() if min(shape[1:]) >= least)
