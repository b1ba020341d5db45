"""The rules keep the floor, prefer predictions that tell classes apart, distrust collapse, and never go back."""

import random
from itertools import pairwise

import pytest

from tl_runner.training.checkpoint_selection import Evidence, bnm, default, dev, entropy, im, last, snd, source_val


def point(step: int, norm: float | None = 0.5, used: float = 9.0, floor: float | None = 0.9) -> Evidence:
    return Evidence(step, floor or 0.0, floor, 400, 1.0, 1.0, 10, used, floor_of="source", calibrated_norm=norm)


def granted(step: int, floor: float, norm: float | None = 0.5, used: float = 9.0) -> Evidence:
    return point(step, norm, used, floor)._replace(floor_of="granted")


def test_the_largest_calibrated_norm_wins():
    assert default([point(1, 0.5), point(2, 0.8), point(3, 0.7)]) == 1


def test_sure_predictions_gain_nothing_where_the_source_shows_that_they_are_too_sure():
    """The raw norm rises to the end; calibrated, it falls: the last checkpoints are no better, but surer."""
    history = [point(i, norm)._replace(nuclear_norm=0.5 + i / 10) for i, norm in enumerate((0.6, 0.7, 0.65, 0.6))]
    assert default(history) == 1 and bnm(history) == 3


def test_accuracy_on_the_source_is_no_floor():
    assert default([point(1, 0.5, floor=0.95), point(2, 0.8, floor=0.60)]) == 1


def test_held_out_granted_labels_are_a_floor():
    assert default([granted(1, 0.90, 0.5), granted(2, 0.91, 0.8), granted(3, 0.905, 0.7)]) == 1
    assert default([granted(1, 0.95, 0.1), granted(2, 0.60, 0.9)]) == 0
    assert default([granted(1, 0.60, 0.9), granted(2, 0.95, 0.1)]) == 1
    assert default([granted(1, 0.950, 0.5), granted(2, 0.930, 0.8)]) == 1  # a standard error is 1.1 points of 400
    assert default([granted(1, 0.950, 0.5), granted(2, 0.925, 0.8)]) == 0


def test_where_nothing_calibrates_the_norm_is_that_of_the_predictions_themselves():
    for make in (lambda i: granted(i, 0.9, None), lambda i: point(i, None, floor=None)):
        history = [make(i)._replace(nuclear_norm=norm) for i, norm in enumerate((0.5, 0.8, 0.6))]
        assert default(history) == 1


def test_of_about_equal_norms_the_latest_wins_and_small_losses_do_not_add_up():
    assert default([point(1, 0.7), point(2, 0.6982)]) == 1
    assert default([point(1, 0.7), point(2, 0.6978)]) == 0
    slope = [point(step, 0.7 - 0.6 * step * 0.002) for step in range(4)]
    assert default(slope) == 1  # measured from the highest of all, not from the one before
    assert default(slope, tolerance=0.0) == 0 and default(slope, tolerance=1.0) == 3


def test_a_collapsed_checkpoint_yields_to_any_other():
    assert default([point(1, 0.9, used=2.0), point(2, 0.1)]) == 1
    assert default([granted(1, 0.9, 0.9, used=2.0), granted(2, 0.5, 0.1)]) == 1
    assert default([point(1, 0.5), point(2, 0.9, used=5.0)]) == 0
    two_classes = [
        Evidence(step, 0.9, 0.9, 400, 1.0, 1.0, 2, used, calibrated_norm=0.5) for step, used in ((1, 1.5), (2, 1.0))
    ]
    assert default(two_classes) == 0


def test_where_nothing_is_known_it_is_the_last():
    assert default([point(1, None), point(2, None)]) == 1
    assert last([point(1), point(2)]) == 1


def test_source_val_takes_the_later_of_equals():
    assert source_val([point(i, floor=floor) for i, floor in enumerate((0.9, 0.95, 0.95, 0.7))]) == 2


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
    assert source_val([point(1, floor=None), point(2, floor=None)]) == 1


@pytest.mark.parametrize("rule", [default, last, source_val, im, bnm, entropy, snd, dev])
def test_a_rule_stays_or_moves_to_the_newest(rule):
    """So that a run needs to keep the weights of one checkpoint only."""
    dice = random.Random(0)
    for _ in range(300):
        make = dice.choice([point, lambda i, norm, used: granted(i, dice.random(), norm, used)])
        history = [make(i, dice.random(), dice.uniform(1, 10)) for i in range(12)]
        drawn = ("entropy", "risk", "density", "floor")
        history = [each._replace(**{name: dice.random() for name in drawn}) for each in history]
        chosen = [rule(history[: i + 1]) for i in range(12)]
        assert all(now in (before, i) for i, (before, now) in enumerate(pairwise(chosen), start=1))
