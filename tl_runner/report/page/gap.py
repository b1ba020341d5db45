"""How far apart the domains are in the features, before and after adaptation."""

from collections.abc import Sequence
from math import isfinite, nan

from tl_runner.report.page.counts import mean_and_deviation
from tl_runner.report.page.drawing import Chart, Scale
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, choose_settings
from tl_runner.report.page.run_files import RunFiles
from tl_runner.storage.sections import Gap

MOST = 16
WHEN = ("before", "after")


def distance(kept: RunFiles, when: str) -> tuple[float, float, float]:
    """The A-distance and the ends of its interval; NaN where the run has none."""
    gap: Gap | None = getattr(kept.record.diagnosis, when, None)
    found = gap and gap.a_distance
    return (found.value, found.low, found.high) if found else (nan, nan, nan)


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A row per setting: the distance before (ring) and after (disc), each with its interval."""
    title = "Domain gap before and after adaptation"
    measured = [g for g in groups if any(isfinite(distance(run, when)[0]) for run in g.runs for when in WHEN)]
    if not measured:
        return Figure(
            "gap",
            title,
            missing="No run of this pair has a distance between the domains (diagnose=none leaves it out).",
        )
    shown, left_out = choose_settings(measured, MOST)
    means = {
        (g.name, when): [mean_and_deviation([distance(run, when)[i] for run in g.runs])[0] for i in range(3)]
        for g in shown
        for when in WHEN
    }
    low = min([0.0, *(value for each in means.values() for value in each if isfinite(value))])
    x = Scale(low - 0.05, 2.05, "proxy A-distance")
    said = ", ".join(
        f"{g.name} {means[g.name, 'before'][0]:.2f} before, {means[g.name, 'after'][0]:.2f} after" for g in shown
    )
    chart = Chart.of_rows(
        [f"{g.name} · n = {len(g.runs)}" for g in shown], x, f"proxy A-distance: {said}".replace("nan", "unknown")
    )
    for row, group in enumerate(shown):
        before, after = means[group.name, "before"], means[group.name, "after"]
        for (value, least, most), kind, place in ((before, "c1 hollow", 0.6), (after, "c0", 0.82)):
            chart.reach(-row - place, least, most, kind)
            if isfinite(value):
                chart.mark(value, -row - place, kind)
    caption = (
        "Proxy A-distance 2(1 − 2ε) of a cross-fitted classifier that tells source from target features: 0 where it"
        " can't, 2 where it always can. Means over the n seeds of the values and of the ends of each run's 95 %"
        " interval. A small distance alone is no success: features without any content have none. "
    )
    legend = [Key("ring", "c1", "before adaptation"), Key("dot", "c0", "after, selected checkpoint")]
    return Figure("gap", title, caption + left_out, [Panel("", chart.svg, wide=True)], legend)
