"""The rules keep the floor, prefer information, distrust collapse, and never go back."""

import random
from itertools import pairwise
from math import log

import pytest

from tl_runner.training.checkpoint_selection import Evidence, bnm, default, dev, entropy, im, last, snd, source_val


def point(step: int, floor: float | None = 0.9, information: float = 1.0, used: float = 9.0) -> Evidence:
    return Evidence(step, floor or 0.0, floor, 400, information, 1.0, 10, used)


def test_among_checkpoints_that_keep_the_floor_the_most_informative_wins():
    assert default([point(1, 0.90, 1.0), point(2, 0.91, 2.0), point(3, 0.905, 1.5)]) == 1


def test_information_does_not_buy_a_broken_floor():
    assert default([point(1, 0.95, 1.0), point(2, 0.60, 5.0)]) == 0
    assert default([point(1, 0.60, 5.0), point(2, 0.95, 1.0)]) == 1


def test_within_two_standard_errors_the_floor_is_kept():
    assert default([point(1, 0.950, 1.0), point(2, 0.930, 2.0)]) == 1  # a standard error is 1.1 points of 400
    assert default([point(1, 0.950, 1.0), point(2, 0.925, 2.0)]) == 0


def test_of_about_equal_information_the_latest_wins_and_small_losses_do_not_add_up():
    slack = 0.01 * log(10)
    assert default([point(1, information=2.0), point(2, information=2.0 - 0.9 * slack)]) == 1
    assert default([point(1, information=2.0), point(2, information=2.0 - 1.1 * slack)]) == 0
    slope = [point(step, information=2.0 - 0.6 * step * slack) for step in range(4)]
    assert default(slope) == 1  # measured from the highest of all, not from the one before
    assert default(slope, tolerance=0.0) == 0 and default(slope, tolerance=1.0) == 3


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


@pytest.mark.parametrize(
    ("rule", "name", "best"),
    [
        (im, "information", max),
        (bnm, "nuclear_norm", max),
        (entropy, "entropy", min),
        (snd, "density", max),
        (dev, "risk", min),
    ],
)
def test_a_validator_alone_takes_its_best_and_the_later_of_equals(rule, name, best):
    values = [0.3, 0.9, 0.1, 0.9, 0.1, 0.5]
    history = [point(step)._replace(**{name: value}) for step, value in enumerate(values)]
    assert rule(history) == {max: 3, min: 4}[best]


def test_where_a_run_does_not_know_the_value_it_is_the_last_and_that_is_said(caplog):
    history = [point(1), point(2), point(3)]  # no risk: the method keeps no source task
    for rule in (dev, snd, bnm):
        assert [rule(history[: i + 1]) for i in range(3)] == [0, 1, 2]
    assert [entry.message.split()[0] for entry in caplog.records] == ["select=dev", "select=snd", "select=bnm"]
    assert source_val([point(1, None), point(2, None)]) == 1


@pytest.mark.parametrize("rule", [default, last, source_val, im, bnm, entropy, snd, dev])
def test_a_rule_stays_or_moves_to_the_newest(rule):
    """So that a run needs to keep the weights of one checkpoint only."""
    dice = random.Random(0)
    for _ in range(300):
        history = [point(i, dice.random(), dice.random(), dice.uniform(1, 10)) for i in range(12)]
        history = [each._replace(entropy=dice.random(), risk=dice.random(), density=dice.random()) for each in history]
        chosen = [rule(history[: i + 1]) for i in range(12)]
        assert all(now in (before, i) for i, (before, now) in enumerate(pairwise(chosen), start=1))
