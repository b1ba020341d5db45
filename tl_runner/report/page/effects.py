"""The paired differences to the baseline at a glance."""

from collections.abc import Sequence
from math import isfinite

from markupsafe import Markup

from tl_runner.report.page.drawing import Chart, Scale, columns, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns

MOST = 60


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A row per setting that was compared: the difference with its 95 % interval, largest first."""
    title = "Difference to the baseline"
    compared = [group for group in groups if isfinite(group.row["difference"])]
    if not compared:
        return Figure("effects", title, missing="No setting has runs on the same seeds and data as a baseline.")
    shown = sorted(compared, key=lambda group: -group.row["difference"])
    if len(shown) > MOST:
        shown = [*shown[: MOST // 2], *shown[-MOST // 2 :]]
    ends = [group.row[name] for group in shown for name in ("difference", "low", "high")]
    x = spanning([0.0, *ends], "points", percent=True)
    portions, width = columns(shown)
    panels = [Panel("", _chart(portion, x, width), wide=len(portions) == 1) for portion in portions]
    caption = (
        "The target's score minus that of the baseline (source_only, or target_only where the classes differ) on the"
        " same seeds and data, in points, with the paired 95 % interval that fits how the seeds differ; none below"
        " three seeds, or where the baseline has another label budget. n is the number of pairs. Colours follow the"
        " test after Holm's correction over the whole report, which the intervals do not have."
    )
    if len(compared) > MOST:
        caption += f" The {MOST // 2} largest and the {MOST // 2} smallest of {len(compared)} differences are shown."
    legend = [
        Key("dot", "c0", "better"),
        Key("dot", "quiet", "no difference shown, or maybe"),
        Key("dot", "c3", "negative transfer"),
    ]
    return Figure("effects", title, caption, panels, legend)


def _chart(groups: Sequence[SettingRuns], x: Scale, width: int) -> Markup:
    said = ", ".join(f"{group.name} {100 * group.row['difference']:+.1f}" for group in groups)
    names = [f"{group.name} · n = {int(group.row['pairs'])}" for group in groups]
    chart = Chart.of_rows(names, x, f"difference to the baseline in points: {said}", width)
    chart.upright(0.0, "reference")
    for row, group in enumerate(groups):
        difference, low, high = (group.row[name] for name in ("difference", "low", "high"))
        kind = {"better": "c0", "negative transfer": "c3"}.get(group.row["verdict"], "quiet")
        chart.reach(-row - 0.68, low, high, kind)
        chart.mark(difference, -row - 0.68, kind)
    return chart.svg
