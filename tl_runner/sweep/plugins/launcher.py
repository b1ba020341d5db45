"""The launcher of `tl-run -m`: jobs in worker processes on this machine."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tl_runner.engine.job import Job, Outcome
from tl_runner.sweep.launching import Launching
from tl_runner.sweep.slots import count_slots

if TYPE_CHECKING:
    from tl_runner.report.sweep_progress import SweepProgress


class Local(Launching):
    """n_jobs: how many run at a time, or auto: jobs_per_gpu on each GPU, or where there is none one for each core."""

    def __init__(self, n_jobs: int | str = "auto", jobs_per_gpu: int = 1):
        self.n_jobs, self.jobs_per_gpu = n_jobs, jobs_per_gpu

    @property
    def places(self) -> int:
        return len(count_slots(self.n_jobs, self.jobs_per_gpu))

    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        from tl_runner.sweep.local import run_locally

        places = count_slots(self.n_jobs, self.jobs_per_gpu)
        return run_locally(iter(runs), places, self.stopping, self.command.full_error, shown.under_way)
