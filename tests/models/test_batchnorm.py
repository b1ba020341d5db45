"""BatchNorm by domain: each domain is evaluated by statistics that NumPy finds in its own rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QUICK, made
from support.tasks import prepare
from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase, Stream
from tl_runner.domains import Domain, InMemory, Labelled, LabelledSplit, Labels, Member, Pair
from tl_runner.errors import UserError
from tl_runner.evaluation.scores import examine_source, predict
from tl_runner.functional.losses import supervised
from tl_runner.functional.metrics import accuracy
from tl_runner.inference.load import load
from tl_runner.methods.adamatch import AdaMatch
from tl_runner.methods.finetune import Finetune
from tl_runner.methods.mmd import MMD
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models import batchnorm
from tl_runner.models.backbones import small
from tl_runner.models.batchnorm import (
    by_domain_statistics,
    load_statistics,
    pack_statistics,
    renormalise,
    statistics,
    unpack_statistics,
)
from tl_runner.rng import Rng
from tl_runner.tasks import Classification
from tl_runner.training import augment
from tl_runner.training.loop import Cursor, Train, train
from tl_runner.training.optimizers import constant, sgd

READ: frozenset[Stream] = frozenset({"source", "target"})


def rows(n: int, mean: float, deviation: float = 1.0, seed: int = 0) -> Tensor:
    return mean + deviation * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))


def domain(name: str, x: Tensor, labelled: bool) -> Domain:
    labels = Labels(*(torch.arange(len(x)) % 2,) * 3) if labelled else None
    split = InMemory(x)
    return Domain(name, Classification(("a", "b")), split, split, split, labels)


def shifted(granted: bool = False) -> Pair:
    """A source N(0, 1) and a target N(10, 3²), one column; as granted rows the target's first twenty."""
    target = rows(400, 10.0, 3.0, seed=1)
    pair = Pair(domain("s", rows(300, 0.0), True), domain("t", target, False))
    return replace(pair, granted=LabelledSplit(InMemory(target[:20]), torch.arange(20) % 2)) if granted else pair


def one_layer(how: str = "per_domain") -> Model:
    return Model(_stages(nn.BatchNorm1d(1)), 1, ("a", "b"), how)


def _stages(*layers: nn.Module) -> nn.Sequential:
    net = nn.Sequential()
    for index, layer in enumerate(layers):
        net.add_module(f"stage{index}", layer)
    return net


def norm_of(model: Model) -> nn.BatchNorm1d:
    (norm,) = batchnorm.batchnorms(model)
    assert isinstance(norm, nn.BatchNorm1d)
    return norm


def run(method: Method, model: Model, pair: Pair, steps: int = 40) -> frozenset[Stream]:
    """Train, and return the streams that were read."""
    plan, read = Train(steps=steps, batch=64, evaluations=1), frozenset[Stream]()
    for point in train(model, method, pair, plan, sgd, constant, augment.none, Rng(0), Cursor()):
        read = point.streams
    return frozenset(read)


def expect(model: Model, x: Tensor) -> None:
    """The layer's statistics are the mean and the unbiased variance of these rows."""
    norm, values = norm_of(model), x.double().numpy()
    np.testing.assert_allclose(norm.running_mean, values.mean(0), rtol=1e-4, atol=1e-4)  # pyright: ignore[reportArgumentType, reportCallIssue]
    np.testing.assert_allclose(norm.running_var, values.var(0, ddof=1), rtol=2e-2)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_each_domain_meets_its_own_statistics_where_the_running_average_mixes_both():
    pair, model = shifted(), one_layer()
    assert pair.source
    read = run(MMD(weight=0.0001), model, pair)
    assert read == READ
    mixed = norm_of(model).running_mean
    assert mixed is not None and 4 < mixed.item() < 6.5  # what evaluation used before: between the domains
    sides = by_domain_statistics(model, pair, READ, {})
    expect(sides.source, pair.source.train.take(torch.arange(300)))
    expect(sides.target, pair.target.train.take(torch.arange(400)))
    assert norm_of(model).running_mean is mixed and not model.training  # the model itself goes on as it was
    at_mean = sides.target.backbone[0](torch.tensor([[10.0]])) - norm_of(model).bias
    assert abs(at_mean.item()) < 0.2  # 1.6 deviations off with the running average


def test_both_sides_have_the_parameters_of_the_model_itself():
    pair, model = shifted(), one_layer()
    sides = by_domain_statistics(model, pair, READ, {})
    for side in (sides.source, sides.target):
        assert all(mine is its for mine, its in zip(model.parameters(), side.parameters(), strict=True))
        assert norm_of(side).running_mean is not norm_of(model).running_mean


def test_a_method_that_reads_the_source_alone_evaluates_the_target_by_the_sources():
    pair, model = shifted(), one_layer()
    assert pair.source
    read = run(SourceOnly(), model, pair)
    assert read == {"source"}
    sides = by_domain_statistics(model, pair, {"source"}, {})
    assert sides.target is sides.source
    expect(sides.target, pair.source.train.take(torch.arange(300)))


def test_granted_rows_are_target_rows_and_a_source_that_is_not_read_keeps_its_start():
    pair, model = shifted(granted=True), one_layer()
    assert pair.granted
    start = statistics(model)
    read = run(Finetune(), model, pair)
    assert read == {"granted"}
    sides = by_domain_statistics(model, pair, {"granted"}, start)
    expect(sides.target, pair.granted.x.take(torch.arange(20)))
    assert torch.equal(norm_of(sides.source).running_mean, torch.zeros(1))  # pyright: ignore[reportArgumentType]
    both = by_domain_statistics(model, pair, {"source", "target", "granted"}, start)
    expect(both.target, pair.target.train.take(torch.arange(400)))  # of which the granted rows are a few


def test_source_only_with_granted_labels_meets_the_target_by_the_granted_rows():
    pair, model = shifted(granted=True), one_layer()
    assert pair.source and pair.granted
    assert run(SourceOnly(), model, pair) == {"source", "granted"}
    sides = by_domain_statistics(model, pair, {"source", "granted"}, {})
    expect(sides.source, pair.source.train.take(torch.arange(300)))
    expect(sides.target, pair.granted.x.take(torch.arange(20)))


def test_layers_of_frozen_stages_keep_their_statistics():
    pair = shifted()
    model = Model(_stages(nn.BatchNorm1d(1), nn.BatchNorm1d(1)), 1, ("a", "b"), "per_domain")
    model.freeze(["stage0"])
    sides = by_domain_statistics(model, pair, READ, {})
    frozen, live = batchnorm.batchnorms(sides.target)
    assert torch.equal(frozen.running_mean, torch.zeros(1))  # pyright: ignore[reportArgumentType]
    assert live.running_mean is not None and live.running_mean.item() == pytest.approx(10, abs=0.5)


def test_one_joint_batch_has_one_set_of_statistics():
    pair, model = shifted(), one_layer("joint")
    assert pair.source
    run(MMD(weight=0.0001), model, pair)
    sides = by_domain_statistics(model, pair, READ, {})
    assert sides.source is model and sides.target is model
    alone = by_domain_statistics(model, pair, {"source"}, {})
    expect(alone.target, pair.source.train.take(torch.arange(300)))


def test_where_nothing_was_trained_the_target_meets_the_model_as_it_is_and_the_source_the_start():
    pair, model = shifted(), one_layer()
    start = statistics(model)
    renormalise(model, pair.target.train)
    sides = by_domain_statistics(model, pair, frozenset(), start)
    assert sides.target is model
    assert torch.equal(norm_of(sides.source).running_mean, start["backbone.stage0.running_mean"])  # pyright: ignore[reportArgumentType]


def test_a_single_row_leaves_the_statistics_as_they_are():
    pair, model = shifted(granted=True), one_layer()
    assert pair.granted
    one = replace(pair, granted=LabelledSplit(InMemory(torch.ones(1, 1)), torch.zeros(1, dtype=torch.long)))
    assert by_domain_statistics(model, one, {"granted"}, statistics(model)).target is model


def test_of_a_large_domain_the_first_rows_count_in_batches_of_a_training_step_where_rows_are_large(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(batchnorm, "MOST", 192)
    monkeypatch.setattr(batchnorm, "rows_per_batch", lambda numbers: 1)
    model, pair = one_layer(), shifted()
    assert pair.source
    handle = nn.BatchNorm1d.forward

    def spy(norm, x):
        seen.append(len(x))
        return handle(norm, x)

    monkeypatch.setattr(nn.BatchNorm1d, "forward", spy)
    sides = by_domain_statistics(model, pair, READ, {})
    assert sum(seen) == 384 and max(seen) <= 2 * batchnorm.FEWEST
    expect(sides.source, pair.source.train.take(torch.arange(192)))


def test_weights_of_both_sides_come_back_from_a_file():
    pair, model = shifted(), one_layer()
    sides = by_domain_statistics(model, pair, READ, {})
    weights = {name: tensor.clone() for name, tensor in pack_statistics(sides).items()}
    other = one_layer()
    back = load_statistics(other, weights)
    assert back.target is other
    for mine, its in zip(sides[:2], back[:2], strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(mine.state_dict().values(), its.state_dict().values(), strict=True)
        )
    assert (
        unpack_statistics(weights, "source").keys()
        == unpack_statistics(weights, "target").keys()
        == model.state_dict().keys()
    )
    same = by_domain_statistics(model, pair, {"source"}, {})
    assert pack_statistics(same).keys() == model.state_dict().keys()  # one set is written once


class Both(Method):
    """A phase on the source alone, then one on the target's rows too."""

    needs = frozenset({"source", "target"})

    def phases(self, model: Model):
        group = [Group([*model.parameters()])]
        return [Phase("first", 0.5, group, streams={"source"}), Phase("second", 0.5, group)]

    def terms(self, model, batch, progress):
        batch = batch.only({"source"}) if progress < 0.5 else batch
        features = model.features(*batch.inputs)
        return supervised(model.head, batch.labelled, features[:1])


def test_a_point_says_which_streams_were_read_so_far():
    plan = Train(steps=8, batch=8, evaluations=2, log_every=2)
    model, pair = one_layer(), shifted()
    points = [*train(model, Both(), pair, plan, sgd, constant, augment.none, Rng(0), Cursor())]
    assert [point.streams for point in points] == [{"source"}] * 2 + [READ] * 2


def test_a_run_is_scored_saved_and_predicted_with_the_statistics_of_each_domain(tmp_path):
    """The whole way round, on a shift that the running average can't follow."""
    shift = ["dataset.source=handwritten", "dataset.shift=contrast", "dataset.severity=5"]
    record = made(tmp_path, "dataset=digits", "method=mmd", "backbone=small", *shift, *QUICK, "train.evaluations=1")
    from tl_runner.datasets.budget import Budget
    from tl_runner.datasets.digits import digits
    from tl_runner.datasets.split import split_domains

    with Rng(0).child("data").as_default():
        drawn = digits(0, source="handwritten", samples=300, size=8, shift="contrast", severity=5)
    pair, answers, _ = split_domains(drawn, 0, Budget.parse("0"), torch.device("cpu"))
    source, labels = pair.labelled_source
    target, at_source = load(record.folder).model, load(record.folder, domain="source").model
    assert record.scores
    assert accuracy(predict(target, pair.target.test), answers.open()) == record.scores.target["accuracy"]
    assert accuracy(predict(at_source, source.test), labels.test) == record.scores.source["accuracy"]
    again = [norm.running_mean for norm in batchnorm.batchnorms(target)]
    renormalise(target, pair.target.train)
    for then, norm in zip(again, batchnorm.batchnorms(target), strict=True):
        torch.testing.assert_close(then, norm.running_mean)
    assert not torch.allclose(predict(target, source.test), predict(at_source, source.test))
    with pytest.raises(UserError, match="domain takes target or source"):
        load(record.folder, domain="both")  # pyright: ignore[reportArgumentType]


def test_a_network_without_batchnorm_is_its_own_two_sides():
    pair = shifted()
    model = Model(_stages(nn.Linear(1, 3)), 3, ("a", "b"), "per_domain")
    assert by_domain_statistics(model, pair, READ, {}) == (model, model, ())


def test_the_layers_of_a_backbone_are_found_by_name():
    backbone, width = small((1, 8, 8), width=6, channels=2)
    model = Model(backbone, width, ("a", "b"), "per_domain")
    assert {name for name in statistics(model) if name.endswith("running_mean")} == {
        "backbone.conv1.1.running_mean",
        "backbone.conv2.1.running_mean",
    }


def test_weights_in_another_memory_layout_are_saved_and_read(tmp_path):
    record = made(tmp_path, "method=mmd", *QUICK, "train.channels_last=true")
    assert record.status == "ok" and record.scores
    kept = load(record.folder).model.state_dict()
    assert all(tensor.is_contiguous() for tensor in kept.values())


def test_layers_in_a_head_are_measured_too():
    pair, model = shifted(), one_layer()
    model.head = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    sides = by_domain_statistics(model, pair, READ, {})
    _, norm = batchnorm.batchnorms(sides.target)
    (features,) = sides.target.features(pair.target.train.take(torch.arange(400)))
    rows_in = model.head[0](features).detach()  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(norm.running_mean, rows_in.mean(0), rtol=1e-3, atol=1e-3)


def test_adamatch_which_trains_on_joint_batches_is_evaluated_by_theirs():
    pair, model = shifted(), one_layer()
    method = AdaMatch()
    model, pair = prepare(method, model, pair)
    sides = by_domain_statistics(model, pair, READ, {})
    assert sides == (model, model, ())


def pooled() -> Pair:
    """Two source domains, N(0, 1) and N(6, 2²), mixed, and a target N(10, 3²)."""
    pair = shifted()
    first, second = rows(300, 0.0), rows(200, 6.0, 2.0, seed=2)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    own = [(order < 300).nonzero().squeeze(1), (order >= 300).nonzero().squeeze(1)]
    members = tuple(Member(name, each, each, each) for name, each in zip("ab", own, strict=True))
    return replace(pair, source=replace(domain("s", torch.cat([first, second])[order], True), members=members))


def test_each_of_several_sources_is_evaluated_by_its_own_statistics():
    pair, model = pooled(), one_layer()
    assert pair.source
    sides = by_domain_statistics(model, pair, READ, {})
    assert len(sides.members) == 2
    for side, member in zip(sides.members, pair.source.members, strict=True):
        x = pair.source.train.take(member.train)
        (norm,) = [part for part in side.modules() if isinstance(part, nn.BatchNorm1d)]
        assert norm.running_mean is not None and norm.running_mean.item() == pytest.approx(x.mean().item(), abs=1e-5)
    reading = examine_source(sides, pair.source, "val")
    x = pair.source.val.take(torch.arange(500))
    for side, member in zip(sides.members, pair.source.members, strict=True):
        expected = side.task.predict(side(x[member.val])).detach()
        assert torch.allclose(reading.predicted[member.val], expected, atol=1e-6)
        seen = side.features(x[member.val])[0].detach()
        assert torch.allclose(reading.features[member.val], seen, atol=1e-6)


def test_features_of_a_pool_are_those_of_its_first_rows():
    pair, model = pooled(), one_layer()
    assert pair.source
    sides = by_domain_statistics(model, pair, READ, {})
    whole, some = examine_source(sides, pair.source, "val"), examine_source(sides, pair.source, "val", rows=50)
    assert torch.equal(some.features, whole.features[:50]) and torch.equal(some.predicted, whole.predicted)


def test_without_rows_of_the_target_several_sources_share_their_statistics():
    pair = pooled()
    sides = by_domain_statistics(one_layer(), pair, frozenset({"source"}), {})
    assert sides.members == () and sides.source is sides.target


def test_the_statistics_of_several_sources_are_kept_in_the_file():
    pair, model = pooled(), one_layer()
    sides = by_domain_statistics(model, pair, READ, {})
    back = load_statistics(one_layer(), pack_statistics(sides))
    assert len(back.members) == 2
    for mine, its in zip(
        (sides.source, sides.target, *sides.members), (back.source, back.target, *back.members), strict=True
    ):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, its.state_dict()[name])


@pytest.mark.parametrize("target", [True, False])
def test_several_sources_are_normalised_apart_while_training_where_the_target_is(target):
    model = one_layer().train()
    x = torch.cat([rows(40, 0.0), rows(40, 6.0, 2.0, seed=1)])
    y = torch.arange(80) % 2
    batch = Batch(Labelled(x, y), rows(30, 10.0, seed=2) if target else None, blocks=(40, 40) if target else ())
    seen = model.encode(batch).source.detach()
    parts = [x[:40], x[40:]] if target else [x]
    expected = torch.cat([(p - p.mean()) / (p.var(correction=0) + 1e-5).sqrt() for p in parts])
    assert torch.allclose(seen, expected, atol=1e-5)
