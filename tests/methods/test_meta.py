"""MAML, ANIL and Reptile against closed forms of softmax regression, written in NumPy from the papers."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, built, composed, made
from support.tasks import prepare
from torch import nn

from tl_runner import config
from tl_runner.core import Batch, Model, Terms
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods.anil import ANIL
from tl_runner.methods.maml import MAML, query_loss
from tl_runner.methods.reptile import Reptile, reptile
from tl_runner.models.backbones import identity, mlp, small
from tl_runner.models.batchnorm import by_domain_statistics
from tl_runner.models.learning_rates import lr_factor
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.batches import draw_batch
from tl_runner.training.loop import Cursor, Train, begin_phase, train

KINDS = {"maml": MAML, "anil": ANIL, "reptile": Reptile}
WAYS, WIDTH = 3, 4
LR, STEPS = 0.7, 3


def rows(n: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """A task's rows (WAYS, n, width), float64."""
    return torch.randn(WAYS, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def softmax_regression(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Cross-entropy of logits x wᵀ, its gradient (C, d) and its Hessian (C·d, C·d)."""
    logits = x @ w.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    gradient = (p - np.eye(len(w))[y]).T @ x / len(y)
    hessian = sum(np.kron(np.diag(q) - np.outer(q, q), np.outer(r, r)) for q, r in zip(p, x, strict=True)) / len(y)
    return loss, gradient, np.asarray(hessian)


def descended(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights after STEPS steps, and d(them)/dw = Π (I − lr · H)."""
    jacobian = np.eye(w.size)
    for _ in range(STEPS):
        _, gradient, hessian = softmax_regression(w, x, y)
        jacobian = (np.eye(w.size) - LR * hessian) @ jacobian
        w = w - LR * gradient
    return w, jacobian


def flat(task: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return task.flatten(0, 1).numpy(), np.repeat(np.arange(WAYS), task.shape[1])


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_the_closed_form(first_order):
    """∇ = Π (I − lr H_k)ᵀ ∇L_queries(w'), of first order ∇L_queries(w')."""
    with Rng(0).child("net").as_default():
        net = nn.Linear(WIDTH, WAYS, bias=False).double()
    shots, queries = rows(5), rows(2, seed=1)
    loss, _ = query_loss(nn.Identity(), net, shots, queries, STEPS, LR, first_order)
    loss.backward()
    adapted, jacobian = descended(net.weight.detach().numpy(), *flat(shots))
    value, gradient, _ = softmax_regression(adapted, *flat(queries))
    expected = gradient.ravel() if first_order else jacobian.T @ gradient.ravel()
    assert loss.item() == pytest.approx(value, rel=1e-10) and net.weight.grad is not None
    np.testing.assert_allclose(net.weight.grad.numpy().ravel(), expected, rtol=1e-9, atol=1e-12)
    other = jacobian.T @ gradient.ravel() if first_order else gradient.ravel()
    assert np.abs(expected - other).max() > 0.01  # the two orders do differ


def test_anil_moves_the_head_alone_and_its_gradient_reaches_the_backbone():
    """By finite differences of a loss in NumPy whose inner loop knows the head only; nothing else moves."""
    with Rng(0).child("net").as_default():
        body, head = nn.Linear(WIDTH, 3, bias=False).double(), nn.Linear(3, WAYS, bias=False).double()
    shots, queries = rows(5), rows(2, seed=1)
    passes = []
    body.register_forward_hook(lambda *_: passes.append(body.weight.detach().clone()))
    loss, _ = query_loss(body, head, shots, queries, STEPS, LR, False)
    loss.backward()
    assert len(passes) == 2 and all(torch.equal(weight, body.weight) for weight in passes)  # shots, queries: once each

    def papers(b: np.ndarray, w: np.ndarray) -> float:
        (x, y), (z, answers) = flat(shots), flat(queries)
        return softmax_regression(descended(w, x @ b.T, y)[0], z @ b.T, answers)[0]

    b, w = (part.weight.detach().numpy().copy() for part in (body, head))
    assert loss.item() == pytest.approx(papers(b, w), rel=1e-10)
    for part, matrix in ((body, b), (head, w)):
        assert part.weight.grad is not None
        numeric = np.zeros_like(matrix)
        for index in np.ndindex(*matrix.shape):
            matrix[index] += 1e-5
            above = papers(b, w)
            matrix[index] -= 2e-5
            numeric[index] = (above - papers(b, w)) / 2e-5
            matrix[index] += 1e-5
        np.testing.assert_allclose(part.weight.grad.numpy(), numeric, atol=1e-8)  # of central differences in float64


def test_reptiles_gradient_is_the_way_that_the_weights_went():
    """θ − θ' to the bit, θ' by torch's own SGD, each step on rows of its own; and with SGD outside, θ + ε(θ' − θ)."""
    with Rng(0).child("net").as_default():
        net = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, WAYS)).double()
    before, walked = deepcopy(net), deepcopy(net)
    parts, seen, descent = rows(6).split(2, dim=1), [], torch.optim.SGD(walked.parameters(), lr=LR)
    for part in parts:
        descent.zero_grad()
        seen.append(F.cross_entropy(walked(part.flatten(0, 1)), torch.arange(WAYS).repeat_interleave(2)))
        seen[-1].backward()
        descent.step()
    term = reptile(net, parts, LR)
    term.backward()
    torch.testing.assert_close(term, torch.stack(seen).mean())
    for now, then in zip(net.parameters(), walked.parameters(), strict=True):
        torch.testing.assert_close(now.grad, (now - then).detach(), rtol=0, atol=1e-15)
    torch.optim.SGD(net.parameters(), lr=0.25).step()
    for now, was, then in zip(net.parameters(), before.parameters(), walked.parameters(), strict=True):
        torch.testing.assert_close(now, was + 0.25 * (then - was))


def task(target_classes: int = 10) -> tuple[Pair, Model]:
    drawn = digits(0, samples=200, size=8)
    kept = drawn.target.y < target_classes
    target = drawn.target._replace(
        x=drawn.target.x[kept], y=drawn.target.y[kept], classes=drawn.target.classes[:target_classes]
    )
    pair, _, _ = split_domains(drawn._replace(target=target), 0, Budget.parse("5"), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = mlp(pair.shape, width=8, depth=1)
        return pair, Model(backbone, width, pair.classes)


def batch_of(method, model: Model, pair: Pair, phase: int = 0) -> Batch:
    chosen = method.phases(model)[phase]
    begin_phase(chosen, model, method)
    streams = chosen.streams or set()
    return draw_batch(pair, streams, 16, Rng(0), 0, augment.none, torch.device("cpu"), chosen.episodes)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_step_is_the_mean_over_its_tasks(name):
    pair, model = task()
    method = KINDS[name](tasks=3, ways=4, shots=2, steps=2)
    prepare(method, model, pair)
    batch = batch_of(method, model, pair)
    each = batch.source.x.unflatten(0, (3, 4, -1))
    assert (batch.source.y.unflatten(0, (3, 4, -1)).diff(dim=-1) == 0).all()
    learner = nn.Sequential(model.backbone, method.task_head)
    parts = (nn.Identity(), learner) if name == "maml" else (model.backbone, method.task_head)
    values = [
        reptile(learner, [x[:, :2], x[:, 2:]], method.lr_inner)
        if name == "reptile"
        else query_loss(*parts, x[:, :2], x[:, 2:], 2, method.lr_inner, False)[0]
        for x in each
    ]
    expected = torch.stack(values).mean()
    found = method.terms(model, batch, 0.0)["tasks"]
    torch.testing.assert_close(found, expected)
    gradients: list[list[torch.Tensor]] = []
    for term in (found, expected):
        model.zero_grad()
        method.zero_grad()
        term.backward()
        gradients.append([p.grad.clone() for p in learner.parameters() if p.grad is not None])
        assert len(gradients[-1]) == len([*learner.parameters()]) and model.head.weight.grad is None
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_after_the_tasks_come_the_granted_rows_as_in_fine_tuning(name):
    pair, model = task()
    method = KINDS[name](meta=0.25)
    prepare(method, model, pair)
    meta, adapt = method.phases(model)
    assert (meta.share, adapt.share) == (0.25, 0.75) and (meta.streams, adapt.streams) == ({"source"}, {"granted"})
    assert [[lr_factor(group) for group in begin_phase(p, model, method)] for p in (meta, adapt)] == [
        [1.0, 1.0],
        [1.0, 0.1],
    ]
    batch = batch_of(method, model, pair, 1)
    model.eval()
    found = method.terms(model, batch, 0.5)
    assert set(found) == {"granted"} and not isinstance(found, Terms)
    torch.testing.assert_close(found["granted"], F.cross_entropy(model(batch.granted.x), batch.granted.y))


def test_every_option_shapes_the_tasks():
    pair, model = task()
    for method, expected in (
        (MAML(tasks=3, ways=4, shots=2, queries=6), (3, 4, 2, 6)),
        (ANIL(tasks=1, ways=2, shots=3, queries=1), (1, 2, 3, 1)),
        (Reptile(tasks=2, ways=99, shots=3, steps=4), (2, 10, 12, 0)),  # no more ways than the source has classes
    ):
        prepare(method, model, pair)
        assert method.phases(model)[0].episodes == expected and method.task_head.out_features == expected[1]
        assert len(batch_of(method, model, pair)) == expected[0] * expected[1] * sum(expected[2:])
    losses = []
    for options in ({}, {"steps": 1}, {"lr_inner": 0.7}):
        for name, kind in sorted(KINDS.items()):
            method = kind(**{"steps": 2, "shots": 4, **options})
            prepare(method, model, pair)
            losses.append((name, options, method.terms(model, batch_of(method, model, pair), 0.0)["tasks"].item()))
    assert len({round(value, 6) for _, _, value in losses}) == 9


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_target_may_have_other_classes(name):
    pair, model = task(target_classes=3)
    assert not pair.shared_labels and KINDS[name]().source_labels == "unused"
    method = KINDS[name](meta=0.25)
    model, pair = prepare(method, model, pair)
    parts = config.load_parts(composed("optimizer.lr=0.01")[0])
    plan = Train(steps=100, batch=16, log_every=20)
    points = [*train(model, method, pair, plan, parts.optimizer, parts.schedule, parts.augment, Rng(0), Cursor())]
    assert [point.phase for point in points][-1] == "adapt"
    split, y = pair.labels_granted
    found = by_domain_statistics(model, pair, points[-1].streams, {}).target(split.take(torch.arange(len(split))))
    assert found.shape[1] == 3 and (found.argmax(1) == y).float().mean() > 0.8  # a third is chance


@pytest.mark.parametrize("name", sorted(KINDS))
def test_tasks_are_learnt_better_with_time(name):
    pair, _ = task()
    with Rng(0).child("net").as_default():
        backbone, width = small(pair.shape, width=16, channels=4)
    model, method = Model(backbone, width, pair.classes), KINDS[name](meta=0.9)
    model, pair = prepare(method, model, pair)
    parts = config.load_parts(composed()[0])
    plan = Train(steps=100, log_every=10)
    points = [*train(model, method, pair, plan, parts.optimizer, parts.schedule, parts.augment, Rng(0), Cursor())]
    losses = [point.terms["tasks"] for point in points if point.phase == "meta"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_backbone_without_parameters_is_refused():
    pair, _ = task()
    backbone, width = identity(pair.shape)
    with pytest.raises(UserError, match="this backbone has no parameters"):
        prepare(built("maml"), Model(backbone, width, pair.classes), pair)


@pytest.mark.parametrize("method", [MAML(queries=1_000_000), ANIL(shots=1_000_000), Reptile(steps=1_000_000)])
def test_a_task_of_more_rows_than_there_are_is_refused(method):
    pair, model = task()
    with pytest.raises(UserError, match=r"a task takes [15],000,00\d rows of each class, and the source has 120"):
        prepare(method, model, pair)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ways": 1}, "ways"), ({"meta": 1.0}, "meta"), ({"shots": 0}, "shots"), ({"steps": 0}, "steps")],
)  # fmt: skip
def test_values_out_of_range_are_refused(options, message):
    for kind in KINDS.values():
        with pytest.raises(UserError, match=f"{message} must be"):
            kind(**options)
    for kind in (MAML, ANIL):
        with pytest.raises(UserError, match="queries must be"):
            kind(queries=0)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.view(len(x), 1, 2, -1)
        return F.scaled_dot_product_attention(q, q, q).flatten(1)


def test_attention_has_a_second_derivative():
    net = nn.Sequential(nn.Linear(WIDTH, 8), Attention(), nn.Linear(8, WAYS))
    loss, _ = query_loss(nn.Identity(), net, rows(5).float(), rows(2).float(), 2, LR, False)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_run_notes_how_many_queries_are_got_right(tmp_path):
    record = made(tmp_path, "method=maml", "method.first_order=true", *QUICK)
    lines = (record.folder / "curve.jsonl").read_text().splitlines()
    assert "task_accuracy" in lines[0] and "task_accuracy" not in lines[-1]
