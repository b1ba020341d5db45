"""What Hydra calls with a composed configuration: the run is made in this process. Launchers may send it elsewhere."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_runner import options
from tl_runner.engine.job import Job, Outcome, run_job
from tl_runner.errors import UserError
from tl_runner.experiments import (
    Experiment,
    expand_words,
    find_experiments,
    list_hydra_words,
    list_overrides,
    list_swept,
)
from tl_runner.pairs import expand_pairs, names_pairs
from tl_runner.storage.contents import Contents
from tl_runner.storage.record import RunRecord, describe_run, find_on_other_data, outputs_of
from tl_runner.sweep.compose import Composed, read_composed

log = logging.getLogger("tl_runner.sweep")


@dataclass
class Command:
    """The command line and what it asks for, and what became of its jobs.

    `words` are as typed, or, of an experiment, all keys and values of its lines.
    """

    words: list[str]
    full_error: bool = False  # print errors with their tracebacks
    experiments: list[Experiment] = field(default_factory=list)  # that the words name
    lines: list[list[str]] = field(default_factory=list)  # sweeps that are made in place of the words
    outcomes: list[Outcome] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # what is to be told at the end, below the table of outcomes
    working: bool = False  # there is a job that can stop by itself
    stopping: bool = False  # it was asked to
    refusal: Exception | None = None  # why a single run could not be described
    contents: Contents | None = None  # of the files that its jobs read

    def take_lines(self, folders: Sequence[Path]) -> list[str]:
        """Put the lines of experiments, of these folders, and of pairs of domains in the place of the words.

        Returns the words that Hydra is to read: a line is for the sweeper alone. Raises `UserError` where there is no
        experiment of a name, or no domains to pair.
        """
        self.experiments = find_experiments(self.words, folders)
        if not self.experiments and not names_pairs(self.words):
            return options.settle_swept_keys(self.words)
        lines = expand_words(self.words, self.experiments) if self.experiments else [list_overrides(self.words)]
        self.lines = [each for line in lines for each in expand_pairs(line)]
        read = list_hydra_words(self.words)
        self.words = ["-m", *list_swept(self.lines)]
        return ["-m", *read]

    def __call__(self, composed: Any) -> Outcome | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra = HydraConfig.get()
        try:
            job = self.describe_job(read_composed(composed, hydra))
        except Exception as error:  # Hydra would add a line of its own
            self.refusal = error
            return None
        if composed.dry:
            self.show_plan([job], 1)
            return None
        if self.stopping:
            outcome = Outcome(*job, "queued")
        else:
            self.working = True
            warn_other_data([job])
            outcome = _run_here(job, self, hydra.mode == RunMode.MULTIRUN)
            self.working = False
        self.outcomes.append(outcome)
        return outcome

    def describe_job(self, composed: Composed) -> Job:
        """The job of a composed configuration.

        Data files are hashed once per command, however many jobs read them.
        """
        self.contents = self.contents or Contents(outputs_of(composed.config))
        return make_job(composed, self.words, self.contents)

    def show_plan(self, jobs: list[Job], places: int) -> None:
        """What dry=true prints in place of runs."""
        from tl_runner.engine.dry_run import plan_jobs
        from tl_runner.report import tables
        from tl_runner.report.consoles import consoles

        consoles()[0].print(*tables.plan(plan_jobs(jobs), places), sep="\n")


def make_job(composed: Composed, words: list[str], contents: Contents | None = None) -> Job:
    """The job of a composed configuration."""
    record = _record(composed.config, composed.choices, contents)
    return Job(record, options.describe_variant(composed.overrides, words))


def warn_other_data(jobs: Sequence[Job]) -> None:
    """Warn of runs that are new for their data alone: a user may take them for runs that are complete already."""
    found = [(job, earlier) for job in jobs if (earlier := find_on_other_data(job.record))]
    if found:
        runs = f"{len(found)} of {len(jobs)} runs read" if len(jobs) > 1 else "this run reads"
        log.warning(
            "new: the data changed since %s was made by the same configuration; %s other content",
            found[0][1].folder, runs,
        )  # fmt: skip


def _record(config: dict[str, Any], chosen: Mapping[str, Any], contents: Contents | None) -> RunRecord:
    choices: dict[str, str] = {}
    for group in ("dataset", "backbone", "method"):
        if not isinstance(chosen.get(group), str):
            raise UserError(f"{group} takes one option, as in {group}={options.defaults()[group]}")
        choices[group] = chosen[group]
    return describe_run(config, choices, contents)


def _run_here(job: Job, command: Command, one_of_many: bool) -> Outcome:
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.live import watch_training

    console, errors = consoles()
    if one_of_many:
        console.print(job.name, style="bold", highlight=False, markup=False)
    outcome = run_job(
        job,
        lambda: command.stopping,
        lambda points, record: watch_training(points, record, console),
        command.full_error,
    )
    if outcome.what == "skipped":
        console.print(
            f"{job.name}: already complete, skipped (force=true runs it again)", highlight=False, markup=False
        )
    if outcome.failed:
        complain(errors, outcome.message)
    elif outcome.what == "locked":
        complain(errors, f"{outcome.message}; skipped here", "note: ", "yellow")
    return outcome
