"""The side of the images that a backbone's weights were trained on, asked without building it."""

from functools import partial

import pytest

from tl_runner.models import backbones, lite0, timm_models
from tl_runner.models.trained_size import find_trained_size


@pytest.mark.parametrize(
    ("backbone", "options", "side"),
    [
        (backbones.resnet18, {"weights": "imagenet"}, 224),
        (backbones.resnet50, {"weights": "some.pth", "stem": "imagenet"}, 224),
        (backbones.resnet18, {"weights": "some.pth", "stem": "cifar"}, 32),
        (backbones.resnet18, {"weights": None}, None),
        (timm_models.timm, {"model": "test_vit", "weights": "pretrained"}, 160),
        (timm_models.timm, {"model": "vit_base_patch16_384", "weights": "some.pth"}, 384),
        (timm_models.timm, {"model": "test_vit", "weights": None}, None),
        (lite0.lite0, {"weights": "imagenet"}, 224),
        (lite0.lite0, {"weights": None}, None),
        (backbones.small, {}, None),
    ],
)
def test_weights_say_the_side_of_their_images(backbone, options, side):
    assert find_trained_size(partial(backbone, **options)) == side
