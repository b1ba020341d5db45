"""What launchers of ours have in common that let an engine make the runs of a sweep."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner.errors import Refused
from tl_runner.job import Order
from tl_runner.sweep.away import Engine, sweep
from tl_runner.sweep.task import Task, ordered


class Remote(Launcher, ABC):
    """A launcher whose engine's processes find the working folder as it is here."""

    threads: int  # of each run, unless it says

    @abstractmethod
    def engine(self) -> Engine:
        """The engine; nothing is started before it is sent something."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Task)
        self.context, self.task, self.config = hydra_context, task_function, config
        self.ahead: dict[tuple[str, ...], Order] = {}  # what a sweeper of ours has composed

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from tl_runner.report.board import board

        orders = [self._order(list(words)) for words in job_overrides]
        runs = list({order.record.folder: order for order in orders}.values())  # jobs may be the same run
        task, engine, outcomes = self.task, self.engine(), {}
        task.working = True
        with board(len(runs)) as shown:
            made = sweep(runs, engine, self.threads, task.full_error, lambda: task.stopping, shown.under_way)
            try:
                for outcome in made:
                    shown.over(outcome)
                    outcomes[outcome.record.folder] = outcome
            except Refused:  # the engine can't be had, and nothing was begun
                task.working = False
                raise
        task.working = False
        return [
            JobReturn(words, status=JobStatus.COMPLETED, _return_value=outcomes[order.record.folder])
            for words, order in zip(job_overrides, orders, strict=True)
        ]

    def _order(self, overrides: list[str]) -> Order:
        if order := self.ahead.pop(tuple(overrides), None):
            return order
        composed: Any = self.context.config_loader.load_sweep_config(self.config, overrides)
        return ordered(composed, composed.hydra, self.task.words)


def needed(module: str, extra: str) -> ModuleType:
    """An engine's package; refuses in words where its extra isn't installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"this launcher needs more packages: pip install 'tl_runner[{extra}]' ({error})") from error
