"""Weighted training: the right weight meets the right row, in the right order, and the loss is their mean."""

import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made
from support.tasks import prepare

from tl_runner.core import Model, Resources
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs, synthetic
from tl_runner.domains import Pair
from tl_runner.engine.preparation import prepare_training
from tl_runner.errors import UserError
from tl_runner.evaluation.scores import collect_evidence, predict
from tl_runner.methods.density_ratio import DensityRatio
from tl_runner.methods.kliep import KLIEP
from tl_runner.methods.kmm import KMM, MOST
from tl_runner.methods.rulsif import RULSIF
from tl_runner.methods.sample_selection import SampleSelection
from tl_runner.methods.source_only import SourceOnly
from tl_runner.methods.ulsif import ULSIF
from tl_runner.methods.weighted import Weighted
from tl_runner.methods.weighting import Weighting, count_effective_rows
from tl_runner.models.backbones import linear
from tl_runner.models.batchnorm import DomainModels
from tl_runner.report.tables import result
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.batches import draw_batch
from tl_runner.training.loop import Cursor, Train, train

CPU = torch.device("cpu")
KINDS = [Weighted, DensityRatio, KMM, KLIEP, ULSIF, RULSIF, SampleSelection]


def task(granted: int = 0, **options) -> tuple[Pair, Model]:
    pair, _, _ = split_domains(blobs(0, samples=100, **options), 0, Budget("count", granted), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = linear(pair.shape, width=8)
        return pair, Model(backbone, width, pair.classes)


def test_a_row_is_drawn_with_its_own_weight():
    pair, _ = task()
    source, _ = pair.labelled_source
    first = source.train.take(torch.arange(len(source.train)))[:, 0]
    pair = pair.weighted(first - first.min() + 1)
    assert pair.weights is not None
    scale = pair.weights[0] / (first[0] - first.min() + 1)
    batch = draw_batch(pair, {"source"}, 16, Rng(0), 3, augment.none, CPU).source
    assert batch.w is not None
    torch.testing.assert_close(batch.w, (batch.x[:, 0] - first.min() + 1) * scale)


def test_the_loss_is_the_mean_of_the_weighted_cross_entropies():
    pair, model = task()
    source, _ = pair.labelled_source
    pair = pair.weighted(torch.arange(1.0, 1 + len(source.train)))
    batch = draw_batch(pair, {"source"}, 16, Rng(0), 0, augment.none, CPU)
    logits, w = model(batch.source.x), batch.source.w
    assert w is not None
    expected = sum(
        wi * F.cross_entropy(row[None], y[None]) for wi, row, y in zip(w, logits, batch.source.y, strict=True)
    )
    torch.testing.assert_close(SourceOnly().terms(model, batch, 0.0)["source"], torch.as_tensor(expected) / 16)


def test_rows_of_weight_0_are_as_good_as_absent():
    """Batches of all rows: the gradient is that of the others alone, scaled to a mean weight of 1."""
    pair, model = task()
    source, labels = pair.labelled_source
    kept = labels.train != 0
    batch = draw_batch(pair.weighted(kept.float()), {"source"}, 10**6, Rng(0), 0, augment.none, CPU)
    SourceOnly().terms(model, batch, 0.0)["source"].backward()
    x = source.train.take(torch.arange(len(kept)))[kept]
    expected = torch.autograd.grad(F.cross_entropy(model(x), labels.train[kept]), [*model.head.parameters()])
    for parameter, gradient in zip(model.head.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def terms_by_step(method: Weighting, granted: int) -> list[set[str]]:
    pair, model = task(granted)
    model, pair = prepare(method, model, pair)
    plan, optimizer = Train(steps=6, log_every=1, batch=8), partial(optimizers.sgd, lr=0.01)
    points = train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, Rng(0), Cursor())
    return [set(point.terms) - {"effective_rows"} for point in points]


@pytest.mark.parametrize("kind", KINDS)
def test_joint_is_one_loss_and_then_finetune_one_after_the_other(kind):
    assert terms_by_step(kind(), 0) == [{"source"}] * 6
    assert terms_by_step(kind(), 5) == [{"source", "granted"}] * 6
    assert terms_by_step(kind(order="then_finetune"), 5) == [{"source"}] * 3 + [{"granted"}] * 3
    assert "granted" in kind(order="then_finetune").needs and "granted" not in kind().needs


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_are_the_features_of_the_model_if_so_said(kind):
    pair, model = task()
    assert (kind(view="features").start, kind().start) == ("source", "backbone")
    compared = []

    class Told(kind):
        def weights(self, source, target, seed, others=None):
            compared.append((source, target, others))
            return super().weights(source, target, seed, others)

    _, weighted = prepare(Told(view="features"), model, pair, 3)
    with torch.no_grad():
        source, _ = pair.labelled_source
        splits = (source.train, pair.target.train, source.val)
        expected = [model.backbone(split.take(torch.arange(len(split)))) for split in splits]
    torch.testing.assert_close(compared[0], tuple(expected))
    assert weighted.weights is not None and weighted.weights.mean().item() == pytest.approx(1, abs=1e-5)
    _, again = prepare(kind(view="features"), model, pair, 3)
    assert again.weights is not None and torch.equal(again.weights, weighted.weights)


def test_features_are_those_of_the_source_model(tmp_path):
    assert (Weighted(view="features").start, Weighted().start) == ("source", "backbone")
    record = made(tmp_path, "method=weighted", "method.view=features", *QUICK)
    assert record.training.source_model.steps == 20


def test_weights_that_rest_on_a_few_rows_are_said(caplog):
    assert count_effective_rows(torch.ones(60)).item() == pytest.approx(60) and not caplog.text
    count_effective_rows(torch.tensor([1.0] + 59 * [1e-6]))
    assert "effective sample size of 1 of 60 source rows: the domains hardly overlap" in caplog.text


def test_more_folds_than_rows_are_refused():
    pair, model = task()
    for kind in (DensityRatio, KLIEP, ULSIF, RULSIF):
        with pytest.raises(UserError, match=r"method\.folds=61 parts of 60 rows"):
            prepare(kind(folds=61), model, pair)


def test_kmm_refuses_more_rows_than_it_could_compare():
    with pytest.raises(UserError, match=r"20,001 are too many .* method=kliep or method=ulsif take any number"):
        KMM().weights(torch.zeros(MOST + 1, 1), torch.zeros(5, 1), 0)


def test_under_covariate_shift_weights_bring_the_source_to_the_target():
    """What weighting is for: the weighted mean of the source's rows lies nearer to the target's than the plain one."""
    pair, _, _ = split_domains(synthetic(0, 2000, shift="covariate"), 0, Budget("count", 0), CPU)
    backbone, width = linear(pair.shape, width=4)
    source, _ = pair.labelled_source
    x, target = (split.take(torch.arange(len(split))) for split in (source.train, pair.target.train))
    plain = (x.mean(0) - target.mean(0)).norm()
    for method, gain in (
        (DensityRatio(), 0.5), (Weighted("count"), 0.9), (Weighted("rbf"), 1.0), (KMM(), 0.5), (KLIEP(), 0.7),
        (ULSIF(), 0.7), (RULSIF(), 0.9), (SampleSelection(), 1.0), (SampleSelection("density_ratio"), 1.0),
    ):  # fmt: skip
        _, weighted = prepare(method, Model(backbone, width, pair.classes), pair)
        assert weighted.weights is not None
        assert ((weighted.weights[:, None] * x).mean(0) - target.mean(0)).norm() < gain * plain


def test_the_floor_is_the_accuracy_on_the_source_as_it_is_weighed():
    """A plain loop: Σ w_i [right] / Σ w_i, on (Σ w)² / Σ w² rows; held-out granted labels come first."""
    pair, model = task()
    source, labels = pair.labelled_source
    w = torch.arange(float(len(source.val)))
    weighed = pair.weighted(torch.ones(len(source.train)), w)
    right = [int(row.argmax() == y) for row, y in zip(predict(model, source.val), labels.val, strict=True)]
    plain = collect_evidence(DomainModels(model, model), pair, 1, keeps_source=True)[0]
    assert (plain.floor, plain.floor_rows, plain.floor_of) == (sum(right) / len(right), len(right), "source")
    found = collect_evidence(DomainModels(model, model), weighed, 1, keeps_source=True)[0]
    expected = sum(float(wi) * hit for wi, hit in zip(w, right, strict=True)) / float(w.sum())
    assert found.floor == pytest.approx(expected) and found.floor != pytest.approx(plain.floor)
    assert found.floor_rows == pytest.approx(float(w.sum() ** 2 / (w**2).sum()))
    assert found.floor_of == "weighted source" and found.source_val == plain.source_val
    assert collect_evidence(DomainModels(model, model), weighed, 1, keeps_source=False)[0].floor is None
    granted, _ = task(granted=5)
    both = collect_evidence(
        DomainModels(model, model), granted.weighted(torch.ones(len(source.train)), w), 1, keeps_source=True
    )[0]
    assert both.floor_of == "granted" and granted.held_out and both.floor_rows == len(granted.held_out.y)


def test_one_heavy_row_decides_the_floor_and_leaves_much_doubt():
    pair, model = task()
    source, labels = pair.labelled_source
    right = predict(model, source.val).argmax(-1) == labels.val
    for at, floor in ((int(right.int().argmax()), 1.0), (int(right.int().argmin()), 0.0)):
        w = torch.full((len(source.val),), 1e-9).index_fill(0, torch.tensor(at), 1.0)
        found = collect_evidence(
            DomainModels(model, model), pair.weighted(torch.ones(len(source.train)), w), 1, keeps_source=True
        )[0]
        assert (found.floor, found.floor_rows) == pytest.approx((floor, 1.0), abs=1e-6)


def test_where_the_weights_of_validation_rows_are_not_known_there_is_no_floor_and_that_is_said(caplog):
    class Unweighed(SourceOnly):
        def prepare(self, model, pair, resources):
            return model, pair.weighted(torch.ones(60))

    class Weightless(SourceOnly):
        def prepare(self, model, pair, resources):
            return model, pair.weighted(torch.ones(60), torch.zeros(20))

    pair, model = task()
    for kind, says in (
        (Unweighed, "pair.weighted(weights, val)"),
        (Weightless, "all source validation rows have weight 0"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            _, model, weighed = prepare_training(kind(), model, pair, Train(), Resources(Rng(0)))
        assert says in caplog.text
        assert collect_evidence(DomainModels(model, model), weighed, 1, keeps_source=True)[0].floor is None
    with pytest.raises(ValueError, match="20 finite weights"):
        pair.weighted(torch.ones(60), torch.ones(19))


@pytest.mark.parametrize("kind", KINDS)
def test_validation_rows_weigh_as_training_rows_would(kind):
    """Told the training rows as others, an estimate says of them about what it says of them as its own."""
    pair, model = task()
    source, labels = pair.labelled_source
    twin = replace(pair, source=replace(source, val=source.train, labels=labels._replace(val=labels.train)))
    model, weighed = prepare(kind(), model, twin)
    assert weighed.weights is not None and weighed.val_weights is not None
    val = weighed.val_weights / weighed.val_weights.mean()
    assert torch.corrcoef(torch.stack([weighed.weights, val]))[0, 1] > 0.6  # a ratio is cross-fitted, or is not
    if kind in (Weighted, KMM, KLIEP, ULSIF, RULSIF, SampleSelection):
        torch.testing.assert_close(val.float(), weighed.weights, rtol=1e-4, atol=1e-5)


def test_weighed_validation_rows_look_like_the_target_which_the_plain_ones_do_not():
    pair, _, _ = split_domains(synthetic(0, 2000, shift="covariate"), 0, Budget("count", 0), CPU)
    backbone, width = linear(pair.shape, width=4)
    source, _ = pair.labelled_source
    x, target = (split.take(torch.arange(len(split))) for split in (source.val, pair.target.train))
    plain = (x.mean(0) - target.mean(0)).norm()
    for method, gain in (
        (DensityRatio(), 0.6), (Weighted("count"), 0.95), (Weighted("rbf"), 1.0), (KMM(), 0.5), (KLIEP(), 0.9),
        (ULSIF(), 0.9), (RULSIF(), 0.95), (SampleSelection(), 1.0), (SampleSelection("density_ratio"), 1.0),
    ):  # fmt: skip
        _, weighted = prepare(method, Model(backbone, width, pair.classes), pair)
        w = weighted.val_weights
        assert w is not None
        assert ((w[:, None] * x).sum(0) / w.sum() - target.mean(0)).norm() < gain * plain


def test_the_rows_in_effect_are_on_record_and_said(tmp_path):
    record = made(tmp_path, "method=density_ratio", *QUICK)
    assert record.evidence and record.evidence["floor_of"] == "weighted source"
    rows = record.data.rows["source"][1]
    assert 1 <= record.evidence["floor_rows"] < rows
    said = str(result(record, None)[-1])
    assert f"({record.evidence['floor_rows']:.0f} effective of {rows} validation rows)" in said
    plain = made(tmp_path, "method=source_only", *QUICK)
    assert plain.evidence and plain.evidence["floor_rows"] == rows and "effective" not in str(result(plain, None)[-1])
