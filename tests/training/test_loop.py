"""The loop: its points, its phases, its learning rates."""

from functools import partial

import pytest
import torch
from torch import nn

from tl_runner.core import Episodes, Group, Method, Model, Phase, Terms
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import OnDisk
from tl_runner.errors import UserError
from tl_runner.methods.mmd import MMD
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.backbones import mlp, small
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, begin_phase, train


class Probe(Method):
    """Source-only in two phases, that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def phases(self, model):
        return [
            Phase("head", 1.0, [Group(model.head.parameters())]),
            Phase("all", 3.0, [Group(model.parameters(), lr=0.1)]),
        ]

    def terms(self, model, batch, progress):
        self.seen.append(progress)
        return Terms(model.encode(batch).supervise(), metrics={"twice": torch.tensor(2.0)})


@pytest.fixture
def task():
    pair, _, _ = split_domains(blobs(0, samples=100), 0, Budget("count", 0), torch.device("cpu"))
    torch.manual_seed(0)
    backbone, width = mlp(pair.shape, width=8, depth=1)
    return pair, Model(backbone, width, pair.classes)


def test_points_come_when_due_and_phases_share_the_steps(task):
    pair, model = task
    first = [p.detach().clone() for p in model.backbone.parameters()]
    method, plan = Probe(), Train(steps=20, evaluations=3, log_every=8, batch=10)
    optimizer = partial(optimizers.sgd, lr=0.1)
    moved, points = [], []
    for point in train(model, method, pair, plan, optimizer, optimizers.constant, augment.none, Rng(0), Cursor()):
        points.append(point)
        moved.append(not all(torch.equal(a, b) for a, b in zip(first, model.backbone.parameters(), strict=True)))
    assert [point.step for point in points] == [7, 8, 14, 16, 20]
    assert [plan.examines(point.step) for point in points] == [True, False, True, False, True]
    assert moved == [True] * 5 and points[-1].rows == 200
    assert method.seen == [step / 20 for step in range(20)]
    assert points[0].terms["twice"] == 2.0 and points[-1].terms["source"] < points[0].terms["source"]


def test_a_phase_trains_nothing_but_its_groups(task):
    pair, model = task
    first = [p.detach().clone() for p in model.backbone.parameters()]
    points = train(
        model,
        Probe(),
        pair,
        Train(steps=20, log_every=5, batch=10),
        optimizers.sgd,
        optimizers.constant,
        augment.none,
        Rng(0),
        Cursor(),
    )
    assert next(points).step == 2  # the first quarter, five steps, is the head's
    assert all(torch.equal(a, b) for a, b in zip(first, model.backbone.parameters(), strict=True))
    list(points)
    assert not any(torch.equal(a, b) for a, b in zip(first, model.backbone.parameters(), strict=True))


@pytest.mark.parametrize(("steps", "evaluations"), [(1, 10), (7, 3), (300, 10), (10, 10)])
def test_the_last_step_is_always_examined(steps, evaluations):
    plan = Train(steps=steps, evaluations=evaluations)
    due = [step for step in range(1, steps + 1) if plan.examines(step)]
    assert len(due) == min(steps, evaluations) and due[-1] == steps


def test_groups_scale_the_learning_rate_and_may_not_decay():
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    engine = optimizers.adamw([Group([weights[0]], lr=0.1), Group([weights[1]], decay=False), Group([])], lr=0.5)
    assert [group["lr"] for group in engine.param_groups] == [pytest.approx(0.05), 0.5]
    assert [group["weight_decay"] for group in engine.param_groups] == [0.01, 0.0]


def test_schedules_against_their_formulas():
    assert [optimizers.cosine(p) for p in (0, 0.5, 1)] == [1, pytest.approx(0.5), pytest.approx(0)]
    assert optimizers.cosine(1.0, final=0.1) == pytest.approx(0.1)
    assert optimizers.inverse_decay(0.3) == pytest.approx((1 + 3) ** -0.75)
    assert optimizers.constant(0.7) == 1
    assert [optimizers.warmup(p) for p in (0, 0.05, 0.1, 0.55, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert optimizers.warmup(1.0, final=0.1) == pytest.approx(0.1)
    for schedule in (optimizers.cosine, optimizers.inverse_decay, optimizers.constant, optimizers.warmup):
        assert schedule(0.05, warmup=0.1) < schedule(0.1, warmup=0.1)
        assert schedule(0.0, warmup=0.1) == 0


@pytest.mark.parametrize("plan", [{"precision": "bf16"}, {"channels_last": True}, {"clip": None}])
def test_the_knobs_for_speed_train_too(task, plan):
    pair, model = task
    points = list(
        train(
            model,
            Probe(),
            pair,
            Train(steps=4, **plan),
            optimizers.adamw,
            optimizers.constant,
            augment.none,
            Rng(0),
            Cursor(),
        )
    )
    assert points[-1].step == 4 and all(torch.isfinite(p).all() for p in model.parameters())


class Modes(Probe):
    """Notes whether a step finds the network and the method in training."""

    def terms(self, model, batch, progress):
        self.seen.append(all(part.training for whole in (model, self) for part in whole.modules()))
        return Terms(model.encode(batch).supervise())


def test_every_step_trains_in_the_mode_of_training_whatever_was_done_at_a_point(task):
    pair, model = task
    method, plan = Modes(), Train(steps=6, log_every=2, batch=10)
    model.eval()
    for _ in train(model, method, pair, plan, optimizers.sgd, optimizers.constant, augment.none, Rng(0), Cursor()):
        model.eval()
        method.eval()
    assert method.seen == [True] * 6


class Spent(Probe):
    """Two phases that share an iterator of parameters: the first one empties it."""

    def phases(self, model):
        groups = [Group(model.parameters())]
        return [Phase("one", 0.5, groups), Phase("two", 0.5, groups)]


def test_a_phase_without_parameters_is_refused(task):
    pair, model = task
    points = train(
        model, Spent(), pair, Train(steps=4), optimizers.adamw, optimizers.constant, augment.none, Rng(0), Cursor()
    )
    with pytest.raises(UserError, match="no parameters to train"):
        list(points)


def test_what_is_in_no_group_has_no_gradient(task):
    _, model = task
    head, everything = Probe().phases(model)
    begin_phase(head, model, Probe())
    assert all(p.requires_grad for p in model.head.parameters())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    begin_phase(everything, model, Probe())
    assert all(p.requires_grad for p in model.parameters())


class Refreshed(Probe):
    def phases(self, model):
        return [Phase("train", 1.0, [Group(model.parameters())], refresh=self.refresh)]

    def refresh(self, model, pair):
        assert not torch.is_grad_enabled()
        self.seen.append(-1.0)


def test_a_phase_is_refreshed_at_the_start_and_after_each_evaluation(task):
    pair, model = task
    method, plan = Refreshed(), Train(steps=6, evaluations=3, batch=10)
    list(train(model, method, pair, plan, optimizers.sgd, optimizers.constant, augment.none, Rng(0), Cursor()))
    steps = [-1.0 if value < 0 else round(6 * value) for value in method.seen]
    assert steps == [-1, 0, 1, -1, 2, 3, -1, 4, 5]  # and not after the last, for nobody


class Episodic(Method):
    def phases(self, model):
        tasks = Episodes(tasks=2, ways=3, shots=1, queries=2)
        return [Phase("meta", 1.0, [Group(model.parameters())], episodes=tasks)]

    def terms(self, model, batch, progress):
        ways = batch.source.y.view(2, 3, 3)
        assert (ways == ways[:, :, :1]).all() and all(len({*task[:, 0].tolist()}) == 3 for task in ways)
        return model.encode(batch).supervise()


def test_small_tasks_are_drawn_where_a_phase_says_so(task):
    pair, model = task
    points = [
        *train(
            model, Episodic(), pair, Train(steps=4), optimizers.sgd, optimizers.constant, augment.none, Rng(0), Cursor()
        )
    ]
    assert points[-1].rows == 4 * 18


def test_training_from_a_mapped_file_is_bit_equal_to_training_in_memory(tmp_path):
    """Over several epochs, with the next batch read ahead; of two streams, and of tasks."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randint(256, (2, 50, 3, 8, 8), dtype=torch.uint8, generator=generator)
    content.numpy().tofile(tmp_path / "pixels.u8")
    mapped = torch.from_file(str(tmp_path / "pixels.u8"), shared=False, size=content.numel(), dtype=torch.uint8)
    y = torch.arange(50) % 2

    def trained(x: torch.Tensor, on_disk: bool, episodes: Episodes | None) -> dict[str, torch.Tensor]:
        source, target = (Raw(name, x[i], y, ("a", "b")) for i, name in enumerate("st"))
        drawn = Drawn(source, target, {}, on_disk=on_disk)
        pair, _, _ = split_domains(drawn, 0, Budget("count", 2), torch.device("cpu"))
        assert isinstance(pair.target.train, OnDisk) == on_disk
        torch.manual_seed(0)
        backbone, width = small(pair.shape, width=8, channels=4)
        model, method = Model(backbone, width, pair.classes), SourceOnly() if episodes else MMD()
        if episodes:
            method.phases = lambda model: [Phase("train", 1.0, [Group(model.parameters())], episodes=episodes)]
        plan = Train(steps=12, batch=8)
        list(train(model, method, pair, plan, optimizers.sgd, optimizers.constant, augment.weak, Rng(0), Cursor()))
        return model.state_dict()

    for episodes in (None, Episodes(2, 2, 1, 1)):
        memory = trained(content, False, episodes)
        disk = trained(mapped.view(2, 50, 3, 8, 8), True, episodes)
        assert all(torch.equal(memory[name], disk[name]) for name in memory)
