"""The contract of a method, for every YAML in conf/method, and what is particular to each."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import METHODS, QUICK, built, composed, made, some_slow
from support.tasks import batch_of, images, prepare, task

from tl_runner import config
from tl_runner.core import Batch, Method, Model, Phase
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import UserError
from tl_runner.functional import losses
from tl_runner.methods.auto import Auto
from tl_runner.methods.dann import DANN
from tl_runner.methods.mmd import MMD
from tl_runner.models.backbones import identity
from tl_runner.rng import Rng
from tl_runner.training.loop import Cursor, Train, begin_phase, train


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("granted", ["0", "5"])
def test_terms_are_finite_named_scalars_and_what_is_trained_gets_a_gradient(name, granted):
    method = built(name)
    if isinstance(method, Auto):  # it is replaced by one of the others before anything is trained
        method = method.build("jmmd")
    pair, model = images("5" if "granted" in method.needs else granted)
    try:
        model, pair = prepare(method, model, pair)
    except UserError as refused:
        assert granted == "5" and "granted" in str(refused)  # of what would do nothing
        return
    for phase in method.phases(model):
        groups = begin_phase(phase, model, method)
        refresh(phase, model, pair)
        model.train()
        method.train()
        batch = batch_of(method, pair, phase)
        terms = method.terms(model, batch, 0.5)
        assert terms and all(value.shape == () and torch.isfinite(value) for value in terms.values())
        assert not batch.unread, "granted labels that do nothing"
        torch.stack(list(terms.values())).sum().backward()
        trained = [parameter for group in groups for parameter in group.parameters]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        model.zero_grad()
        method.zero_grad()
    model.eval()
    assert torch.isfinite(model(pair.target.test.take(torch.arange(9)))).all()


def refresh(phase: Phase, model: Model, pair: Pair) -> None:
    """As the loop does before the first step."""
    if phase.refresh:
        with torch.no_grad():
            phase.refresh(model, pair)


def learnt_of_source_labels(method: Method, shift: int) -> torch.Tensor:
    """What the model learns last where source labels are moved on by so many classes: its gradient, or what it says."""
    pair, model = images("5" if "granted" in method.needs else "0")
    source, labels = pair.labelled_source
    moved = labels._replace(train=(labels.train + shift) % len(source.classes))
    pair = replace(pair, source=replace(source, labels=moved))
    with Rng(0).child("prepare").as_default():
        model, pair = prepare(method, model, pair)
    if not (phases := method.phases(model)):
        return model.eval()(pair.target.test.take(torch.arange(9))).detach()
    begin_phase(phases[-1], model, method)
    refresh(phases[-1], model, pair)
    model.train()
    method.train()
    with Rng(0).child("step").as_default():
        terms = method.terms(model, batch_of(method, pair, phases[-1]), 0.9)
    torch.stack(list(terms.values())).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    "said",
    [
        *(name for name in METHODS if name != "auto"),  # which is replaced by one of the others
        *({name: {"order": "then_finetune"}} for name in ("weighted", "density_ratio", "kmm", "sample_selection")),
        *({"balanced": {"gamma": gamma}} for gamma in (0.0, 1.0)),
        {"sum": {"parts": ["shot", "adda"]}},
    ],
    ids=str,
)
def test_a_method_keeps_the_source_labels_where_it_learns_from_source_labels_until_the_end(said):
    before, after = (learnt_of_source_labels(config.build_named("method", said, "method"), shift) for shift in (0, 1))
    method: Method = config.build_named("method", said, "method")
    assert (method.source_labels == "throughout") == (not torch.equal(before, after))


@pytest.mark.parametrize(
    ("streams", "labels"),
    [
        ({"source"}, "throughout"),
        ({"source", "granted"}, "throughout"),
        ({"granted", "target"}, "unused"),
        ({"target"}, "start"),
    ],
)
def test_what_source_labels_are_to_a_method_follows_from_its_needs_unless_it_says_more(streams, labels):
    class Plain(Method):
        needs = frozenset(streams)

    assert Plain().source_labels == labels


def test_accuracy_on_the_source_is_no_floor_where_its_labels_are_not_learnt(tmp_path):
    record = made(tmp_path, "method=adda", "select=source_val", *QUICK)  # a rule that asks for the floor alone
    assert record.evidence and record.scores
    assert record.evidence["floor"] is record.evidence["risk"] is None and record.evidence["source_val"] is not None
    assert record.scores.selected["step"] == record.scores.last["step"]


@pytest.mark.parametrize("name", some_slow(name for name in METHODS if name != "auto"))  # which is no method
def test_preparing_twice_gives_the_same_and_leaves_the_model(name):
    pair, model = images("5" if "granted" in built(name).needs else "0")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = built(name), built(name)
    prepare(first, model, pair, 7)
    prepare(second, model, pair, 7)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", some_slow(METHODS))
def test_a_tiny_run_ends_well_and_has_all_its_files(name, tmp_path):
    record = made(tmp_path, f"method={name}", *QUICK)
    assert record.status == "ok" and record.scores is not None
    assert {*json.loads((record.folder / "run.json").read_text())["scores"]} == {
        *("source", "members", "target", "last", "selected", "oracle", "majority"),
        *("estimated", "estimate", "estimated_error"),
    }
    assert record.scores.selected["accuracy"] == record.scores.target["accuracy"]
    assert record.scores.oracle["accuracy"] >= max(
        of["accuracy"] for of in (record.scores.last, record.scores.selected)
    )
    assert {file.name for file in record.folder.iterdir()} == {
        "run.json", "run.log", "config.yaml", "curve.jsonl", "model.safetensors", "predictions.safetensors",
        "diagnosis.safetensors", "validation.safetensors",
    }  # fmt: skip


def test_dann_gives_the_discriminator_its_gradient_and_the_features_its_reverse():
    """d loss/d features = −λ · weight · d BCE/d features, d loss/d discriminator = + weight · d BCE/d discriminator."""
    pair, model = task()
    method = DANN(weight=0.7, hidden=16, dropout=0.0)
    prepare(method, model, pair)
    batch, progress = batch_of(method, pair), 0.3
    terms = method.terms(model, batch, progress)
    terms["adversary"].backward()
    parts = (model.backbone, method.discriminator)
    reversed_, discriminator = [[p.grad.clone() for p in part.parameters() if p.grad is not None] for part in parts]
    model.zero_grad()
    method.zero_grad()
    logits = method.discriminator(torch.cat(model.features(batch.source.x, batch.target))).squeeze(1)
    domain = torch.cat([torch.ones(16), torch.zeros(16)])
    (0.7 * F.binary_cross_entropy(torch.sigmoid(logits), domain)).backward()  # without reversal
    for got, plain in zip(discriminator, method.discriminator.parameters(), strict=True):
        torch.testing.assert_close(got, plain.grad, rtol=1e-4, atol=1e-7)
    strength = losses.ramp(progress)
    for got, plain in zip(reversed_, model.backbone.parameters(), strict=True):
        assert plain.grad is not None
        torch.testing.assert_close(got, -strength * plain.grad, rtol=1e-4, atol=1e-7)
    assert 0 <= terms.metrics["discriminator_accuracy"] <= 1


def test_the_weight_of_mmd_scales_its_term_and_progress_ramps_it():
    pair, model = task()
    batch = batch_of(MMD(), pair)
    one, two = (MMD(weight=w).terms(model, batch, 0.2)["mmd"] for w in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)
    assert MMD().terms(model, batch, 0.0)["mmd"].item() == 0.0


class Forgetful(Method):
    needs = frozenset({"source", "target"})

    def terms(self, model, batch, progress):
        return {"source": F.cross_entropy(model(batch.source.x), batch.source.y)}


class Exploding(Method):
    def terms(self, model, batch, progress):
        scale = float("inf") if progress >= 0.3 else 1.0
        loss = F.cross_entropy(model(batch.source.x), batch.source.y)
        return {"source": loss * scale, "other": 2.0 + 0.0 * loss}


def steps_of(method: Method, pair: Pair, model: Model, **plan):
    parts = config.load_parts(composed("optimizer.lr=0.01")[0])
    return list(
        train(model, method, pair, Train(**plan), parts.optimizer, parts.schedule, parts.augment, Rng(0), Cursor())
    )


def test_a_method_that_ignores_a_stream_is_refused():
    with pytest.raises(UserError, match=r"Forgetful never reads batch.target, which has no effect"):
        steps_of(Forgetful(), *task())
    with pytest.raises(UserError, match=r"Exploding never reads batch.granted"):
        steps_of(Exploding(), *task("5"))


class Returning(Method):
    def __init__(self, terms):
        super().__init__()
        self.returned = terms

    def terms(self, model, batch, progress):
        loss = F.cross_entropy(model(batch.source.x), batch.source.y)
        return self.returned(loss)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: None, "must return a dict of named scalar tensors, got None"),
        (lambda loss: {}, "must return a dict of named scalar tensors"),
        (lambda loss: loss, "must return a dict"),
        (lambda loss: {"a": loss.expand(3)}, r"'a' must be a tensor with one number and no dimension, got .*\(3,\)"),
        (lambda loss: {"a": 1.0}, "'a' must be a tensor .* got 1.0"),
        (lambda loss: {"a": loss.detach()}, "the term 'a' depends on nothing that is trained"),
        (lambda loss: {"a": loss, "b": loss.detach()}, "the term 'b' depends on nothing that is trained"),
    ],
)
def test_a_method_that_breaks_the_contract_of_terms_is_told_how(returned, message):
    with pytest.raises(UserError, match=f"Returning.*{message}"):
        steps_of(Returning(returned), *task())


@pytest.mark.parametrize("name", ["mmd", "coral", "dann", "cdan", "afn", "mdd", "adda", "shot", "maml", "similarity"])
def test_what_moves_features_refuses_a_backbone_without_parameters(name):
    method = built(name)
    granted = "5" if "granted" in method.needs else "0"
    pair, _ = task(granted)
    backbone, width = identity(pair.shape)
    model = Model(backbone, width, pair.classes)
    with pytest.raises(UserError, match=r"this backbone has no parameters"):
        prepared, seen = prepare(method, model, pair)
        steps_of(method, seen, prepared)


def test_a_method_without_terms_is_told_what_is_missing():
    with pytest.raises(UserError, match="Method has phases to train and no `terms`"):
        steps_of(Method(), *task())


def test_a_stream_that_does_not_exist_is_refused():
    class Wishful(Forgetful):
        needs = frozenset({"source", "labels"})  # pyright: ignore[reportAssignmentType]

    with pytest.raises(UserError, match=r"Wishful.needs names 'labels'; a batch has source, target and granted"):
        steps_of(Wishful(), *task())


def test_divergence_is_told_with_its_step_and_terms():
    with pytest.raises(ArithmeticError, match=r"not a finite number at step 7: source=inf, other=2"):
        steps_of(Exploding(), *task(), steps=20, log_every=10)


def test_a_batch_holds_no_target_labels():
    assert Batch(target=torch.zeros(1)).labelled == {}
    assert set(Labelled._fields) == {"x", "y", "w"}
