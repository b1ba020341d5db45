"""Parameter transfer: what is frozen stays, what is held is held, and the source model is trained once."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, composed, made
from scipy.optimize import minimize
from support.tasks import prepare

from tl_runner import config
from tl_runner.core import Group, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Pair
from tl_runner.engine.assembly import Assembly
from tl_runner.engine.preparation import check_task
from tl_runner.engine.pretrain import train_source_model
from tl_runner.errors import UserError
from tl_runner.methods.finetune import Finetune, frozen_stages
from tl_runner.methods.l2sp import L2SP
from tl_runner.methods.mmd import MMD
from tl_runner.models.backbones import identity, small
from tl_runner.rng import Rng
from tl_runner.storage.sections import SourceModelInfo
from tl_runner.training import augment, optimizers
from tl_runner.training.batches import draw_batch
from tl_runner.training.loop import Cursor, Train, train
from tl_runner.training.pretrain_options import Pretrain

CPU = torch.device("cpu")


@pytest.fixture
def task() -> tuple[Pair, Model]:
    pair, _, _ = split_domains(digits(0, samples=200, size=8), 0, Budget("count", 5), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=16, channels=4)
        return pair, Model(backbone, width, pair.classes)


def tuned(method: Finetune | L2SP, pair: Pair, model: Model, steps: int = 10, lr: float = 0.01) -> list[dict]:
    """The state after each step."""
    model, pair = prepare(method, model, pair)
    optimizer = partial(optimizers.adamw, lr=lr)
    plan = Train(steps=steps, log_every=1, batch=16)
    points = train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, Rng(0), Cursor())
    return [{name: tensor.clone() for name, tensor in model.state_dict().items()} for _ in points]


def changed(before: dict, after: dict) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize("freeze", ["none", "upto:conv1", "upto:conv2", "upto:hidden", "head_only"])
def test_frozen_parameters_and_batchnorm_statistics_stay_to_the_last_bit(freeze, task):
    pair, model = task
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = frozen_stages(model, freeze)
    moved = changed(before, tuned(Finetune(freeze), pair, model)[-1])
    for stage in ("conv1", "conv2", "hidden"):
        of_stage = {name for name in before if name.startswith(f"backbone.{stage}.")}
        assert not moved & of_stage if stage in frozen else moved >= of_stage
        gradients = [p.grad for p in model.backbone.get_submodule(stage).parameters()]
        assert all((gradient is None) == (stage in frozen) for gradient in gradients)  # nothing is computed for nothing
    assert moved >= {"head.weight", "head.bias"}
    if freeze != "none":
        statistics = {name for name in before if "conv1.1.running" in name or "conv1.1.num_batches" in name}
        assert len(statistics) == 3 and not moved & statistics


def test_lp_ft_trains_the_head_on_unchanged_features_and_then_all(task):
    pair, model = task
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = tuned(Finetune(lp_ft=True), pair, model)
    assert all(changed(before, state) == {"head.weight", "head.bias"} for state in states[:5])
    assert changed(before, states[5]) > {"head.weight", "head.bias"}


def test_the_backbone_learns_at_its_own_rate(task):
    pair, model = task
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.pretrained = True
    state = tuned(Finetune(), pair, model, steps=1, lr=0.01)[0]
    step = {
        name: (state[name] - before[name]).abs().max().item() for name in ("backbone.hidden.1.weight", "head.weight")
    }
    assert step["head.weight"] == pytest.approx(0.01, rel=0.05)  # Adam's first step is the rate itself
    assert step["backbone.hidden.1.weight"] == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("freeze", ["upto:conv9", "upto:", "all", "upto:covn1"])
def test_a_stage_that_does_not_exist_is_refused_with_those_that_do(freeze, task):
    with pytest.raises(UserError, match=r"conv1.*conv2.*hidden"):
        prepare(Finetune(freeze), task[1], task[0])


def test_lp_ft_of_the_head_alone_says_nothing():
    with pytest.raises(UserError, match=r"method\.lp_ft"):
        Finetune(freeze="head_only", lp_ft=True)


def test_l2sp_is_flat_at_the_source_and_half_the_squared_way_from_it(task):
    pair, model = task
    method = L2SP(weight_backbone=0.3, weight_head=0.2)
    model, pair = prepare(method, model, pair)
    start = [p.detach().clone() for p in model.backbone.parameters()]
    batch = draw_batch(pair, method.needs, 16, Rng(0), 0, augment.none, CPU)
    method.terms(model, batch, 0.0)["l2sp"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    moves = [torch.randn(p.shape, generator=generator) for p in start]
    with torch.no_grad():
        for parameter, move in zip(model.backbone.parameters(), moves, strict=True):
            parameter.add_(move)
    model.zero_grad()
    terms = method.terms(model, batch, 0.0)
    expected = 0.3 / 2 * sum(float(np.square(move.double().numpy()).sum()) for move in moves)
    assert terms["l2sp"].item() == pytest.approx(expected, rel=1e-4)
    head = sum(float(np.square(p.detach().double().numpy()).sum()) for p in model.head.parameters())
    assert terms["l2_head"].item() == pytest.approx(0.2 / 2 * head, rel=1e-4)
    terms["l2sp"].backward()
    for parameter, move in zip(model.backbone.parameters(), moves, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 0.3 * move, rtol=1e-3, atol=1e-5)


def test_l2sp_ends_where_its_objective_is_least_on_a_linear_model():
    """A linear map under a fixed head: the loss is convex in the map, and SciPy finds the same minimum."""
    pair, _, _ = split_domains(blobs(0, samples=60, features=3, classes=2), 0, Budget("count", 8), CPU)
    torch.manual_seed(0)
    backbone, _ = identity(pair.shape)
    backbone.add_module("map", torch.nn.Linear(3, 2, bias=False))
    model = Model(backbone, 2, pair.classes)
    model.head.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    linear = model.backbone.get_submodule("map")
    assert isinstance(linear, torch.nn.Linear)
    start = linear.weight.detach().double().numpy().copy()
    split, labels = pair.labels_granted
    x, y = split.take(torch.arange(len(split))).double().numpy(), labels.numpy()

    def objective(flat: np.ndarray) -> float:
        logits = x @ flat.reshape(2, 3).T
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -log_p[np.arange(len(y)), y].mean() + 0.05 * np.square(flat - start.ravel()).sum()  # ½ · 0.1

    least = minimize(objective, start.ravel(), tol=1e-12).x.reshape(2, 3)
    method = L2SP(weight_backbone=0.1, weight_head=0.0)
    model, pair = prepare(method, model, pair)

    def optimizer(groups: Sequence[Group]) -> Any:
        return optimizers.sgd(groups[1:], lr=0.05, weight_decay=0.0)  # all but the head's group

    plan = Train(steps=1500, batch=64, clip=None)  # all 12 rows in every step: no noise
    for _ in train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, Rng(0), Cursor()):
        pass
    found = linear.weight.detach().double().numpy()
    np.testing.assert_allclose(found, least, atol=1e-3)
    assert np.abs(least - start).max() > 0.1


@pytest.mark.slow
def test_five_learning_rates_train_one_source_model(tmp_path):
    rates = (0.01, 0.003, 0.001, 0.0003, 0.0001)
    runs = [made(tmp_path, "method=finetune", f"optimizer.lr={rate}", *QUICK) for rate in rates]
    assert len(list((tmp_path / "cache" / "source_models").glob("*.safetensors"))) == 1
    assert [run.training.source_model.shared for run in runs] == [False, True, True, True, True]
    assert len({run.training.source_model.id for run in runs}) == 1 and len({run.id for run in runs}) == 5
    assert runs[0].training.source_model.steps == 20
    others = [["seed=1"], ["pretrain.lr=0.001"], ["backbone.width=64"], ["dataset.samples=250"], ["augment=weak"]]
    for words in others:
        made(tmp_path, "method=finetune", *QUICK, *words)
    assert len(list((tmp_path / "cache" / "source_models").glob("*.safetensors"))) == 6
    made(tmp_path, "method=l2sp", "dataset.shift=noise", *QUICK)  # another target, the same source
    assert len(list((tmp_path / "cache" / "source_models").glob("*.safetensors"))) == 6


def test_a_shared_source_model_is_the_one_that_would_have_been_trained(tmp_path):
    made(tmp_path / "a", "method=l2sp", *QUICK)
    shared, alone = (made(tmp_path / name, "method=finetune", *QUICK) for name in ("a", "b"))
    assert shared.training.source_model.shared and not alone.training.source_model.shared
    for name in ("model.safetensors", "predictions.safetensors"):
        assert (shared.folder / name).read_bytes() == (alone.folder / name).read_bytes()


def test_a_source_model_that_cannot_be_read_is_trained_again(tmp_path, caplog):
    first = made(tmp_path, "method=finetune", *QUICK)
    (file,) = (tmp_path / "cache" / "source_models").glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    again = made(tmp_path, "method=finetune", "optimizer.lr=0.001", *QUICK)
    assert caplog.text.count("what they held is computed again") == 1 and not again.training.source_model.shared
    assert file.read_bytes() == whole
    assert again.training.source_model.source_val == first.training.source_model.source_val
    assert json.loads(file.with_suffix(".json").read_text())["steps"] == 20


def other_classes(source: tuple[str, ...] = ("a", "b", "c")) -> Drawn:
    drawn = blobs(0, samples=90, classes=3)
    return drawn._replace(source=drawn.source and drawn.source._replace(classes=source))


def start_from(drawn: Drawn, plan: Pretrain, folder: Path, seed: int = 0) -> tuple[Model, SourceModelInfo | None]:
    """A network trained on the source of this data, and what the record says of that."""
    pair, answers, data = split_domains(drawn, 0, Budget("count", 2), CPU)
    torch.manual_seed(0)
    backbone, width = identity(pair.shape)
    backbone.add_module("map", torch.nn.Linear(width, 4))
    model = Model(backbone, 4, pair.classes)
    said, _ = composed(f"seed={seed}")
    parts = config.load_parts(said)._replace(pretrain=plan)
    task = Assembly(
        parts,
        pair,
        answers,
        model,
        data,
        "2",
        said,
        machine={},
        cache=folder,
        features=folder / "features",
        settled={},
        text=None,
    )
    steps = train_source_model(model, task)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return model, end.value and end.value[1]


def test_where_label_sets_differ_the_backbone_is_taken_over_and_the_head_is_new(tmp_path):
    same, differ = blobs(0, samples=90, classes=3), other_classes()
    untouched, none = start_from(differ, Pretrain(steps=0), tmp_path / "0")
    assert none is None
    with_head, _ = start_from(same, Pretrain(steps=5), tmp_path / "1")
    without, told = start_from(differ, Pretrain(steps=5), tmp_path / "2")
    assert told is not None and not torch.equal(without.backbone.map.weight, untouched.backbone.map.weight)  # pyright: ignore
    assert torch.equal(without.head.weight, untouched.head.weight)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(with_head.head.weight, untouched.head.weight)  # pyright: ignore[reportArgumentType]


def test_a_source_model_is_of_its_seed_where_the_data_is_the_same(tmp_path):
    told = [start_from(blobs(0, samples=90), Pretrain(steps=2), tmp_path, seed)[1] for seed in (0, 1, 0)]
    assert [each and each.shared for each in told] == [False, False, True]


def test_methods_that_need_the_same_labels_or_a_source_refuse_what_has_none():
    differ, _, _ = split_domains(other_classes(), 0, Budget("count", 2), CPU)
    sourceless, _, _ = split_domains(other_classes()._replace(source=None), 0, Budget("count", 2), CPU)
    with pytest.raises(UserError, match="the source has the classes a, b, c, the target 0, 1, 2: MMD needs the same"):
        check_task(MMD(), differ)
    with pytest.raises(UserError, match=r"no source domain.*MMD learns from source rows"):
        check_task(MMD(), sourceless)
    check_task(Finetune(), differ)
    check_task(Finetune(), sourceless)


def renamed(seed: int, samples: int = 300, size: int = 8, severity: None = None, target_shares=None) -> Drawn:
    drawn = digits(seed, samples=samples, size=size)
    return drawn._replace(source=drawn.source and drawn.source._replace(classes=tuple("abcdefghij")))


def sourceless(
    seed: int, samples: int = 300, size: int = 8, severity: None = None, target_shares: None = None
) -> Drawn:
    return digits(seed, samples=samples, size=size)._replace(source=None)


@pytest.mark.parametrize("data", ["renamed", "sourceless"])
@pytest.mark.parametrize("method", ["finetune", "l2sp", "feature_extract", "target_only"])
def test_whole_runs_without_a_source_of_the_same_labels(method, data, tmp_path, caplog):
    words = [f"dataset._target_=test_finetune.{data}", "~dataset.source", "~dataset.target", "~dataset.shift", *QUICK]
    record = made(tmp_path, f"method={method}", *words)
    assert record.status == "ok" and record.scores is not None and record.scores.source is None
    assert record.data.domains["source"] == (None if data == "sourceless" else "rendered")
    said = "there is no source model and the backbone has random weights" in caplog.text
    assert said == (data == "sourceless" and method != "target_only")


def test_augmentation_is_refused_where_features_are_computed_once():
    for method in ("feature_extract", "tradaboost"):
        with pytest.raises(UserError, match="augment=none"):
            config.load_parts(composed(f"method={method}", "augment=weak")[0])


def test_a_class_of_the_source_without_a_row_is_said(caplog):
    x, y = torch.rand(30, 2), torch.arange(30) % 2
    source, target = (Raw(name, x, y, ("a", "b", "c")) for name in ("s", "t"))
    split_domains(Drawn(source, target, {}), 0, Budget("count", 0), CPU)
    assert "the train split of s holds no row of class c" in caplog.text


def test_a_source_model_with_the_targets_head_is_another_than_one_without(tmp_path):
    """Of two source models that differ in the head they were trained with, the first must not serve for the second."""
    same, differ = blobs(0, samples=90, classes=3), other_classes(("0", "1", "2"))
    differ = differ._replace(target=differ.target._replace(classes=("x", "y", "z")))
    alone, _ = start_from(differ, Pretrain(steps=3), tmp_path / "alone")
    start_from(same, Pretrain(steps=3), tmp_path / "both")
    after, told = start_from(differ, Pretrain(steps=3), tmp_path / "both")
    assert told is not None and not told.shared
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), after.state_dict().values(), strict=True))


def test_l2sp_of_a_backbone_without_parameters_is_refused():
    pair, _, _ = split_domains(blobs(0, samples=90), 0, Budget("count", 2), CPU)
    backbone, width = identity(pair.shape)
    with pytest.raises(UserError, match="this backbone has none"):
        prepare(L2SP(), Model(backbone, width, pair.classes), pair)
