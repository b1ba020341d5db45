"""The launcher of `tl-run -m`: jobs in worker processes on this machine."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner.job import Order
from tl_runner.sweep.slots import slots
from tl_runner.sweep.task import Task, ordered


class Local(Launcher):
    """n_jobs: how many run at a time, or auto: jobs_per_gpu on each GPU, or where there is none one for each core."""

    def __init__(self, n_jobs: int | str = "auto", jobs_per_gpu: int = 1):
        self.n_jobs, self.jobs_per_gpu = n_jobs, jobs_per_gpu

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Task)
        self.context, self.task, self.config = hydra_context, task_function, config
        self.ahead: dict[tuple[str, ...], Order] = {}  # what a sweeper of ours has composed

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from tl_runner.report.board import board
        from tl_runner.sweep.local import sweep

        orders = [self._order(list(overrides)) for overrides in job_overrides]
        places = slots(self.n_jobs, self.jobs_per_gpu)  # before anything is started: it may refuse
        self.task.working = True
        runs = {order.record.folder: order for order in orders}  # jobs may be the same run: 1 and 1.0
        with board(len(runs)) as shown:
            outcomes, task = {}, self.task
            for outcome in sweep(iter(runs.values()), places, lambda: task.stopping, task.full_error, shown.under_way):
                shown.over(outcome)
                outcomes[outcome.record.folder] = outcome
        self.task.working = False
        return [
            JobReturn(overrides, status=JobStatus.COMPLETED, _return_value=outcomes[order.record.folder])
            for overrides, order in zip(job_overrides, orders, strict=True)
        ]

    @property
    def places(self) -> int:
        return len(slots(self.n_jobs, self.jobs_per_gpu))

    def _order(self, overrides: list[str]) -> Order:
        if order := self.ahead.pop(tuple(overrides), None):
            return order
        composed: Any = self.context.config_loader.load_sweep_config(self.config, overrides)
        return ordered(composed, composed.hydra, self.task.words)
