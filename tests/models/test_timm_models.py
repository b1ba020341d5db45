"""Models of timm: stages that are the model, and weights from each place that has them."""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from conftest import QUICK, composed, made
from safetensors.torch import save_file

import tl_runner
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models.timm_models import fetch_file, find_recipe, timm
from tl_runner.storage.identity import identify

library = pytest.importorskip("timm", reason="needs the extra [timm]")
VIT = "test_vit"  # patches of 16 pixels, made for images of 160


@pytest.mark.parametrize(
    ("model", "size", "stages"),
    [
        ("resnet18", 32, ["layer1", "layer4", "global_pool"]),
        ("efficientnet_lite0", 32, ["conv_stem", "block0", "block6", "conv_head"]),
        ("convnext_atto", 32, ["stem", "stage3", "head"]),
        ("vit_tiny_patch16_224", 224, ["net"]),
    ],
)
def test_a_model_in_stages_is_that_model(model, size, stages):
    torch.manual_seed(0)
    module, width = timm((3, size, size), model)
    torch.manual_seed(0)
    expected = library.create_model(model, num_classes=0).eval()
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), expected((x - 0.5) / 0.5))
    assert set(stages) <= set(Model(module, width, ("a",)).stages)


def save_model(folder: Path, model: str, classes: int = 7, **arguments) -> torch.nn.Module:
    """A folder in the hub's layout, as timm writes it, and the network that is in it."""
    torch.manual_seed(1)
    net = library.create_model(model, num_classes=classes, **arguments)
    library.models.save_for_hf(net, folder, model_args=arguments or None, safe_serialization=True)
    return net.eval()


def features(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the network gives to its classifier, of images in [0, 1], scaled as its weights want it."""
    mean, std = (torch.tensor(net.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))  # pyright: ignore
    with torch.no_grad():
        return net.forward_head(net.forward_features((x - mean) / std), pre_logits=True)  # pyright: ignore


@pytest.mark.parametrize("said", ["model", "weights", "file"])
@pytest.mark.parametrize(("model", "size"), [("resnet18", 32), (VIT, 160)])
def test_a_folder_in_the_hubs_layout_is_read(said, model, size, tmp_path):
    net = save_model(tmp_path, model)
    options = {
        "model": {"model": str(tmp_path), "weights": "pretrained"},
        "weights": {"model": model, "weights": str(tmp_path)},
        "file": {"model": model, "weights": str(tmp_path / "model.safetensors")},
    }[said]
    module, _ = timm((3, size, size), **options)
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), features(net, x), rtol=1e-4, atol=1e-5)


def test_a_folder_at_random_weights_is_said_and_one_of_another_model_refused(tmp_path, caplog):
    save_model(tmp_path, "resnet18")
    timm((3, 32, 32), str(tmp_path))
    assert "at random weights: backbone.weights=pretrained takes those that it has" in caplog.text
    with pytest.raises(UserError, match=r"are of the model resnet18, and backbone.model=test_vit is another: set"):
        timm((3, 160, 160), VIT, str(tmp_path))


def test_a_folder_with_arguments_of_its_own_is_that_network(tmp_path):
    """Grey images, positions for 64 pixels, and the mean of the patches in place of the token of the class."""
    net = save_model(tmp_path, VIT, in_chans=1, img_size=64, global_pool="avg")
    module, _ = timm((1, 64, 64), str(tmp_path), "pretrained")
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features((x - 0.5) / 0.5), pre_logits=True)  # pyright: ignore
        torch.testing.assert_close(module.eval()(x), expected, rtol=1e-4, atol=1e-5)
    assert not module.settled  # pyright: ignore[reportAttributeAccessIssue]  # the name alone makes another network
    assert timm((1, 96, 96), str(tmp_path), "pretrained")[0].eval()(torch.rand(2, 1, 96, 96)).shape == (2, 64)


def test_a_run_from_a_folder_is_restored_where_that_is_gone(tmp_path):
    save_model(tmp_path / "net", "test_resnet")
    words = [*QUICK, "method=source_only", "train.steps=1", "dataset.samples=60", "backbone=timm"]
    record = made(tmp_path, *words, f"backbone.model={tmp_path}/net", "backbone.weights=pretrained", "dataset.size=32")
    assert record.status == "ok", record.error
    shutil.rmtree(tmp_path / "net")
    model, _, classes = tl_runner.load(record.folder)
    with torch.no_grad():
        assert model(torch.rand(3, 1, 32, 32)).shape == (3, len(classes))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "names no architecture"),
        ("[", "names no architecture"),
        ('{"architecture": "resnet_18"}', r"which this timm does not have – did you mean 'resnet18'"),
        (None, r"has no config.json"),
    ],
)
def test_a_folder_that_holds_no_model_is_refused(content, words, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=words):
        find_recipe(str(tmp_path))


def test_names_that_are_none_are_refused_with_the_next(tmp_path, monkeypatch):
    for name, words in (
        ("resnet_18", "timm has no such model – did you mean 'resnet18'"),
        ("resnet18.a1_in2k", r"Invalid pretrained tag .*did you mean 'resnet18.a1_in1k'"),
        ("timm/resnet18.a1_in1k", r"no such folder; a model of the hub is backbone.model=hf-hub:OWNER/NAME"),
    ):
        with pytest.raises(UserError, match=words):
            find_recipe(name)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a folder is named by its path: \./mine"):
        find_recipe("mine")


# weights of images of another size


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # of how fast it resamples
@pytest.mark.parametrize(
    ("model", "size"),
    [
        (VIT, (96, 96)),
        (VIT, (64, 112)),
        ("deit_tiny_patch16_224", (64, 64)),
        ("swin_tiny_patch4_window7_224", (96, 96)),
    ],
)
def test_positions_are_resampled_as_timm_does(model, size, tmp_path, caplog):
    net = save_model(tmp_path, model)
    state = net.state_dict()
    module, _ = timm((3, *size), model, str(tmp_path / "model.safetensors"))
    overlay = {"state_dict": state, "hf_hub_id": None, "url": ""}
    expected = library.create_model(
        model, pretrained=True, num_classes=0, img_size=size, pretrained_cfg_overlay=overlay
    ).eval()
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), features(expected, x), rtol=1e-4, atol=1e-5)
    resampled = "relative_position_bias_table" if model.startswith("swin") else "pos_embed"
    assert re.search(rf"resampled \S*{resampled} from", caplog.text)


def test_positions_are_resampled_on_their_grid(tmp_path):
    """By torch's own bicubic interpolation of the 10×10 positions to 6×6; that of the class token stays."""
    net = save_model(tmp_path, VIT)
    before = net.state_dict()["pos_embed"]
    after = timm((3, 96, 96), VIT, str(tmp_path))[0].state_dict()["net.pos_embed"]
    grid = before[:, 1:].reshape(1, 10, 10, -1).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    expected = torch.cat([before[:, :1], smaller.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    torch.testing.assert_close(after, expected)


def test_a_size_that_a_model_does_not_take_is_refused():
    with pytest.raises(UserError, match=r"reads patches of 16×16 pixels, which images of 100×100 .*dataset.size=96"):
        timm((3, 100, 100), VIT)
    with pytest.raises(UserError, match=r"can't read images of 64×64 .*try dataset.size=224"):
        timm((3, 64, 64), "efficientformer_l1")


# channels


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_take_the_weights_as_timm_adapts_them(channels, tmp_path):
    net = save_model(tmp_path, VIT)
    module, _ = timm((channels, 160, 160), VIT, str(tmp_path))
    overlay = {"state_dict": net.state_dict(), "hf_hub_id": None, "url": "", "num_classes": 7}
    expected = library.create_model(
        VIT, pretrained=True, num_classes=0, in_chans=channels, pretrained_cfg_overlay=overlay
    ).eval()
    x = torch.rand(2, channels, 160, 160)
    mean, std = (net.pretrained_cfg[name] for name in ("mean", "std"))  # pyright: ignore
    assert len({*mean}) == len({*std}) == 1  # so that to repeat grey and to sum the weights are one
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), expected((x - mean[0]) / std[0]), rtol=1e-4, atol=1e-5)


# the hub


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network and an empty cache; how often a connection was asked for."""
    from huggingface_hub import constants

    asked = []

    def refuse(*where, **_):
        asked.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return asked


def test_without_a_connection_the_local_route_is_said_and_nothing_is_tried_again(offline):
    with pytest.raises(UserError) as refusal:
        timm((3, 32, 32), "resnet18", "pretrained")
    for words in (
        "model.safetensors of timm/resnet18.a1_in1k is not in the local cache of the Hugging Face hub",
        "hf download timm/resnet18.a1_in1k config.json model.safetensors --local-dir DIR",
        "set backbone.weights=DIR/model.safetensors",
    ):
        assert words in str(refusal.value)
    assert len(offline) <= 2  # one question; a client may look up two kinds of addresses
    with pytest.raises(UserError, match=r"backbone.model=./DIR backbone.weights=pretrained"):
        timm((3, 32, 32), "hf-hub:timm/resnet18.a1_in1k", "pretrained")


def put_in_cache(cache: Path, repository: str, folder: Path) -> None:
    """A folder's files where the hub's library keeps what it has downloaded."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())


def test_a_model_in_the_cache_is_used_without_a_connection(offline, tmp_path):
    net = save_model(tmp_path / "net", "resnet18")
    put_in_cache(tmp_path / "hub", "someone/net", tmp_path / "net")
    module, _ = timm((3, 32, 32), "hf-hub:someone/net", "pretrained")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), features(net, x), rtol=1e-4, atol=1e-5)
    assert fetch_file("someone/net@main", "config.json", "said").name == "config.json" and not offline


# weights that do not fit


def test_weights_are_loaded_without_their_classifier_or_refused(tmp_path):
    torch.manual_seed(1)
    published = library.create_model("efficientnet_lite0", num_classes=7)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    module, _ = timm((1, 32, 32), "efficientnet_lite0", str(tmp_path / "w.safetensors"))
    assert torch.equal(module.get_submodule("conv_stem").weight, published.conv_stem.weight)  # pyright: ignore
    assert module.get_submodule("pixels").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])  # pyright: ignore
    for model in ("resnet18", "vit_tiny_patch16_224"):
        with pytest.raises(UserError, match="does not fit this network"):
            timm((1, 32, 32), model, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model."])
def test_positions_behind_a_prefix_are_resampled_too(prefix, tmp_path, caplog):
    torch.manual_seed(1)
    state = library.create_model(VIT, num_classes=7).state_dict()
    torch.save({"model_ema": {prefix + name: value for name, value in state.items()}}, tmp_path / "w.pth")
    module, _ = timm((3, 96, 96), VIT, str(tmp_path / "w.pth"))
    assert torch.equal(module.state_dict()["net.cls_token"], state["cls_token"])
    for words in ("moving average in its entry 'model_ema'", f"removed {prefix!r}", "resampled pos_embed"):
        assert words in caplog.text


# who a run is


def test_a_folder_counts_by_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"architecture": "resnet18"}))

    def identity(*words: str) -> str:
        return identify(composed("backbone=timm", *words)[0])

    same = [identity(f"backbone.model=./{name}") for name in ("one", "two")]
    assert same[0] == same[1] != identity("backbone.model=resnet18")
    (tmp_path / "two" / "README.md").write_text("no part of the model")
    assert identity("backbone.model=./two") == same[0]
    torch.save({"x": torch.zeros(1)}, tmp_path / "two" / "w.pth")
    assert identity("backbone.model=./two") != same[0]
    assert identity("backbone.weights=one") == identity(f"backbone.weights={tmp_path}/one")
    assert identity("backbone.weights=one") != identity("backbone.weights=two")
