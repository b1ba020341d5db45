"""A run under way: a live line on a terminal, plain lines elsewhere."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from tl_runner.report.tables import format_percent
from tl_runner.storage.record import RunRecord

if TYPE_CHECKING:
    from tl_runner.training.loop import Point

T = TypeVar("T")


class Line(Protocol):
    def __call__(self, point: "Point", text: str) -> None: ...


def watch_training(points: "Generator[Point, None, T]", record: RunRecord, console: Console) -> T:
    """Show the progress of this record's training; returns what the training returns."""
    source_val = None
    with _live(console) if console.is_terminal else _print_lines(console) as line:
        while True:
            try:
                point = next(points)
            except StopIteration as end:
                return end.value
            source_val = point.evidence.source_val if point.evidence else source_val
            line(point, describe(point, source_val, "images" if len(record.data.shape) == 3 else "rows"))


def describe(point: "Point", source_val: float | None, unit: str) -> str:
    """Terms, source-val accuracy, speed and the time left, in one line."""
    words = [] if point.phase == "train" else [point.phase]
    words += [f"{name} {value:.4g}" for name, value in point.terms.items()]
    words += [f"source-val {format_percent(source_val)}"] if source_val is not None else []
    if point.step and point.seconds:
        left = point.seconds * (point.steps - point.step) / point.step
        words += [f"{point.rows / point.seconds:,.0f} {unit}/s", f"{left:.0f} s left"]
    return "  ".join(words)


@contextmanager
def _live(console: Console) -> Iterator[Line]:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total}  {task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading the data and building the network", total=None)

        def line(point: "Point", text: str) -> None:
            bar.update(task, completed=point.step, total=point.steps, description=text)

        yield line


@contextmanager
def _print_lines(console: Console) -> Iterator[Line]:
    def line(point: "Point", text: str) -> None:
        if point.evidence or point.step == point.steps:  # a dozen lines a run, not hundreds
            console.print(f"step {point.step}/{point.steps}  {text}", soft_wrap=True, highlight=False, markup=False)

    yield line
