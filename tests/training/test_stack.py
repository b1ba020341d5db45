"""Runs trained as one stack come to what each comes to alone: in float64, where rounding can't hide a mistake."""

import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from conftest import built

from tl_runner.core import Model, Resources
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Split
from tl_runner.methods.dann import DANN
from tl_runner.methods.feature_extract import FeatureExtract
from tl_runner.methods.mmd import MMD
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.backbones import mlp
from tl_runner.rng import Rng
from tl_runner.sweep.fusing import NUMBERS
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import WAITING, Cursor, Train
from tl_runner.training.stack import Seat, Stack
from tl_runner.training.stacked_numbers import find_numbers
from tl_runner.training.stacked_program import Member

PLAN = Train(steps=20, batch=16, evaluations=2, log_every=7)
ADAMW = (partial(optimizers.adamw, lr=0.003), partial(optimizers.adamw, lr=0.02, beta1=0.8, weight_decay=0.1))
SGD = (partial(optimizers.sgd, lr=0.01), partial(optimizers.sgd, lr=0.1, momentum=0.5, nesterov=False))
IN_FLOAT32 = {"dann"}  # whose loss is: AdamW makes a step of a rounding error where a gradient is nearly 0


@dataclass(frozen=True)
class Doubled:
    """A split in float64."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return self.split.take(rows).double()


def member(
    method: Any, seed: int, optimizer: Any = ADAMW[0], plan: Train = PLAN, schedule: Any = optimizers.cosine,
    width: int = 8,
):  # fmt: skip
    """A run on the seed's own data and network; the same words make the same again."""
    pair, _, _ = split_domains(blobs(seed, samples=120), seed, Budget("count", 5), torch.device("cpu"))
    if "granted" not in method.needs:
        pair = replace(pair, granted=None, held_out=None)
    with Rng(seed).child("model").as_default():
        backbone, out = mlp(pair.shape, width=width, depth=2)
        model = Model(backbone, out, pair.classes, "per_domain")
    model, pair = method.prepare(model, pair, Resources(Rng(seed)))
    if pair.granted:
        pair.granted.x.take(torch.zeros(1, dtype=torch.long))  # features are computed now, by the network in float32
    pair = pair.mapped(Doubled)
    return Member(model.double(), method.double(), pair, plan, optimizer, schedule, augment.none, Rng(seed), Cursor())


def make(name: str, **options: Any) -> Any:
    method = built(name)
    return type(method)(**{**({"dropout": 0.0} if name == "dann" else {}), **options})


def words_of(member):
    """What `loop.train` would be called with."""
    own = ("ahead", "over", "alone", "threads")
    return [getattr(member, name) for name in Member.__dataclass_fields__ if name not in own]


def begin(members):
    """Their seats in a stack, and the points of each, all of whom wait for the others."""
    stack = Stack()
    seats = [Seat(stack) for _ in members]
    at_work = [seat.train(*words_of(each)) for seat, each in zip(seats, members, strict=True)]
    assert all(next(points).phase == WAITING and seat.ready for points, seat in zip(at_work, seats, strict=True))
    stack.begin()
    return seats, at_work


def train_together(members):
    """All points of each member, by turns, as `engine.group` takes them; their seats, and errors by member."""
    seats, begun = begin(members)
    at_work, errors = dict(enumerate(begun)), {}
    found = [[] for _ in members]
    while at_work:
        for place, points in [*at_work.items()]:
            try:
                found[place].append(next(points))
            except StopIteration:
                del at_work[place]
            except Exception as error:
                errors[place] = error
                seats[place].leave()
                del at_work[place]
    return found, seats, errors


def compare(together, alone, points, tolerance=1e-9):
    """Weights, and the terms of each point."""
    for mine, its, seen in zip(together, alone, points, strict=True):
        expected = [*its.train_alone()]
        assert [point.step for point in seen] == [point.step for point in expected]
        for one, other in zip(seen, expected, strict=True):
            assert one.terms == pytest.approx(other.terms, rel=1e-5) and one.rows == other.rows
            assert one.phase == other.phase and one.streams == other.streams
        for (name, one), other in zip(mine.model.state_dict().items(), its.model.state_dict().values(), strict=True):
            gap = (one.double() - other.double()).abs().max()
            assert gap <= tolerance, f"{name}: {gap}"
        for one, other in zip(mine.method.state_dict().values(), its.method.state_dict().values(), strict=True):
            assert torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, SGD) for name in sorted(NUMBERS)] + [(name, ADAMW) for name in sorted({*NUMBERS} - IN_FLOAT32)],
    ids=lambda value: value if isinstance(value, str) else "sgd" if value is SGD else "adamw",
)
def test_each_method_that_is_fused_comes_to_what_it_comes_to_alone(name, kind):
    options: list[dict[str, Any]] = [{key: value for key in NUMBERS[name] if key != "k"} for value in (0.3, 0.8)]
    if name == "feature_extract":
        options = [{**each, "head": "linear"} for each in options]

    def members():
        return [member(make(name, **each), seed, kind[seed]) for seed, each in enumerate(options)]

    together = members()
    points, seats, _ = train_together(together)
    assert not any(seat.alone for seat in seats)
    compare(together, members(), points, 1e-5 if name in IN_FLOAT32 else 1e-9)


class Holder:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0.5, 2), [0.5, 2.0]),
        (("a", "a"), None),
        (("a", "b"), "value differs, and is no number"),
        ((None, 1.0), "value differs, and is no number"),
        ((True, 1), "value differs, and is no number"),
        ((Holder(1), None), "value differs, and is no number"),
        (([torch.tensor(1.00001)], [torch.tensor(1.00002)]), "value differs, and is no number"),
        ((torch.zeros(2), torch.zeros(2)), None),
        ((torch.zeros(2), torch.ones(2)), "value differs, and is no number"),
        ((partial(optimizers.cosine, warmup=0.1), partial(optimizers.cosine, warmup=0.2)), "value differs"),
    ],
)
def test_what_differs_is_a_number_or_refused(values, found):
    holders = [Holder(value) for value in values]
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            find_numbers(holders)
    else:
        numbers = find_numbers(holders)
        assert [value.tolist() for value in numbers.values] == ([] if found is None else [found])


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_step_is_made_of_operators_that_vmap_knows(name):
    """Those that it does not know are decomposed by Python in every step, after half a second of imports."""
    options = {"head": "linear"} if name == "feature_extract" else {}
    together = [member(make(name, **options), seed, plan=replace(PLAN, steps=2)) for seed in (0, 1)]
    files = set()
    sys.setprofile(lambda frame, event, argument: files.add(frame.f_code.co_filename))
    try:
        train_together(together)
    finally:
        sys.setprofile(None)
    assert any("torch/_functorch" in file for file in files)
    assert not [file for file in files if "torch/_decomp" in file or "torch/_refs" in file]


def test_members_have_their_own_clipping_schedules_and_averages():
    def members():
        plans = [replace(PLAN, clip=clip, average="ema") for clip in (None, 0.05, 1.0)]
        schedules = (optimizers.constant, optimizers.cosine, partial(optimizers.cosine, warmup=0.3))
        return [member(MMD(), 0, plan=plan, schedule=at) for plan, at in zip(plans, schedules, strict=True)]

    together, alone = members(), members()
    points, *_ = train_together(together)
    compare(together, alone, points)
    for mine, its in zip(together, alone, strict=True):
        for name, tensor in mine.cursor.average.tensors.items():
            assert torch.allclose(tensor, its.cursor.average.tensors[name], rtol=0, atol=1e-9)
    weights = [each.model.get_parameter("head.weight") for each in together]
    assert not torch.allclose(weights[0], weights[1])  # they did differ


def test_a_member_that_diverges_ends_alone():
    def members():
        return [
            member(SourceOnly(), seed, partial(optimizers.sgd, lr=lr)) for seed, lr in enumerate((0.01, 1e200, 0.02))
        ]

    together, alone = members(), members()
    points, _, errors = train_together(together)
    assert [*errors] == [1] and "not a finite number" in str(errors[1])
    compare([together[0], together[2]], [alone[0], alone[2]], [points[0], points[2]])


def test_a_member_that_was_cut_continues_alone_and_in_a_stack():
    whole = [member(MMD(), seed) for seed in (0, 1)]
    for each in whole:
        list(each.train_alone())
    cut = [member(MMD(), seed) for seed in (0, 1)]
    _, at_work = begin(cut)
    for points in at_work:
        next(points)  # to step 7
    again = [member(MMD(), seed) for seed in (0, 1)]
    for old, new in zip(cut, again, strict=True):
        new.model.load_state_dict(old.model.state_dict())
        new.cursor = Cursor(**old.cursor.state())
        assert new.cursor.step == 7
    one = member(MMD(), 0)
    one.model.load_state_dict(cut[0].model.state_dict())
    one.cursor = Cursor(**cut[0].cursor.state())
    list(one.train_alone())
    points, seats, _ = train_together(again)
    assert not seats[0].alone and [point.step for point in points[0]] == [10, 14, 20]
    for mine, its in zip([*again, one], [*whole, whole[0]], strict=True):
        for a, b in zip(mine.model.parameters(), its.model.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_members_that_were_cut_at_other_steps_are_stacks_of_their_own():
    whole = [member(MMD(), seed) for seed in range(4)]
    seen = [dict[int, torch.Tensor]() for _ in whole]

    def note(member, point, found):
        found[point.step] = member.model.get_parameter("head.weight").detach().clone()

    for each, found in zip(whole, seen, strict=True):
        for point in each.train_alone():
            note(each, point, found)
    again = [member(MMD(), seed) for seed in range(4)]
    for each in again[2:]:
        cut = member(MMD(), each.rng.seed)
        _, at_work = begin([cut, member(MMD(), 9)])
        assert [next(at_work[0]).step for _ in range(3)] == [7, 10, 14]
        each.model.load_state_dict(cut.model.state_dict())
        each.cursor = Cursor(**cut.cursor.state())
    seats, at_work = begin(again)
    left = dict(enumerate(at_work))
    while left:
        for place, points in [*left.items()]:
            if point := next(points, None):
                now = dict[int, torch.Tensor]()
                note(again[place], point, now)
                assert torch.allclose(now[point.step], seen[place][point.step], rtol=0, atol=1e-9), (place, point.step)
            else:
                del left[place]
    assert not any(seat.alone for seat in seats)


def test_a_member_of_another_shape_trains_alone_and_the_others_do_not():
    members, alone = ([member(MMD(), seed, width=width) for seed, width in enumerate((8, 8, 9))] for _ in range(2))
    points, seats, _ = train_together(members)
    assert [seat.alone for seat in seats] == ["", "", "no other run is like it"]
    compare(members, alone, points)


def test_a_member_at_another_step_is_told_so():
    later = member(MMD(), 1)
    _, at_work = begin([later, member(MMD(), 9)])
    next(at_work[0])
    again = member(MMD(), 1)
    again.model.load_state_dict(later.model.state_dict())
    again.cursor = Cursor(**later.cursor.state())
    seats, _ = begin([member(MMD(), 0), member(MMD(), 2), again])
    assert [seat.alone for seat in seats] == ["", "", "the runs like it stand at other steps"]


def test_a_stack_that_nobody_joins_is_empty():
    Stack().begin()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (lambda: [member(DANN(), seed) for seed in (0, 1)], "dropout draws from"),
        (lambda: [member(MMD(), 0)], "no other run is like it"),
        (lambda: [member(MMD(), 0), member(MMD(), 1, plan=replace(PLAN, batch=8))], "no other run is like it"),
        (lambda: [member(MMD(schedule="ramp"), 0), member(MMD(schedule="linear"), 1)], "schedule differs"),
        (lambda: [member(MMD(), 0), member(MMD(), 1, SGD[0])], "optimiser"),
        (lambda: [member(FeatureExtract(), seed) for seed in (0, 1)], "takes no steps"),
    ],
    ids=["dropout", "single", "batch", "word", "optimisers", "fitted"],
)
def test_what_is_no_stack_trains_alone_and_says_why(members, why):
    together, alone = members(), members()
    points, seats, _ = train_together(together)
    assert all(re.search(why, seat.alone) for seat in seats)
    assert [[point.step for point in seen] for seen in points] == [
        [point.step for point in each.train_alone()] for each in alone
    ]


class Late:
    """A schedule that fails from a share of training on."""

    def __init__(self, share):
        self.share = share

    def __call__(self, progress):
        if progress >= self.share:
            raise RuntimeError("no rate")
        return 1.0


def test_an_error_amid_a_step_is_every_members_and_none_ends_half_trained():
    members = [member(MMD(), 0, schedule=schedule) for schedule in (optimizers.constant, Late(0.6))]
    points, _, errors = train_together(members)
    assert [str(errors[place]) for place in (0, 1)] == ["no rate"] * 2
    assert [point.step for point in points[0]] == [7, 10]


def test_an_error_before_any_step_is_left_to_the_run_that_it_is_of():
    members, alone = ([member(MMD(), 0, schedule=at) for at in (optimizers.constant, Late(0.0))] for _ in range(2))
    points, seats, errors = train_together(members)
    assert [*errors] == [1] and str(errors[1]) == "no rate"
    assert all("the stack can't take a step (RuntimeError: no rate)" in seat.alone for seat in seats)
    compare(members[:1], alone[:1], points[:1])
