"""Accuracy against each number of the configuration that was varied within a method."""

from collections.abc import Sequence

from tl_runner.report.page.counts import decades, ends, mean_and_deviation
from tl_runner.report.page.drawing import Chart, Scale, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, list_numbers
from tl_runner.storage.record import NEUTRAL

MOST = 12
ORDINARY = {"seed", *NEUTRAL}  # numbers that are no hyper-parameters
WIDE = 2  # powers of ten from which on an axis is logarithmic


def varied(groups: Sequence[SettingRuns]) -> list[tuple[str, str, list[tuple[float, SettingRuns]]]]:
    """(method, key, [(value, setting)]) for each number in which settings of a method and backbone differ."""
    found = []
    for kind in dict.fromkeys((group.method, group.row["backbone"]) for group in groups):
        those = [group for group in groups if (group.method, group.row["backbone"]) == kind]
        tables = [dict(list_numbers(group.runs[0].record.config)) for group in those]
        for key in dict.fromkeys(key for table in tables for key in table):
            points = [(table[key], group) for table, group in zip(tables, those, strict=True) if key in table]
            if key in ORDINARY or len({value for value, _ in points}) < 2:
                continue
            found.append((kind[0], key, sorted(points, key=lambda point: point[0])))
    return found


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A panel per method and number: each setting's mean and deviation, a line where one setting has each value."""
    title, everything = "Accuracy against hyper-parameters", varied(groups)
    if not everything:
        return Figure("sweeps", title, missing="No method of this pair was run with several values of a number.")
    panels = []
    for method, key, points in everything[:MOST]:
        scores = [
            (value, *mean_and_deviation([run.record.headline for run in group.runs if run.record.headline is not None]))
            for value, group in points
        ]
        reached = [end for _, mean, sd, _ in scores for end in ends(mean, sd)]
        y = Scale(max(0.0, min(reached) - 0.02), min(1.0, max(reached) + 0.02), "target accuracy, %", percent=True)
        values = [value for value, *_ in scores]
        x = spanning(values, key, log=decades(values) >= WIDE)
        said = ", ".join(f"{value:g}: {100 * mean:.1f} %" for value, mean, *_ in scores)
        chart = Chart(x, y, f"{method}, target accuracy by {key}: {said}")
        if len(set(values)) == len(values):
            chart.line(values, [mean for _, mean, *_ in scores], "c0")
        for value, mean, sd, _ in scores:
            low, high = ends(mean, sd)
            chart.whisker(value, max(y.low, low), min(y.high, high), "c0")
            chart.mark(value, mean, "c0")
        counts = sorted({n for *_, n in scores})
        seeds = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])
        panels.append(Panel(f"{method} · {key}", chart.svg, f"n = {seeds} a setting"))
    caption = (
        "Target test accuracy of the checkpoint selected without target labels: the mean of each setting over its n"
        " seeds ± one standard deviation. Points of one value differ in another key. The axis is logarithmic from"
        " two powers of ten on. Choosing a value by this figure would be choosing by target labels."
    )
    if len(everything) > MOST:
        caption += f" {MOST} of {len(everything)} pairs of method and number are shown."
    return Figure("sweeps", title, caption, panels, [Key("dot", "c0", "a setting")])
