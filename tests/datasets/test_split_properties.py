"""What must hold of splits, label budgets and the order of batches, whatever the rows are."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.domains import Domain, Split
from tl_runner.rng import Rng, rows

few = settings(derandomize=True, max_examples=25, deadline=None, database=None)
CLASSES = ("a", "b", "c")


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """Two domains whose first column numbers the rows; the target's makers may have divided it."""

    def raw(name: str, parts: bool) -> Raw:
        n = draw(st.integers(20, 60))
        x = torch.stack([torch.arange(n), torch.arange(n) % 7], 1).float()
        y = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
        given_part = torch.arange(n) % 5 // 2 if parts else None  # 0 0 1 1 2
        return Raw(name, x, y, CLASSES, given_part)

    return Drawn(raw("s", False), raw("t", draw(st.booleans())), {})


def numbers(split: Split) -> list[int]:
    return split.take(torch.arange(len(split)))[:, 0].int().tolist()


def divided(side: Domain) -> list[list[int]]:
    return [numbers(side.train), numbers(side.val), numbers(side.test)]


def split(of: Drawn, seed: int, granted: str = "0"):
    return split_domains(of, seed, Budget.parse(granted), torch.device("cpu"))


@few
@given(drawn(), st.integers(0, 99))
def test_parts_partition_the_rows_and_are_the_same_again(of, seed):
    pair, answers, _ = split(of, seed)
    again = split(of, seed)[0]
    assert pair.source and again.source and of.source
    for side, twin, raw in ((pair.source, again.source, of.source), (pair.target, again.target, of.target)):
        parts = divided(side)
        assert sorted(row for part in parts for row in part) == [*range(len(raw.x))]
        assert parts == divided(twin)
        if raw.part is not None:
            assert [sorted(part) for part in parts] == [(raw.part == i).nonzero().squeeze(1).tolist() for i in range(3)]
    assert torch.equal(answers.open(), of.target.y[divided(pair.target)[2]])
    assert pair.target.labels is None


@few
@given(drawn(), st.integers(0, 99), st.randoms(use_true_random=False))
def test_no_label_and_no_order_of_rows_moves_the_targets_split(of, seed, chance):
    kept = divided(split(of, seed)[0].target)
    other = of.target.y[torch.tensor(chance.sample(range(len(of.target.y)), len(of.target.y)))]
    assert divided(split(of._replace(target=of.target._replace(y=(other + 1) % 3)), seed)[0].target) == kept
    order = torch.tensor(chance.sample(range(len(of.target.y)), len(of.target.y)))
    part = None if of.target.part is None else of.target.part[order]
    moved = of.target._replace(x=of.target.x[order], y=of.target.y[order], part=part)
    assert divided(split(of._replace(target=moved), seed)[0].target) == kept


@few
@given(drawn(), st.integers(0, 99))
def test_seeds_split_differently_but_for_a_test_part_that_was_given(of, seed):
    one, other = (divided(split(of, each)[0].target) for each in (seed, seed + 100))
    assert one[0] != other[0]
    assert (one[2] == other[2]) == (of.target.part is not None)


@few
@given(drawn(), st.integers(0, 99), st.sampled_from(["10%", "50%", "all"]))
def test_granted_rows_are_training_rows_with_their_own_labels(of, seed, granted):
    pair, _, data = split(of, seed, granted)
    kept: Counter[int] = Counter()
    for part in (pair.granted, pair.held_out):
        if part is not None:
            rows = numbers(part.x)
            assert torch.equal(part.y, of.target.y[rows])
            kept.update(rows)
    assert not kept or max(kept.values()) == 1  # none is trained on and held out
    assert kept.keys() <= {*numbers(pair.target.train)} and kept.total() == data.granted
    assert divided(pair.target) == divided(split(of, seed)[0].target)
    if granted == "all":
        assert kept.keys() == {*numbers(pair.target.train)}


def stream(seed: int, length: int, n: int, steps: range) -> list[int]:
    drawn: list[Tensor] = [rows(Rng(seed).child("source"), length, n, step) for step in steps]
    return torch.cat(drawn).tolist()


@few
@given(st.integers(0, 99), st.integers(2, 30), st.integers(1, 40))
def test_batches_go_through_whole_epochs_and_need_no_state(seed, length, n):
    n = min(n, length)
    whole = stream(seed, length, n, range(3 * length))  # n · 3 · length rows: 3n epochs
    for first in range(0, len(whole), length):
        assert sorted(whole[first : first + length]) == [*range(length)]
    assert length < 8 or whole[:length] != whole[length : 2 * length]  # 1 in 40,320 that two epochs are alike
    middle = length + 1
    assert stream(seed, length, n, range(middle, middle + 3)) == whole[middle * n : (middle + 3) * n]
