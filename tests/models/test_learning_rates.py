"""The learning rate of a pre-trained backbone: one key for all methods, and what each parameter learns at."""

import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONF, METHODS, QUICK, built, composed, made, some_slow
from support.refusals import told
from support.tasks import images, prepare
from torch import nn

from tl_runner import config
from tl_runner.core import Group, Method, Model, Phase
from tl_runner.errors import UserError
from tl_runner.functional.losses import supervised
from tl_runner.methods.auto import Auto
from tl_runner.methods.finetune import Finetune
from tl_runner.models.backbones import mlp
from tl_runner.models.learning_rates import LrBackbone, lr_factor, resolve_backbone_rates, with_rates
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, begin_phase, train

# The thirteen that had a factor of their own, which was 0.1.
TENTH = {
    *("adda", "anil", "bi_tuning", "bss", "co_tuning", "delta", "finetune"),
    *("l2sp", "lwf", "maml", "reptile", "shot", "stochnorm"),
}
FULL = {"bi_tuning": {1.0, 0.1}}  # its projector learns at a tenth of the head's rate, as its authors'
TINY = ["dataset=digits", *QUICK, "train.steps=4", "pretrain.steps=2", "diagnose=none"]


def learnt_at(name: str, lr_backbone: LrBackbone = "auto", weights: bool = False) -> dict[str, set[tuple[str, float]]]:
    """By phase, whose parameters learn at which factor of the optimiser's rate, as the optimiser has it."""
    method = built(name)
    if isinstance(method, Auto):
        method = method.build("jmmd")
    pair, model = images("5" if "granted" in method.needs else "0")
    model.pretrained = weights or method.start in ("source", "features")
    model, pair = prepare(method, model, pair)
    head, backbone = {*model.head.parameters()}, {*model.backbone.parameters()}
    sources = getattr(method, "source_head", None)
    heads = {*head, *sources.parameters()} if isinstance(sources, nn.Module) else head
    found: dict[str, set[tuple[str, float]]] = {}
    for phase in method.phases(model):
        engine = optimizers.adamw(begin_phase(phase, model, method), lr=0.01, lr_backbone=lr_backbone)
        found[phase.name] = {
            ("backbone" if p in backbone else "head" if p in head else "source head" if p in heads else "own", rate)
            for group in engine.param_groups
            for p in group["params"]
            for rate in [round(group["lr"] / 0.01, 6)]
        }
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_backbone_learns_at_a_tenth_where_it_was_trained_before_and_all_else_at_the_full_rate(name):
    phases = learnt_at(name)
    for phase, found in phases.items():
        rates = {rate for part, rate in found if part == "backbone"}
        if name == "tent":
            assert rates == {0.333}  # a rate of its own
        elif rates:
            assert rates == {0.1 if name in TENTH and phase != "meta" else 1.0}
        assert {rate for part, rate in found if part in ("head", "own")} <= FULL.get(name, {1.0})
        assert {rate for part, rate in found if part == "source head"} <= {0.1}
    assert name not in TENTH or any(part == "backbone" for found in phases.values() for part, _ in found)


@pytest.mark.parametrize("name", some_slow(name for name in METHODS if name not in ("target_only", "tent")))
def test_weights_make_it_a_tenth_for_every_method_and_a_number_is_for_all(name):
    for found in learnt_at(name, weights=True).values():
        assert {rate for part, rate in found if part == "backbone"} <= {0.1}
        assert {rate for part, rate in found if part in ("head", "own")} <= FULL.get(name, {1.0})
    for found in learnt_at(name, lr_backbone=0.25).values():
        assert {rate for part, rate in found if part in ("backbone", "source head")} <= {0.25}  # and not 0.025
        assert {rate for part, rate in found if part in ("head", "own")} <= FULL.get(name, {1.0})


def test_a_stage_learns_at_a_factor_of_the_backbones_rate():
    _, model = images("5")
    model.pretrained = True
    method = Finetune(lr_decay=0.5)
    groups = begin_phase(method.phases(model)[0], model, method)
    assert [lr_factor(group) for group in groups] == [1.0, 0.025, 0.05, 0.1]
    assert [lr_factor(group, 0.4) for group in groups] == [1.0, 0.1, 0.2, 0.4]


def test_no_method_has_a_factor_of_its_own():
    said = [path.name for path in (CONF / "method").glob("*.yaml") if "lr_backbone" in yaml.safe_load(path.read_text())]
    assert not said


@pytest.mark.parametrize("words", [["method=finetune"], ["-m", "method=finetune,mmd"]])
def test_who_types_the_old_key_gets_the_new_ones_name(words, here):
    result = here("tl-run", *words, "method.lr_backbone=0.5")
    assert result.returncode == 1 and "unknown key method.lr_backbone: use optimizer.lr_backbone" in told(result)


def test_the_old_key_in_a_part_and_in_a_yaml_gets_the_new_ones_name():
    with pytest.raises(UserError, match=r"method.parts\[1\].lr_backbone: use optimizer.lr_backbone"):
        config.load_parts(composed("method=sum", "method.parts=[mmd,{l2sp:{lr_backbone:1}}]")[0])
    with pytest.raises(UserError, match=r"unknown key method.lr_backbone: use optimizer.lr_backbone"):
        config.load_parts(composed("method=finetune", "+method.lr_backbone=1")[0])


@pytest.mark.parametrize("key", ["optimizer.lr_backbone", "pretrain.lr_backbone"])
@pytest.mark.parametrize("value", ["-1", "some"])
def test_what_is_no_factor_is_refused(key, value, tmp_path):
    with pytest.raises(
        UserError, match=r"lr_backbone (must be at least 0|takes a number or auto|takes auto or a number)"
    ):
        made(tmp_path, "method=mmd", f"{key}={value}", *TINY)


def test_help_names_the_key(typed):
    assert re.search(r"optimizer\.lr_backbone=auto .*0\.1 if it is pre-trained", typed("tl-run", "--help").out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=mmd"], {"train": [1.0]}),
        (["method=finetune"], {"tune": [0.1]}),
        (["method=finetune", "pretrain.steps=0"], {"tune": [1.0]}),  # nothing was trained before
        (["method=finetune", "method.lp_ft=true"], {"probe": [], "tune": [0.1]}),
        (["method=finetune", "optimizer.lr_backbone=0.5", "method.lr_decay=0.5"], {"tune": [0.125, 0.25, 0.5]}),
        (["method=maml"], {"meta": [1.0], "adapt": [0.1]}),
        (["method=maml", "optimizer.lr_backbone=0.5"], {"meta": [0.5], "adapt": [0.5]}),
        (["method=sum", "method.parts=[mmd,l2sp]", "granted=5"], {"train": [0.1]}),
        (["method=tent"], {"adapt": [0.333]}),
        (["method=feature_extract", "method.head=linear"], {"head": []}),
    ],
)
def test_the_record_says_what_was_used(words, expected, tmp_path):
    record = made(tmp_path, *TINY, *words)
    assert record.status == "ok" and record.training.lr_backbone == expected


@pytest.mark.slow
def test_a_file_of_weights_makes_the_backbone_learn_slower_and_the_source_model_too(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "net.pth")
    words = ["backbone=resnet18", "backbone.stem=imagenet", *TINY, "train.steps=1", "pretrain.steps=1", "train.batch=8"]
    weights = [*words, f"backbone.weights={tmp_path}/net.pth"]
    assert made(tmp_path, "method=mmd", *words).training.lr_backbone == {"train": [1.0]}
    assert made(tmp_path, "method=mmd", *weights).training.lr_backbone == {"train": [0.1]}
    assert made(tmp_path, "method=mmd", *weights, "optimizer.lr_backbone=1").training.lr_backbone == {"train": [1.0]}
    assert made(tmp_path, "method=target_only", "granted=5", *weights).training.lr_backbone == {
        "train": [1.0]
    }  # scratch
    seen: list[list[tuple[float, bool]]] = []

    def watched(groups, lr, weight_decay, lr_backbone):
        seen.append([(lr_factor(group, lr_backbone), group.of_backbone) for group in groups])
        return optimizers.adamw(groups, lr, weight_decay=weight_decay, lr_backbone=lr_backbone)

    monkeypatch.setattr("tl_runner.engine.pretrain.adamw", watched)
    made(tmp_path, "method=finetune", *weights)
    made(tmp_path, "method=finetune", *weights, "pretrain.lr_backbone=0.7")
    made(tmp_path, "method=finetune", *words)
    assert [{inside: rate for rate, inside in groups}[True] for groups in seen] == [0.1, 0.7, 1.0]
    assert all((1.0, False) in groups for groups in seen)


OWN_BACKBONE = """
from collections import OrderedDict
from torch import nn
def net(shape, weights: str | None = "somewhere"):
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), map=nn.Linear(64, 5))), 5
"""


def test_a_backbone_of_ones_own_says_by_weights_that_it_was_trained(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(OWN_BACKBONE)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["method=mmd", *TINY, "backbone=identity", "backbone._target_=my_net.net"]
    assert made(tmp_path, *own).training.lr_backbone == {"train": [0.1]}
    assert made(tmp_path, *own, "+backbone.weights=null").training.lr_backbone == {"train": [1.0]}


@pytest.mark.parametrize(
    "words", [["method=feature_extract"], ["method=tent"], ["method=finetune", "method.freeze=head_only"]]
)
def test_a_number_that_does_nothing_is_said(words, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made(tmp_path, *words, *TINY)
        assert "lr_backbone" not in caplog.text
        made(tmp_path, *words, *TINY, "optimizer.lr_backbone=0.5")
    assert "optimizer.lr_backbone=0.5 has no effect" in caplog.text


class Own(Method):
    """One that sets factors of its own, as methods of users do."""

    def phases(self, model):
        return [Phase("own", 1.0, [Group(model.backbone.parameters(), lr=0.3), Group(model.head.parameters(), lr=0.7)])]

    def terms(self, model, batch, progress):
        return supervised(model.head, batch.labelled, model.features(*batch.inputs))


def test_a_factor_that_a_method_sets_is_not_multiplied():
    _, model = images("0")
    model.pretrained = True
    for lr_backbone in ("auto", 0.5):
        groups = begin_phase(Own().phases(model)[0], model, Own())
        assert [lr_factor(group, lr_backbone) for group in groups] == [0.3, 0.7]


def test_an_optimiser_without_the_key_gets_the_factors_of_auto():
    pair, model = images("0")
    model.pretrained = True
    seen = []

    def own(groups, lr=0.01):
        seen.extend(group.lr for group in groups)
        return torch.optim.SGD([{"params": group.parameters, "lr": lr * group.lr} for group in groups])

    for _ in train(model, built("mmd"), pair, Train(steps=1), own, optimizers.constant, augment.none, Rng(0), Cursor()):
        pass
    assert seen == [0.1, 1.0]


def test_splitting_keeps_the_order_and_all_parameters():
    backbone, width = mlp((6,), width=4, depth=2)
    model = Model(backbone, width, ["a", "b"])
    mixed = [*model.head.parameters(), *backbone.parameters(), nn.Parameter(torch.zeros(1))]
    groups = with_rates([Group(mixed), Group([]), Group(iter([*model.head.parameters()]), 0.5, decay=False)], model)
    assert [group.of_backbone for group in groups] == [False, True, False, False]
    listed = [p for group in groups[:3] for p in group.parameters]
    assert all(a is b for a, b in zip(listed, mixed, strict=True))
    assert (groups[3].lr, groups[3].decay, len([*groups[3].parameters])) == (0.5, False, 2)
    assert resolve_backbone_rates(optimizers.sgd, groups) == groups


def test_a_search_can_vary_it(tmp_path, typed):
    pytest.importorskip("optuna")
    words = ["-m", "hydra/sweeper=tl_optuna", "hydra.sweeper.n_trials=2", "method=mmd", *TINY, "hydra/launcher=basic"]
    said = typed("tl-run", *words, "optimizer.lr_backbone=choice(auto,0.1,1)", f"outputs={tmp_path}")
    assert said.code == 0, said.err
    configs = [yaml.safe_load(path.read_text()) for path in Path(tmp_path).rglob("config.yaml")]
    assert configs and {str(found["optimizer"]["lr_backbone"]) for found in configs} <= {"auto", "0.1", "1", "1.0"}
