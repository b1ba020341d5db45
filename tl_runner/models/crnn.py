"""A network that reads a spectrogram from left to right: convolutions, then a recurrent layer over time."""

from collections import OrderedDict

from torch import Tensor, nn

from tl_runner.errors import check_range
from tl_runner.models.backbones import Backbone, Pixels, Stages, check_image, narrowed
from tl_runner.models.features import Readout
from tl_runner.models.text_backbones import GRU


class Columns(nn.Module):
    """Maps (n, c, h, w) -> a vector for each column (n, w, width), by one linear map of its c · h numbers."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.linear = nn.Linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1, 2).transpose(1, 2))


def crnn(shape: tuple[int, ...], width: int = 128, channels: int = 32, bottleneck: int | None = None) -> Backbone:
    """Two convolutions with pooling, a GRU over the columns that are left, and the mean of what it says at each.

    The columns of a spectrogram are moments; an image is read from left to right. Choi et al., ICASSP 2017.
    """
    check_range(1, width=width, channels=channels)
    colours, height, _ = check_image("crnn", shape, least=4)

    def block(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)  # BatchNorm brings the bias
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    stages = Stages(
        OrderedDict(
            pixels=Pixels(colours),
            conv1=block(colours, channels),
            conv2=block(channels, 2 * channels),
            columns=Columns(2 * channels * (height // 4), width),
            gru=GRU(width),
            mean=Readout(),
        )
    )
    return narrowed(stages, width, bottleneck)
