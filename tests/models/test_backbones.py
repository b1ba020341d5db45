"""Backbones: one contract for all, and weights that fit or are refused in words."""

from argparse import Namespace
from urllib.error import URLError

import pytest
import torch
from conftest import YAMLS, composed
from safetensors.torch import save_file
from torchvision import models

from tl_runner import config
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models import backbones
from tl_runner.models.tokens import find_fit
from tl_runner.models.weights import fill, read_weights, spread_channels, unwrap

ALL = [path.removeprefix("backbone/").removesuffix(".yaml") for path in YAMLS if path.startswith("backbone/")]
NAMES = [name for name in ALL if find_fit(config.locate(name, "backbone")) is None]  # of numbers, and not of texts
IMAGE = {"small", "crnn", "resnet18", "resnet50", "timm", "lite0"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7,), (1, 32, 32), (3, 33, 40), (5, 32, 32)])
def test_a_backbone_maps_rows_to_its_width_or_refuses_the_shape(name, shape):
    build = config.build(composed(f"backbone={name}")[0]["backbone"], "backbone")
    if name in IMAGE and len(shape) == 1:
        with pytest.raises(UserError, match="reads images, but this dataset has rows of 7 numbers: use backbone=mlp"):
            build(shape)
        return
    module, width = build(shape)
    assert module.eval()(torch.rand(2, *shape)).shape == (2, width)
    assert len(Model(module, width, ("a",)).stages) >= 1


def test_an_image_too_small_is_refused():
    with pytest.raises(UserError, match="at least 8×8 pixels, got 4×4"):
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
    with pytest.raises(UserError) as refusal:
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
    with pytest.raises(UserError, match=r"bad.pth (can't be read|holds no state dict)"):
        backbones.resnet18((3, 32, 32), weights=str(path))
    assert "must never run" not in capsys.readouterr().out


def test_what_is_wrong_with_a_file_is_said_in_words(weights, tmp_path):
    torch.save(weights, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for name, content, why in (
        ("none.pt", b"", "it is empty"),
        ("none.safetensors", b"", "it is empty"),
        ("text.pt", b"hello", "it is no file of torch.save or safetensors"),
        ("text.safetensors", b"hello, world", "it is damaged, or no file of safetensors"),
        ("cut.pt", whole[: len(whole) // 2], "it is cut off: copy or download it again"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} can't be read as a file of weights: {why}$"):
            read_weights(tmp_path / name)
    with pytest.raises(
        UserError, match=r"weights=https://x\.y/z\.pt: addresses are not read: download the file, and name"
    ):
        backbones.resnet18((3, 32, 32), weights="https://x.y/z.pt")


@pytest.mark.parametrize(("kind", "name"), [(torch.int32, "int32"), (torch.complex64, "complex64")])
def test_weights_of_another_kind_of_numbers_are_refused(kind, name, weights, tmp_path, recwarn):
    changed = {key: value.to(kind) if value.is_floating_point() else value for key, value in weights.items()}
    torch.save(changed, tmp_path / "other.pt")
    with pytest.raises(UserError, match=rf"[0-9]+ not of floating point: bn1\.bias {name}, .*"):
        backbones.resnet18((3, 32, 32), weights=str(tmp_path / "other.pt"))
    assert not recwarn.list
    torch.save({key: value.half() for key, value in weights.items()}, tmp_path / "half.pt")  # its counters, too
    backbones.resnet18((3, 32, 32), weights=str(tmp_path / "half.pt"))


def test_missing_files_and_stems_without_weights_are_refused():
    with pytest.raises(UserError, match="there is no such file"):
        backbones.resnet18((3, 32, 32), weights="nowhere.pth")
    with pytest.raises(UserError, match="stem=imagenet; set that, or weights=null"):
        backbones.resnet50((3, 32, 32), weights="imagenet", stem="cifar")


def test_a_download_that_fails_says_how_to_pass_a_file(monkeypatch):
    def offline(*_args, **_options):
        raise URLError("no connection")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"no connection.*Fetch https://.*resnet18.*pth .*backbone.weights=PATH"):
        backbones.resnet18((3, 32, 32), weights="imagenet")


def test_the_cifar_stem_keeps_the_resolution():
    wide, narrow = (backbones.resnet18((3, 32, 32), stem=stem)[0] for stem in ("cifar", "imagenet"))
    x = torch.rand(1, 3, 32, 32)
    assert wide.eval()[:2](x).shape[-2:] == (32, 32)
    assert narrow.eval()[:2](x).shape[-2:] == (8, 8)


def test_a_pickled_model_is_told_what_to_save(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"names code \(torch.nn.modules.linear.Linear\).* save model\.state_dict\(\)"):
        backbones.resnet18((3, 32, 32), str(tmp_path / "model.pt"))


class Net(torch.nn.Module):
    """Six names with BatchNorm's, and a classifier."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.BatchNorm1d(3))
        self.fc = torch.nn.Linear(3, 2)


def behind(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture
def state():
    """What a trained network of that kind has."""
    torch.manual_seed(1)
    net = Net()
    net.layer(torch.randn(8, 2))
    return {name: value.clone() for name, value in net.state_dict().items()}


def loaded(content, tmp_path, file="w.pth"):
    """The network after it was filled with what a file holds."""
    save_file(content, tmp_path / file) if file.endswith("safetensors") else torch.save(content, tmp_path / file)
    torch.manual_seed(2)
    net = Net()
    fill(net, read_weights(tmp_path / file), file)
    return net.state_dict()


def same(filled, state, without=()):
    return all(torch.equal(filled[name], state[name]) for name in state if name[:2] != "fc" and name not in without)


COUNTED = "layer.1.num_batches_tracked"


def test_a_state_dict_from_before_num_batches_tracked_is_loaded(state, tmp_path, caplog):
    caplog.set_level("INFO")
    old = {name: value for name, value in state.items() if name != COUNTED}
    filled = loaded(old, tmp_path)
    assert same(filled, state, {COUNTED}) and state[COUNTED] == 1 and filled[COUNTED] == 0
    assert "w.pth: 1 num_batches_tracked, which PyTorch before 0.4.1 did not save, stay 0" in caplog.text
    with pytest.raises(UserError, match=r"– 1 missing: layer.1.running_mean$"):
        loaded({name: value for name, value in old.items() if name != "layer.1.running_mean"}, tmp_path)


def test_the_published_file_of_a_resnet_may_lack_the_counters(monkeypatch):
    torch.manual_seed(1)
    published = {k: v for k, v in models.resnet18().state_dict().items() if "num_batches" not in k}
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    stages = backbones.resnet18((3, 32, 32), weights="imagenet")[0].state_dict()
    assert torch.equal(stages["layer4.1.bn2.weight"], published["layer4.1.bn2.weight"])
    assert torch.equal(stages["stem.conv1.weight"], published["conv1.weight"])


@pytest.mark.parametrize(
    ("wrap", "entry"),
    [
        (lambda state: {"model": state}, "'model'"),
        (lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}}, "'state_dict'"),
        (lambda state: {"model_state_dict": state, "loss": 0.1}, "'model_state_dict'"),
        (lambda state: {"epoch": 1, "model": {"state_dict": state, "args": {"lr": 0.1}}}, "'model' -> 'state_dict'"),
        (
            lambda state: {"state_dict": {"backbone": state, "head": {"w": state["fc.bias"]}}},
            "'state_dict' -> 'backbone'",
        ),
    ],
)
def test_the_state_dict_in_a_checkpoint_is_found_and_named(wrap, entry, state, tmp_path, caplog):
    assert same(loaded(wrap(state), tmp_path), state)
    assert f"using the weights in its entry {entry}\n" in caplog.text + "\n"


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "net.", "encoder.", "backbone.", "module.model.", "model.backbone.net.", "module.module."],
)
def test_a_known_prefix_is_stripped_and_named(prefix, file, state, tmp_path, caplog):
    others = {"criterion.weight": torch.ones(1), "head.bias": torch.ones(2)}
    assert same(loaded(behind(prefix, state) | others, tmp_path, file), state)
    told = f"{file}: removed {prefix!r} from the names; other names are ignored (criterion.weight, head.bias)"
    assert told in caplog.text


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_torch_compile_are_read_without_it(prefix, state, tmp_path, caplog):
    assert same(loaded({"state_dict": behind(prefix, state)}, tmp_path), state)
    assert "'_orig_mod.'" in caplog.text and "are ignored" not in caplog.text
    inside = {name.replace("layer.", "layer._orig_mod."): value for name, value in state.items()}
    assert same(loaded(behind("model.", inside), tmp_path), state)


def test_a_name_of_the_network_is_no_prefix(tmp_path):
    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Linear(2, 2)
            self.model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)})

    torch.manual_seed(1)
    state = Encoder().state_dict()
    net = Encoder()
    fill(net, state, "w.pth")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    fill(net := Encoder(), behind("model.", state), "w.pth")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_weights_that_are_not_finite_are_refused_before_anything_trains(state, tmp_path):
    state["layer.1.bias"][0] = torch.nan
    with pytest.raises(UserError, match=r"w.pth holds numbers that are not finite, in layer\.1\.bias"):
        loaded(state, tmp_path)


def test_an_unknown_prefix_or_entry_is_named_with_what_was_found_and_expected(state, tmp_path):
    with pytest.raises(UserError) as refusal:
        loaded(behind("module.student.", state), tmp_path)
    for words in (
        "5 missing: layer.0.weight, layer.1.bias",
        "unexpected: module.student.fc.bias",
        "6 fit behind 'module.student.', which is none of module., model., net., encoder., backbone., _orig_mod.",
    ):
        assert words in str(refusal.value)
    with pytest.raises(UserError) as refusal:
        loaded({"teacher": state, "epoch": 3, "model": {"student": state, "t": 1}}, tmp_path)
    for words in (
        "w.pth, in its entry 'model', holds no state dict: it has student (8 tensors), t (int)",
        "Expected are names with tensors, or one entry of state_dict, model_state_dict,",
    ):
        assert words in str(refusal.value)


def test_what_could_be_one_or_another_is_refused(state, tmp_path):
    with pytest.raises(
        UserError, match=r"holds more than one state dict \(model, encoder\): it has encoder \(8 tensors\)"
    ):
        loaded({"encoder": state, "model": state}, tmp_path)
    with pytest.raises(UserError, match=r"more than once, behind 'net\.', 'backbone\.': save one of them alone"):
        loaded(behind("net.", state) | behind("backbone.", state), tmp_path)
    with pytest.raises(UserError, match=r"holds no state dict: it has epoch \(int\), layer.0.weight \(Tensor\)"):
        loaded({**state, "epoch": 3}, tmp_path)
    with pytest.raises(UserError, match="holds no state dict: it has nothing"):
        loaded({}, tmp_path)


def test_a_checkpoint_with_a_teacher_beside_its_weights_is_refused(tmp_path):
    state = {"a.weight": torch.zeros(2)}
    for name, other in (("state_dict", "teacher"), ("state_dict_ema", "teacher")):
        with pytest.raises(UserError, match=f"several states of one network .{name}, {other}."):
            unwrap({name: state, other: state}, "file")
    assert unwrap({"state_dict": state, "optimizer": {"step": torch.zeros(1)}}, "file") == (state, ["state_dict"])


@pytest.mark.parametrize(
    ("average", "beside"),
    [
        ("state_dict_ema", "state_dict"),  # timm
        ("model_ema", "model"),  # torchvision, MAE
        ("ema_state_dict", "model_state_dict"),
    ],
)
def test_the_moving_average_is_used_and_said(average, beside, state, tmp_path, caplog):
    plain = {name: torch.zeros_like(value) for name, value in state.items()}
    assert same(loaded({beside: plain, average: state, "epoch": 3}, tmp_path), state)
    told = f"using the moving average in its entry {average!r} and not {beside!r}: to use that, save it alone"
    assert told in caplog.text
    caplog.clear()
    assert same(loaded({average: {"n_averaged": torch.tensor(5), **behind("module.", state)}}, tmp_path), state)
    assert f"in its entry {average!r}\n" in caplog.text and "other names are ignored (n_averaged)" in caplog.text


def test_the_arguments_of_a_script_beside_the_weights_are_read_past(state, tmp_path):
    assert same(loaded({"model": state, "args": Namespace(lr=0.1, data="x")}, tmp_path), state)


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (["model.safetensors", "pytorch_model.bin", "other.pth"], "model.safetensors"),
        (["pytorch_model.bin", "other.pth"], "pytorch_model.bin"),
        (["only.pth"], "only.pth"),
    ],
)
def test_the_file_of_weights_in_a_folder_is_found(files, read, state, tmp_path):
    for file in files:
        content = state if file == read else {"other": torch.zeros(1)}
        save_file(content, tmp_path / file) if file.endswith("safetensors") else torch.save(content, tmp_path / file)
    (tmp_path / "config.json").write_text("{}")
    assert read_weights(tmp_path).keys() == state.keys()


def test_a_folder_without_one_file_of_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no file of weights \(model\.safetensors, or one that ends in"):
        read_weights(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match=r"has 2 files of weights \(a\.pth, b\.pth\): name one"):
        read_weights(tmp_path)


def test_a_classifier_is_left_out_and_said(weights, tmp_path, caplog):
    caplog.set_level("INFO")
    backbones.resnet18((3, 32, 32), weights=str(tmp_path / "net.pth"))
    assert "its classifier is left out (fc.bias (1000,), fc.weight (1000, 512))" in caplog.text


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_weights_of_three_channels_are_spread_as_timm_does(channels, weights, tmp_path, caplog):
    from timm.models import adapt_input_conv

    stages, _ = backbones.resnet18((channels, 32, 32), weights=str(tmp_path / "net.pth"))
    expected = adapt_input_conv(channels, weights["conv1.weight"])
    torch.testing.assert_close(stages.get_submodule("stem.conv1").weight, expected)
    assert f"these images have {channels}: conv1.weight is repeated over them, times 3/{channels}" in caplog.text
    pixels = stages.get_submodule("pixels")
    means = [backbones.IMAGENET_MEAN[channel % 3] for channel in range(channels)]
    assert pixels.mean.flatten().tolist() == pytest.approx(means)  # pyright: ignore
    assert stages.eval()(torch.rand(2, channels, 32, 32)).shape == (2, 512)


def test_spread_weights_answer_alike_to_channels_that_repeat():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 3, 3, 3), torch.rand(2, 3, 8, 8)
    spread = torch.conv2d(x.repeat(1, 2, 1, 1), spread_channels(weight, 6))
    torch.testing.assert_close(spread, torch.conv2d(x, weight), rtol=1e-5, atol=1e-5)  # sums in another order


def test_grey_images_answer_as_timms_sum_over_channels(weights, tmp_path):
    """With one mean and deviation for all channels, to repeat grey and to sum the weights are one."""
    from timm.models import adapt_input_conv

    stages, _ = backbones.resnet18((1, 32, 32), weights=str(tmp_path / "net.pth"), normalise="half")
    x, summed = torch.rand(2, 1, 32, 32), adapt_input_conv(1, weights["conv1.weight"])
    expected = torch.conv2d((x - 0.5) / 0.5, summed, stride=2, padding=3)
    torch.testing.assert_close(stages.get_submodule("stem.conv1")(stages[0](x)), expected, rtol=1e-4, atol=1e-5)
