"""`shares=`: around any method, source rows are drawn and predictions adjusted by shares that no label told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import QUICK, composed, made
from safetensors.torch import load_file
from support.tasks import task

import tl_runner
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import Drawn
from tl_runner.engine.run import run
from tl_runner.errors import UserError
from tl_runner.evaluation.class_shares import KEPT, TrackedShares, add_bias
from tl_runner.evaluation.scores import predict
from tl_runner.functional.class_shares import ESTIMATORS
from tl_runner.functional.estimated_accuracy import fit_temperature
from tl_runner.models.batchnorm import DomainModels
from tl_runner.rng import Rng, weighted_rows
from tl_runner.storage.record import describe_run

PRIOR = ["dataset=synthetic", "dataset.shift=prior", "dataset.samples=400", "backbone=mlp", "train.steps=60"]


def test_rows_are_drawn_by_their_chances_and_the_same_at_the_same_step():
    chances = torch.tensor([1.0, 0.0, 3.0])
    drawn = weighted_rows(Rng(0), chances, 40_000, step=7)
    assert (drawn.bincount(minlength=3) / 40_000).tolist() == pytest.approx([0.25, 0.0, 0.75], abs=0.01)
    assert torch.equal(drawn, weighted_rows(Rng(0), chances, 40_000, step=7))
    assert not torch.equal(drawn, weighted_rows(Rng(0), chances, 40_000, step=8))


def test_source_rows_are_drawn_with_the_estimated_shares_and_a_tenth_of_the_sources_own(monkeypatch):
    pair, model = task(classes=4)
    shares = TrackedShares.start("bbse", pair)
    assert shares is not None and shares.chances is None
    monkeypatch.setitem(ESTIMATORS, "bbse", lambda target, source, labels: torch.tensor([0.7, 0.2, 0.1, 0.0]).double())
    shares.adjust(DomainModels(model, model), pair)
    sides, seen = shares.adjust(DomainModels(model, model), pair)
    assert shares.chances is not None and shares.estimated is not None and seen.weights is not None
    labels = pair.labelled_source[1].train
    mass = torch.zeros(4, dtype=torch.double).index_add(0, labels, shares.chances)
    wanted = (1 - KEPT) * shares.estimated + KEPT * shares.source
    assert (mass / mass.sum()).tolist() == pytest.approx(wanted.tolist())
    assert seen.val_weights is not None and len(seen.val_weights) == len(pair.labelled_source[1].val)
    assert sides.source is model and sides.target is not model


@pytest.mark.parametrize("story", ["far near", "near far near far far near far far near"])
def test_shares_near_the_sources_are_not_believed_and_others_are_drawn_by_at_first_or_again(story, monkeypatch):
    """Else the run trains as with shares=none; its predictions are mapped back from what was drawn before."""
    pair, model = task(classes=4)
    shares = TrackedShares.start("bbse", pair)
    assert shares is not None
    own, off = shares.source, torch.tensor([0.3, -0.1, -0.1, -0.1]).double()
    estimates = {"near": own + 0.6 * off, "far": own + 0.7 * off}  # 0.18 and 0.21 in total variation
    temperature = fit_temperature(predict(model, pair.labelled_source[0].val), pair.labelled_source[1].val)
    plain, drawn, before = predict(model, pair.target.val), own, "far"
    for told in story.split():
        monkeypatch.setitem(ESTIMATORS, "bbse", lambda target, source, labels, told=told: estimates[told])
        sides, seen = shares.adjust(DomainModels(model, model), pair)
        believed = own if told == "near" else estimates[told]
        assert shares.bias is not None and shares.describe(shares.facts).applied == (told == "far")
        torch.testing.assert_close(shares.bias.double(), temperature * (believed / drawn).log(), rtol=1e-5, atol=1e-6)
        assert (shares.chances is not None) == (seen is not pair) == (told == before == "far")
        drawn, before = shares.drawn, told
    assert torch.equal(drawn, own)
    sides, _ = shares.adjust(DomainModels(model, model), pair)
    assert torch.equal(predict(sides.target, pair.target.val), plain)


def test_a_run_whose_shares_are_equal_is_that_without_shares(tmp_path):
    """Byte for byte; here confusion of classes looks like a difference of a tenth of the rows."""
    words = ["method=mmd", "dataset.samples=600", "dataset.size=8", "train.steps=60"]
    plain, found = made(tmp_path, *words), made(tmp_path, *words, "shares=bbse")
    assert found.training.shares is not None and not found.training.shares.applied
    for name in ("model.safetensors", "predictions.safetensors"):
        assert (plain.folder / name).read_bytes() == (found.folder / name).read_bytes()


def test_the_bias_multiplies_probabilities_by_the_ratio_of_shares():
    pair, model = task(classes=4)
    ratio = torch.tensor([1.0, 2.0, 0.5, 4.0])
    sides = add_bias(DomainModels(model, model), ratio.log())
    plain, found = predict(model, pair.target.val), predict(sides.target, pair.target.val)
    torch.testing.assert_close(found, plain * ratio / (plain * ratio).sum(-1, keepdim=True))
    assert {*model.state_dict()} == {
        name for name in model.state_dict() if "head.head" not in name
    }  # it stays as it was


def test_shares_help_where_only_the_class_shares_differ(tmp_path):
    """Half of the source's rows are of the class of nine in ten target rows, and alignment takes classes for others."""
    words = ["dataset=synthetic", "dataset.shift=prior", "dataset.strength=3", "backbone=mlp", "method=dann"]
    runs = {by: made(tmp_path, *words, f"shares={by}") for by in ("none", "bbse", "rlls", "mlls")}
    plain = runs.pop("none")
    assert plain.headline is not None and plain.training.shares is None
    for by, found in runs.items():
        info = found.training.shares
        assert found.headline is not None and found.headline > plain.headline + 0.1
        assert info is not None and info.by == by and plain.id != found.id
        assert info.source == pytest.approx([0.5, 0.5], abs=0.1) and info.estimated[1] > 0.75


def test_a_run_with_shares_is_told_saved_and_loaded_adjusted(tmp_path):
    record = made(tmp_path, *PRIOR, "method=mmd", "shares=mlls")
    assert record.scores is not None and record.training.shares is not None and record.training.temperature
    stored = load_file(record.folder / "predictions.safetensors")[f"step_{record.scores.selected['step']}"]
    from tl_runner.datasets.budget import Budget
    from tl_runner.datasets.split import split_domains
    from tl_runner.datasets.synthetic import synthetic

    pair, _, _ = split_domains(synthetic(0, samples=400, shift="prior"), 0, Budget("count", 0), torch.device("cpu"))
    logits = tl_runner.load(record.folder).model(pair.target.test.take(torch.arange(len(pair.target.test))))
    torch.testing.assert_close((logits * record.training.temperature).softmax(-1), stored, atol=1e-5, rtol=0)
    plain = tl_runner.load(record.folder, domain="source").model(pair.target.test.take(torch.arange(5)))
    bias = torch.tensor(record.training.shares.bias) / record.training.temperature
    torch.testing.assert_close(plain + bias, logits[:5])


@pytest.mark.parametrize("method", ["mmd", "sa", "kmm", "shot", "fixmatch", "maml", "source_only"])
def test_shares_go_around_every_kind_of_method(method, tmp_path):
    words = [f"method={method}", "shares=rlls", *QUICK, "dataset.target_shares=1.0"]
    if method == "maml":
        with pytest.raises(UserError, match="shares=rlls estimates class shares without target labels"):
            made(tmp_path, *words)
        return
    assert made(tmp_path, *words).status == "ok"


def test_an_interrupted_run_with_shares_resumes_to_the_same_bytes(tmp_path):
    words = [*PRIOR, "method=mmd", "shares=mlls", "checkpoint_every=0"]
    whole = made(tmp_path / "whole", *words)
    halted = describe_run({**whole.config, "outputs": str(tmp_path / "halted")}, whole.choices)
    making = run(halted)
    for _ in range(4):
        next(making)
    making.close()
    resumed = describe_run(halted.config, halted.choices)
    for _ in run(resumed):
        pass
    assert resumed.environment.resumed and resumed.scores == whole.scores
    for name in ("model.safetensors", "predictions.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_shares_need_a_source_of_the_same_classes():
    pair, _ = task()
    with pytest.raises(UserError, match="shares=bbse needs a source with labels of the target's classes"):
        TrackedShares.start("bbse", replace(pair, source=None))


def test_an_option_left_alone_leaves_the_id():
    plain, said = (
        describe_run(*composed_with()),
        describe_run(*composed_with("shares=none", "dataset.target_shares=null")),
    )
    assert plain.id == said.id != describe_run(*composed_with("shares=mlls")).id


def composed_with(*words: str):

    return composed(*words)


# The shares of digits' target


def shares_of(drawn: Drawn) -> list[float]:
    return (drawn.target.y.bincount(minlength=10) / len(drawn.target.y)).tolist()


def test_digits_take_shares_for_their_target():
    halved = digits(0, size=8, target_shares=(1.0,) * 5 + (0.0,) * 5)
    assert shares_of(halved) == pytest.approx([0.2] * 5 + [0.0] * 5, abs=0.01) and len(halved.target.y) > 800
    drawn = [shares_of(digits(seed, size=8, target_shares=0.5)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and max(drawn[0]) > 0.25
    assert max(shares_of(digits(0, size=8, target_shares=1000.0))) < 0.12
    assert shares_of(digits(0, size=8)) == pytest.approx([0.1] * 10, abs=0.01)
    for wrong in ((1.0, 1.0), (1.0, *(0.0,) * 9), (-1.0, *(1.0,) * 9)):
        with pytest.raises(UserError, match="target_shares takes a number, or 10 shares of which two or more"):
            digits(0, target_shares=wrong)


def test_a_target_with_five_of_ten_classes_is_served(tmp_path):
    words = ["method=mmd", *QUICK, "dataset.target_shares=[1,1,1,1,1,0,0,0,0,0]"]
    record = made(tmp_path, *words, "shares=mlls")
    assert record.status == "ok" and record.data.classes == [*"0123456789"]
    info = json.loads(Path(record.folder, "run.json").read_text())["training"]["shares"]
    assert len(info["estimated"]) == 10 and sum(info["estimated"]) == pytest.approx(1)
