"""FixMatch and AdaMatch against loops in float64 written from the papers, and their strong views."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made
from support.tasks import prepare
from torch import Tensor

from tl_runner.core import Batch, Model, Stream
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.functional import losses
from tl_runner.methods.adamatch import AdaMatch, align_distribution, mix_logits
from tl_runner.methods.fixmatch import FixMatch
from tl_runner.models.backbones import linear, small
from tl_runner.models.batchnorm import batchnorms, keep_statistics
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.augment import corrupt_columns, strong, strong_view
from tl_runner.training.batches import draw_batch

CPU = torch.device("cpu")


def table(granted: str = "0") -> tuple[Pair, Model]:
    """Rows of numbers and a network without BatchNorm, sure enough of some rows and not of others."""
    pair, _, _ = split_domains(blobs(0, samples=200), 0, Budget.parse(granted), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = linear(pair.shape, width=6)
        model = Model(backbone, width, pair.classes)
        torch.nn.init.normal_(model.head.weight, std=1.0)  # pyright: ignore[reportArgumentType]
    return pair, model


def pictures(granted: str = "0") -> tuple[Pair, Model]:
    pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget.parse(granted), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=8, channels=4)
        return pair, Model(backbone, width, pair.classes)


def batch_of(pair: Pair, n: int = 16) -> Batch:
    streams: set[Stream] = {"source", "target"} if pair.granted is None else {"source", "target", "granted"}
    return draw_batch(pair, streams, n, rng=Rng(0), step=0, augment=augment.none, device=CPU)


def softmax(logits: Tensor) -> np.ndarray:
    z = logits.detach().double().numpy()
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gradients(model: Model, term: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(term, [*model.parameters()], materialize_grads=True))


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.8])
def test_fixmatch_is_the_loop_over_rows(threshold):
    """Sohn et al. 2020, equation (4): 1/μB Σ 1(max q_b ≥ τ) H(argmax q_b, p(y | A(u_b)))."""
    pair, model = table("5")
    batch = batch_of(pair)
    torch.manual_seed(4)
    terms = FixMatch(weight=0.7, threshold=threshold, magnitude=0.4).terms(model, batch, 0.3)
    torch.manual_seed(4)
    views = strong_view(batch.target, int(torch.randint(2**31, ())), 0.4)
    q, p = softmax(model(batch.target)), softmax(model(views))
    rows = [-math.log(p[i, q[i].argmax()]) for i in range(len(q)) if q[i].max() >= threshold]
    assert threshold == 0 or 0 < len(rows) < len(q)  # else the threshold decides nothing here
    assert terms["pseudo"].item() == pytest.approx(0.7 * sum(rows) / len(q), rel=1e-4)  # float32 logits
    for name, rows in batch.labelled.items():
        torch.testing.assert_close(terms[name], F.cross_entropy(model(rows.x), rows.y))


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (1.0001, 0.0)])
@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_a_threshold_of_0_masks_nothing_and_one_above_all_confidence_everything(method, threshold, share):
    pair, model = table()
    taught = method(threshold=threshold if method is FixMatch else 100 * threshold)  # relative: of the mean confidence
    terms = taught.terms(model, batch_of(pair), 0.5)
    assert terms.metrics["passed"].item() == share
    assert (terms["pseudo"].item() > 0) == (share > 0)
    found = gradients(model, terms["pseudo"])
    assert all(torch.isfinite(g).all() for g in found) and any(g.any() for g in found) == (share > 0)


def test_fixmatch_notes_the_share_of_rows_that_pass():
    pair, model = table()
    batch, method = batch_of(pair), FixMatch(threshold=0.6)
    terms = method.terms(model, batch, 0.0)
    assert terms.metrics["passed"].item() == pytest.approx((softmax(model(batch.target)).max(-1) >= 0.6).mean())


@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_nothing_learns_from_the_labelling_view(method):
    """The term's gradient is that of the cross-entropy with labels that are given."""
    pair, model = table()
    batch = batch_of(pair)
    torch.manual_seed(4)
    found = gradients(model, method(threshold=0.0).terms(model, batch, 0.5)["pseudo"])
    torch.manual_seed(4)
    if method is AdaMatch:
        torch.randint(2**31, ())  # the source's view
    views = strong_view(batch.target, int(torch.randint(2**31, ())))
    q = model(batch.target).softmax(-1).detach()
    labels = q.argmax(-1) if method is FixMatch else align_distribution(q, model(batch.source.x).softmax(-1).detach())
    expected = gradients(model, F.cross_entropy(model(views), labels))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_every_layer_learns_under_autocast(method):
    """Which keeps a weight as it cast it first: in a pass without gradient that would be one without gradient."""
    pair, model = pictures()
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(threshold=0.0).terms(model, batch_of(pair), 0.5)
    assert all(g.any() for g in gradients(model, terms["pseudo"]))
    assert terms["pseudo"].dtype == torch.float32


@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_weight_and_schedule_scale_the_pseudo_labels_alone(method):
    pair, model = table()
    batch = batch_of(pair)

    def at(progress: float, **options) -> dict[str, Tensor]:
        torch.manual_seed(1)
        return dict(method(threshold=0.5, **options).terms(model, batch, progress))

    plain, heavy, early = at(0.9), at(0.9, weight=3.0), at(0.2, schedule="linear")
    full = at(0.2, schedule="constant")
    torch.testing.assert_close(heavy["pseudo"], 3 * plain["pseudo"])
    torch.testing.assert_close(early["pseudo"], 0.2 * full["pseudo"])
    assert plain["pseudo"] > 0 and torch.equal(plain["source"], heavy["source"])


@pytest.mark.parametrize("options", [{"magnitude": 0.9}, {"flip": True}])
@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_the_options_of_the_view_change_it(method, options):
    pair, model = pictures()
    batch, found = batch_of(pair), []
    for said in ({}, options):
        torch.manual_seed(1)
        found.append(method(threshold=0.0, **said).terms(deepcopy(model), batch, 0.5)["pseudo"])
    assert not torch.equal(*found)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_adamatch_is_the_loop_over_rows(labels):
    """Berthelot et al. 2022, section 3, where no BatchNorm makes the two passes differ."""
    pair, model = table("5")
    first = pair.labelled_source[1].train
    pair = pair.weighted(torch.arange(1.0, 1 + len(first)))
    batch = batch_of(pair)
    torch.manual_seed(4)
    method = AdaMatch(weight=0.7, threshold=0.95, labels=labels, magnitude=0.4)
    terms = method.terms(model, batch, 0.25)
    torch.manual_seed(4)
    strong_source, strong_target = (
        strong_view(x, int(torch.randint(2**31, ())), 0.4) for x in (batch.source.x, batch.target)
    )
    source, target, seen = softmax(model(batch.source.x)), softmax(model(batch.target)), softmax(model(strong_target))
    c = 0.95 * np.mean([row.max() for row in source])
    total, passed = 0.0, 0
    for row, view in zip(target, seen, strict=True):
        q = [row[k] * source[:, k].mean() / target[:, k].mean() for k in range(len(row))]
        q = [value / sum(q) for value in q]
        if max(q) >= c:
            taught = q if labels == "soft" else [value == max(q) for value in q]
            total -= sum(label * math.log(p) for label, p in zip(taught, view, strict=True))
            passed += 1
    assert 0 < passed < len(target)
    mu = 0.5 - math.cos(min(math.pi, 2 * math.pi * 0.25)) / 2
    assert terms["pseudo"].item() == pytest.approx(0.7 * mu * total / len(target), rel=1e-4)
    assert terms.metrics["sure"].item() == pytest.approx(c, rel=1e-5)
    assert terms.metrics["passed"].item() == pytest.approx(passed / len(target))
    y, w = batch.source.y, batch.source.w
    assert w is not None
    for name, x in (("source", batch.source.x), ("source_strong", strong_source)):
        expected = (w * F.cross_entropy(model(x), y, reduction="none")).mean()
        torch.testing.assert_close(terms[name], expected)
    torch.testing.assert_close(terms["granted"], F.cross_entropy(model(batch.granted.x), batch.granted.y))


@pytest.mark.parametrize("method", [FixMatch, AdaMatch])
def test_mirror_images_of_a_table_are_refused(method):
    pair, model = table()
    with pytest.raises(UserError, match=r"method.flip mirrors images, and these rows are not images"):
        prepare(method(flip=True), model, pair)
    pair, model = pictures()
    prepare(method(flip=True), model, pair)


def test_adamatch_mixes_the_logits_of_two_passes_and_moves_batchnorm_once():
    pair, model = pictures()
    model.train()
    batch, method, other = batch_of(pair), AdaMatch(), deepcopy(model)
    torch.manual_seed(4)
    terms = method.terms(model, batch, 0.5)
    torch.manual_seed(4)
    views = [strong_view(x, int(torch.randint(2**31, ())), 0.5) for x in (batch.source.x, batch.target)]
    share = torch.rand(16, len(pair.classes))
    joint = other(torch.cat([batch.source.x, *views, batch.target]))[:16]
    kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in batchnorms(other)]  # pyright: ignore[reportOptionalMemberAccess]
    alone = other(torch.cat([batch.source.x, views[0]]))[:16]
    assert (joint - alone).abs().max() > 1e-3
    expected = F.cross_entropy(share * joint + (1 - share) * alone, batch.source.y)
    torch.testing.assert_close(terms["source"], expected, rtol=1e-4, atol=1e-5)
    for norm, (mean, var) in zip(batchnorms(model), kept, strict=True):
        assert norm.num_batches_tracked == 1
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)


def test_statistics_are_kept_within_and_followed_after():
    pair, model = pictures()
    model.train()
    x, before = batch_of(pair).target, deepcopy(model.state_dict())
    with keep_statistics(model):
        inside = model(x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(inside, model(x))  # by the batch, both times
    assert all(norm.num_batches_tracked == 1 for norm in batchnorms(model))


def test_mixed_lies_between_and_is_drawn_for_each_number():
    torch.manual_seed(0)
    found = mix_logits(torch.zeros(50, 4), torch.ones(50, 4))
    assert found.min() >= 0 and found.max() <= 1 and len(found.unique()) > 190
    assert found.mean().item() == pytest.approx(0.5, abs=0.06)  # three standard errors of 200 uniform numbers


def test_alignment_gives_the_target_the_frequencies_of_the_source():
    source = torch.tensor([[0.8, 0.2]])
    found = align_distribution(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), source)
    torch.testing.assert_close(found, source.expand(2, 2))
    torch.testing.assert_close(align_distribution(found, source), found)
    torch.testing.assert_close(  # 0.9·(0.5/0.6) : 0.1·(0.5/0.4), by hand
        align_distribution(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([[0.5, 0.5]]))[0],
        torch.tensor([6 / 7, 1 / 7]),
    )
    empty = align_distribution(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert torch.isfinite(empty).all()  # no class in common


def test_a_table_is_corrupted_by_other_rows_of_the_same_column():
    x = torch.arange(40.0)[:, None] + 100 * torch.arange(30.0)  # each value is there once, its column told by it
    found = corrupt_columns(x, 3, 0.6)
    assert torch.equal(found // 100, x // 100)
    changed = (found != x).float()
    assert changed.mean().item() == pytest.approx(0.6, abs=0.05)  # three standard errors of 1200 coins
    assert changed.mean(0).max() < 1 and changed.mean(0).min() > 0 and changed.mean(1).min() > 0
    donors = (found % 100)[changed.bool()]
    assert donors.unique().numel() == 40
    assert torch.equal(corrupt_columns(x, 3, 0.0), x) and not (corrupt_columns(x, 3, 1.0) == x).any()
    assert torch.equal(found, corrupt_columns(x, 3, 0.6)) and not torch.equal(found, corrupt_columns(x, 4, 0.6))
    assert torch.equal(corrupt_columns(x[:1], 3, 1.0), x[:1])  # there is no other row
    assert corrupt_columns(torch.rand(5, 2, 3), 0, 0.5).shape == (5, 2, 3)


def test_a_strong_view_is_that_of_images_or_of_a_table():
    x = torch.rand(8, 1, 12, 12)
    assert torch.equal(strong_view(x, 5, 0.7), strong(x, 5, flip=False, magnitude=0.7))
    assert torch.equal(strong_view(x, 5, 0.7, flip=True), strong(x, 5, flip=True, magnitude=0.7))
    assert torch.equal(strong_view(x[:, 0, 0], 5, 0.7), corrupt_columns(x[:, 0, 0], 5, 0.7))


def test_the_cosine_schedule_is_full_at_half_of_training():
    found = [losses.scheduled("cosine", p) for p in (0.0, 0.125, 0.25, 0.5, 0.9)]
    assert found == pytest.approx([0.0, 0.5 - math.sqrt(0.5) / 2, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("name", ["fixmatch", "adamatch"])
def test_they_learn_from_tables_too(name, tmp_path):
    words = [word for word in QUICK if "size" not in word]
    record = made(tmp_path, f"method={name}", "dataset=blobs", "backbone=mlp", "granted=3", *words)
    assert record.status == "ok"
