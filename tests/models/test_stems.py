"""The stem of a ResNet: by the images' size, by the weights, and as a finished run had it."""

import pytest
import torch
from conftest import made
from safetensors.torch import load_file
from torchvision import models

import tl_runner
from tl_runner.models import backbones
from tl_runner.models.stems import Stem, build_stem, choose_stem

TINY = ["train=tiny", "train.steps=2", "train.batch=8", "dataset.samples=60", "diagnose=none", "threads=1"]


@pytest.mark.parametrize(("stem", "reduction"), [("imagenet", 4), ("halving", 2), ("cifar", 1)])
def test_a_stem_leaves_so_much_of_an_image(stem: Stem, reduction: int):
    convolution, pooling = build_stem(stem)
    for side in (16, 32, 224):
        seen = pooling(convolution(torch.rand(1, 3, side, side)))
        assert seen.shape == (1, 64, side // reduction, side // reduction)


def test_imagenet_s_stem_is_torchvision_s():
    net, (convolution, pooling) = models.resnet18(), build_stem("imagenet")
    assert str(net.conv1) == str(convolution) and str(net.maxpool) == str(pooling)


@pytest.mark.parametrize(
    ("size", "stem"),
    [
        (8, "cifar"),
        (15, "cifar"),
        (16, "halving"),
        (28, "halving"),
        (63, "halving"),
        (64, "imagenet"),
        (224, "imagenet"),
    ],
)
def test_auto_goes_by_the_shorter_side(size: int, stem: Stem):
    assert choose_stem((1, size, size), None) == choose_stem((3, 300, size), None) == stem
    assert choose_stem((3, size, 300), None) == stem


@pytest.mark.parametrize("prefix", ["", "module.", "net.encoder."])
@pytest.mark.parametrize(("kernel", "stem"), [(7, "imagenet"), (3, "cifar")])
def test_weights_bring_their_stem_whatever_the_size(prefix: str, kernel: int, stem: Stem):
    state = {f"{prefix}conv1.weight": torch.zeros(64, 3, kernel, kernel)}
    state[f"{prefix}layer1.0.conv1.weight"] = torch.zeros(64, 64, 10 - kernel, 10 - kernel)  # of a block: no matter
    assert {choose_stem((3, size, size), state) for size in (8, 16, 32, 224)} == {stem}


@pytest.mark.parametrize(("size", "stem"), [(8, "cifar"), (16, "halving"), (64, "imagenet")])
def test_auto_builds_the_network_of_the_stem_that_it_chose(size: int, stem: Stem):
    torch.manual_seed(0)
    chosen = backbones.resnet18((1, size, size))[0].eval()
    torch.manual_seed(0)
    said = backbones.resnet18((1, size, size), stem=stem)[0].eval()
    x = torch.rand(2, 1, size, size)
    assert torch.equal(chosen(x), said(x))
    assert getattr(chosen, "settled") == {"stem": stem} and getattr(said, "settled") == {}  # noqa: B009


def test_a_file_of_weights_is_read_into_its_own_stem(tmp_path, caplog):
    net = models.resnet18()
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "small.pth")
    torch.save(models.resnet18().state_dict(), tmp_path / "large.pth")
    for file, kernel in (("small.pth", 3), ("large.pth", 7)):
        stages = backbones.resnet18((3, 16, 16), weights=str(tmp_path / file))[0]
        assert stages.state_dict()["stem.conv1.weight"].shape[-1] == kernel
    (warning,) = (said for said in caplog.messages if "3×3" in said)  # those of `halving` begin with one, too
    assert "small.pth begins with a 3×3 convolution: read with stem=cifar" in warning


@pytest.mark.parametrize("size", [8, 16])
def test_a_finished_run_is_loaded_with_the_stem_that_it_had(size: int, tmp_path, monkeypatch):
    """Also where a later version chooses another."""
    record = made(tmp_path, "backbone=resnet18", f"dataset.size={size}", *TINY)
    assert record.training.backbone == {"stem": "cifar" if size == 8 else "halving"}
    monkeypatch.setattr("tl_runner.models.backbones.choose_stem", lambda *_: "imagenet")
    model = tl_runner.load(record.folder).model
    weights = load_file(record.folder / "model.safetensors")
    assert torch.equal(model.state_dict()["backbone.stem.conv1.weight"], weights["backbone.stem.conv1.weight"])
    assert model.backbone[:2](torch.rand(1, 1, 8, 8)).shape[-1] == (8 if size == 8 else 4)
    assert len(model(torch.rand(2, 1, size, size))) == 2


def test_a_run_that_started_from_a_file_is_loaded_without_the_file(tmp_path):
    torch.save(models.resnet18().state_dict(), tmp_path / "net.pth")  # with the stem of larger images than these
    record = made(tmp_path, "backbone=resnet18", "dataset.size=8", f"backbone.weights={tmp_path}/net.pth", *TINY)
    (tmp_path / "net.pth").unlink()
    assert record.training.backbone == {"stem": "imagenet"}
    assert len(tl_runner.load(record.folder).model(torch.rand(2, 1, 8, 8))) == 2
