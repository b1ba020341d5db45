"""Are estimates of the target's accuracy, made without its labels, near the accuracy that its labels tell?"""

from collections.abc import Sequence
from statistics import fmean

from tl_runner.report.page.drawing import Chart, Scale
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A dot a run that has both: how accurate it was estimated to be, and how accurate it was."""
    title = "Estimated accuracy against the true one"
    found = [
        (run.record.scores.estimate, run.record.headline)
        for group in groups
        for run in group.runs
        if run.record.scores and run.record.scores.estimate and run.record.headline is not None
    ]
    if not found:
        missing = "No run of this pair has both an estimate and target labels to compare it with."
        return Figure("estimates", title, missing=missing)
    whole = Scale(0.0, 1.0, "estimated without labels, %", percent=True)
    off = fmean(abs(estimate.value - true) for estimate, true in found)
    inside = sum(estimate.low <= true <= estimate.high for estimate, true in found)
    words = f"{100 * off:.1f} points off on average, the truth within the interval in {inside} of {len(found)}"
    chart = Chart(whole, Scale(0.0, 1.0, "accuracy, %", percent=True), f"estimated against true accuracy: {words}")
    chart.line([0, 1], [0, 1], "reference")
    for steady, kind in ((True, "c0"), (False, "c3")):
        chart.dots([(estimate.value, true) for estimate, true in found if estimate.believable is steady], kind)
    caption = (
        "A dot is a run (all settings and seeds): the median of six estimates from the model's confidence, against the"
        " accuracy by the target's test labels. On the diagonal an estimate is right; below it, too high. An estimate"
        " is believable where few rows change their class between the run's checkpoints."
    )
    legend = [Key("dot", "c0", "believable"), Key("dot", "c3", "not to be relied on"), Key("dash", "quiet", "right")]
    return Figure("estimates", title, caption, [Panel("", chart.svg, words)], legend)
