"""What our launchers have in common: they run composed jobs, and return the outcomes in Hydra's form."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner.engine.job import Job, Outcome
from tl_runner.errors import UserError
from tl_runner.sweep.command import Command, warn_other_data
from tl_runner.sweep.compose import read_composed

if TYPE_CHECKING:
    from tl_runner.report.sweep_progress import SweepProgress


class Launching(Launcher, ABC):
    """A launcher that shows its jobs as they run: live, or in a line for each that ends."""

    @abstractmethod
    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        """Run them, and yield each outcome as soon as it is known. Raises `UserError` before any job has started."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Command)
        self.context, self.command, self.config = hydra_context, task_function, config
        self.composed_jobs: dict[tuple[str, ...], Job] = {}  # by our sweeper, by their overrides

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from tl_runner.report.sweep_progress import show_sweep_progress

        jobs = [self._job(list(words)) for words in job_overrides]
        runs = list({job.record.folder: job for job in jobs}.values())  # jobs may be one run: 1 and 1.0
        outcomes = {}
        warn_other_data(runs)
        self.command.working = True
        with show_sweep_progress(len(runs)) as shown:
            try:
                for outcome in self.run_jobs(runs, shown):
                    shown.over(outcome)
                    outcomes[outcome.record.folder] = outcome
            except UserError:
                self.command.working = False
                raise
        self.command.working = False
        return [
            JobReturn(words, status=JobStatus.COMPLETED, _return_value=outcomes[job.record.folder])
            for words, job in zip(job_overrides, jobs, strict=True)
        ]

    def stopping(self) -> bool:
        return self.command.stopping

    def _job(self, overrides: list[str]) -> Job:
        if job := self.composed_jobs.pop(tuple(overrides), None):
            return job
        composed: Any = self.context.config_loader.load_sweep_config(self.config, overrides)
        return self.command.describe_job(read_composed(composed, composed.hydra))


def import_extra(module: str, extra: str) -> ModuleType:
    """An engine's package; refuses in words where its extra isn't installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"this launcher needs more packages: pip install 'tl_runner[{extra}]' ({error})") from error
