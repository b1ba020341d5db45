"""Networks from an input to its features.

A backbone is a function `name(shape, **options) -> (module, width)`: `shape` is that of one input row, the
module an `nn.Sequential` of named stages that ends in (n, width). Its first stage takes the data as it is.
An option named `weights` says what to start from: where it names some, the backbone was trained before, and learns at
the rate of `optimizer.lr_backbone`. A saved run is rebuilt with `weights=None`.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tl_runner.errors import UserError, check_range
from tl_runner.models.stems import Stem, build_stem, choose_stem
from tl_runner.models.trained_size import trained_at
from tl_runner.models.weights import RGB, fill, peek_weights, read_weights

Backbone = tuple[nn.Sequential, int]

log = logging.getLogger(__name__)

IMAGENET_SIDE = 224  # pixels of the images that its weights were trained on
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Stages(nn.Sequential):
    """Named stages, and what the network's options that were `auto` were `settled` to, for the record."""

    settled: Mapping[str, Any] = {}


class Pixels(nn.Module):
    """Images in [0, 1], (n, c, h, w), as a network wants them: grey repeated to `channels`, then (x − mean) / std.

    Of more channels than there are means, the means and deviations start again.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: tuple[float, ...] = (0.5,), std: tuple[float, ...] = (0.5,)):
        super().__init__()
        self.channels = channels
        for name, values in (("mean", mean), ("std", std)):
            tiled = [values[channel % len(values)] for channel in range(channels)]
            self.register_buffer(name, torch.tensor(tiled).reshape(-1, 1, 1))

    def extra_repr(self) -> str:
        """What the record says of a model's input."""
        mean, std = ([round(value, 4) for value in buffer.flatten().tolist()] for buffer in (self.mean, self.std))
        return f"channels={self.channels}, mean={mean}, std={std}"

    def forward(self, x: Tensor) -> Tensor:
        return (x.expand(-1, self.channels, -1, -1) - self.mean) / self.std


class Bottleneck(nn.Sequential):
    """Linear(inputs, width), BatchNorm, ReLU: a last stage that is new, and so learns at the full rate, as a head does.

    No file of weights has it. Long et al., ICML 2015, and the published results of most methods since.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU())


def narrowed(stages: nn.Sequential, width: int, bottleneck: int | None) -> Backbone:
    """The stages and their width, with a bottleneck of that width behind them where one is asked for."""
    if bottleneck is None:
        return stages, width
    check_range(1, bottleneck=bottleneck)
    stages.add_module("bottleneck", Bottleneck(width, bottleneck))
    return stages, bottleneck


def identity(shape: tuple[int, ...]) -> Backbone:
    """The input itself, flattened: a method then sees the raw columns or pixels."""
    return _stages(flat=nn.Flatten()), torch.Size(shape).numel()


def linear(shape: tuple[int, ...], width: int = 64) -> Backbone:
    """One linear map of the flattened input."""
    check_range(1, width=width)
    return _stages(flat=nn.Flatten(), linear=nn.Linear(torch.Size(shape).numel(), width)), width


def mlp(shape: tuple[int, ...], width: int = 128, depth: int = 2, dropout: float = 0.0) -> Backbone:
    """`depth` hidden layers of `width` rectified units on the flattened input."""
    check_range(1, width=width, depth=depth)
    check_range(0, 1, dropout=dropout)
    stages: dict[str, nn.Module] = {"flat": nn.Flatten()}
    inputs = torch.Size(shape).numel()
    for layer in range(1, depth + 1):
        stages[f"layer{layer}"] = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout))
        inputs = width
    return _stages(**stages), width


def small(shape: tuple[int, ...], width: int = 128, channels: int = 32, bottleneck: int | None = None) -> Backbone:
    """Two convolutions with BatchNorm and pooling, then one hidden layer: a conv net for a CPU."""
    check_range(1, width=width, channels=channels)
    colours, height, across = check_image("small", shape, least=4)

    def block(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)  # BatchNorm brings the bias
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    flat = 2 * channels * (height // 4) * (across // 4)
    stages = _stages(
        pixels=Pixels(colours),
        conv1=block(colours, channels),
        conv2=block(channels, 2 * channels),
        hidden=nn.Sequential(nn.Flatten(), nn.Linear(flat, width), nn.ReLU()),
    )
    return narrowed(stages, width, bottleneck)


Normalise = Literal["auto", "imagenet", "half"]


def _resnet_side(weights: str, stem: Stem | Literal["auto"] = "auto", **_: Any) -> int:
    """The size that published weights with this stem were trained on; the stem of a file is found in the file."""
    if stem == "auto" and weights != "imagenet":
        stem = choose_stem((RGB, IMAGENET_SIDE, IMAGENET_SIDE), peek_weights(Path(weights)))
    return 32 if stem == "cifar" else IMAGENET_SIDE


@trained_at(_resnet_side)
def resnet18(
    shape: tuple[int, ...],
    weights: str | None = None,
    stem: Stem | Literal["auto"] = "auto",
    normalise: Normalise = "auto",
    bottleneck: int | None = None,
) -> Backbone:
    """torchvision's ResNet-18 (He et al. 2016), from scratch, ImageNet or a file."""
    return narrowed(*_resnet("resnet18", shape, weights, stem, normalise), bottleneck)


@trained_at(_resnet_side)
def resnet50(
    shape: tuple[int, ...],
    weights: str | None = None,
    stem: Stem | Literal["auto"] = "auto",
    normalise: Normalise = "auto",
    bottleneck: int | None = None,
) -> Backbone:
    """torchvision's ResNet-50 (He et al. 2016), from scratch, ImageNet or a file."""
    return narrowed(*_resnet("resnet50", shape, weights, stem, normalise), bottleneck)


def _resnet(
    name: str, shape: tuple[int, ...], weights: str | None, stem: Stem | Literal["auto"], normalise: Normalise
) -> Backbone:
    """A torchvision ResNet as named stages.

    It takes three channels, as its published weights do, and grey images are repeated; for images of another number of
    channels the first convolution takes these, with the weights of `weights.spread_channels`. `stem=auto` is the one
    of the weights, else one that suits the images' size: see `models.stems`. `normalise=auto` takes ImageNet's mean and
    deviation with any weights, else 0.5 and 0.5.
    """
    from torchvision import models

    channels = network_channels(check_image(name, shape, least=8)[0])
    if weights == "imagenet" and stem not in ("auto", "imagenet"):
        raise UserError("backbone.weights=imagenet were trained with backbone.stem=imagenet; set that, or weights=null")
    state = None
    if weights is not None:
        state = _imagenet_weights(name) if weights == "imagenet" else read_weights(Path(weights), "imagenet")
    used = choose_stem(shape, state) if stem == "auto" else stem
    if stem == "auto" and used == "cifar" and state is not None:
        log.warning("%s begins with a 3×3 convolution: read with stem=cifar. backbone.stem=… says otherwise", weights)
    net = getattr(models, name)()
    if used != "imagenet" or channels != 3:  # the network has that one
        net.conv1, net.maxpool = build_stem(used, channels)
    if state is not None:
        fill(net, state, str(weights), first=("conv1.weight",))
    imagenet = normalise == "imagenet" or (normalise == "auto" and weights is not None)
    pixels = Pixels(channels, IMAGENET_MEAN, IMAGENET_STD) if imagenet else Pixels(channels)
    stages = _stages(
        pixels=pixels,
        stem=_stages(conv1=net.conv1, bn1=net.bn1, relu=net.relu, maxpool=net.maxpool),
        layer1=net.layer1,
        layer2=net.layer2,
        layer3=net.layer3,
        layer4=net.layer4,
        pool=nn.Sequential(net.avgpool, nn.Flatten()),
    )
    stages.settled = {"stem": used} if stem == "auto" else {}
    return stages, net.fc.in_features


def _stages(**stages: nn.Module) -> Stages:
    return Stages(OrderedDict(stages))


def check_image(backbone: str, shape: tuple[int, ...], least: int) -> tuple[int, int, int]:
    """The shape as (channels, height, width), or a refusal that says what the data is."""
    if len(shape) != 3:
        raise UserError(
            f"backbone={backbone} reads images, but this dataset has rows of {' × '.join(map(str, shape))} numbers:"
            " use backbone=mlp, linear or identity"
        )
    channels, height, width = shape
    if min(height, width) < least:
        raise UserError(f"backbone={backbone} needs images of at least {least}×{least} pixels, got {height}×{width}")
    return channels, height, width


def network_channels(channels: int) -> int:
    """How many channels a network for images of so many takes: 3, as published weights do, of grey ones too."""
    return 3 if channels == 1 else channels


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    from torchvision import models

    published = models.get_weight(f"{name.replace('resnet', 'ResNet')}_Weights.DEFAULT")
    try:
        return dict(published.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise UserError(
            f"the ImageNet weights of {name} could not be downloaded ({error}). Fetch {published.url} where there"
            " is a connection, and pass the file: backbone.weights=PATH"
        ) from error
