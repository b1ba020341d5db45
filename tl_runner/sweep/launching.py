"""What launchers of ours have in common: jobs become orders, and the outcomes of these what Hydra wants back."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner.engine.job import Order, Outcome
from tl_runner.errors import Refused
from tl_runner.sweep.compose import read_composed
from tl_runner.sweep.task import Command, warn_other_data

if TYPE_CHECKING:
    from tl_runner.report.board import Board


class Launching(Launcher, ABC):
    """A launcher of orders; what it launches is drawn, or told in lines, as it ends."""

    @abstractmethod
    def sweep(self, runs: Sequence[Order], shown: "Board") -> Iterator[Outcome]:
        """Make them, and yield what became of each as soon as it is known; raises `Refused` before any is begun."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Command)
        self.context, self.task, self.config = hydra_context, task_function, config
        self.ahead: dict[tuple[str, ...], Order] = {}  # what a sweeper of ours has composed

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from tl_runner.report.board import board

        orders = [self._order(list(words)) for words in job_overrides]
        runs = list({order.record.folder: order for order in orders}.values())  # jobs may be one run: 1 and 1.0
        outcomes = {}
        warn_other_data(runs)
        self.task.working = True
        with board(len(runs)) as shown:
            try:
                for outcome in self.sweep(runs, shown):
                    shown.over(outcome)
                    outcomes[outcome.record.folder] = outcome
            except Refused:
                self.task.working = False
                raise
        self.task.working = False
        return [
            JobReturn(words, status=JobStatus.COMPLETED, _return_value=outcomes[order.record.folder])
            for words, order in zip(job_overrides, orders, strict=True)
        ]

    def stopping(self) -> bool:
        return self.task.stopping

    def _order(self, overrides: list[str]) -> Order:
        if order := self.ahead.pop(tuple(overrides), None):
            return order
        composed: Any = self.context.config_loader.load_sweep_config(self.config, overrides)
        return self.task.order(read_composed(composed, composed.hydra))


def import_extra(module: str, extra: str) -> ModuleType:
    """An engine's package; refuses in words where its extra isn't installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"this launcher needs more packages: pip install 'tl_runner[{extra}]' ({error})") from error
