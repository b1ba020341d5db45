"""The sweeper of `tl-run -m`: all combinations, each composed once, before any starts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner.engine.job import Job
from tl_runner.storage.record import NEUTRAL
from tl_runner.sweep.command import Command
from tl_runner.sweep.compose import Composer, FrozenLoader, RememberingRepository, read_composed

log = logging.getLogger("tl_runner.sweep")  # whose warnings are shown


class Grid(BasicSweeper):
    """Hydra's own sweeper, but that the configurations which it composes to check them are those that are run."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Command)
        loader: Any = hydra_context.config_loader
        loader.repository = RememberingRepository(loader.repository)  # a third of the time that composing takes
        self.command, self.frozen = task_function, FrozenLoader(loader)
        context = HydraContext(config_loader=self.frozen, callbacks=hydra_context.callbacks)  # pyright: ignore
        super().setup(hydra_context=context, task_function=task_function, config=config)
        self.jobs: dict[Path, Job] = {}

    def sweep(self, arguments: list[str]) -> Any:
        if self.config and self.config.dry:
            launcher, self.launcher = self.launcher, Nowhere()  # pyright: ignore[reportAttributeAccessIssue]
            super().sweep(arguments)
            self.command.show_plan([*self.jobs.values()], getattr(launcher, "places", 1))
            return []
        returned = super().sweep(arguments)
        outcomes = [job.return_value for batch in returned for job in batch]
        self.command.outcomes[:] = {outcome.record.folder: outcome for outcome in outcomes}.values()
        return returned

    def split_arguments(  # pyright: ignore[reportIncompatibleMethodOverride]  (a static method of Hydra's, called on self)
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The combinations of the words that were typed, or of each line of an experiment's."""
        if not self.command.lines:
            return super().split_arguments(overrides, max_batch_size)
        parser = OverridesParser.create(config_loader=self.hydra_context and self.hydra_context.config_loader)
        found = [BasicSweeper.split_arguments(parser.parse_overrides(line), None) for line in self.command.lines]
        jobs = [job for batches in found for batch in batches for job in batch]
        return [*self.split_overrides_to_chunks(jobs, max_batch_size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose each job; raises where one can't be."""
        from tl_runner.report.sweep_progress import show_composing

        ahead = getattr(self.launcher, "composed_jobs", None)  # only launchers of this package take composed jobs
        composer = Composer(self.frozen, self.config)
        for overrides in show_composing(batch):
            if ahead is None:
                composed = self.frozen.compose(self.config, overrides, keep=True)
                job = self.command.describe_job(read_composed(composed, composed.hydra))
            else:
                job = self.command.describe_job(composer.compose(overrides))
            if earlier := self.jobs.get(job.record.folder):
                one, other = earlier.record.config, job.record.config
                same = [key for key in sorted(NEUTRAL) if one.get(key) != other.get(key)]
                why = f", since {' and '.join(same)} can't change its numbers" if same else ""
                log.warning(
                    "%s occurs more than once in the sweep: it is one run%s; the last one counts", job.name, why
                )
            self.jobs[job.record.folder] = job
            if ahead is not None:
                ahead[tuple(overrides)] = job


class Nowhere:
    """Where jobs are launched that shall only be listed."""

    def __init__(self) -> None:
        self.composed_jobs: dict[tuple[str, ...], Job] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        return []
