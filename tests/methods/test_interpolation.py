"""WiSE-FT: what is examined and saved lies between the start of fine-tuning and its end, by NumPy's arithmetic."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, made
from safetensors.torch import load_file
from support.tasks import images, prepare, task
from torch import Tensor

from tl_runner.core import Model, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods.finetune import Finetune
from tl_runner.methods.sum import Sum
from tl_runner.models.lora import merge_adapters
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.averaging import settle_weights
from tl_runner.training.loop import Cursor, Train, train

State = dict[str, Tensor]


def tuned(method: Finetune | Sum, pair: Pair, model: Model, steps: int = 8, **plan: Any) -> list[tuple[State, State]]:
    """After each step the parameters in training, and those that a run examines there; first of the start."""
    model, pair = prepare(method, model, pair)
    cursor, settings = Cursor(), Train(steps=steps, log_every=1, batch=16, **plan)
    found = [(copied(model), copied(settle_weights(model, method, None)))]
    optimizer = partial(optimizers.sgd, lr=0.1)
    for _ in train(model, method, pair, settings, optimizer, optimizers.constant, augment.none, Rng(0), cursor):
        found.append((copied(model), copied(settle_weights(model, method, cursor.average))))
    return found


def copied(model: Model) -> State:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def expect(found: State, start: State, now: State, alpha: float) -> None:
    for name, tensor in found.items():
        mixed = (1 - alpha) * start[name].double().numpy() + alpha * now[name].double().numpy()
        np.testing.assert_allclose(tensor, mixed, rtol=1e-5, atol=1e-6)  # of float32


def differ(one: State, other: State) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9])
def test_what_is_examined_lies_between_start_and_now(alpha):
    pair, model = task("5")
    (start, first), *later = tuned(Finetune(wise=alpha), pair, model)
    expect(first, start, start, alpha)
    for now, examined in later:
        expect(examined, start, now, alpha)
    assert differ(later[-1][0], start) == {*start}
    if alpha == 0:
        assert not differ(later[-1][1], start)  # to the last bit


def test_training_itself_is_as_without_and_1_keeps_nothing():
    pair, _ = task("5")
    plain, half = (tuned(Finetune(wise=alpha), pair, task("5")[1]) for alpha in (1.0, 0.5))
    assert all(not differ(one[0], other[0]) for one, other in zip(plain, half, strict=True))
    assert all(not differ(*each) for each in plain)
    method = Finetune()
    prepare(method, task("5")[1], pair)
    assert not method.state_dict()


def test_frozen_stages_stay_to_the_last_bit():
    pair, model = images("5")
    (start, _), *_, (now, examined) = tuned(Finetune(freeze="upto:conv1", wise=0.3), pair, model)
    frozen = {name for name in start if name.startswith("backbone.conv1.")}
    assert frozen and not frozen & (differ(now, start) | differ(examined, start))
    assert differ(examined, start) == {*start} - frozen


@pytest.mark.parametrize("how", ["lp_ft", "gradual"])
def test_where_the_head_is_trained_first_the_start_is_the_model_with_that_head(how):
    pair, model = images("5")
    model.pretrained = True
    method = Finetune(wise=0.25, lp_ft=how == "lp_ft", gradual=how == "gradual")
    seen = tuned(method, pair, model, steps=16)
    probe = 8 if how == "lp_ft" else 4  # half of the steps, or the first of four phases
    assert all(not differ(*each) for each in seen[: probe + 1])  # until then there is nothing to lie between
    start = seen[probe][0]
    assert differ(start, seen[0][0]) == {"head.weight", "head.bias"}
    for now, examined in seen[probe + 1 :]:
        expect(examined, start, now, 0.25)


def test_an_average_is_interpolated_too():
    pair, model = task("5")
    (start, _), *_, (_, examined) = tuned(Finetune(wise=0.5), pair, model, average="swa")
    _, *_, (_, averaged) = tuned(Finetune(), pair, task("5")[1], average="swa")
    expect(examined, start, averaged, 0.5)


def test_a_sum_examines_what_its_parts_do():
    pair, model = task("5")
    parts = [{"finetune": {"wise": 0.5}}, {"bss": {}}]
    (start, _), *_, (now, examined) = tuned(Sum(parts), pair, model)
    expect(examined, start, now, 0.5)


def test_of_adapters_the_merged_weights_are_interpolated():
    pytest.importorskip("peft")
    pair, model = task("5")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    *_, (now, examined) = tuned(Finetune(lora_rank=2, wise=0.25), pair, model)
    merged, between = merge_adapters(now), merge_adapters(examined)
    assert any(not torch.equal(merged[name], before[name]) for name in merged)
    expect(between, before, merged, 0.25)


def test_a_start_that_says_nothing_is_refused():
    pair, model = images("5")
    with pytest.raises(UserError, match=r"head is new here: set method\.lp_ft=true"):
        Finetune(wise=0.5).prepare(model, pair, Resources(Rng(0)))
    with pytest.raises(UserError, match="random weights: use a dataset with a source"):
        Finetune(wise=0.5, lp_ft=True).prepare(model, pair, Resources(Rng(0)))
    model.pretrained, model.untrained = True, ("conv2",)
    with pytest.raises(UserError, match="random weights"):
        Finetune(wise=0.5, gradual=True).prepare(model, pair, Resources(Rng(0)))
    with pytest.raises(UserError, match="wise"):
        Finetune(wise=1.5)


def test_a_whole_run_keeps_what_lies_between_the_source_model_and_the_tuned_one(tmp_path):
    words = ["method=finetune", *QUICK, "select=last", "diagnose=none"]
    runs = [made(tmp_path, *words, f"method.wise={alpha}") for alpha in ("0", "0.5", "1")]
    assert runs[2].id == made(tmp_path, *words).id and len({run.id for run in runs}) == 3
    start, half, end = (load_file(run.folder / "model.safetensors") for run in runs)
    (file,) = (tmp_path / "cache" / "source_models").glob("*.safetensors")
    source = load_file(file)
    parameters = [name for name in source if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(start[name], source[name]) for name in parameters)
    expect({name: half[name] for name in parameters}, start, end, 0.5)
    known = json.loads(file.with_suffix(".json").read_text())
    assert known["steps"] == 20 and runs[0].scores and runs[0].scores.source
