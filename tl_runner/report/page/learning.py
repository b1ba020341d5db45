"""Learning curves: what happened at the evaluation points, as mean and spread over the seeds of a setting."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, log, nan

from tl_runner.report.page.counts import ends, mean_and_deviation
from tl_runner.report.page.drawing import Chart, Scale, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import BASELINES, SettingRuns, choose_settings
from tl_runner.report.page.run_files import RunFiles

MOST = 12
Curve = list[tuple[int, float, float]]  # step, mean, standard deviation (NaN for one seed)


def target_curve(kept: RunFiles) -> Mapping[int, float]:
    """Accuracy, or R², on the target's test split by step."""
    return kept.accuracies


def source_curve(kept: RunFiles) -> Mapping[int, float]:
    """Accuracy, or R², on the source's validation split by step."""
    return {line["step"]: line["source_val"] for line in kept.evidence if line.get("source_val") is not None}


def information_curve(kept: RunFiles) -> Mapping[int, float]:
    """(H(mean p) − mean H(p)) / ln C on the target's validation split by step: 0 undecided, 1 sure and varied."""
    return {line["step"]: line["information"] / log(line["classes"]) for line in kept.evidence if _several(line)}


def entropy_curve(kept: RunFiles) -> Mapping[int, float]:
    """mean H(p) / ln C on the target's validation split by step: 1 undecided, 0 sure."""
    return {line["step"]: line["entropy"] / log(line["classes"]) for line in kept.evidence if _several(line)}


def curve(read: Callable[[RunFiles], Mapping[int, float]], runs: Sequence[RunFiles]) -> Curve:
    """Mean and standard deviation over the runs at each step that any of them has."""
    by_run = [read(run) for run in runs]
    steps = sorted({step for found in by_run for step in found})
    return [(step, *mean_and_deviation([found.get(step, nan) for found in by_run])[:2]) for step in steps]


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """A panel per setting, on one scale. Without true labels, what is known without them."""
    shown, left_out = choose_settings(groups, MOST)
    scored = [group for group in shown if any(run.accuracies for run in group.runs)]
    score = "R²" if any(run.record.data.quantity for group in shown for run in group.runs) else "accuracy"
    if scored:
        lines = [
            (target_curve, "c0", f"target test {score}"),
            (source_curve, "c1 dashed", f"source validation {score}"),
        ]
        shown = scored
    else:
        lines = [
            (source_curve, "c1 dashed", f"source validation {score}"),
            (information_curve, "c2", "information of target predictions, share of ln C"),
            (entropy_curve, "c3 dotted", "entropy of target predictions, share of ln C"),
        ]
    curves = {group.name: [curve(read, group.runs) for read, _, _ in lines] for group in shown}
    values = [end for each in curves.values() for c in each for _, mean, sd in c for end in ends(mean, sd)]
    if not values:
        return Figure("curves", "Learning curves", missing="No run of this pair has kept a curve.")
    x = spanning([step for each in curves.values() for c in each for step, *_ in c], "step")
    y = Scale(max(0.0, min(values) - 0.03), min(1.0, max(values)) + 0.02, "%", percent=True)
    level = next((group.row["target"] for group in groups if group.method == BASELINES[0]), nan) if scored else nan
    panels = []
    for group in shown:
        chart = Chart(x, y, _words(group, lines, curves[group.name]))
        chart.level(level, "reference")
        for (_, kind, _), points in zip(lines, curves[group.name], strict=True):
            steps, means, deviations = zip(*points, strict=True) if points else ((), (), ())
            bands = [(mean - sd, mean + sd) for mean, sd in zip(means, deviations, strict=True)]
            lows = [max(low, y.low) for low, _ in bands]  # in this order NaN, the end of one seed's band, stays NaN
            highs = [min(high, y.high) for _, high in bands]
            chart.band(steps, lows, highs, kind)
            chart.line(steps, means, kind)
        chart.rug([run.record.scores.selected["step"] for run in group.runs if run.record.scores], "c0")
        panels.append(Panel(group.name, chart.svg, f"n = {len(group.runs)}"))
    signs = {"c0": "line", "c1 dashed": "dash", "c2": "line", "c3 dotted": "dash"}
    legend = [Key(signs[kind], kind.split()[0], text) for _, kind, text in lines]
    if isfinite(level):
        legend.append(Key("dash", "quiet", f"target {score} of source_only, as selected"))
    caption = (
        "Mean over n seeds at each evaluation point, the band is ± one standard deviation. Strokes on the horizontal"
        " axis mark the checkpoints that were selected without target labels, one a seed. "
    )
    unscored = (
        "Test scores by step can't be shown: these runs have no true labels (the target has none, or diagnose=none)."
        " Shown is what may be known without them; ln C is the entropy of C equally likely classes. "
    )
    without = [group.name for group in choose_settings(groups, MOST)[0] if group.name not in curves]
    missing = f"Without true labels, and so not drawn: {', '.join(without)}." if without else ""
    return Figure(
        "curves", "Learning curves", caption + unscored * (not scored) + left_out, panels, legend, missing=missing
    )


def _words(group: SettingRuns, lines: Sequence[tuple[object, str, str]], curves: Sequence[Curve]) -> str:
    said = []
    for (_, _, text), points in zip(lines, curves, strict=True):
        if points:
            (first, start, _), (last, end, _) = points[0], points[-1]
            said.append(f"{text} from {100 * start:.1f} % at step {first} to {100 * end:.1f} % at step {last}")
    return f"{group.name}: {'; '.join(said) or 'nothing was kept'}"


def _several(line: Mapping[str, float]) -> bool:
    return (line.get("classes") or 0) > 1
