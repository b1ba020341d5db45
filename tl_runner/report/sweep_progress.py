"""A sweep under way: what is done, what runs and how far, how long it will take; each failure as it happens."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tl_runner.engine.job import Job, Outcome
from tl_runner.plurals import count_noun
from tl_runner.report.consoles import complain, consoles
from tl_runner.report.tables import STATUS_STYLE, duration, format_percent
from tl_runner.storage.lock import read_owner

T = TypeVar("T")

LOOK = 0.5  # seconds between looks at how far the running jobs are


class SweepProgress:
    """What is known of a sweep of `total` jobs; drawn anew whenever it is looked at."""

    def __init__(self, total: int | None, console: Console, errors: Console):
        self.total, self.console, self.errors = total, console, errors
        self.started = time.monotonic()
        self.made = self.counted = self.failed = 0
        self.running: list[tuple[Job, int, int, str]] = []  # step, steps, phase
        self._looked = 0.0
        self._said: set[str] = set()

    def under_way(self, running: Sequence[Job]) -> None:
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        told = [(job, read_owner(job.record.lock) or {}) for job in running]
        self.running = [(o, t.get("step", 0), t.get("steps", 0), t.get("phase", "starting")) for o, t in told]

    def over(self, outcome: Outcome) -> None:
        """A job has ended. Prints failures immediately, and a line for every job where there is no live display."""
        self.running = [each for each in self.running if each[0].record.folder != outcome.record.folder]
        if outcome.what == "queued":
            return
        self.counted += 1
        self.made += outcome.what == "ran"
        self.failed += outcome.failed
        name = Job(outcome.record, outcome.variant).name
        for note in outcome.warnings:
            if note not in self._said:  # a hundred runs may have the same to say
                self._said.add(note)
                complain(self.errors, f"{name}: {note}", "note: ", "yellow")
        if outcome.failed:
            told = outcome.message
            if outcome.what == "skipped":
                told += " (already complete; force=true runs it again)"
            log = outcome.record.folder / "run.log"
            where = f"\n{log}" if log.exists() and str(log) not in told else ""
            complain(self.errors, f"{name}: {told}{where}", f"{outcome.record.status}: ")
        elif outcome.what in ("locked", "stopped"):
            kept = any(outcome.record.folder.glob("checkpoint*.pt"))
            stopped = "stopped, its checkpoint is kept" if kept else "stopped before its first point, to start anew"
            complain(self.errors, f"{name}: {outcome.message or stopped}", "note: ", "yellow")
        elif not self.console.is_terminal:
            reached = outcome.record.headline
            accuracy = "" if reached is None else f"  target {format_percent(reached)}"
            how = "ok" if outcome.what == "ran" else outcome.what
            of = f"{self.counted}/{self.total}" if self.total else str(self.counted)
            self.console.print(f"[{of}] {how}  {name}{accuracy}", highlight=False, markup=False, soft_wrap=True)

    def __rich__(self) -> Group:
        running = Table.grid(padding=(0, 1))
        for _ in range(3):
            running.add_column(no_wrap=True, overflow="ellipsis")
        for job, step, steps, phase in self.running:
            bar = ProgressBar(total=max(steps, 1), completed=step, width=20)
            running.add_row(bar, f"{step}/{steps}" if steps else "", Text(f"{job.name}  {phase}", overflow="ellipsis"))
        return Group(running, self._summary())

    def _summary(self) -> Text:
        words = [f"{self.counted} done"] if self.total is None else [f"{self.counted} of {self.total} done"]
        words += [f"{len(self.running)} running"]
        if self.total is not None:
            words += [f"{self.total - self.counted - len(self.running)} queued"]
        text = Text(" · ".join(words)).append(" · ")
        text.append(f"{self.failed} failed", STATUS_STYLE["failed"] if self.failed else "")
        if self.total is not None and self.made and self.counted < self.total:
            begun = sum(step / steps for _, step, steps, _ in self.running if steps)
            left = (time.monotonic() - self.started) / (self.made + begun) * (self.total - self.counted - begun)
            text.append(f" · {duration(left)} left")
        return text


@contextmanager
def show_sweep_progress(total: int | None) -> Iterator[SweepProgress]:
    """A board that is drawn on a terminal, and told in lines elsewhere."""
    console, errors = consoles()
    shown = SweepProgress(total, console, errors if not console.is_terminal else console)
    if not console.is_terminal:
        yield shown
        return
    with Live(shown, console=console, refresh_per_second=2, transient=True, redirect_stderr=False):
        yield shown


def show_composing(jobs: Sequence[T]) -> Iterable[T]:
    """The same jobs, with a progress line while they are composed, which takes some 50 ms each."""
    console, _ = consoles()
    title = f"composing {count_noun(len(jobs), 'job')}"
    return track(jobs, title, console=console, transient=True, disable=not console.is_terminal)
