"""What a command would do: which runs are complete and which it would make, and how long that may take."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from tl_runner.engine.job import Job, find_skippable
from tl_runner.storage.lock import is_owned
from tl_runner.storage.record import RunRecord, find_on_other_data, read_records, read_stored
from tl_runner.storage.sections import FUSED

State = Literal["new", "complete", "diverged", "to resume", "to retry", "to rerun", "running"]


class Planned(NamedTuple):
    job: Job
    state: State
    seconds: float | None  # that it may take, by the mean of similar runs; None if there are none
    since: RunRecord | None = None  # the last run of this configuration, if the data changed since


def plan_jobs(jobs: Sequence[Job]) -> list[Planned]:
    """The state of each job, with an estimate from runs of the same setting, else of the same choices."""
    earlier = read_records({job.record.outputs / "runs" for job in jobs if job.record.outputs.is_dir()})[0]
    ended = [record for record in earlier if record.status == "ok" and record.seconds is not None]
    planned = []
    for job in jobs:
        state = _state(job.record)
        seconds = 0.0 if state in ("complete", "diverged") else _estimate(job.record, ended)
        planned.append(Planned(job, state, seconds, find_on_other_data(job.record)))
    return planned


def estimate_seconds(planned: Sequence[Planned], places: int) -> tuple[float, int]:
    """Seconds that the jobs may take in so many places, and how many of them have no estimate."""
    known = [each.seconds for each in planned if each.seconds is not None]
    return sum(known) / places, len(planned) - len(known)


def _state(record: RunRecord) -> State:
    if earlier := find_skippable(record):
        return "diverged" if earlier.status == "diverged" else "complete"
    if is_owned(record.lock):
        return "running"
    earlier = read_stored(record)
    if any(record.folder.glob("checkpoint*.pt")) and not record.config.get("force"):
        return "to resume"
    if earlier is None:
        return "new"
    return "to retry" if earlier.status == "failed" else "to rerun"


def _estimate(record: RunRecord, ended: Sequence[RunRecord]) -> float | None:
    """Its seconds by runs like it; not by those of a stack, whose seconds are those of all its members."""
    ended = [earlier for earlier in ended if earlier.environment.engine != FUSED]
    for alike in ([r for r in ended if r.setting == record.setting], [r for r in ended if r.choices == record.choices]):
        if alike:
            return fmean(r.seconds or 0.0 for r in alike)
    return None
