"""Averaged weights: against the recurrence and the mean, computed by NumPy from the weights of every step."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import METHODS, QUICK, made, some_slow
from safetensors.torch import load_file
from support.tasks import images, task
from torch import Tensor, nn

from tl_runner.core import Group, Method, Model, Phase, Stream
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.evaluation.scores import predict
from tl_runner.functional.metrics import accuracy
from tl_runner.inference.load import load
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.batchnorm import by_domain_statistics, running_statistics
from tl_runner.models.substitution import substitute_tensors
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.averaging import Average, settle_weights
from tl_runner.training.loop import Cursor, Train, train

State = dict[str, Tensor]
READ: frozenset[Stream] = frozenset({"source", "target"})


class HeadThenAll(SourceOnly):
    def phases(self, model):
        return [
            Phase("head", 1.0, [Group(model.head.parameters())], model.stages),
            Phase("all", 1.0, [Group(model.parameters())]),
        ]


def watch(model: Model, method: Method, pair: Pair, **plan: Any) -> list[tuple[State, State, Model]]:
    """After each step the weights, the averaged ones among them, and the model that a run examines there."""
    cursor, found = Cursor(), []
    settings = Train(**{"log_every": 1, "batch": 16, **plan})
    optimizer = partial(optimizers.sgd, lr=0.1)
    for _ in train(model, method, pair, settings, optimizer, optimizers.constant, augment.none, Rng(0), cursor):
        examined = settle_weights(model, method, cursor.average)
        found.append((copied(model.state_dict()), copied(cursor.state()["averaged"]), examined))
    return found


def copied(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_ema_is_the_recurrence_over_the_weights_of_every_step(decay):
    pair, model = task()
    start = copied(model.state_dict())
    seen = watch(model, SourceOnly(), pair, steps=12, average="ema", average_decay=decay)
    for name, tensor in start.items():
        expected = tensor.double().numpy()
        for t, (raw, averaged, _) in enumerate(seen, start=1):
            kept = min(decay, (1 + t) / (10 + t))
            expected = kept * expected + (1 - kept) * raw[name].double().numpy()
            np.testing.assert_allclose(averaged[name], expected, rtol=1e-5, atol=1e-7)  # float32 over 12 steps
    assert any(not torch.allclose(seen[-1][0][name], seen[-1][1][name], atol=1e-3) for name in start)


@pytest.mark.parametrize("steps", [16, 13, 3])
def test_swa_is_the_mean_over_the_last_quarter_and_before_it_the_weights_themselves(steps):
    pair, model = task()
    seen = watch(model, SourceOnly(), pair, steps=steps, average="swa")
    tail = [raw for raw, _, _ in seen[3 * steps // 4 :]]
    assert len(tail) == {16: 4, 13: 4, 3: 1}[steps]
    for name in tail[0]:
        expected = np.mean([raw[name].double().numpy() for raw in tail], axis=0)
        np.testing.assert_allclose(seen[-1][1][name], expected, rtol=1e-5, atol=1e-7)
    for raw, averaged, _ in seen[: 3 * steps // 4]:
        assert all(torch.equal(raw[name], tensor) for name, tensor in averaged.items())


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_training_goes_on_with_the_weights_as_they_are(average):
    (pair, model), (_, other) = task(), task()
    plain, seen = (watch(m, SourceOnly(), pair, steps=8, average=a) for m, a in ((model, "none"), (other, average)))
    for (one, none, examined), (two, _, _) in zip(plain, seen, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one) and not none
        assert examined is model


def test_an_average_begins_anew_with_each_phase_and_is_of_what_the_phase_trains():
    pair, model = images("0")
    seen = watch(model, HeadThenAll(), pair, steps=8, average="ema")
    head = {"head.weight", "head.bias"}
    statistics = {*running_statistics(model)}
    assert {*seen[3][1]} == head | statistics and {*seen[4][1]} >= {*dict(model.named_parameters())}
    before, (after, averaged, _) = seen[3][0], seen[4]  # the first step of the second phase
    for name, tensor in averaged.items():
        expected = before[name] + (after[name] - before[name]) * (1 - 2 / 11)
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
    examined = dict(seen[3][2].named_parameters())
    raw = dict(model.named_parameters())
    assert all((examined[name] is raw[name]) == (name not in head) for name in raw)  # frozen ones are shared


def test_what_is_examined_has_the_averaged_tensors_and_shares_the_rest():
    _, model = images("0")
    names = dict(model.named_parameters())
    one = torch.zeros_like(names["head.bias"])
    other = substitute_tensors(model, {"head.bias": one, "backbone.conv1.1.running_mean": torch.ones(4)})
    found = dict(other.named_parameters())
    assert all((found[name] is names[name]) == (name != "head.bias") for name in names)
    assert found["head.bias"].data_ptr() == one.data_ptr() and not torch.equal(names["head.bias"], one)
    assert (running_statistics(other)["backbone.conv1.1.running_mean"] == 1).all()
    assert (running_statistics(model)["backbone.conv1.1.running_mean"] == 0).all()
    model.train()
    assert model.training and not other.eval().training and model.training


def test_the_statistics_of_an_averaged_network_on_joint_batches_are_of_its_own_maps():
    """PyTorch's running averages are of the weights as they were: each batch of both domains is passed anew."""
    pair, model = images("0")
    assert pair.source
    model.batchnorm = "joint"
    conv = dict(model.named_parameters())["backbone.conv1.0.weight"].detach()
    other = substitute_tensors(model, {"backbone.conv1.0.weight": 3 * conv})
    sides = by_domain_statistics(other, pair, READ, {}, own=False)
    assert sides.source is sides.target
    few, many = len(pair.source.train), len(pair.target.train)
    assert few < 256 < many  # rows of the source come again
    means, variances = [], []
    for rows in torch.arange(many).tensor_split(many // 256):
        x = torch.cat([pair.source.train.take(rows % few), pair.target.train.take(rows)])
        with torch.no_grad():
            maps = other.backbone.get_submodule("conv1.0")(other.backbone[0](x)).double().numpy()
        means.append(maps.mean((0, 2, 3)))
        variances.append(maps.var((0, 2, 3), ddof=1))
    found = running_statistics(sides.target)
    np.testing.assert_allclose(found["backbone.conv1.1.running_mean"], np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["backbone.conv1.1.running_var"], np.mean(variances, 0), rtol=1e-4)
    assert by_domain_statistics(model, pair, READ, {}).target is model


def test_a_phase_that_trains_none_of_the_models_weights_has_no_average_of_them():
    model = Model(nn.Sequential(), 3, ("a", "b"))
    model.requires_grad_(False)
    average = Average(model, "ema", 0.9, 10)
    average.follow(1)
    assert not average.tensors and settle_weights(model, SourceOnly(), average) is model


def test_a_decay_that_is_no_share_is_refused():
    with pytest.raises(UserError, match="average_decay"):
        Train(average="ema", average_decay=1.5)


@pytest.mark.parametrize("words", [["train.average=ema", "train.average_decay=0"], ["train.average=swa"]])
def test_the_average_of_one_step_is_what_a_run_without_keeps(words, tmp_path):
    """The whole way to the files: of four steps the last quarter is one, and a decay of 0 forgets all others."""
    few = ["method=dann", *QUICK, "train.steps=4", "select=last", "diagnose=none"]
    plain, averaged = made(tmp_path, *few), made(tmp_path, *few, *words)
    assert plain.id != averaged.id
    for name in ("model", "predictions"):
        one, other = (run.folder / f"{name}.safetensors" for run in (plain, averaged))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_saved_scored_and_predicted_is_the_averaged_model(tmp_path):
    words = ["method=mmd", *QUICK, "select=last", "diagnose=none"]
    plain, averaged = made(tmp_path, *words), made(tmp_path, *words, "train.average=ema")
    one, other = (load_file(run.folder / "model.safetensors") for run in (plain, averaged))
    assert {*one} == {*other} and not torch.equal(one["head.weight"], other["head.weight"])
    with Rng(0).child("data").as_default():
        drawn = digits(0, samples=300, size=8)
    pair, answers, _ = split_domains(drawn, 0, Budget.parse("0"), torch.device("cpu"))
    assert averaged.scores
    found = accuracy(predict(load(averaged.folder).model, pair.target.test), answers.open())
    assert found == averaged.scores.target["accuracy"] == averaged.scores.last["accuracy"]


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("method", some_slow(METHODS))
def test_every_method_runs_with_an_average_or_says_that_it_has_none(method, average, tmp_path, caplog):
    record = made(tmp_path, f"method={method}", f"train.average={average}", *QUICK, "diagnose=none")
    assert record.status == "ok" and record.scores is not None
    if method != "auto":  # some of whose candidates may have none
        assert (f"train.average={average} has no effect" in caplog.text) == (not record.training.trainable)
