"""Gradual unfreezing, DELTA, BSS, LwF, StochNorm, co-tuning, bi-tuning: against computations after the papers."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from support.stored import calibrated
from support.tasks import prepare
from torch import nn

import tl_runner
from tl_runner.core import Batch, Method, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import Drawn, split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods.bi_tuning import BiTuning, contrast
from tl_runner.methods.bss import BSS, shrinkage
from tl_runner.methods.co_tuning import CoTuning, relation
from tl_runner.methods.delta import Delta, channels_first, drift
from tl_runner.methods.finetune import Finetune
from tl_runner.methods.lwf import LwF, distillation
from tl_runner.methods.stochnorm import StochasticNorm, StochNorm
from tl_runner.models.backbones import identity, mlp, small
from tl_runner.models.learning_rates import LrBackbone, lr_factor
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.batches import draw_batch
from tl_runner.training.loop import Cursor, Train, begin_phase, train

CPU = torch.device("cpu")
STAGES = ("conv1", "conv2", "hidden")
with Rng(0).child("source head").as_default():
    SOURCE_HEAD = nn.Linear(16, 4)  # of a source with 4 classes


@pytest.fixture
def task() -> tuple[Pair, Model]:
    """Images, and a network; its running statistics are of nothing in particular."""
    pair, _, _ = split_domains(digits(0, samples=200, size=8), 0, Budget("count", 5), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=16, channels=4)
        model = Model(backbone, width, pair.classes)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean)  # pyright: ignore[reportArgumentType]
                nn.init.uniform_(norm.running_var, 0.5, 2.0)  # pyright: ignore[reportArgumentType]
    return pair, model


def table() -> tuple[Pair, Model]:
    pair, _, _ = split_domains(blobs(0, samples=90, classes=3), 0, Budget("count", 4), CPU)
    backbone, width = mlp(pair.shape, width=8, depth=1)
    return pair, Model(backbone, width, pair.classes)


def granted(pair: Pair, n: int = 16) -> Batch:
    return draw_batch(pair, {"granted"}, n, Rng(0), 0, augment.none, CPU)


def states(
    method: Method, pair: Pair, model: Model, steps: int, lr: float = 0.01, lr_backbone: LrBackbone = "auto"
) -> list[dict]:
    model, pair = prepare(method, model, pair, source_head=SOURCE_HEAD)
    plan = Train(steps=steps, log_every=1, batch=16)
    optimizer = partial(optimizers.adamw, lr=lr, lr_backbone=lr_backbone)
    points = train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, Rng(0), Cursor())
    return [{name: tensor.clone() for name, tensor in model.state_dict().items()} for _ in points]


def moved(before: dict, after: dict) -> set[str]:
    """The parts of the network of which anything has changed, BatchNorm statistics too."""
    names = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    return {name.removeprefix("backbone.").partition(".")[0] for name in names}


def moved_away(model: Model) -> None:
    with torch.no_grad(), Rng(0).child("away").as_default():
        for parameter in model.backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("freeze", ["none", "upto:conv1"])
def test_gradual_unfreezing_adds_a_stage_in_each_phase_from_the_head_down(freeze, task):
    pair, model = task
    free = [stage for stage in reversed(STAGES) if freeze == "none" or stage != "conv1"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = states(Finetune(freeze, gradual=True), pair, model, steps=2 * (1 + len(free)))
    for index in range(1 + len(free)):
        expected = {"head", *free[:index]}
        assert moved(before, steps[2 * index]) == moved(before, steps[2 * index + 1]) == expected
        previous = steps[2 * index - 1] if index else before
        assert moved(previous, steps[2 * index]) == expected  # whatever is free goes on training


@pytest.mark.parametrize("decay", [1.0, 1 / 2.6])
def test_each_stage_learns_at_a_factor_of_the_next_ones_rate(decay, task):
    pair, model = task
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (after,) = states(Finetune(lr_decay=decay), pair, model, steps=1, lr_backbone=0.5)
    weights = ("head", "backbone.hidden.1", "backbone.conv2.0", "backbone.conv1.0")
    rates = [(after[f"{name}.weight"] - before[f"{name}.weight"]).abs().max().item() for name in weights]
    expected = [0.01, 0.005, 0.005 * decay, 0.005 * decay**2]
    assert rates == pytest.approx(expected, rel=0.05)  # Adam's first step is the rate itself, but for weight decay


def test_what_gradual_cannot_do_is_refused(task):
    with pytest.raises(UserError, match="it has no effect with freeze=head_only"):
        Finetune("head_only", gradual=True)
    with pytest.raises(UserError, match="choose one of them"):
        Finetune(gradual=True, lp_ft=True)
    with pytest.raises(UserError, match="lr_decay must be between 0 and 1"):
        Finetune(lr_decay=2.6)
    pair, model = task
    with pytest.raises(UserError, match="none with parameters to unfreeze"):
        prepare(Finetune("upto:hidden", gradual=True), model, pair, source_head=SOURCE_HEAD)
    backbone, width = identity(pair.shape)
    with pytest.raises(UserError, match="none with parameters to unfreeze"):
        prepare(Finetune(gradual=True), Model(backbone, width, pair.classes), pair, source_head=SOURCE_HEAD)


@pytest.mark.parametrize("method", [Delta(), LwF(), LwF(form="outputs")])
def test_what_holds_to_the_source_is_0_at_the_start_with_batchnorm_in_eval_and_not_in_train(method, task):
    pair, model = task
    name = type(method).__name__.lower()
    model, pair = prepare(method, model, pair, source_head=SOURCE_HEAD)
    begin_phase(method.phases(model)[0], model, method)
    method.train()
    model.eval()
    term = method.terms(model, granted(pair), 0.0)[name]
    term.backward()
    assert term.item() == pytest.approx(0.0, abs=1e-6)
    assert all(p.grad is not None and p.grad.abs().max() < 1e-6 for p in model.backbone.parameters())
    model.train()
    assert method.terms(model, granted(pair), 0.0)[name].item() > 1e-5
    model.eval()
    moved_away(model)
    term = method.terms(model, granted(pair), 0.0)[name]
    assert term.item() > 1e-5
    term.backward()
    teacher = method.source if isinstance(method, Delta) else method.teacher
    assert isinstance(teacher, nn.Module) and all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (3, 6, 4), (3, 4)])
def test_drift_is_the_double_loop(shape):
    """Images (n, c, h, w), tokens (n, t, c) and vectors (n, d)."""
    generator = torch.Generator().manual_seed(0)
    now, then = torch.randn(2, *shape, generator=generator)
    attention = torch.rand(4, generator=generator).softmax(0)
    a, b = now.double().numpy(), then.double().numpy()
    expected = 0.0
    for row in range(3):
        for channel in range(4):
            index = (row, slice(None), channel) if len(shape) == 3 else (row, channel)
            gap = np.atleast_1d(a[index] - b[index])
            expected += 0.5 * 4 * attention[channel].item() * np.square(gap).sum() / gap.size
    got = drift(channels_first(now), channels_first(then), attention)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_delta_adds_its_layers_and_weighs_them(task):
    pair, model = task
    batch = granted(pair)
    found = {}
    for layers in [(), *[(stage,) for stage in STAGES]]:
        method = Delta(weight=0.3 if layers else 0.6, layers=layers)
        prepare(method, model, pair, source_head=SOURCE_HEAD)
        found[layers] = method
    moved_away(model)
    terms = {layers: method.terms(model, batch, 0.5)["delta"].item() for layers, method in found.items()}
    assert terms[()] == pytest.approx(2 * sum(terms[(stage,)] for stage in STAGES), rel=1e-5)
    assert min(terms.values()) > 0
    with pytest.raises(UserError, match="no stage 'conv9'"):
        prepare(Delta(layers=["conv9"]), model, pair, source_head=SOURCE_HEAD)


def test_supervised_attention_is_what_leaving_a_channel_out_costs(task):
    """By a hook that sets the channel to 0, and scikit-learn's classifier in float64."""
    pair, model = task
    method = Delta(attention="supervised")
    prepare(method, model, pair, source_head=SOURCE_HEAD)
    split, y = pair.labels_granted
    x, labels = split.take(torch.arange(len(split))), y.numpy()
    model.eval()

    def features() -> np.ndarray:
        with torch.no_grad():
            return model.backbone(x).double().numpy()

    scaler = StandardScaler().fit(features())
    classifier = LogisticRegression(max_iter=5000).fit(scaler.transform(features()), labels)

    def loss() -> float:
        return -classifier.predict_log_proba(scaler.transform(features()))[np.arange(len(labels)), labels].mean()

    for index, name in enumerate(STAGES):
        stage, costs = model.backbone.get_submodule(name), []
        for channel in range(method.get_buffer(f"attention{index}").numel()):

            def without(_module, _inputs, output, channel=channel):
                return output.index_fill(1, torch.tensor([channel]), 0.0)

            hook = stage.register_forward_hook(without)
            costs.append(loss())
            hook.remove()
        expected = softmax(np.array(costs) - loss())
        # scikit-learn stops at a gradient of 1e-4
        np.testing.assert_allclose(method.get_buffer(f"attention{index}").numpy(), expected, rtol=5e-3)
        assert np.ptp(expected) > 1e-3
    uniform = Delta()
    prepare(uniform, model, pair, source_head=SOURCE_HEAD)
    batch = granted(pair)
    moved_away(model)
    ours, other = (each.terms(model, batch, 0.0)["delta"].item() for each in (method, uniform))
    assert ours != pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(("n", "d", "k"), [(12, 5, 1), (12, 5, 3), (5, 12, 2)])
def test_shrinkage_is_numpys_svd(n, d, k):
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(0), requires_grad=True)
    u, s, v = np.linalg.svd(features.detach().double().numpy(), full_matrices=False)
    value = shrinkage(features, k)
    assert value.item() == pytest.approx(np.square(np.sort(s)[:k]).sum(), rel=1e-4)
    value.backward()
    assert features.grad is not None
    np.testing.assert_allclose(features.grad.numpy(), 2 * (u[:, -k:] * s[-k:]) @ v[-k:], rtol=1e-3, atol=1e-5)
    stacked = shrinkage(torch.stack([features, 2 * features]), k)
    torch.testing.assert_close(stacked, torch.stack([value, 4 * value]))


def test_shrinkage_is_finite_where_all_rows_are_equal_and_refuses_what_there_is_not():
    for features in (torch.ones(6, 4), torch.zeros(6, 4)):
        features.requires_grad_()
        shrinkage(features, 2).backward()
        assert features.grad is not None and torch.isfinite(features.grad).all()
    with pytest.raises(UserError, match="k=5 singular values are asked for, and a batch of 6 rows × 4 features has 4"):
        shrinkage(torch.ones(6, 4), 5)


def test_bss_weighs_the_shrinkage_of_the_granted_features():
    pair, model = table()
    batch = granted(pair, 12)
    s = np.linalg.svd(model.features(batch.granted.x)[0].detach().double().numpy(), compute_uv=False)
    term = BSS(weight=0.7, k=2).terms(model, batch, 0.0)["bss"]
    assert term.item() == pytest.approx(0.7 * np.square(s[-2:]).sum(), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_is_the_divergence_of_softened_predictions(temperature):
    student, teacher = 3 * torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    p, q = (softmax(logits.double().numpy() / temperature, axis=1) for logits in (teacher, student))
    assert distillation(student, teacher, temperature).item() == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-5)
    assert distillation(student, teacher, temperature).item() != pytest.approx(rel_entr(q, p).sum(1).mean(), rel=1e-2)
    far = distillation(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]), temperature)
    assert torch.isfinite(far)


@pytest.mark.parametrize("form", ["kl", "outputs"])
def test_lwf_compares_the_sources_classes_and_trains_their_head_along(form, task):
    pair, model = task
    method = LwF(weight=0.5, form=form, temperature=3.0)
    source = [nn.Sequential(model.backbone, SOURCE_HEAD)]
    batch = granted(pair)
    model.eval()
    with torch.no_grad():
        teacher = source[0](batch.granted.x).double().numpy()
    model, pair = prepare(method, model, pair, source_head=SOURCE_HEAD)
    begin_phase(method.phases(model)[0], model, method)
    moved_away(model)
    with torch.no_grad():
        for parameter in method.source_head.parameters():
            parameter.mul_(1.3)
        student = method.source_head(model.backbone(batch.granted.x)).double().numpy()
    assert student.shape == (16, 4)
    if form == "kl":
        expected = rel_entr(softmax(teacher / 3, 1), softmax(student / 3, 1)).sum(1).mean()
    else:
        expected = np.mean(
            [sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) for rows in zip(teacher, student, strict=True)]
        )
    term = method.terms(model, batch, 0.0)["lwf"]
    assert term.item() == pytest.approx(0.5 * expected, rel=1e-4, abs=2e-8)  # float32 sums of terms near 1 cancel
    term.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.source_head.parameters())
    assert SOURCE_HEAD is not method.source_head  # which stays as it was


@pytest.mark.parametrize("method", [LwF(), CoTuning()])
def test_the_source_head_trains_at_the_rate_of_the_backbone(method, task):
    pair, model = task
    model, _ = prepare(method, model, pair, source_head=SOURCE_HEAD)
    (phase,) = method.phases(model)
    groups = begin_phase(phase, model, method)
    rates = {id(parameter): lr_factor(group, 0.3) for group in groups for parameter in group.parameters}
    assert {rates[id(p)] for p in [*method.source_head.parameters(), *model.backbone.parameters()]} == {0.3}
    assert {rates[id(p)] for p in model.head.parameters()} == {1.0}


@pytest.mark.parametrize("method", [LwF(), CoTuning()])
def test_without_a_source_model_there_is_no_head_to_keep(method, task):
    pair, model = task
    with pytest.raises(UserError, match=r"there is no source model here: .* pretrain=default"):
        prepare(method, model, pair, has_source_model=False)


def norms(p: float, x: torch.Tensor) -> tuple[StochasticNorm, nn.Module]:
    """A `StochasticNorm` and the BatchNorm that it was made of, with statistics and factors of its own."""
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[x.ndim]
    plain = kind(x.shape[1], eps=1e-3, momentum=0.2)
    for tensor in (plain.running_var, plain.weight, plain.running_mean, plain.bias):
        nn.init.uniform_(tensor, 0.5, 2.0)  # pyright: ignore[reportArgumentType]
    return StochasticNorm(plain, p), plain


@pytest.mark.parametrize("shape", [(9, 64), (9, 64, 3, 2)])
def test_stochnorm_takes_batch_or_running_statistics_and_in_evaluation_is_batchnorm(shape):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + 1
    for p in (0.0, 0.3, 1.0):
        ours, plain = norms(p, x)
        state = {name: tensor.double().numpy().copy() for name, tensor in plain.state_dict().items()}
        column = (1, -1, *[1] * (len(shape) - 2))
        mean, var, weight, bias = (
            state[name].reshape(column) for name in ("running_mean", "running_var", "weight", "bias")
        )
        by_running = (x.double().numpy() - mean) / np.sqrt(var + 1e-3) * weight + bias
        torch.testing.assert_close(ours.eval()(x), plain.eval()(x), rtol=0, atol=0)
        torch.testing.assert_close(ours(x).detach(), torch.tensor(by_running).float(), rtol=1e-4, atol=1e-4)
        got, by_batch = ours.train()(x).detach(), plain.train()(x).detach()
        axes = (0, *range(2, len(shape)))
        running = np.abs(got.numpy() - by_running).max(axes) < 1e-4
        batch = np.abs((got - by_batch).numpy()).max(axes) < 1e-4
        assert (running ^ batch).all()  # each channel one of the two, as a whole
        assert running.mean() == pytest.approx(p, abs=0.2)  # of 64 channels, three deviations
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor)  # the running statistics move as BatchNorm's
        ours(x).square().sum().backward()
        assert ours.weight.grad is not None and torch.isfinite(ours.weight.grad).all()


def test_the_gradient_under_running_statistics_is_of_those_before_the_batch():
    torch.manual_seed(0)
    x = (3 * torch.randn(9, 8)).requires_grad_()
    ours, plain = norms(1.0, x)
    expected = (plain.get_parameter("weight") / (plain.get_buffer("running_var") + 1e-3).sqrt()).detach()
    ours(x).sum().backward()
    torch.testing.assert_close(x.grad, expected.expand(9, 8), rtol=1e-4, atol=1e-5)


def test_stochnorm_draws_anew_in_every_step():
    torch.manual_seed(0)
    x = torch.randn(9, 32) + 1
    ours, _ = norms(0.5, x)
    ours.momentum = 0.0
    assert not torch.equal(ours(x), ours(x))


def test_stochnorm_changes_a_copy_of_the_network_and_refuses_one_without_batchnorm(task):
    pair, model = task
    prepared, _ = prepare(StochNorm(p=0.4), model, pair, source_head=SOURCE_HEAD)
    layers = [layer for layer in prepared.modules() if isinstance(layer, StochasticNorm)]
    assert [layer.p for layer in layers] == [0.4, 0.4]
    assert not any(isinstance(layer, StochasticNorm) for layer in model.modules())
    x = pair.target.train.take(torch.arange(9))
    assert torch.equal(prepared.eval()(x), model.eval()(x))
    plain, other = table()
    with pytest.raises(UserError, match="this backbone has none: use method=finetune"):
        prepare(StochNorm(), other, plain, source_head=SOURCE_HEAD)
    other.backbone.add_module("more", nn.Sequential(nn.SyncBatchNorm(8)))
    with pytest.raises(UserError, match="this network has SyncBatchNorm, which is another layer"):
        prepare(StochNorm(), other, plain, source_head=SOURCE_HEAD)


def test_a_model_tuned_with_stochnorm_loads_as_any_other(tmp_path):
    record = made(tmp_path, "method=stochnorm", *QUICK)
    model = tl_runner.load(record.folder).model
    assert not any(isinstance(layer, StochasticNorm) for layer in model.modules())
    pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget("count", 10), CPU)
    with torch.no_grad():
        x = pair.target.test.take(torch.arange(len(pair.target.test)))
        predicted = model(x).softmax(-1)
    torch.testing.assert_close(predicted, calibrated(record), atol=1e-4, rtol=0)


def test_relation_is_the_mean_prediction_of_each_class():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(20, 3, generator=generator).softmax(-1)
    y = torch.randint(4, (20,), generator=generator)
    found = relation(predicted, y, 5)
    for target in range(4):
        rows = [predicted[i].double().numpy() for i in range(20) if y[i] == target]
        np.testing.assert_allclose(found[target].numpy(), np.mean(rows, 0), rtol=1e-5)
        assert found[target].sum().item() == pytest.approx(1, abs=1e-6)
    assert not found[4].any()  # no row has it


def test_co_tuning_teaches_the_sources_head_what_target_classes_look_like_to_it(task):
    pair, model = task
    split, y = pair.labels_granted
    x = split.take(torch.arange(len(split)))
    model.eval()
    with torch.no_grad():
        p = softmax(SOURCE_HEAD(model.backbone(x)).double().numpy(), 1)
    model.train()  # the relation is of running statistics all the same
    method = CoTuning(weight=0.7)
    model, pair = prepare(method, model, pair, source_head=SOURCE_HEAD)
    begin_phase(method.phases(model)[0], model, method)
    expected = np.stack([p[y.numpy() == label].mean(0) for label in range(10)])
    np.testing.assert_allclose(method.relation.numpy(), expected, rtol=1e-4)
    model.eval()
    moved_away(model)
    batch = granted(pair)
    with torch.no_grad():
        log_q = log_softmax(method.source_head(model.backbone(batch.granted.x)).double().numpy(), 1)
    soft = np.mean([-expected[label] @ log_q[row] for row, label in enumerate(batch.granted.y)])
    term = method.terms(model, batch, 0.0)["co_tuning"]
    assert term.item() == pytest.approx(0.7 * soft, rel=1e-4)
    term.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.source_head.parameters())
    assert method.relation.grad is None and method.relation.shape == (10, 4)


def looped(similarity: np.ndarray, positive: np.ndarray, there: np.ndarray, temperature: float) -> float:
    total = 0.0
    for i in range(len(similarity)):
        whole = sum(np.exp(similarity[i, k] / temperature) for k in range(len(there)) if there[k])
        logs = [
            np.log(np.exp(similarity[i, j] / temperature) / whole)
            for j in range(len(there))
            if there[j] and positive[i, j]
        ]
        total -= np.mean(logs)
    return float(total / len(similarity))


def test_contrast_is_the_double_loop_and_leaves_empty_places_out():
    generator = torch.Generator().manual_seed(0)
    similarity = (2 * torch.rand(5, 9, generator=generator) - 1).requires_grad_()
    positive = torch.rand(5, 9, generator=generator) < 0.4
    there = torch.arange(9) < 7
    positive[:, 0] = positive[:, 8] = True
    value = contrast(similarity, positive, there, 0.2)
    expected = looped(similarity.detach().double().numpy(), positive.numpy(), there.numpy(), 0.2)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert similarity.grad is not None and torch.isfinite(similarity.grad).all()
    assert not similarity.grad[:, 7:].any() and similarity.grad[:, :7].any()


def bi_tuning(task: tuple[Pair, Model], **options) -> tuple[BiTuning, Pair, Model]:
    method = BiTuning(**{"queue": 3, "projection": 6, **options})
    model, pair = prepare(method, task[1], task[0], source_head=SOURCE_HEAD)
    begin_phase(method.phases(model)[0], model, method)
    return method, pair, model


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_bi_tuning_contrasts_classes_and_rows_with_the_queue(task, monkeypatch):
    """Views are told apart by their brightness, and both contrasts are written out over two steps."""
    method, pair, model = bi_tuning(task, weight=0.3, temperature=0.2, momentum=0.9)
    views: list[torch.Tensor] = []

    def view(x: torch.Tensor, seed: int, flip: bool, magnitude: float) -> torch.Tensor:
        assert (flip, magnitude) == (False, 0.5)
        views.append(x * (0.5 + 0.1 * len(views)))
        return views[-1]

    monkeypatch.setattr(augment, "strong", view)
    model.eval()
    method.eval()
    encoder = [p.detach().clone() for p in method.encoder.parameters()]
    moved_away(model)
    queue: list[tuple[np.ndarray, np.ndarray, int]] = []
    for step in range(2):
        batch = draw_batch(pair, {"granted"}, 12, Rng(0), step, augment.none, CPU)
        terms = method.terms(model, batch, 0.0)
        encoder = [0.9 * a + 0.1 * b.detach() for a, b in zip(encoder, model.backbone.parameters(), strict=True)]
        torch.testing.assert_close(encoder, [*method.encoder.parameters()])
        with torch.no_grad():
            key, query = method.encoder(views[-1]), model.backbone(views[-2])
            keys_z, z = (unit(method.projector(f).double().numpy()) for f in (key, query))
        keys_h, h = (unit(np.c_[f.double().numpy(), np.ones(12)]) for f in (key, query))
        y = batch.granted.y.numpy()
        queue += list(zip(keys_h, keys_z, y, strict=True))
        queue = queue[-30:]
        assert isinstance(model.head, nn.Linear)
        w = unit(np.c_[model.head.weight.detach().double().numpy(), model.head.bias.detach().double().numpy()])
        in_queue = np.array([label for _, _, label in queue])
        same = y[:, None] == in_queue[None]
        by_row = looped(z @ np.stack([z for _, z, _ in queue]).T, same, np.ones(len(queue), bool), 0.2)
        own = np.array([[w[label] @ row] for label, row in zip(y, h, strict=True)])
        with_keys = np.c_[own, w[y] @ np.stack([h for h, _, _ in queue]).T]
        by_class = looped(with_keys, np.c_[np.ones((12, 1), bool), same], np.ones(1 + len(queue), bool), 0.2)
        assert terms["row_contrast"].item() == pytest.approx(0.3 * by_row, rel=1e-4)
        assert terms["class_contrast"].item() == pytest.approx(0.3 * by_class, rel=1e-4)
        with torch.no_grad():
            expected = F.cross_entropy(model(views[-2]), batch.granted.y)
        torch.testing.assert_close(terms["granted"], expected)
        torch.stack([*terms.values()]).sum().backward()
    for module in (method.encoder, method.key_projector):
        assert all(p.grad is None for p in module.parameters())
    for module in (model.head, method.projector, model.backbone):
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_the_contrasts_of_bi_tuning_leave_the_head_alone(task):
    """The prototypes are the head's weights without gradient; the head learns from the cross-entropy."""
    method, pair, model = bi_tuning(task)
    terms = method.terms(model, granted(pair), 0.0)
    for name, learners in (("class_contrast", [model.backbone]), ("row_contrast", [model.backbone, method.projector])):
        for module in (model.head, model.backbone, method.projector):
            found = torch.autograd.grad(terms[name], [*module.parameters()], retain_graph=True, allow_unused=True)
            assert any(g is not None and bool(g.any()) for g in found) == (module in learners)
    assert all(g.any() for g in torch.autograd.grad(terms["granted"], [*model.head.parameters()]))


def test_the_projector_of_bi_tuning_learns_at_a_tenth_of_the_heads_rate(task):
    method, _, model = bi_tuning(task)
    (phase,) = method.phases(model)
    rates = {p: lr_factor(group) for group in begin_phase(phase, model, method) for p in group.parameters}
    (head,), (projector,) = ({rates[p] for p in part.parameters()} for part in (model.head, method.projector))
    assert projector == pytest.approx(0.1 * head)


def test_the_queue_forgets_the_oldest_keys_first(task):
    method, pair, model = bi_tuning(task)  # 3 keys for each of 10 classes
    seen: list[int] = []
    for step in range(4):
        batch = draw_batch(pair, {"granted"}, 12, Rng(0), step, augment.none, CPU)
        method.terms(model, batch, 0.0)
        seen += batch.granted.y.tolist()
        expected = seen[-30:] + [-1] * (30 - len(seen[-30:]))
        assert sorted(method.labels.tolist()) == sorted(expected)
        assert (method.labels >= 0).tolist() == method.keys_z.any(1).tolist()
    with pytest.raises(UserError, match=r"queue=1 keys a class are 10, fewer than the 16 rows of a batch"):
        method, pair, model = bi_tuning(task, queue=1)
        method.terms(model, granted(pair), 0.0)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_keys_network_follows_by_the_momentum(momentum, task):
    method, pair, model = bi_tuning(task, momentum=momentum)
    before = [p.clone() for p in method.encoder.parameters()]
    moved_away(model)
    method.terms(model, granted(pair), 0.0)
    followed = [*model.backbone.parameters()] if momentum == 0 else before
    torch.testing.assert_close([*method.encoder.parameters()], followed)


@pytest.mark.parametrize("option", [{"flip": True}, {"magnitude": 0.0}])
def test_the_views_of_bi_tuning_are_as_they_are_asked_for(option, task):
    found = []
    for options in ({}, option):
        method, pair, model = bi_tuning(task, **options)
        with Rng(0).child("views").as_default():
            found.append(method.terms(model, granted(pair), 0.0)["row_contrast"].item())
    assert found[0] != found[1]


def test_bi_tuning_of_rows_that_have_no_views_is_refused():
    pair, model = table()
    with pytest.raises(UserError, match="only images and sound have views here: these rows are 10 numbers"):
        prepare(BiTuning(), model, pair, source_head=SOURCE_HEAD)


def halved(seed: int, samples: int = 300, size: int = 8, severity: None = None, target_shares=None) -> Drawn:
    """A source of five classes: digits by two."""
    drawn = digits(seed, samples=samples, size=size)
    return drawn._replace(source=drawn.source and drawn.source._replace(y=drawn.source.y // 2, classes=tuple("abcde")))


ACROSS: Sequence[str] = ("delta", "bss", "lwf", "stochnorm", "co_tuning", "bi_tuning")


@pytest.mark.parametrize("method", ACROSS)
def test_whole_runs_from_a_source_of_other_classes(method, tmp_path):
    words = [
        "dataset._target_=test_parameter_transfer.halved",
        "~dataset.source",
        "~dataset.target",
        "~dataset.shift",
        *QUICK,
    ]
    record = made(tmp_path, f"method={method}", *words)
    assert record.status == "ok" and record.scores is not None and record.scores.source is None
    assert len(tl_runner.load(record.folder).classes) == 10
