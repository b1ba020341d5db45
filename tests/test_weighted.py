"""Weighted training: the right weight meets the right row, in the right order, and the loss is their mean."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made

from tl_runner import augment, optimizers
from tl_runner.backbones import linear
from tl_runner.chance import chance_of
from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import cut
from tl_runner.datasets.synthetic import blobs, synthetic
from tl_runner.domains import Pair
from tl_runner.errors import Refused
from tl_runner.methods.kernel_ratios import KLIEP, KMM, MOST, RULSIF, ULSIF
from tl_runner.methods.sample_selection import SampleSelection
from tl_runner.methods.source_only import SourceOnly
from tl_runner.methods.weighted import DensityRatio, Weighted, Weighting, effective_rows
from tl_runner.train import Cursor, Train, draw, train

CPU = torch.device("cpu")
KINDS = [Weighted, DensityRatio, KMM, KLIEP, ULSIF, RULSIF, SampleSelection]


def task(granted: int = 0, **options) -> tuple[Pair, Model]:
    pair, _, _ = cut(blobs(0, samples=100, **options), 0, Budget("count", granted), CPU)
    with chance_of(0, "model"):
        backbone, width = linear(pair.shape, width=8)
        return pair, Model(backbone, width, pair.classes)


def test_a_row_is_drawn_with_its_own_weight():
    pair, _ = task()
    source, _ = pair.labelled_source
    first = source.train.take(torch.arange(len(source.train)))[:, 0]
    pair = pair.weighted(first - first.min() + 1)
    assert pair.weights is not None
    scale = pair.weights[0] / (first[0] - first.min() + 1)
    batch = draw(pair, {"source"}, 16, 0, 3, augment.none, CPU).source
    assert batch.w is not None
    torch.testing.assert_close(batch.w, (batch.x[:, 0] - first.min() + 1) * scale)


def test_the_loss_is_the_mean_of_the_weighted_cross_entropies():
    pair, model = task()
    source, _ = pair.labelled_source
    pair = pair.weighted(torch.arange(1.0, 1 + len(source.train)))
    batch = draw(pair, {"source"}, 16, 0, 0, augment.none, CPU)
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
    batch = draw(pair.weighted(kept.float()), {"source"}, 10**6, 0, 0, augment.none, CPU)
    SourceOnly().terms(model, batch, 0.0)["source"].backward()
    x = source.train.take(torch.arange(len(kept)))[kept]
    expected = torch.autograd.grad(F.cross_entropy(model(x), labels.train[kept]), [*model.head.parameters()])
    for parameter, gradient in zip(model.head.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def terms_by_step(method: Weighting, granted: int) -> list[set[str]]:
    pair, model = task(granted)
    model, pair = method.prepare(model, pair, 0)
    plan, optimizer = Train(steps=6, log_every=1, batch=8), partial(optimizers.sgd, lr=0.01)
    points = train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, 0, Cursor())
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
        def weights(self, source, target, seed):
            compared.append((source, target))
            return super().weights(source, target, seed)

    _, weighted = Told(view="features").prepare(model, pair, 3)
    with torch.no_grad():
        expected = [
            model.backbone(side.train.take(torch.arange(60))) for side in (pair.labelled_source[0], pair.target)
        ]
    torch.testing.assert_close(compared[0], tuple(expected))
    assert weighted.weights is not None and weighted.weights.mean().item() == pytest.approx(1, abs=1e-5)
    _, again = kind(view="features").prepare(model, pair, 3)
    assert torch.equal(again.weights, weighted.weights)


def test_features_are_those_of_the_source_model(tmp_path):
    assert (Weighted(view="features").start, Weighted().start) == ("source", "backbone")
    record = made(tmp_path, "method=weighted", "method.view=features", *QUICK)
    assert record.data["source_model"]["steps"] == 20


def test_weights_that_rest_on_a_few_rows_are_said(caplog):
    assert effective_rows(torch.ones(60)).item() == pytest.approx(60) and not caplog.text
    effective_rows(torch.tensor([1.0] + 59 * [1e-6]))
    assert "as good as 1 of 60 source rows: the domains hardly overlap" in caplog.text


def test_more_folds_than_rows_are_refused():
    pair, model = task()
    for kind in (DensityRatio, KLIEP, ULSIF, RULSIF):
        with pytest.raises(Refused, match=r"method\.folds=61 parts of 60 rows"):
            kind(folds=61).prepare(model, pair, 0)


def test_kmm_refuses_more_rows_than_it_could_compare():
    with pytest.raises(Refused, match=r"20,001 are too many .* method=kliep or method=ulsif take any number"):
        KMM().weights(torch.zeros(MOST + 1, 1), torch.zeros(5, 1), 0)


def test_under_covariate_shift_weights_bring_the_source_to_the_target():
    """What weighting is for: the weighted mean of the source's rows lies nearer to the target's than the plain one."""
    pair, _, _ = cut(synthetic(0, 2000, shift="covariate"), 0, Budget("count", 0), CPU)
    backbone, width = linear(pair.shape, width=4)
    source, _ = pair.labelled_source
    x, target = (split.take(torch.arange(len(split))) for split in (source.train, pair.target.train))
    plain = (x.mean(0) - target.mean(0)).norm()
    for method, gain in (
        (DensityRatio(), 0.5), (Weighted("count"), 0.9), (Weighted("rbf"), 1.0), (KMM(), 0.5), (KLIEP(), 0.7),
        (ULSIF(), 0.7), (RULSIF(), 0.9), (SampleSelection(), 1.0), (SampleSelection("density_ratio"), 1.0),
    ):  # fmt: skip
        _, weighted = method.prepare(Model(backbone, width, pair.classes), pair, 0)
        assert weighted.weights is not None
        assert ((weighted.weights[:, None] * x).mean(0) - target.mean(0)).norm() < gain * plain
