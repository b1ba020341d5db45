"""Backbones: one contract for all, and weights that fit or are refused in words."""

from urllib.error import URLError

import pytest
import torch
from conftest import YAMLS, composed
from safetensors.torch import save_file
from torchvision import models

from tl_runner import backbones, config
from tl_runner.core import Model
from tl_runner.errors import Refused

NAMES = [path.removeprefix("backbone/").removesuffix(".yaml") for path in YAMLS if path.startswith("backbone/")]
IMAGE = {"small", "resnet18", "resnet50", "timm"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7,), (1, 16, 16), (3, 33, 40)])
def test_a_backbone_maps_rows_to_its_width_or_refuses_the_shape(name, shape):
    build = config.build(composed(f"backbone={name}")[0]["backbone"], "backbone")
    if name in IMAGE and len(shape) == 1:
        with pytest.raises(Refused, match="reads images, but this dataset has rows of 7 numbers: use backbone=mlp"):
            build(shape)
        return
    module, width = build(shape)
    assert module.eval()(torch.rand(2, *shape)).shape == (2, width)
    assert len(Model(module, width, ("a",)).stages) >= 1


def test_an_image_too_small_is_refused():
    with pytest.raises(Refused, match="at least 8×8 pixels, got 4×4"):
        backbones.resnet18((1, 4, 4))


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    return state


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors"])
def test_weights_of_a_file_are_loaded_with_their_normalisation(weights, file, tmp_path):
    net = models.resnet18()
    net.load_state_dict(weights)
    net.register_module("fc", torch.nn.Identity())
    ours, width = backbones.resnet18((3, 32, 32), weights=str(tmp_path / file))
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbones.IMAGENET_MEAN, backbones.IMAGENET_STD))
    torch.testing.assert_close(ours.eval()(x), net.eval()((x - mean) / std), rtol=1e-4, atol=1e-5)
    assert width == 512 and "channels=3, mean=[0.485, 0.456, 0.406]" in str(ours[0])


def test_grey_images_are_repeated_for_the_weights():
    pixels = backbones.Pixels(3, backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    grey = torch.rand(1, 1, 2, 2)
    torch.testing.assert_close(pixels(grey), pixels(grey.expand(-1, 3, -1, -1)))
    assert backbones.Pixels(1)(torch.ones(1, 1, 1, 1)).item() == 1.0  # (1 − ½) / ½


def test_a_checkpoint_that_does_not_fit_lists_what_differs(weights, tmp_path):
    changed = {key: value for key, value in weights.items() if key != "bn1.weight"}
    changed |= {"surplus": torch.zeros(1), "conv1.weight": torch.zeros(64, 1, 7, 7)}
    torch.save(changed, tmp_path / "other.pth")
    with pytest.raises(Refused) as refusal:
        backbones.resnet18((3, 32, 32), weights=str(tmp_path / "other.pth"))
    for words in ("1 missing: bn1.weight", "1 unexpected: surplus", "conv1.weight (64, 1, 7, 7) for (64, 3, 7, 7)"):
        assert words in str(refusal.value)


class Hostile:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("content", [b"no weights", Hostile(), {"a": 1}, [1, 2]])
def test_files_that_hold_no_weights_are_refused_and_never_run(content, tmp_path, capsys):
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(Refused, match=r"bad.pth (can't be read|holds no state dict)"):
        backbones.resnet18((3, 32, 32), weights=str(path))
    assert "must never run" not in capsys.readouterr().out


def test_missing_files_and_stems_without_weights_are_refused():
    with pytest.raises(Refused, match="there is no such file"):
        backbones.resnet18((3, 32, 32), weights="nowhere.pth")
    with pytest.raises(Refused, match="stem=imagenet; set that, or weights=null"):
        backbones.resnet50((3, 32, 32), weights="imagenet", stem="cifar")


def test_a_download_that_fails_says_how_to_pass_a_file(monkeypatch):
    def offline(*_args, **_options):
        raise URLError("no connection")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(Refused, match=r"no connection.*Fetch https://.*resnet18.*pth .*backbone.weights=PATH"):
        backbones.resnet18((3, 32, 32), weights="imagenet")


def test_the_cifar_stem_keeps_the_resolution():
    wide, narrow = (backbones.resnet18((3, 32, 32), stem=stem)[0] for stem in ("cifar", "imagenet"))
    x = torch.rand(1, 3, 32, 32)
    assert wide.eval()[:2](x).shape[-2:] == (32, 32)
    assert narrow.eval()[:2](x).shape[-2:] == (8, 8)


@pytest.mark.parametrize(
    ("model", "size", "stages"),
    [
        ("resnet18", 32, ["layer1", "layer4", "global_pool"]),
        ("efficientnet_lite0", 32, ["conv_stem", "block0", "block6", "conv_head"]),
        ("convnext_atto", 32, ["stem", "stage3", "head"]),
        ("vit_tiny_patch16_224", 224, ["net"]),
    ],
)
def test_a_model_of_timm_in_stages_is_that_model(model, size, stages):
    import timm as library

    torch.manual_seed(0)
    module, width = backbones.timm((3, size, size), model)
    torch.manual_seed(0)
    expected = library.create_model(model, num_classes=0).eval()
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), expected((x - 0.5) / 0.5))
    assert set(stages) <= set(Model(module, width, ("a",)).stages)


def test_weights_for_a_model_of_timm_are_loaded_without_their_classifier(tmp_path):
    import timm as library

    torch.manual_seed(1)
    published = library.create_model("efficientnet_lite0", num_classes=7)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    module, _ = backbones.timm((1, 32, 32), "efficientnet_lite0", str(tmp_path / "w.safetensors"))
    assert torch.equal(module.get_submodule("conv_stem").weight, published.conv_stem.weight)  # pyright: ignore
    assert module.get_submodule("pixels").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])  # pyright: ignore
    with pytest.raises(Refused, match="does not fit this network"):
        backbones.timm((1, 32, 32), "resnet18", str(tmp_path / "w.safetensors"))


def test_a_model_that_timm_does_not_have_or_that_wants_another_size_is_refused(monkeypatch):
    import timm as library

    with pytest.raises(Refused, match=r"timm has no such model – did you mean 'resnet18'"):
        backbones.timm((3, 32, 32), "resnet_18")
    with pytest.raises(Refused, match=r"can't read images of 32×32 .*try dataset.size=224"):
        backbones.timm((3, 32, 32), "vit_tiny_patch16_224")

    def offline(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(library, "create_model", offline)
    with pytest.raises(Refused, match=r"its published weights can't be had: no connection"):
        backbones.timm((3, 32, 32), "resnet18", "pretrained")


def test_a_pickled_model_and_names_of_data_parallel_are_told_what_to_save(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(Refused, match=r"save model\.state_dict\(\)"):
        backbones.resnet18((3, 32, 32), str(tmp_path / "model.pt"))
    state = {f"module.{name}": value for name, value in models.resnet18().state_dict().items()}
    torch.save(state, tmp_path / "parallel.pt")
    with pytest.raises(Refused, match="those of DataParallel"):
        backbones.resnet18((3, 32, 32), str(tmp_path / "parallel.pt"))
