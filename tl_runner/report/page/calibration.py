"""Reliability: are predictions that are 80 % sure right in 80 of 100 cases?"""

from collections.abc import Sequence
from math import isfinite

import numpy as np

from tl_runner.plurals import count_noun
from tl_runner.report.page.counts import BINS, mean_and_deviation
from tl_runner.report.page.drawing import Chart, Scale
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, choose_settings

MOST = 12


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A panel per setting: accuracy by confidence, the runs of a setting pooled, and how the confidences lie."""
    title = "Calibration on the target"
    scored = [
        group for group in groups if any(_errors(group)) and any(run.reliability is not None for run in group.runs[:1])
    ]
    shown, left_out = choose_settings(scored, MOST)
    panels, whole = [], Scale(0.0, 1.0, "confidence, %", percent=True)
    for group in shown:
        tables = [run.reliability for run in group.runs if run.reliability is not None]
        table = np.sum(tables, 0)
        error, deviation, _ = mean_and_deviation(_errors(group))
        ece = f"ECE {100 * error:.1f}" + (f" ± {100 * deviation:.1f}" if isfinite(deviation) else "") + " %"
        held = table[:, 0] > 0
        sure, right = table[held, 1] / table[held, 0], table[held, 2] / table[held, 0]
        chart = Chart(
            whole,
            Scale(0.0, 1.0, "accuracy, %", percent=True),
            f"{group.name}: {ece} over {count_noun(len(tables), 'seed')}",
        )
        for number in np.flatnonzero(held):
            chart.bar(number / BINS, (number + 1) / BINS, 0, 0.5 * table[number, 0] / table[:, 0].max(), "quiet")
        chart.line([0, 1], [0, 1], "reference")
        chart.line(list(sure), list(right), "c0")
        chart.dots(zip(sure, right, strict=True), "c0")
        panels.append(Panel(group.name, chart.svg, f"{ece}, n = {len(tables)}"))
    if not panels:
        return Figure(
            "calibration",
            title,
            missing="No run of this pair has probabilities with true labels to show: diagnose=none leaves labels out,"
            " and margins, distances and votes are no probabilities.",
        )
    caption = (
        f"Accuracy by confidence (the largest class probability) on the target's test split in {BINS} bins, the rows"
        " of all n seeds pooled, at the selected checkpoint. On the diagonal a model is as right as it is sure;"
        " below it, it is too sure. Grey bars: how many rows are in each bin. ECE, the expected calibration error,"
        " is the mean of the seeds' own ± their standard deviation. "
    )
    legend = [
        Key("line", "c0", "accuracy"),
        Key("dash", "quiet", "as sure as right"),
        Key("square", "quiet", "rows in the bin"),
    ]
    return Figure("calibration", title, caption + left_out, panels, legend)


def _errors(group: SettingRuns) -> list[float]:
    """The calibration error of each run whose head gives probabilities."""
    found = [run.record.score("target", "ece") for run in group.runs]
    return [error for error in found if error is not None]
