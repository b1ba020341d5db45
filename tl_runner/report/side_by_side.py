"""Two runs side by side, as rich tables."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tl_runner.report.differences import Disagreement, differences, disagreement, explanation, scores

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tl_runner.storage.record import RunRecord

TITLES = {
    "configuration": "configuration",
    "keeping": "how the runs are kept (changes no number)",
    "code": "code",
    "data": "data",
    "libraries": "libraries",
    "machine": "machine",
}


def side_by_side(first: "RunRecord", second: "RunRecord") -> list["RenderableType"]:
    """What differs, by kind, the scores, and what may explain them. No text of a record is read as markup."""
    found, scored, apart = differences(first, second), scores(first, second), disagreement(first, second)
    shown: list[RenderableType] = [_heads(first, second)]
    for kind, different in found.items():
        table = _table(TITLES[kind])
        for what, one, other in different:
            table.add_row(*map(Text, (what, format_value(one), format_value(other))))
        shown.append(table)
    if same := [TITLES[kind] for kind in TITLES if kind not in found and kind != "keeping"]:
        shown.append(Text(f"the same in both: {', '.join(same)}", "dim"))
    if scored:
        table = _table("scores")
        table.add_column("second − first, points", justify="right")
        for score in scored:
            points = "" if score.points is None else f"{score.points:+.1f}"
            table.add_row(score.what, _percent(score.first), _percent(score.second), points)
        shown.append(table)
    return [*shown, Text(format_disagreement(apart)), Text(explanation(found, scored, apart), "bold")]


def format_disagreement(apart: Disagreement) -> str:
    """How far the predictions agree, in words."""
    if apart.why:
        return f"predictions were not compared: {apart.why}"
    if not apart.furthest:
        return f"the predictions on all {apart.of} target test rows are equal to the last bit"
    return f"other classes are predicted on {apart.rows} of {apart.of} target test rows"


def format_value(value: Any) -> str:
    """A value as it would be typed; – for what is not there."""
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _heads(first: "RunRecord", second: "RunRecord") -> Table:
    table = _table("runs")
    for name in ("folder", "id", "status"):
        table.add_row(name, Text(str(getattr(first, name))), Text(str(getattr(second, name))))
    for name in ("dataset", "method", "backbone"):
        table.add_row(name, Text(first.choices[name]), Text(second.choices[name]))
    table.add_row("seed", Text(str(first.seed)), Text(str(second.seed)))
    return table


def _table(title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("", "first", "second"):
        table.add_column(name, overflow="fold")
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
