"""Predicted values against the true ones, where a quantity is predicted."""

from collections.abc import Sequence

from tl_runner.report.page.drawing import Chart, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, choose_settings
from tl_runner.report.predictions import Predictions, read_predictions
from tl_runner.report.tables import format_number, format_percent

MOST = 6
POINTS = 300  # rows of a panel


def figure(groups: Sequence[SettingRuns]) -> Figure | None:
    """A panel per setting, of its first run: the target's test rows, predicted over true value, on one scale."""
    quantity = groups[0].runs[0].record.data.quantity
    if quantity is None:
        return None
    title = "Predicted against true values"
    found = {group.name: read_predictions(group.runs[0].record) for group in groups}
    shown, left_out = choose_settings([group for group in groups if found[group.name]], MOST)
    rows = {group.name: rows for group in shown if (rows := found[group.name])}
    if not rows:
        return Figure("values", title, missing="No run of this pair has predictions with true values to show.")
    ends = [float(end) for of in rows.values() for side in of for end in (side.min(), side.max())]
    x, y = spanning(ends, f"true {quantity.name}"), spanning(ends, f"predicted {quantity.name}")
    panels = []
    for group in shown:
        record, of = group.runs[0].record, rows[group.name]
        said = f"R² {format_percent(record.headline or 0.0)}, RMSE {_error(group)}"
        chart = Chart(x, y, f"{group.name}, seed {record.seed}: {said}")
        chart.line([min(ends), max(ends)], [min(ends), max(ends)], "reference")
        chart.dots(_points(of), "c0")
        panels.append(Panel(group.name, chart.svg, said))
    caption = (
        f"n = 1 run a setting, its first seed: up to {POINTS} rows of the target's test split at the selected"
        " checkpoint. On the diagonal a prediction is right; above it, it is too high. "
    )
    legend = [Key("dot", "c0", "a row of the target"), Key("dash", "quiet", "predicted as it is")]
    return Figure("values", title, caption + left_out, panels, legend)


def _points(of: Predictions) -> list[tuple[float, float]]:
    return list(zip(of.labels[:POINTS].tolist(), of.predicted[:POINTS].tolist(), strict=True))


def _error(group: SettingRuns) -> str:
    error = group.runs[0].record.score("target", "rmse")
    return "–" if error is None else format_number(error)
