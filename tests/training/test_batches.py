"""What a step draws: of several domains and of rare classes."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import QUICK, described, made

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.pool import pool
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.domains import Pair
from tl_runner.engine.run import run
from tl_runner.errors import UserError
from tl_runner.rng import Rng, allot_rows
from tl_runner.training import augment
from tl_runner.training.batches import balance_classes, draw_batch

CPU = torch.device("cpu")


def raw(name: str, rare: int, common: int, offset: float) -> Raw:
    n = rare + common
    x = offset + torch.arange(n, dtype=torch.float32)[:, None]
    part = torch.zeros(n, dtype=torch.long)
    part[1::10], part[2::10] = 1, 2
    return Raw(name, x, (torch.arange(n) >= rare).long(), ("rare", "common"), part)


def pair_of(*sources: Raw, granted: str = "0") -> Pair:
    drawn = Drawn(pool(sources), raw("t", 40, 60, 9000), {})
    return split_domains(drawn, 0, Budget.parse(granted), CPU)[0]


def draw(pair: Pair, n: int, step: int, **options):
    return draw_batch(pair, {"source"}, n, Rng(0), step, augment.none, CPU, **options)


@pytest.mark.parametrize(
    ("n", "sizes", "by", "expected"),
    [
        (64, [100, 100], "balanced", [32, 32]),
        (64, [100, 10, 10], "balanced", [22, 21, 21]),
        (64, [900, 100], "proportional", [58, 6]),
        (10, [1000, 1], "proportional", [8, 2]),  # two at least
        (6, [5, 3, 9], "proportional", [2, 2, 2]),
    ],
)
def test_each_domain_gets_its_part_of_a_batch(n, sizes, by, expected):
    assert allot_rows(n, sizes, by) == expected


def test_fewer_rows_than_two_a_domain_are_refused():
    with pytest.raises(ValueError, match="fewer than two"):
        allot_rows(5, [9, 9, 9], "balanced")
    with pytest.raises(UserError, match=r"train\.batch=3"):
        draw(pair_of(raw("a", 50, 50, 0), raw("b", 50, 50, 1000)), 3, 0)


@pytest.mark.parametrize(("by", "shares"), [("balanced", (16, 16)), ("proportional", (8, 24))])
def test_a_batch_comes_domain_by_domain(by, shares):
    pair = pair_of(raw("a", 50, 50, 0), raw("b", 150, 150, 1000))
    for step in range(5):
        alone = draw(pair, 32, step, by_domain=by)
        batch = draw_batch(pair, {"source", "target"}, 32, Rng(0), step, augment.none, CPU, by_domain=by)
        of_b = (batch.source.x.flatten() >= 1000).long()
        assert tuple(batch.blocks) == shares and (batch.domain == of_b).all()
        assert torch.equal(batch.source.x, alone.source.x) and alone.blocks == ()  # no other rows to keep apart from
        assert batch.domain.tolist() == [0] * shares[0] + [1] * shares[1]


def test_weighted_rows_of_a_pool_are_drawn_by_the_sizes_of_its_domains():
    pair = pair_of(raw("a", 50, 50, 0), raw("b", 150, 150, 1000))
    assert pair.source
    weighted = replace(pair, weights=torch.ones(len(pair.source.train)))
    assert (draw(weighted, 32, 0).domain.bincount() == torch.tensor([8, 24])).all()
    assert (draw(pair, 32, 0).domain.bincount() == torch.tensor([16, 16])).all()


def test_a_domain_is_read_in_shuffled_epochs_of_its_own():
    pair = pair_of(raw("a", 50, 50, 0), raw("b", 150, 150, 1000))
    assert pair.source
    small, large = (len(each.train) for each in pair.source.members)
    seen = Counter[float]()
    for step in range(small * 2):  # of 20 rows 10 are of each: 20 epochs of the small domain
        seen.update(draw(pair, 20, step).source.x.flatten().tolist())
    assert {seen[value] for value in seen if value < 1000} == {20}
    rounds = small * 2 * 10 / large
    assert all(int(rounds) <= seen[value] <= int(rounds) + 1 for value in seen if value >= 1000)


def test_a_domain_smaller_than_its_part_comes_round_in_one_batch():
    pair = pair_of(raw("a", 10, 10, 0), raw("b", 150, 150, 1000))
    batch = draw(pair, 64, 0)
    small = Counter(batch.source.x.flatten()[:32].tolist())
    assert sum(small.values()) == 32 and min(small.values()) >= 1 and max(small.values()) <= 3


def test_balanced_classes_are_drawn_equally_within_each_domain():
    pair = pair_of(raw("a", 20, 180, 0), raw("b", 100, 100, 1000))
    chances = balance_classes(pair, "classes", {"source"})
    assert pair.source and pair.source.labels
    rare = [0, 0]
    for step in range(200):
        batch = draw(pair, 40, step, chances=chances)
        for k in (0, 1):
            rare[k] += int((batch.source.y[batch.domain == k] == 0).sum())
    # 4,000 draws a domain with chance ½: a standard error of 0.8 points
    assert rare[0] / 4000 == pytest.approx(0.5, abs=0.03) and rare[1] / 4000 == pytest.approx(0.5, abs=0.03)


def test_a_small_domain_gives_its_part_of_balanced_classes_too():
    pair = pair_of(raw("a", 20, 280, 0), raw("b", 5, 25, 1000))
    batch = draw(pair, 64, 0, chances=balance_classes(pair, "classes", {"source"}))
    assert len(batch.source.y) == len(batch.domain) == 64 and batch.domain.bincount().tolist() == [32, 32]
    assert ((batch.source.x.flatten() >= 1000) == (batch.domain == 1)).all()


def test_chances_are_the_inverse_of_a_class_s_rows():
    pair = pair_of(raw("a", 20, 180, 0), granted="all")
    chances = balance_classes(pair, "classes", {"source", "granted"})
    assert pair.source and pair.source.labels and pair.granted
    for drawn, y in ((chances["source"], pair.source.labels.train), (chances["granted"], pair.granted.y)):
        assert [float(drawn[y == c].sum()) for c in (0, 1)] == pytest.approx([1, 1])
    assert balance_classes(pair, "none", {"source"}) == {}


def test_balance_has_no_effect_on_targets_without_labels():
    pair = pair_of(raw("a", 20, 180, 0))
    assert "target" not in balance_classes(pair, "classes", {"source", "target"})


def test_a_run_with_balanced_classes_differs_and_resumes_the_same(tmp_path):
    words = [*QUICK, "method=source_only", "train.balance=classes"]
    record = made(tmp_path / "a", *words)
    again = made(tmp_path / "b", *words)
    assert record.status == "ok" and record.scores and again.scores
    assert record.scores.target == again.scores.target and record.id == again.id
    assert record.id != described(tmp_path, *QUICK, "method=source_only").id


def test_shares_of_a_pool_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"shares=bbse takes one source domain, and sans \+ mono are several"):
        made(tmp_path, *QUICK, "dataset.source=[sans,mono]", "method=mmd", "shares=bbse")


def test_a_method_that_draws_no_batches_says_that_balance_has_no_effect(tmp_path, caplog):
    made(tmp_path, *QUICK, "method=sa", "train.balance=classes")
    assert any("train.balance=classes: no effect" in said for said in caplog.messages)


OF_VALUES = ["train=tiny", "dataset=synthetic_regression", "backbone=mlp"]


@pytest.mark.parametrize(
    ("words", "said"),
    [([*QUICK, "shares=bbse"], "both say how often"), (OF_VALUES, "a quantity is predicted")],
    ids=str,
)
def test_what_contradicts_balance_is_refused(tmp_path, words, said):
    with pytest.raises(UserError, match=said):
        for _ in run(described(tmp_path, "method=source_only", "train.balance=classes", *words)):
            pass
