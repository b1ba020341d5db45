"""Texts of the target's test split, with what models made of them: which changed class between two settings."""

from collections.abc import Sequence

from tl_runner.report.page.changed_rows import find_changed
from tl_runner.report.page.figure import Figure, FigureTable
from tl_runner.report.page.run_files import RunFiles

WRONG = " ✗"


def draw_texts(name: str, title: str, runs: Sequence[RunFiles], names: Sequence[str]) -> Figure:
    """Of two runs the texts whose class changes from the first to the second; of one those that it gets wrong."""
    texts = runs[0].texts("target_texts")
    found = find_changed("text", len(texts), runs, names)
    if isinstance(found, str):
        return Figure(name, title, missing=found)
    rows = [
        [texts[row], true, *(said + (WRONG if right is False else "") for said, right in predicted)]
        for row, true, predicted in zip(found.rows, found.true, found.predicted, strict=True)
    ]
    caption = f"{found.caption} Long texts are shortened."
    return Figure(name, title, caption, cells=[FigureTable(found.heading, ["text", "class", *names], rows)])
