"""SHOT, Tent and AdaBN against computations by NumPy and SciPy; none of them sees a source row."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made
from scipy import stats
from support.tasks import prepare
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model, Stream
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Domain, InMemory, Pair
from tl_runner.errors import UserError
from tl_runner.functional import losses
from tl_runner.methods.adabn import AdaBN
from tl_runner.methods.shot import SHOT, by_centroid
from tl_runner.methods.tent import Tent
from tl_runner.models.backbones import mlp, small
from tl_runner.models.batchnorm import batchnorms, renormalise
from tl_runner.rng import Rng
from tl_runner.tasks import Classification
from tl_runner.training import augment
from tl_runner.training.batches import draw_batch
from tl_runner.training.loop import Cursor, Train, begin_phase, train
from tl_runner.training.optimizers import adamw, constant

CPU = torch.device("cpu")
ALL = (SHOT, Tent, AdaBN)


class Raising:
    """Rows that nobody may take."""

    def __init__(self, rows: int):
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def take(self, rows: Tensor) -> Tensor:
        raise AssertionError("a source row was read")


def task(granted: str = "0") -> tuple[Pair, Model]:
    """Digits whose source raises when it is read, and a network that stands for the source model."""
    pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget.parse(granted), CPU)
    source, labels = pair.labelled_source
    rows = {name: Raising(len(part)) for name, part in labels._asdict().items()}
    unread = Domain(source.name, Classification(source.classes), rows["train"], rows["val"], rows["test"], labels)
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=8, channels=4)
        model = Model(backbone, width, pair.classes, "per_domain")
        nn.init.normal_(model.head.weight, std=2.0)  # pyright: ignore[reportArgumentType]
    return replace(pair, source=unread), model


def batch_of(pair: Pair, method: Method, step: int = 0) -> Batch:
    streams: set[Stream] = {*method.needs} if pair.granted is None else {*method.needs, "granted"}
    return draw_batch(pair, streams, 16, rng=Rng(0), step=step, augment=augment.none, device=CPU)


def trained(method: Method, pair: Pair, model: Model, steps: int = 12) -> Model:
    model, pair = prepare(method, model, pair)
    plan = Train(steps=steps, batch=16, evaluations=3, log_every=4)
    for _ in train(model, method, pair, plan, adamw, constant, augment.none, Rng(0), Cursor()):
        pass
    return model


def whole(split) -> Tensor:
    return split.take(torch.arange(len(split)))


def softmax(logits: Tensor) -> np.ndarray:
    z = logits.detach().double().numpy()
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("method", [SHOT, Tent, AdaBN])
def test_no_source_row_is_read(method):
    pair, model = task()
    with pytest.raises(AssertionError, match="source row"):
        draw_batch(pair, {"source"}, 4, Rng(0), 0, augment.none, CPU)
    assert method.needs == {"target"} and method.start == "source"
    trained(method(), pair, model)


@pytest.mark.parametrize("method", [SHOT, Tent])
@pytest.mark.parametrize("granted", ["0", "5"])
def test_the_head_stays_as_it_was_and_what_is_to_be_trained_moves(method, granted):
    pair, model = task(granted)
    before = deepcopy(model.state_dict())
    after = trained(method(), pair, model).state_dict()
    norms = {name for name in before if "conv" in name and ".1." in name}  # the BatchNorm of conv1 and conv2
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in moved if name.startswith("head")}
    if method is Tent:
        assert moved == norms and len(norms) == 10
    else:
        assert moved == {name for name in before if name.startswith("backbone") and "pixels" not in name}


@pytest.mark.parametrize("method", ALL)
def test_without_a_source_model_there_is_nothing_to_adapt(method):
    pair, model = task()
    with pytest.raises(UserError, match=r"no source model here: .* and pretrain=default"):
        prepare(method(), model, pair, has_source_model=False)


@pytest.mark.parametrize("method", [Tent, AdaBN])
def test_a_model_without_batchnorm_is_refused(method):
    pair, _, _ = split_domains(blobs(0, samples=100), 0, Budget.parse("0"), CPU)
    model = Model(*mlp(pair.shape, width=4), pair.classes)
    with pytest.raises(UserError, match="no BatchNorm"):
        prepare(method(), model, pair)


def test_tent_refuses_batchnorm_that_has_nothing_to_train():
    pair, model = task()
    model.backbone = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, affine=False), nn.Linear(64, 8))
    with pytest.raises(UserError, match="scales and shifts"):
        prepare(Tent(), model, pair)


# SHOT


def by_centroid_in_loops(features: np.ndarray, p: np.ndarray) -> list[int]:
    """Liang et al. 2020, equations (4) to (6), row by row, on rows of length 1 with a 1, as their code has it."""
    rows = [np.append(f, 1.0) / np.linalg.norm(np.append(f, 1.0)) for f in features]
    weight, labels = p, [int(row.argmax()) for row in p]
    for _ in range(2):
        centroids = {}
        for k in {*labels}:  # the classes that some row is predicted as
            mass = sum(row[k] for row in weight)
            centroids[k] = sum(row[k] * f for row, f in zip(weight, rows, strict=True)) / mass

        def distance(f, c):
            return 1 - f @ c / np.linalg.norm(f) / np.linalg.norm(c)

        labels = [min(centroids, key=lambda k: distance(f, centroids[k])) for f in rows]
        weight = [[float(label == k) for k in range(p.shape[1])] for label in labels]
    return labels


def test_pseudo_labels_are_those_of_the_loops():
    generator = torch.Generator().manual_seed(3)
    features, logits = torch.randn(60, 5, generator=generator), torch.randn(60, 4, generator=generator)
    p = logits.softmax(-1)
    found = by_centroid(features, p).tolist()
    assert found == by_centroid_in_loops(features.double().numpy(), p.double().numpy())
    assert found != p.argmax(-1).tolist() and len({*found}) == 4
    p[:, 2] *= 0.3  # nobody's first choice, and of some mass
    p[:, 2] = p[:, 2].minimum(0.99 * p[:, [0, 1, 3]].amax(1))
    found = by_centroid(features, p).tolist()
    assert found == by_centroid_in_loops(features.double().numpy(), p.double().numpy())
    assert {*found} == {0, 1, 3}


def test_classes_that_the_target_lacks_draw_no_row():
    """Three of five classes are there; the two others are no row's first choice, but have some of its probability."""
    generator = torch.Generator().manual_seed(1)
    means, y = 5 * torch.eye(5, 6), torch.arange(300) % 3
    features = means[y] + torch.randn(300, 6, generator=generator)
    p = (features @ means.T / 10).softmax(-1)
    assert p.argmax(-1).max() == 2 and p[:, 3:].sum(0).min() > 1
    assert torch.equal(by_centroid(features, p), y)  # centroids for all five give 5 % of the rows to the absent two


def test_a_class_without_mass_is_given_to_no_row_and_equal_rows_are_no_trouble():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2], [-1.0, 0.0]])
    p = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert by_centroid(features, p).tolist() == [0, 0, 2, 2]
    assert by_centroid(torch.zeros(5, 2), torch.full((5, 3), 1 / 3)).unique().numel() == 1
    one = torch.tensor([[0.0, 1.0]]).expand(3, 2)
    assert by_centroid(torch.ones(3, 4), one).tolist() == [1, 1, 1]


def test_shots_terms_are_those_of_the_paper():
    """−(H(mean p) − mean H(p)) and β · CE on the pseudo-labels of the very rows that were drawn."""
    pair, model = task("5")
    method = SHOT(weight=0.5, beta=0.2)
    model, pair = prepare(method, model, pair)
    with torch.no_grad():
        method.relabel(model, pair)
        model.eval()
        x = whole(pair.target.train)
        features = model.backbone(x)
    labels = by_centroid_in_loops(features.double().numpy(), softmax(model.head(features)))
    batch = batch_of(pair, method, step=3)
    terms = method.terms(model, batch, 0.0)
    p = softmax(model(batch.target))
    mutual = stats.entropy(p.mean(0)) - np.mean([stats.entropy(row) for row in p])
    assert terms["information"].item() == pytest.approx(-0.5 * mutual, rel=1e-4)
    drawn = [labels[row] for row in batch.rows["target"].tolist()]
    expected = -np.mean([np.log(row[label]) for row, label in zip(p, drawn, strict=True)])
    assert terms["pseudo"].item() == pytest.approx(0.5 * 0.2 * expected, rel=1e-4)
    torch.testing.assert_close(terms["granted"], F.cross_entropy(model(batch.granted.x), batch.granted.y))


def test_shot_looks_again_after_each_evaluation():
    pair, model = task()
    method = SHOT()
    trained(method, pair, model, steps=12)
    late = method.labels.clone()
    with torch.no_grad():
        fresh = SHOT()
        prepare(fresh, model, pair)
        first = fresh.labels.clone()
        fresh.relabel(model, pair)
    assert not torch.equal(first, fresh.labels) and not torch.equal(late, torch.zeros_like(late))


@pytest.mark.parametrize("method", [SHOT, Tent])
def test_the_rates_weights_and_schedules_are_used(method):
    pair, model = task()
    made_ = method(**({"lr_norm": 0.7} if method is Tent else {}))
    model, pair = prepare(made_, model, pair)
    (phase,) = made_.phases(model)
    assert [group.lr for group in phase.groups] == [0.7 if method is Tent else None]
    batch, name = batch_of(pair, made_), "information" if method is SHOT else "entropy"

    def at(progress: float, **options) -> Tensor:
        return prepare(method(**options), model, pair) and _term(method(**options), model, pair, batch, progress)[name]

    torch.testing.assert_close(at(0.3, weight=3.0), 3 * at(0.3))
    torch.testing.assert_close(at(0.3, schedule="linear"), 0.3 * at(0.3))


def _term(method: Method, model: Model, pair: Pair, batch: Batch, progress: float):
    prepare(method, model, pair)
    return method.terms(model.eval(), batch, progress)


# entropies of logits


def test_uncertainty_and_information_against_scipy():
    logits = 3 * torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    p = softmax(logits)
    np.testing.assert_allclose(losses.uncertainty(logits), stats.entropy(p, axis=-1), rtol=1e-5)
    mutual = stats.entropy(p.mean(0)) - stats.entropy(p, axis=-1).mean()
    assert losses.logit_information(logits).item() == pytest.approx(mutual, rel=1e-5)
    assert losses.logit_information(torch.stack([logits, 2 * logits])).shape == (2,)


@pytest.mark.parametrize("value", [losses.logit_information, lambda z: losses.uncertainty(z).mean()])
def test_rows_that_are_utterly_sure_have_a_finite_gradient(value):
    """Probabilities of 0 in float32, whose −p log p has an infinite slope."""
    logits = torch.tensor([[1000.0, -1000.0, 0.0], [900.0, -1000.0, 0.0]], requires_grad=True)
    value(logits).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    same = torch.zeros(4, 3, requires_grad=True)
    value(same).backward()
    assert same.grad is not None and torch.isfinite(same.grad).all()


# Tent


def test_tents_term_is_the_mean_entropy_and_its_groups_are_batchnorms():
    pair, model = task("5")
    method = Tent(weight=0.5)
    model, pair = prepare(method, model, pair)
    (phase,) = method.phases(model)
    (group,) = begin_phase(phase, model, method)
    assert not group.decay
    shapes = sorted(tuple(p.shape) for p in group.parameters)
    assert shapes == [(4,), (4,), (8,), (8,)]
    model.train()
    batch = batch_of(pair, method)
    logits = deepcopy(model)(batch.target)
    terms = method.terms(model, batch, 0.0)
    assert terms["entropy"].item() == pytest.approx(0.5 * stats.entropy(softmax(logits), axis=-1).mean(), rel=1e-5)
    assert {*terms} == {"entropy", "granted"}


def test_tent_makes_predictions_surer():
    pair, model = task()
    method = Tent(lr_norm=1.0)
    started, _ = prepare(method, model, pair)
    after = trained(method, pair, model, steps=40).eval()
    x = whole(pair.target.train)
    with torch.no_grad():
        first, last = (losses.uncertainty(net.eval()(x)).mean() for net in (started, after))
    assert last < first - 0.05


# AdaBN


def normalised(rows: int = 24) -> tuple[Model, Tensor]:
    """A network whose first BatchNorm sees a linear map of the rows."""
    with Rng(0).child("model").as_default():
        body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4))
        model = Model(nn.Sequential(body, nn.BatchNorm1d(4)), 4, ("a", "b"))
    return model, torch.randn(rows, 3, generator=torch.Generator().manual_seed(1)) * 2 + 1


@pytest.mark.parametrize(("rows", "sizes"), [(256, [24]), (12, [12, 12]), (10, [12, 12]), (23, [24])])
def test_the_statistics_are_the_mean_over_batches_of_mean_and_unbiased_variance(rows, sizes):
    model, x = normalised()
    renormalise(model, InMemory(x), rows)
    first, second = batchnorms(model)
    assert first.running_mean is not None and first.running_var is not None and second.running_mean is not None
    linear = model.backbone[0][0]  # pyright: ignore[reportIndexIssue]
    z = (x @ linear.weight.T + linear.bias).detach().double().numpy()
    parts = np.split(z, np.cumsum(sizes)[:-1])
    np.testing.assert_allclose(first.running_mean.numpy(), np.mean([p.mean(0) for p in parts], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first.running_var.numpy(), np.mean([p.var(0, ddof=1) for p in parts], 0), rtol=1e-4)
    last = model.backbone[0][4]  # pyright: ignore[reportIndexIssue]
    later = []
    for part in parts:  # the next one sees what the batch's own statistics made, and no dropout
        unit = (part - part.mean(0)) / np.sqrt(part.var(0) + first.eps)
        later.append(
            np.maximum(unit, 0) @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()
        )
    np.testing.assert_allclose(
        second.running_mean.numpy(), np.mean([p.mean(0) for p in later], 0), rtol=1e-4, atol=1e-5
    )
    assert first.momentum == 0.1 and not any(part.training for part in model.modules())


def test_adabn_undoes_a_change_of_scale_and_origin():
    """BatchNorm of W(ax + b) by its own statistics is that of Wx: the target is the source, measured otherwise."""
    model, x = normalised(40)
    other = deepcopy(model)
    renormalise(model, InMemory(x))
    renormalise(other, InMemory(5 * x - 7))
    with torch.no_grad():
        torch.testing.assert_close(other(5 * x - 7), model(x), rtol=1e-3, atol=1e-3)  # up to ε of the variance
        assert (model(5 * x - 7) - model(x)).abs().max() > 0.1


def test_adabn_changes_statistics_alone_and_leaves_its_argument():
    pair, model = task()
    before = deepcopy(model.state_dict())
    after, same = prepare(AdaBN(), model, pair)
    assert same is pair and not AdaBN().phases(after)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    moved = {
        name.rpartition(".")[2] for name, value in after.state_dict().items() if not torch.equal(before[name], value)
    }
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    few, _ = prepare(AdaBN(rows=50), model, pair)
    assert not torch.equal(batchnorms(few)[0].running_var, batchnorms(after)[0].running_var)  # pyright: ignore[reportArgumentType]


def test_adabn_has_no_use_for_labels_nor_one_row_for_statistics():
    pair, model = task("5")
    with pytest.raises(UserError, match="granted labels have no effect"):
        prepare(AdaBN(), model, pair)
    model, x = normalised()
    with pytest.raises(UserError, match="single target row"):
        renormalise(model, InMemory(x[:1]))


@pytest.mark.parametrize("name", ["tent", "adabn"])
def test_a_run_on_a_network_without_batchnorm_says_why_it_failed(name, tmp_path):
    words = [word for word in QUICK if "size" not in word]
    with pytest.raises(UserError, match="no BatchNorm whose statistics could follow the target"):
        made(tmp_path, f"method={name}", "dataset=blobs", "backbone=mlp", *words)


def test_shot_serves_tables(tmp_path):
    words = [word for word in QUICK if "size" not in word]
    assert made(tmp_path, "method=shot", "dataset=blobs", "backbone=mlp", "granted=3", *words).status == "ok"
