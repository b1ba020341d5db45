"""Accuracy against the number of target labels, and of steps, and how many of each reach a target accuracy."""

from collections.abc import Sequence
from math import isfinite

from tl_runner.plurals import count_noun, pluralize
from tl_runner.report.budgets import RESOURCES, Budgets, Curve, Resource, measure_budgets
from tl_runner.report.page.drawing import Chart, Scale, spanning
from tl_runner.report.page.figure import Figure, FigureTable, Key, Panel
from tl_runner.report.page.groups import SettingRuns
from tl_runner.report.settings import Setting

LINES = 8  # at most, by their highest means
PANELS = 6  # by labels, and as many by steps
ZERO = 1 / 3  # of the smallest other number of labels: where the axis shows 0
AXES: dict[Resource, str] = {"labels": "granted target labels", "steps": "steps of training, without a source model's"}


def figure(groups: Sequence[SettingRuns]) -> Figure | None:
    """A panel for each number of steps and for each number of labels, and what each line needs; None without any.

    Most pairs have one budget alone: that is no lack, and so the page does not speak of it.
    """
    settings = [
        Setting(tuple(kept.record for kept in group.runs), group.row["pair"], group.row["variant"], group.name)
        for group in groups
    ]
    budgets = measure_budgets(settings)
    if budgets is None:
        return None
    best = {curve.line: 0.0 for curve in budgets.curves}
    for curve in budgets.curves:
        best[curve.line] = max(best[curve.line], *(level.mean for level in curve.levels))
    shown = sorted(best, key=lambda line: -best[line])[:LINES]
    colours = {line: f"c{index}" for index, line in enumerate(line for line in best if line in shown)}
    drawn = [curve for curve in budgets.curves if curve.line in colours]
    others = {by: sorted({curve.other for curve in drawn if curve.by == by}) for by in RESOURCES}
    drawn = [curve for curve in drawn if curve.other in others[curve.by][-PANELS:]]
    heights = _heights(drawn, budgets.accuracy)
    panels = [
        _panel(budgets, [curve for curve in drawn if (curve.by, curve.other) == (by, other)], colours, heights)
        for by in RESOURCES
        for other in others[by][-PANELS:]
    ]
    missing = _list_missing(len(best) - len(shown), sum(len(of[:-PANELS]) for of in others.values()), budgets.left_out)
    legend = [Key("line", colour, line) for line, colour in colours.items()]
    legend.append(Key("dash", "quiet", f"target accuracy, {_percent(budgets.accuracy)}"))
    if any(not level.labels for curve in drawn if curve.by == "labels" for level in curve.levels):
        legend.append(Key("ring", "quiet", "no target labels"))
    return Figure(
        "budgets",
        "Accuracy by target labels and steps",
        _caption(budgets),
        panels,
        legend,
        cells=[_table(budgets.accuracy, by, drawn) for by in RESOURCES if others[by]],
        missing=missing,
    )


def _heights(curves: Sequence[Curve], accuracy: float) -> Scale:
    """One scale for all panels, the target accuracy on it."""
    values = [accuracy]
    values += [value for curve in curves for level in curve.levels for value in (level.mean, level.low, level.high)]
    known = [value for value in values if isfinite(value)]
    return Scale(max(0.0, min(known) - 0.02), min(1.0, max(known) + 0.02), "target accuracy, %", percent=True)


def _panel(budgets: Budgets, curves: Sequence[Curve], colours: dict[str, str], y: Scale) -> Panel:
    by, other = curves[0].by, curves[0].other
    amounts = [curve.budget(level) for curve in curves for level in curve.levels]
    least = min(filter(None, amounts), default=1)
    zero = ZERO * least if 0 in amounts else 0.0
    axis = spanning([amount or zero for amount in amounts], AXES[by], log=True)
    x = Scale(axis.low, axis.high, axis.name, log=True, zero=zero)
    held = count_noun(other, "step" if by == "labels" else "label")
    said = "; ".join(
        f"{curve.line} {', '.join(f'{curve.budget(of)}: {100 * of.mean:.1f} %' for of in curve.levels)}"
        for curve in curves
    )
    chart = Chart(x, y, f"target accuracy by {by} at {held}, target {_percent(budgets.accuracy)}: {said}", (300, 210))
    chart.level(budgets.accuracy, "reference")
    for curve in curves:
        kind = colours[curve.line]
        some = [level for level in curve.levels if curve.budget(level)]
        xs = [float(curve.budget(level)) for level in some]
        lows = [max(level.low, y.low) for level in some]  # in this order NaN stays NaN
        chart.band(xs, lows, [min(level.high, y.high) for level in some], kind)
        chart.line(xs, [level.mean for level in some], kind)
        chart.dots([(at, level.mean) for at, level in zip(xs, some, strict=True)], kind)
        for level in (level for level in curve.levels if not curve.budget(level)):
            chart.whisker(0.0, max(level.low, y.low), min(level.high, y.high), kind)
            chart.mark(0.0, level.mean, f"{kind} hollow")
    return Panel(f"at {held}", chart.svg, f"n = {_range([level.n for curve in curves for level in curve.levels])}")


def _table(accuracy: float, by: Resource, curves: Sequence[Curve]) -> FigureTable:
    """A row for each line and number of the other resource; source_only, with its one budget, needs nothing."""
    rows = []
    several = [curve for curve in curves if curve.by == by and len(curve.levels) > 1]
    for curve in sorted(several, key=lambda curve: curve.other):
        needed, interval = curve.need(accuracy).describe()
        rows.append([curve.line, curve.other, needed, interval or "–", _range([of.n for of in curve.levels])])
    other = "steps" if by == "labels" else "labels"
    return FigureTable(
        f"{by.capitalize()} needed to reach {_percent(accuracy)}",
        ["line", f"at {other}", f"{by} needed", "range", "n"],
        rows,
    )


def _caption(budgets: Budgets) -> str:
    highest = "that two lines reach" if budgets.lines > 1 else "of the line"
    return (
        "Target test accuracy of the checkpoint selected without target labels. A line is one configuration but for"
        " granted and train.steps; its points are means over n seeds, the band is the 95 % interval of a mean that fits"
        " how the seeds differ, none below three seeds. Labels are all target rows whose labels training may see; the"
        f" axes are logarithmic. The target accuracy is 95 % of the highest mean {highest}, down to a whole per cent."
        " Needed is the smallest measured budget whose mean reaches it; its range goes from the smallest at which"
        " the upper end of the band does to the smallest at which the lower end does, and is as coarse as the budgets."
    )


def _list_missing(lines: int, panels: int, settings: int) -> str:
    said = []
    if lines:
        said.append(f"{count_noun(lines, 'line')} of lower accuracy {pluralize(lines, 'is')} not shown.")
    if panels:
        said.append(f"{count_noun(panels, 'smaller number')} of steps or labels {pluralize(panels, 'is')} not shown.")
    if settings:
        said.append(
            f"{count_noun(settings, 'setting')} of the table can't be compared here: no other budget of the same"
            " configuration, or an unknown or equal number of labels."
        )
    return " ".join(said)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}–{high}" if high > low else str(low)
