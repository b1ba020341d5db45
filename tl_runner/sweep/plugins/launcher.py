"""The launchers of `tl-run -m` on this machine: jobs in worker processes, each by itself or several as one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner.engine.job import Job, Outcome
from tl_runner.sweep.fusing import describe_fused, group_jobs
from tl_runner.sweep.launching import Launching
from tl_runner.sweep.slots import count_slots

if TYPE_CHECKING:
    from tl_runner.report.sweep_progress import SweepProgress

WORTH_IT = 20  # the fewest runs that were made for which `Local` advises stacks


class Local(Launching):
    """n_jobs: how many run at a time, or auto: jobs_per_gpu on each GPU, or where there is none one for each core."""

    def __init__(self, n_jobs: int | str = "auto", jobs_per_gpu: int = 1):
        self.n_jobs, self.jobs_per_gpu = n_jobs, jobs_per_gpu

    @property
    def places(self) -> int:
        return len(count_slots(self.n_jobs, self.jobs_per_gpu))

    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        from tl_runner.sweep.local import run_locally

        places, groups, made = count_slots(self.n_jobs, self.jobs_per_gpu), ([job] for job in runs), set[Path]()
        for outcome in run_locally(groups, places, self.stopping, self.command.full_error, shown.under_way):
            if outcome.what == "ran":
                made.add(outcome.record.folder)
            yield outcome
        if len(made) < WORTH_IT:  # what was complete before costs nothing
            return
        fused = group_jobs([job for job in runs if job.record.folder in made], places).fused
        if fused >= WORTH_IT:
            self.command.said.append(
                f"hydra/launcher=fused trains {fused} of these runs in stacks, in less time; their last digits differ"
            )


class Fused(Launching):
    """As `Local`, but that runs which differ in their seeds and in numbers alone train as stacks: see `fusing`."""

    def __init__(self, n_jobs: int | str = "auto"):
        self.n_jobs = n_jobs

    @property
    def places(self) -> int:
        return len(count_slots(self.n_jobs, 1))

    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        from tl_runner.sweep.local import run_locally

        places = count_slots(self.n_jobs, 1)
        groups = group_jobs(runs, places)
        outcomes: list[Outcome] = []
        for outcome in run_locally(iter(groups.jobs), places, self.stopping, self.command.full_error, shown.under_way):
            outcomes.append(outcome)
            yield outcome
        if told := describe_fused(outcomes, groups):
            self.command.said.append(told)
