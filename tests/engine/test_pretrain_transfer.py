"""Which stages of the source model are copied (`pretrain.transfer`), to the last bit; one source model serves all."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import QUICK, composed, described, made
from torch import Tensor

from tl_runner import config
from tl_runner.core import Method, Model, Resources
from tl_runner.engine.assembly import Assembly, assemble
from tl_runner.engine.device import describe_device
from tl_runner.engine.pretrain import start_model
from tl_runner.errors import UserError
from tl_runner.models.learning_rates import lr_factor
from tl_runner.report.tables import result
from tl_runner.storage.provenance import collect_provenance
from tl_runner.storage.record import read_record
from tl_runner.storage.sections import SourceModelInfo
from tl_runner.tasks import Classification
from tl_runner.training.loop import begin_phase

SMALL = [*QUICK, "backbone.channels=4", "backbone.width=16", "diagnose=none"]
BATCHNORM = ("running_mean", "running_var", "num_batches_tracked")

State = Mapping[str, Tensor]


class Started(NamedTuple):
    """A method's start: the model's values before and after, and what `start_model` returned."""

    model: Model
    before: State
    after: State
    resources: Resources
    info: SourceModelInfo | None


def state_of(model: Model) -> State:
    """What training changes: all but the constants of the stage `pixels`."""
    return {name: value.clone() for name, value in model.state_dict().items() if ".pixels." not in name}


def task_of(folder: Path, *words: str) -> tuple[Method, Assembly]:
    record = described(folder, "method=finetune", "granted=5", *SMALL, *words)
    parts = config.load_parts(record.config)
    assert isinstance(parts.method, Method)
    record.environment = replace(collect_provenance(), **describe_device(torch.device("cpu"), parts.train))
    return parts.method, assemble(record, parts, torch.device("cpu"), needs_granted=True)


def start(method: Method, task: Assembly) -> Started:
    before, steps = state_of(task.model), start_model(method, task.model, task)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return Started(task.model, before, state_of(task.model), *end.value)


def started(folder: Path, *words: str) -> Started:
    return start(*task_of(folder, *words))


def source_models(folder: Path) -> list[Path]:
    return [*(folder / "cache" / "source_models").glob("*.safetensors")]


def parts_equal(one: State, other: State) -> set[str]:
    """The stages, and the head, of which every value is equal."""
    unequal = {part_of(name) for name in one if not torch.equal(one[name], other[name])}
    return {part_of(name) for name in one} - unequal


def part_of(name: str) -> str:
    return name.removeprefix("backbone.").partition(".")[0]


PARTS = {"conv1", "conv2", "hidden", "head"}
COPIED = {
    "all": PARTS,
    "none": set(),
    "upto:pixels": set(),
    "upto:conv1": {"conv1"},
    "upto:hidden": {"conv1", "conv2", "hidden"},
    "from:pixels": PARTS,
    "from:conv2": {"conv2", "hidden", "head"},
    "from:hidden": {"hidden", "head"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Started]:
    """A source model that is copied as a whole, and where it is kept."""
    folder = tmp_path_factory.mktemp("source")
    found = started(folder)
    assert not parts_equal(found.before, found.after)
    buffers = [name for name in found.before if name.endswith(BATCHNORM)]
    assert len(buffers) == 6 and not any(torch.equal(found.before[name], found.after[name]) for name in buffers)
    return folder, found


@pytest.mark.parametrize("transfer", COPIED)
def test_copied_stages_are_the_source_models_and_the_others_as_they_were(transfer, source):
    folder, whole = source
    found = started(folder, f"pretrain.transfer={transfer}")
    assert parts_equal(found.after, whole.after) == COPIED[transfer]
    assert parts_equal(found.after, found.before) == PARTS - COPIED[transfer]
    assert parts_equal(found.before, whole.before) == PARTS
    assert (found.resources.source_model is not None) == (COPIED[transfer] == PARTS)
    assert found.model.pretrained == (transfer != "none")
    assert {*found.model.untrained} - {"pixels"} == (PARTS - {"head"} - COPIED[transfer] if found.info else set())


def test_one_source_model_serves_all_values_whichever_is_first(tmp_path, source):
    infos = [started(tmp_path, f"pretrain.transfer={transfer}").info for transfer in ("from:conv2", "upto:conv1")]
    last = started(tmp_path)
    assert len(source_models(tmp_path)) == 1
    assert [info and (info.transfer, info.shared) for info in (*infos, last.info)] == [
        ("from:conv2", False),
        ("upto:conv1", True),
        ("all", True),
    ]
    assert len({info and info.id for info in (*infos, last.info, source[1].info)}) == 1
    assert parts_equal(last.after, source[1].after) == PARTS  # what is kept is the whole of it


@pytest.mark.parametrize("transfer", ["all", "from:conv2", "upto:conv2"])
def test_the_head_is_new_where_the_classes_differ(transfer, tmp_path):
    method, task = task_of(tmp_path, f"pretrain.transfer={transfer}")
    assert task.pair.source
    other = replace(task.pair.source, task=Classification(tuple("abcdefghij")))
    found = start(method, replace(task, pair=replace(task.pair, source=other)))
    fresh = {"all": {"head"}, "from:conv2": {"conv1", "head"}, "upto:conv2": {"hidden", "head"}}
    assert parts_equal(found.before, found.after) == fresh[transfer]


def test_none_is_the_model_without_a_source_model_which_nobody_trains(tmp_path, caplog):
    found, without = (started(tmp_path, word) for word in ("pretrain.transfer=none", "pretrain.steps=0"))
    assert parts_equal(found.after, without.after) == PARTS and not source_models(tmp_path)
    assert found.info is None and found.resources.source_model is None and not found.model.pretrained
    random = "the backbone has random weights: its features are untrained"
    assert f"pretrain.transfer=none copies nothing and {random}" in caplog.text
    assert f"there is no source model and {random}" in caplog.text


def test_without_a_source_model_stages_to_copy_are_told_to_have_no_effect(tmp_path, caplog):
    started(tmp_path, "pretrain.steps=0", "pretrain.transfer=upto:conv1")
    assert "pretrain.transfer=upto:conv1 has no effect: there is no source model" in caplog.text


@pytest.mark.parametrize("steps", [20, 0])
def test_an_unknown_stage_is_refused_before_anything_is_trained(steps, tmp_path):
    with pytest.raises(UserError, match=r"pretrain\.transfer=from:conv3: .* 'conv3' – did you mean 'conv2'\? \(possib"):
        started(tmp_path, f"pretrain.steps={steps}", "pretrain.transfer=from:conv3")
    assert not source_models(tmp_path)


@pytest.mark.parametrize("word", ["half", "conv1", "upto", "from:", "all:conv1", "up_to:conv1"])
def test_other_words_are_refused_when_options_are_checked(word):
    said = rf"^pretrain\.transfer takes all, none, upto:STAGE or from:STAGE, got '{word}'$"
    with pytest.raises(UserError, match=said):
        config.load_parts(composed(f"pretrain.transfer='{word}'")[0])


@pytest.mark.parametrize("transfer", ["none", "upto:hidden", "from:conv2"])
@pytest.mark.parametrize("method", ["lwf", "adabn"])
def test_methods_that_keep_the_source_models_head_need_all_of_it(method, transfer, tmp_path):
    with pytest.raises(UserError, match=r"keeps the source model's head.* with pretrain\.transfer=all"):
        made(tmp_path, f"method={method}", *SMALL, f"pretrain.transfer={transfer}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=stochnorm"], {"conv1": 0.1, "conv2": 1.0, "hidden": 1.0, "head": 1.0}),
        (["method.lr_decay=0.5"], {"conv1": 0.025, "conv2": 0.5, "hidden": 1.0, "head": 1.0}),
        (["optimizer.lr_backbone=0.3"], {"conv1": 0.3, "conv2": 0.3, "hidden": 0.3, "head": 1.0}),
    ],
)
def test_stages_that_were_not_trained_before_learn_at_the_rate_of_random_ones(words, expected, source):
    rule, task = task_of(source[0], "pretrain.transfer=upto:conv1", *words)
    model, _ = rule.prepare(task.model, task.pair, start(rule, task).resources)
    (phase,) = rule.phases(model)
    said = getattr(task.parts.optimizer, "keywords")["lr_backbone"]  # noqa: B009
    rates = {p: lr_factor(group, said) for group in begin_phase(phase, model, rule) for p in group.parameters}
    assert {part_of(name): round(rates[p], 6) for name, p in model.named_parameters()} == expected


def test_what_a_method_trains_as_one_group_is_told_apart_too(source):
    _, task = task_of(source[0], "method=weighted", "method.view=features", "pretrain.transfer=from:conv2")
    rule = task.parts.method
    assert isinstance(rule, Method) and rule.start == "source"
    start(rule, task)
    groups = begin_phase(rule.phases(task.model)[0], task.model, rule)
    assert [lr_factor(group) for group in groups] == [1.0, 0.1, 1.0]  # conv1; conv2 and hidden; head
    assert [p for group in groups for p in group.parameters] == [*task.model.parameters()]


def test_weights_of_the_backbone_count_as_trained_before(source):
    method, task = task_of(source[0], "pretrain.transfer=upto:conv1")
    task.model.pretrained = True  # as where `backbone.weights` is set
    assert start(method, task).model.untrained == ()


def test_a_run_copies_some_stages_and_says_which(tmp_path, caplog):
    words = ["method=finetune", "method.freeze=upto:conv1", "granted=5", *SMALL]
    with caplog.at_level(logging.WARNING):
        record = made(tmp_path, *words, "pretrain.transfer=upto:conv1")
    whole = made(tmp_path, *words)
    assert record.status == "ok" and record.id != whole.id and "untrained" not in caplog.text
    told = [str(result(run, None)[-1]) for run in (record, whole)]
    assert ["of which transfer=upto:conv1 is copied" in each for each in told] == [True, False]
    stored = read_record(record.folder / "run.json").training
    assert stored.source_model is not None and whole.training.source_model is not None
    assert stored.source_model.transfer == "upto:conv1" and whole.training.source_model.transfer == "all"
    assert stored.source_model.id == whole.training.source_model.id and whole.training.source_model.shared
    assert stored.lr_backbone == {"tune": [1.0]} and whole.training.lr_backbone == {"tune": [0.1]}
