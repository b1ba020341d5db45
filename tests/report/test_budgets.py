"""How many labels and steps a line needs: the numbers against closed forms, their figure, and the advice in words."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import t
from support.scored_runs import CLASSES, POOL, TEST, run

from tl_runner.report.budget_advice import advise
from tl_runner.report.budgets import Budgets, Curve, Level, Needed, measure_budgets
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page import budgets as budgets_figure
from tl_runner.report.page.drawing import Chart, Scale
from tl_runner.report.page.groups import group_by_pair
from tl_runner.report.page.render import page
from tl_runner.report.settings import group_settings
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import DataInfo

QUANTILE = float(t.ppf(0.975, 2))  # of three seeds


def runs(method: str, means: dict[Any, float], spread: float = 0.05, seeds: int = 3, **more: Any) -> list[RunRecord]:
    """By granted labels: accuracies whose mean over seeds is this, and whose deviation over three is `spread`."""
    return [
        run(method, seed, mean + spread * (seed - (seeds - 1) / 2), granted, **more)
        for granted, mean in means.items()
        for seed in range(seeds)
    ]


def measured(records: list[RunRecord]) -> Budgets:
    found = measure_budgets(group_settings(records))
    assert found is not None
    return found


RISING = {1: 0.6, 2: 0.7, 5: 0.8, 10: 0.9}


# --- the numbers


def test_a_level_has_the_interval_that_fits_how_its_seeds_differ():
    """The mean ± t·s·√(1/n), with n_test/n_train in the root where seeds re-split a pool."""
    s, p = 0.05, 0.8
    rows_of_test = t.ppf(0.975, TEST - 1) ** 2 * np.mean([a * (1 - a) for a in (p - s, p, p + s)]) / TEST
    margins = {
        "independent": QUANTILE * s / sqrt(3),
        "resplit": QUANTILE * s * sqrt(1 / 3 + TEST / (POOL - TEST)),
        "fixed": sqrt(QUANTILE**2 * s**2 / 3 + rows_of_test),  # the test rows' own chance, which all seeds share
    }
    for kind, margin in margins.items():
        (curve,) = measured(runs("finetune", {2: 0.7, 5: p}, s, kind=kind)).curves
        assert curve.levels[1] == (50, 100, 5, *map(pytest.approx, (p, p - margin, p + margin)), 3), kind
        assert (curve.line, curve.by, curve.other, curve.levels[0].labels) == ("finetune", "labels", 100, 20)


def test_predictions_tell_the_chance_of_test_rows_that_seeds_share(tmp_path):
    """Without any chance of training, it is that of a share: p(1 − p)/(m − 1)."""
    records = [run("finetune", seed, 0.8, g, kind="fixed", outputs=tmp_path) for g in (1, 2) for seed in range(3)]
    labels = np.arange(TEST) % CLASSES
    wrong = np.where(np.arange(TEST) < 20, (labels + 1) % CLASSES, labels)
    for record in records:
        record.folder.mkdir(parents=True)
        save_file({"step_100": np.eye(CLASSES, dtype=np.float32)[wrong]}, record.folder / "predictions.safetensors")
        save_file({"labels": labels.astype(np.int16)}, record.folder / "diagnosis.safetensors")
    (curve,) = measured(records).curves
    rounding = QUANTILE**2 / (6 * TEST**2) / 3
    margin = sqrt(rounding + t.ppf(0.975, TEST - 1) ** 2 * 0.8 * 0.2 / (TEST - 1))
    assert curve.levels[0].high - 0.8 == pytest.approx(margin)


@pytest.mark.parametrize(
    ("spread", "interval"),
    [
        (0.03, (50, 100)),  # ± 0.075: 0.7 + 0.075 < 0.785 <= 0.9 − 0.075
        (0.05, (20, None)),  # ± 0.124
        (0.1, (10, None)),  # ± 0.248
        (0.0, (50, 50)),  # ± 0.010, of two roundings
    ],
)
def test_needed_is_the_first_budget_that_reaches_and_its_interval_where_the_band_does(spread, interval):
    (curve,) = measured(runs("finetune", RISING, spread)).curves
    assert curve.need(0.785) == (50, *interval, 100, True)
    margin = QUANTILE * max(spread, 1 / TEST / sqrt(6)) / sqrt(3)
    for end, sign in zip(interval, (1, -1), strict=True):
        reached = [10 * granted for granted, mean in RISING.items() if mean + sign * margin >= 0.785]
        assert end == min(reached, default=None)


def test_what_never_reaches_needs_more_than_was_tried():
    (curve,) = measured(runs("finetune", RISING, 0.03)).curves
    assert curve.need(0.95) == (None, 100, None, 100, True)
    assert curve.need(0.95).describe() == ("more than 100", "100 to more than 100")
    assert curve.need(0.99).describe() == ("more than 100", "more than 100")
    assert Needed(50, 50, 50, 100, True).describe() == ("50", "50")
    assert Needed(50, 20, None, 100, True).describe(lambda budget: f"{budget // 10}") == ("5", "2 to more than 10")


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval(seeds):
    (curve,) = measured(runs("finetune", RISING, seeds=seeds)).curves
    assert curve.need(0.795) == (50, None, None, 100, False) and curve.need(0.795).describe() == ("50", "")
    assert all(isnan(level.low) and level.n == seeds for level in curve.levels)
    mixed = [*runs("finetune", RISING), *runs("finetune", {20: 0.95}, seeds=seeds)]
    assert not measured(mixed).curves[0].need(0.795).tested  # where one budget has none, who knows


def test_the_target_accuracy_is_95_percent_of_what_two_lines_reach():
    two = [*runs("finetune", RISING), *runs("feature_extract", {1: 0.8, 2: 0.85})]
    assert measured(two).accuracy == 0.80  # 0.95 · 0.85 = 0.8075
    assert measured([*two, *runs("l2sp", {5: 0.99})]).accuracy == 0.80  # one budget is no line
    assert measured(two[:12]).accuracy == 0.85  # 0.95 · 0.9, of a line alone
    assert (
        measured(runs("finetune", {1: 0.5, 2: 0.6}, 0.11, seeds=5)).accuracy == 0.57
    )  # a float's mean is less than 0.6


def test_lines_are_equal_but_for_labels_and_steps():
    records = [
        *runs("finetune", {1: 0.6, 2: 0.7}, lr=0.1),
        *runs("finetune", {1: 0.5, 2: 0.6}, lr=0.01),
        *runs("finetune", {1: 0.65, 2: 0.75}, lr=0.1, steps=300),
        *runs("feature_extract", {1: 0.5}),
        *runs("feature_extract", {2: 0.6}, backbone="mlp"),
    ]
    records[0].config |= {"shares": "none", "device": "cuda"}  # a key that came later, and one that changes no number
    found = measured(records)
    kinds = [(curve.line, curve.by, curve.other, [curve.budget(of) for of in curve.levels]) for curve in found.curves]
    assert kinds == [
        ("finetune small method.lr=0.1", "labels", 100, [10, 20]),
        ("finetune small method.lr=0.1", "labels", 300, [10, 20]),
        ("finetune small method.lr=0.1", "steps", 10, [100, 300]),
        ("finetune small method.lr=0.1", "steps", 20, [100, 300]),
        ("finetune small method.lr=0.01", "labels", 100, [10, 20]),
    ]
    assert found.lines == 2 and found.left_out == 2


def test_labels_are_the_rows_that_were_granted():
    records = [
        *(run("finetune", seed, 0.7, "10%", rows=30 + seed) for seed in range(3)),  # by seed a row more of some class
        *(run("finetune", seed, 0.8, "all", rows=200) for seed in range(3)),
        *(run("finetune", seed, 0.9, 50, rows=0) for seed in range(3)),  # a record that does not say
        *(run("finetune", seed, 0.6, 10) for seed in range(2)),
        *(run("finetune", seed, 0.6, 20, rows=190) for seed in range(3)),  # a class has too few
        *(run("finetune", seed, 0.6, "auto") for seed in range(3)),  # the same budget: with more seeds
    ]
    found = measured(records)
    (curve,) = found.curves
    assert [(of.labels, of.per_class, of.n) for of in curve.levels] == [
        (31, None, 3),
        (100, 10, 3),
        (190, None, 3),
        (200, None, 3),
    ]
    assert found.left_out == 2


def test_one_budget_is_nothing_to_compare():
    assert measure_budgets([]) is None
    assert measure_budgets(group_settings([*runs("finetune", {1: 0.6}), *runs("l2sp", {2: 0.6})])) is None
    unscored = [replace(record, scores=None, status="failed") for record in runs("finetune", {1: 0.6, 2: 0.7})]
    assert measure_budgets(group_settings(unscored)) is None
    moved = replace(runs("finetune", {2: 0.7})[0], data=DataInfo(files="other", granted=20))
    assert measure_budgets(group_settings([*runs("finetune", {1: 0.6}), moved])) is None


def test_source_only_stands_beside_lines_of_as_many_steps():
    base = [*runs("source_only", {0: 0.5}), *runs("source_only", {0: 0.5}, steps=50), *runs("mmd", {0: 0.6})]
    found = measured([*runs("finetune", RISING), *base])
    alone = [curve for curve in found.curves if curve.line == "source_only" and curve.by == "labels"]
    assert [(curve.other, curve.levels[0].labels, len(curve.levels)) for curve in alone] == [(100, 0, 1)]
    assert "mmd" not in {curve.line for curve in found.curves} and found.left_out == 1
    assert alone[0].need(0.4).describe()[0] == "0" and alone[0].need(0.6).describe()[0] == "more than 0"
    both = measured([*runs("finetune", RISING), *base, *runs("source_only", {1: 0.55})])
    assert [len(curve.levels) for curve in both.curves if curve.line == "source_only"] == [2, 2]  # and not alone again
    few = measured([*runs("finetune", {1: 0.9, 2: 0.9}), *base[:3]])
    assert few.lines == 1 and few.accuracy == 0.85  # it is no line that sets the target


# --- the figure


def figure_of(records: list[RunRecord]) -> Any:
    (groups,) = group_by_pair(records, build_leaderboard(records), []).values()
    return budgets_figure.figure(groups)


def test_the_figure_shows_the_means_the_band_and_the_target():
    figure = figure_of([*runs("finetune", RISING, 0.03), *runs("source_only", {0: 0.5}, 0.03)])
    (panel,) = figure.panels
    assert (panel.heading, panel.note) == ("at 100 steps", "n = 3")
    assert "finetune 10: 60.0 %, 20: 70.0 %, 50: 80.0 %, 100: 90.0 %; source_only 0: 50.0 %" in panel.chart
    margin = QUANTILE * 0.03 / sqrt(3)
    y = Scale(0.5 - margin - 0.02, 0.9 + margin + 0.02, percent=True)
    room = 30**0.06  # from the place of 0, a third of the least of budgets, to the largest
    own = Chart(Scale(10 / 3 / room, 100 * room, log=True, zero=10 / 3), y, "", (300, 210))
    own.parts.clear()
    means = [*RISING.values()]
    own.level(0.85, "reference")
    own.band([10, 20, 50, 100], [mean - margin for mean in means], [mean + margin for mean in means], "c0")
    own.line([10, 20, 50, 100], means, "c0")
    own.whisker(0, 0.5 - margin, 0.5 + margin, "c1")
    own.mark(0, 0.5, "c1 hollow")
    assert all(part in panel.chart for part in own.parts) and len(own.parts) == 5
    assert re.findall(r'text-anchor="middle">([^<]+)<', panel.chart) == ["0", "10", "20", "50", "100"]
    assert [key.text for key in figure.legend] == [
        "finetune", "source_only", "target accuracy, 85 %", "no target labels",
    ]  # fmt: skip
    (table,) = figure.cells
    assert table.heading == "Labels needed to reach 85 %" and table.rows == [
        ["finetune", 100, "100", "50 to more than 100", "3"],
    ]
    assert "95 % of the highest mean of the line" in figure.caption and not figure.missing


def test_a_target_below_all_means_is_on_the_axis():
    (panel,) = figure_of(runs("finetune", {1: 0.97, 2: 0.98}, seeds=1)).panels
    own = Chart(Scale(1, 2), Scale(0.91, 1.0, percent=True), "", (300, 210))
    own.parts.clear()
    own.level(0.93, "reference")
    assert own.parts[0] in panel.chart


def test_steps_have_panels_and_a_table_of_their_own():
    records = [
        record for steps, gain in ((100, 0.0), (300, 0.1)) for method in ("finetune", "feature_extract")
        for record in runs(method, {1: 0.6 + gain, 5: 0.7 + gain}, seeds=1, steps=steps)
    ]  # fmt: skip
    figure = figure_of([*records, *runs("l2sp", {1: 0.5})])
    assert [panel.heading for panel in figure.panels] == [
        "at 100 steps",
        "at 300 steps",
        "at 10 labels",
        "at 50 labels",
    ]
    labels, steps = figure.cells
    assert labels.rows[0] == ["finetune", 100, "more than 50", "–", "1"] and len(labels.rows) == 4
    assert steps.heading == "Steps needed to reach 76 %" and steps.rows[-1] == ["feature_extract", 50, "300", "–", "1"]
    assert "that two lines reach" in figure.caption and "1 setting of the table can't be compared" in figure.missing
    assert not any('class="band' in panel.chart or 'class="whisker' in panel.chart for panel in figure.panels)


def test_what_takes_no_steps_is_in_no_curve_by_steps():
    """A head that is fitted in closed form, whatever train.steps says: its one checkpoint is of step 0."""
    records = [record for steps in (100, 300) for record in runs("feature_extract", {1: 0.6, 5: 0.8}, steps=steps)]
    assert {curve.by for curve in measured(records).curves} == {"labels", "steps"}
    for record in records:
        assert record.scores is not None
        record.scores.last["step"] = 0
    assert {curve.by for curve in measured(records).curves} == {"labels"}


def test_what_does_not_fit_the_figure_is_said():
    lines = [record for n in range(9) for record in runs("finetune", {1: 0.5, 2: 0.6 + n / 100}, seeds=1, lr=n)]
    figure = figure_of(lines)
    assert "1 line of lower accuracy is not shown" in figure.missing and len(figure.cells[0].rows) == 8
    assert not any(row[0].endswith("lr=0") for row in figure.cells[0].rows)
    many = [record for steps in range(1, 8) for record in runs("finetune", {1: 0.5, 2: 0.6}, seeds=1, steps=steps)]
    figure = figure_of(many)
    assert "1 smaller number of steps or labels is not shown" in figure.missing
    assert figure.panels[0].heading == "at 2 steps" and len(figure.panels) == 6 + 2


def test_a_page_has_the_figure_only_with_several_budgets():
    def whole(records: list[RunRecord]) -> str:
        return page(records, build_leaderboard(records), [], [], datetime(2026, 11, 21, tzinfo=UTC))

    title = "Accuracy by target labels and steps"
    several = whole([*runs("finetune", RISING), *runs("feature_extract", RISING)])
    assert f"<h3>{title}</h3>" in several and "Labels needed to reach 85 %" in several
    assert "-budgets" in several and title.lower() not in several.partition("Not drawn")[2]
    one = whole([*runs("finetune", {1: 0.6}), *runs("feature_extract", {1: 0.6})])
    assert title.lower() not in one.lower() and "-budgets" not in one


def test_a_logarithmic_axis_has_round_values_and_a_place_for_none():
    assert Scale(8, 120, log=True).ticks() == pytest.approx([10, 20, 50, 100])
    axis = Scale(3, 120, log=True, zero=10 / 3)
    assert axis.ticks() == pytest.approx([0, 10, 20, 50, 100]) and axis.at(0) == axis.at(10 / 3)
    assert Scale(3, 1200, log=True, zero=10 / 3).ticks() == pytest.approx([0, 10, 100, 1000])


# --- the advice


def test_the_advice_in_words():
    records = [*runs("finetune", RISING, 0.03), *runs("feature_extract", {1: 0.81, 10: 0.9}, 0.03)]
    assert advise(measured(records)) == [
        "To reach 85 % on this target at 100 steps, finished runs took: finetune 10 labels a class (5 to more than"
        " 10), feature_extract 10 (1 to more than 10); n = 3, ranges by 95 % intervals in brackets"
    ]
    longer = runs("finetune", {2: 0.86}, seeds=1, steps=300)
    assert advise(measured([*runs("finetune", {1: 0.6, 2: 0.7}, seeds=1), *longer])) == [
        "To reach 81 % on this target at 100 steps, finished runs took: finetune more than 2 labels a class; n = 1,"
        " no range below 3 seeds",
        "To reach 81 % on this target at 2 labels a class, finished runs took: finetune 300 steps; n = 1, no range"
        " below 3 seeds",
    ]


def test_the_advice_names_what_needs_least_first_and_not_all():
    def curve(name: str, other: int, *means: float) -> Curve:
        return Curve(
            name, "labels", other, tuple(Level(10 * n + 1, other, None, m, m, m, n) for n, m in enumerate(means, 3))
        )

    curves = [curve(name, 300, *(0.5,) * n, 0.9) for name, n in (("b", 2), ("a", 1), ("d", 4), ("c", 3), ("e", 5))]
    (said,) = advise(Budgets(0.9, 5, [*curves, curve("a", 1000, 0.1, 0.9), curve("base", 300, 0.5)], 0))
    assert said == (
        "To reach 90 % on this target at 300 steps, finished runs took: a 41 labels (41), b 51 (51), c 61 (61), d 71"
        " (71), and 1 line more; n = 3 to 8, ranges by 95 % intervals in brackets"
    )
    (said,) = advise(Budgets(0.5, 1, [curve("a", 300, 0.4, 0.9), curve("base", 300, 0.5)], 0))
    assert "took: base 31 labels (31), a 41 (41);" in said
