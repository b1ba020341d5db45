"""The rules keep the floor, prefer information, distrust collapse, and never go back."""

import random
from itertools import pairwise

import pytest

from tl_runner.select import Evidence, default, last, source_val


def point(step: int, floor: float | None = 0.9, information: float = 1.0, used: float = 9.0) -> Evidence:
    return Evidence(step, floor or 0.0, floor, 400, information, 1.0, 10, used)


def test_among_checkpoints_that_keep_the_floor_the_most_informative_wins():
    assert default([point(1, 0.90, 1.0), point(2, 0.91, 2.0), point(3, 0.905, 1.5)]) == 1


def test_information_does_not_buy_a_broken_floor():
    assert default([point(1, 0.95, 1.0), point(2, 0.60, 5.0)]) == 0
    assert default([point(1, 0.60, 5.0), point(2, 0.95, 1.0)]) == 1


def test_within_a_standard_error_the_floor_is_kept():
    assert default([point(1, 0.950, 1.0), point(2, 0.945, 2.0)]) == 1  # one standard error is 1.1 points of 400


def test_a_collapsed_checkpoint_yields_to_any_other():
    assert default([point(1, 0.9, 5.0, used=2.0), point(2, 0.5, 0.1)]) == 1
    assert default([point(1, 0.9, 1.0), point(2, 0.9, 5.0, used=5.0)]) == 0
    two_classes = [Evidence(step, 0.9, 0.9, 400, 1.0, 1.0, 2, used) for step, used in ((1, 1.5), (2, 1.0))]
    assert default(two_classes) == 0


def test_without_a_floor_it_is_the_last():
    assert default([point(1, None, 5.0), point(2, None, 1.0)]) == 1
    assert last([point(1), point(2)]) == 1


def test_source_val_takes_the_later_of_equals():
    assert source_val([point(1, 0.9), point(2, 0.95), point(3, 0.95), point(4, 0.7)]) == 2


@pytest.mark.parametrize("rule", [default, last, source_val])
def test_a_rule_stays_or_moves_to_the_newest(rule):
    """So that a run needs to keep the weights of one checkpoint only."""
    dice = random.Random(0)
    for _ in range(300):
        history = [point(i, dice.random(), dice.random(), dice.uniform(1, 10)) for i in range(12)]
        chosen = [rule(history[: i + 1]) for i in range(12)]
        assert all(now in (before, i) for i, (before, now) in enumerate(pairwise(chosen), start=1))
