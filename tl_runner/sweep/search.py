"""A search: trials become runs, and studies learn the results, whichever launcher makes the runs.

Target labels take no part in it unless they are asked for: `objective=oracle` chooses among trials by the accuracy on
the target's test split, of the checkpoint that each run has chosen without labels. The runs themselves are the same.
All other objectives are of what `checkpoint_selection.Evidence` knows of that checkpoint, or of its predictions on
unlabelled rows.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from tl_runner.engine.job import Job, Outcome
from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
from tl_runner.sweep.study import Study, Trial
from tl_runner.sweep.study_spec import OBJECTIVES

UNLEARNT = "its method does not learn from source labels until the end"
WHY = {
    "floor": f"{UNLEARNT}, and no granted labels are held out (of granted=5 one in five are)",
    "dev": f"{UNLEARNT}, or there are fewer than five validation rows of a domain",
}


class TrialJob(NamedTuple):
    """A trial's run on one seed."""

    job: Job
    words: tuple[str, ...]  # its overrides


@dataclass
class Attempt:
    """A trial under way: its runs, one for each seed, and what is known of those that have ended."""

    study: Study
    trial: Trial
    jobs: list[TrialJob]
    values: dict[Path, tuple[float, float]] = field(default_factory=dict)  # objective and information, by run's folder
    state: str = "unfinished"  # or what it came to
    left: bool = False  # unfinished: rerunning the command resumes it

    @property
    def first(self) -> Path:
        """The run whose curve stands for those of all seeds."""
        return self.jobs[0].job.record.folder

    @property
    def runs(self) -> list[str]:
        """The folders of its runs, in the order of the seeds."""
        return [str(each.job.record.folder) for each in self.jobs]

    @property
    def objective(self) -> str:
        return self.study.sought.objective

    @property
    def over(self) -> bool:
        return self.left or self.state != "unfinished"

    def pruned(self) -> bool:
        """Whether it is, or is now, by the curve so far.

        The curve of a run that has ended is judged too: a trial is pruned by what its curve is, not by who was faster.
        """
        if not self.over and self.study.report(self.trial, list_midway_values(self.jobs[0].job.record, self.objective)):
            self._end("pruned")
        return self.state == "pruned"

    def take(self, outcome: Outcome) -> None:
        """Take in what became of one of its runs."""
        if self.over:
            return
        if outcome.what not in ("ran", "skipped"):
            self.left = True
        elif outcome.failed:
            self._end("failed", why=outcome.message or outcome.record.error)
        elif outcome.record.folder != self.first or not self.pruned():
            by = resolve_objective(outcome.record.evidence or {}, self.objective)
            self.study.judges_by(by)
            self.values[outcome.record.folder] = measure_objective(outcome.record, by)
            if len(self.values) == len(self.jobs):
                value, information = map(fmean, zip(*self.values.values(), strict=True))
                value = self.study.agreement(self.runs) if by == "agreement" else value
                self._end("ok", value, information=information, by=by)

    def _end(self, state: str, value: float | None = None, **facts: object) -> None:
        self.study.end(self.trial, state, value, runs=self.runs, **facts)
        self.state = state


class Search:
    """The studies of a command and their trials under way.

    `compose` makes an order of overrides. A search that is asked to stop, by `stopping`, gives out no more jobs.
    """

    def __init__(self, studies: Sequence[Study], compose: Callable[[Sequence[str]], Job], stopping: Callable[[], bool]):
        self.studies, self.compose, self.stopping = studies, compose, stopping
        self.waiting: dict[Path, list[Attempt]] = {}  # for a run, by its folder: two trials may draw the same
        self.variants: dict[Path, str] = {}

    @property
    def remaining_runs(self) -> int:
        """How many runs are to come, if no trial fails."""
        return sum(study.remaining_trials * max(1, len(study.sought.seeds)) for study in self.studies)

    def jobs(self) -> Iterator[TrialJob]:
        """Jobs, each drawn with what is known by then. The study with the fewest trials comes first."""
        studies = list(self.studies)
        while studies and not self.stopping():
            study = min(studies, key=lambda study: study.given_trials)
            if attempt := self._attempt(study):
                for each in takewhile(lambda _, attempt=attempt: not (attempt.over or self.stopping()), attempt.jobs):
                    attempts = self.waiting.setdefault(each.job.record.folder, [])
                    attempts.append(attempt)
                    if len(attempts) == 1:
                        yield each
            else:
                studies.remove(study)

    def take(self, outcome: Outcome) -> Outcome:
        """Tell the studies what became of a job; the same outcome, marked by what it means to the search."""
        attempts = self.waiting.pop(outcome.record.folder)
        for attempt in attempts:
            attempt.take(outcome)
        pruned = outcome.what == "stopped" and all(attempt.state == "pruned" for attempt in attempts)
        variant = self.variants[outcome.record.folder]
        return outcome._replace(variant=variant, what="pruned" if pruned else outcome.what)

    def unpromising(self, job: Job) -> bool:
        """Whether no trial needs this run any more, by its curve so far."""
        run = job.record.folder
        return all(each.pruned() if each.first == run else each.state == "pruned" for each in self.waiting[run])

    def _attempt(self, study: Study) -> Attempt | None:
        if not (asked := study.ask()):
            return None
        (trial, drawn), sought = asked, study.sought
        jobs: dict[Path, TrialJob] = {}  # of seeds that are one, as 0 and 00, there is one
        for seed in [[seed] for seed in sought.seeds] or [[]]:
            words = (*sought.fixed, *drawn, *seed)
            job = self.compose(words)
            variant = " ".join(filter(None, [job.variant, "oracle" if sought.objective == "oracle" else ""]))
            self.variants[job.record.folder] = variant
            jobs[job.record.folder] = TrialJob(job._replace(variant=variant), words)
        return Attempt(study, trial, [*jobs.values()])


def measure_objective(record: RunRecord, objective: str) -> tuple[float, float]:
    """A run's objective, to be maximised, and how informative its predictions on the unlabelled target are.

    The second settles ties. `study_spec.OBJECTIVES` says what each objective is; that of `agreement` is a trial's,
    among others, and 0 here. Raises `UserError` where the run does not know its objective.
    """
    evidence = record.evidence or {}
    if objective == "oracle":
        if record.headline is None:
            raise UserError(f"objective=oracle takes the target's test labels, and {record.folder.name} has none")
        return record.headline, float(evidence.get("information") or 0.0)
    if not evidence:
        raise UserError(
            f"{record.folder} was made by an earlier version, which stored no objective: rerun with force=true"
        )
    name = OBJECTIVES[objective].evidence
    if name is None:
        if evidence.get("information") is None:
            raise UserError(f"objective={objective} is about classes, and a quantity is predicted: use dev or floor")
        return 0.0, float(evidence["information"])
    if (value := value_of_evidence(evidence, objective)) is None:
        why = WHY.get(objective, "an earlier version made it")
        raise UserError(
            f"{record.folder.name} has no {objective} to be searched by: {why}."
            " objective=information, bnm and agreement need no labels; objective=oracle takes the target's"
        )
    return value, float(evidence.get("information") or 0.0)


def resolve_objective(evidence: Mapping[str, Any], objective: str) -> str:
    """The objective by which a run is judged: itself, or what `auto` comes to there."""
    if objective != "auto":
        return objective
    if evidence.get("floor_of") == "granted":
        return "floor"
    return "agreement" if evidence.get("classes") else "dev"  # values hardly ever agree


def value_of_evidence(evidence: Mapping[str, Any], objective: str) -> float | None:
    """What an evaluation point is worth by this objective, the more the better; None where it does not know that."""
    name = OBJECTIVES[resolve_objective(evidence, objective)].evidence
    if name is None or (value := evidence.get(name)) is None:
        return None
    if name == "information":
        return float(value) / log(evidence["classes"]) if evidence["classes"] > 1 else 0.0
    return -float(value) if name == "risk" else float(value)


def list_midway_values(record: RunRecord, objective: str) -> list[tuple[int, float]]:
    """Step and objective at each evaluation so far by which a run may be pruned.

    Those of its first third say little yet, and at the last there is nothing left to prune.
    """
    try:
        content = (record.folder / "curve.jsonl").read_text()
    except FileNotFoundError:
        return []
    whole = [line for line in content.splitlines(keepends=True) if line.endswith("\n") and '"floor"' in line]
    points = [(line["step"], value_of_evidence(line, objective)) for line in map(json.loads, whole)]
    steps = record.config["train"]["steps"]
    return [(step, value) for step, value in points if value is not None and steps / 3 <= step < steps]
