"""Differences that an experiment asks for: which settings fit, and that the numbers are those of the paired test."""

import pytest
from support.scored_runs import run

from tl_runner.report.comparison import gain
from tl_runner.report.contrasts import contrast
from tl_runner.report.settings import group_settings, order_budget
from tl_runner.report.tables import render_contrasts


def test_two_settings_fit_if_they_agree_in_all_that_is_not_named():
    records = [
        run(method, seed, accuracy + seed / 100, granted, steps, **config)
        for method, accuracy, granted, steps, config in (
            ("mmd", 0.8, 0, 100, {"squared": "true", "weight": 1}),
            ("mmd", 0.7, 0, 100, {"squared": "false", "weight": 1}),
            ("mmd", 0.6, 0, 100, {"squared": "false", "weight": 2}),
            ("finetune", 0.9, 10, 100, {}),
            ("finetune", 0.9, 5, 100, {}),
            ("target_only", 0.5, 5, 100, {}),
            ("target_only", 0.4, 5, 300, {}),
            ("target_only", 0.5, 10, 100, {}),
        )
        for seed in range(3)
    ]
    settings = group_settings(records)
    asked = [
        ({"method.squared": "true"}, {"method.squared": "false"}),
        ({"method": "finetune"}, {"method": "target_only"}),
        ({"method": "finetune", "granted": "5"}, {"method": "mmd", "granted": "0"}),
    ]
    found = list(contrast(settings, asked))
    told = [(of.one.first.choices["method"], of.other.first.granted, of.gain.difference) for of in found]
    assert [(method, granted, round(difference, 6)) for method, granted, difference in told] == [
        ("mmd", "0", 0.1),  # of the same weight
        ("finetune", "5", 0.4),  # of as many steps and labels
        ("finetune", "10", 0.4),
        ("finetune", "0", 0.2),  # which is named
        ("finetune", "0", 0.3),
        ("finetune", "0", 0.1),
    ]
    assert found[0].gain == gain(found[0].one, found[0].other) and found[0].gain.pairs == 3
    assert render_contrasts(found).row_count == 6


@pytest.mark.parametrize(("granted", "after"), [("0", "1"), ("2", "10"), ("100", "5%"), ("5%", "10%"), ("10%", "all")])
def test_label_budgets_are_sorted_by_their_size(granted, after):
    assert order_budget(granted) < order_budget(after)
