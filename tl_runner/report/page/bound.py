"""The terms of the bound on the target's error, beside the error itself."""

from collections.abc import Sequence
from math import isfinite, nan

from tl_runner.report.page.counts import mean_and_deviation
from tl_runner.report.page.drawing import Chart, Scale
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, choose_settings
from tl_runner.report.page.run_files import RunFiles

MOST = 16


def terms(kept: RunFiles) -> tuple[float, ...]:
    """ε_s, ½d, λ* and the target's error of a run's selected checkpoint; NaN where it was not measured."""
    bound, accuracy = kept.record.diagnosis and kept.record.diagnosis.bound, kept.record.headline
    values = (bound.source_error, bound.half_distance, bound.joint_error) if bound else (None, None, None)
    return tuple(nan if value is None else value for value in (*values, None if accuracy is None else 1 - accuracy))


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A row per setting: the three terms end to end, and a ring at the error that the target really has."""
    title = "The bound on the target's error, term by term"
    measured = [g for g in groups if any(all(map(isfinite, terms(run))) for run in g.runs)]
    if not measured:
        return Figure("bound", title, missing="No run of this pair has the terms of the bound (see diagnose).")
    shown, left_out = choose_settings(measured, MOST)
    means = {
        g.name: [mean_and_deviation(list(values))[0] for values in zip(*map(terms, g.runs), strict=True)] for g in shown
    }
    x = Scale(0.0, max(1.0, *(sum(of[:3]) for of in means.values())) * 1.02, "error", percent=True)
    said = "; ".join(
        f"{name}: {of[0]:.2f} + {of[1]:.2f} + {of[2]:.2f}, target error {of[3]:.2f}" for name, of in means.items()
    )
    chart = Chart.of_rows([f"{g.name} · n = {len(g.runs)}" for g in shown], x, f"terms of the bound: {said}")
    for row, of in enumerate(means.values()):
        start = 0.0
        for term, kind in zip(of[:3], ("c0", "c1", "c2"), strict=True):
            chart.bar(start, start + term, -row - 0.62, -row - 0.84, kind)
            start += term
        chart.mark(of[3], -row - 0.73, "hollow")
    caption = (
        "ε_t ≤ ε_s + ½d + λ* (Ben-David et al. 2010): the error on the source, half the proxy A-distance, and the"
        " held-out error on both domains of one linear classifier that has the labels of both. Means over n seeds."
        " Measured on these features, and no guarantee: the bound is about the worst pair of classifiers. Where λ* is"
        " large no alignment of these features can help. "
    )
    legend = [
        Key("dot", "c0", "source error"),
        Key("dot", "c1", "half the distance"),
        Key("dot", "c2", "joint error"),
        Key("ring", "", "the target's error"),
    ]
    return Figure("bound", title, caption + left_out, [Panel("", chart.svg, wide=True)], legend)
