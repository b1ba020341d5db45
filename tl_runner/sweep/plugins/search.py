"""The sweeper that searches: hydra/sweeper=tl_optuna."""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_runner import options
from tl_runner.engine.job import Job, Outcome
from tl_runner.errors import UserError, nearest
from tl_runner.sweep.command import Command
from tl_runner.sweep.compose import FrozenLoader, RememberingRepository, read_composed
from tl_runner.sweep.space import Choice, Dimension, Space, parse_space
from tl_runner.sweep.study_spec import OBJECTIVES, SearchOptions, StudySpec, specify_study

from .launcher import Local  # by Hydra's name for this package: as tl_runner.sweep.plugins it is another class

if TYPE_CHECKING:
    from tl_runner.sweep.search import Search

log = logging.getLogger(__name__)

KEY = "hydra.sweeper"


class TlOptuna(Sweeper):
    """What each key means stands in its YAML; `params` is what Hydra's own sweepers have: overrides in a file."""

    def __init__(
        self,
        n_trials: int,
        sampler: str,
        startup_trials: int,
        pruner: str,
        seed: int,
        batch: int,
        study: Mapping[str, str | None],
        params: Mapping[str, Any] | None,
    ):
        self.n_trials, self.sampler, self.startup, self.pruner = n_trials, sampler, startup_trials, pruner
        self.seed, self.batch, self.study, self.params = seed, batch, study, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Command)
        loader: Any = hydra_context.config_loader
        loader.repository = RememberingRepository(loader.repository)
        self.command, self.frozen = task_function, FrozenLoader(loader)
        self.master: Any = config
        context = HydraContext(config_loader=self.frozen, callbacks=hydra_context.callbacks)  # pyright: ignore
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        try:
            import optuna
        except ImportError as error:
            raise UserError(f"a search needs Optuna: pip install 'tl_runner[optuna]' ({error})") from error
        del optuna
        from tl_runner.report.consoles import consoles
        from tl_runner.sweep.findings import format_findings, summarise_study, write_study
        from tl_runner.sweep.search import Search
        from tl_runner.sweep.study import Study

        self._check()
        wanted = [self._sought(name, part) for name, part in self._parts(arguments).items()]
        steady, dry = isinstance(self.launcher, Local), self.master.dry
        opened = [Study(each, prunes=steady) if each.journal.exists() or not dry else each for each in wanted]
        console, _ = consoles()
        for each in opened:
            console.print(each.words, highlight=False, markup=False, soft_wrap=True)
        if dry:
            return
        studies = [each for each in opened if isinstance(each, Study)]
        search = Search(studies, self._compose_job, lambda: self.command.stopping)
        try:
            outcomes = list(self._steadily(search) if steady else self._in_batches(search))
            self.command.outcomes[:] = outcomes  # in place of what jobs in this process have told
        finally:
            for study in studies:
                write_study(study, summarise_study(study, self.command.words))
        self.command.said += [format_findings(summarise_study(study, self.command.words)) for study in studies]

    def _steadily(self, search: "Search") -> Iterator[Outcome]:
        """A job starts as soon as there is a place for it, and knows of all that ended before."""
        from tl_runner.report.sweep_progress import show_sweep_progress
        from tl_runner.sweep.local import run_locally
        from tl_runner.sweep.slots import count_slots

        assert isinstance(self.launcher, Local)
        places, command = count_slots(self.launcher.n_jobs, self.launcher.jobs_per_gpu), self.command
        jobs, prune = ([each.job] for each in search.jobs()), search.unpromising
        command.working = True
        with show_sweep_progress(search.remaining_runs) as shown:
            ended = run_locally(jobs, places, lambda: command.stopping, command.full_error, shown.under_way, prune)
            with closing(ended):  # pyright: ignore[reportArgumentType] – a generator, whose workers end with it
                for outcome in map(search.take, ended):
                    shown.over(outcome)
                    yield outcome
        command.working = False

    def _in_batches(self, search: "Search") -> Iterator[Outcome]:
        """Other launchers take a batch of jobs, and return when all have ended."""
        if self.pruner != "none":
            log.warning("only hydra/launcher=local stops runs midway: nothing is pruned here")
        assert self.launcher
        jobs, launched = search.jobs(), 0
        while batch := list(islice(jobs, self.batch)):
            returned = self.launcher.launch([list(each.words) for each in batch], initial_job_idx=launched)
            launched += len(batch)
            for each, back in zip(batch, returned, strict=True):
                if not isinstance(back.return_value, Outcome):
                    raise self.command.refusal or UserError(f"{each.job.name}: its launcher reported nothing about it")
                yield search.take(back.return_value)

    def _compose_job(self, words: Sequence[str]) -> Job:
        composed = self.frozen.compose(self.master, words, keep=not isinstance(self.launcher, Local))
        return self.command.describe_job(read_composed(composed, composed.hydra))

    def _check(self) -> None:
        from tl_runner.sweep.study import PRUNERS, SAMPLERS

        if self.command.experiments:
            raise UserError("an experiment has runs of its own, and nothing to search: leave out hydra/sweeper")
        for name, value, least in (
            ("n_trials", self.n_trials, 1),
            ("startup_trials", self.startup, 1),
            ("seed", self.seed, 0),
            ("batch", self.batch, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{KEY}.{name} takes a whole number of at least {least}, got {value!r}")
        _check_choice(f"{KEY}.sampler", self.sampler, SAMPLERS)
        _check_choice(f"{KEY}.pruner", self.pruner, PRUNERS)
        _check_choice(f"{KEY}.study.per", str(self.study["per"] or "null"), ("null", "method"))
        _check_choice("objective", self.master.objective, OBJECTIVES)
        if self.study["name"] is not None and not re.fullmatch(r"\w[\w.+-]*", str(self.study["name"])):
            raise UserError(f"{KEY}.study.name must name a folder, got {self.study['name']!r}")

    def _parts(self, arguments: Sequence[str]) -> dict[str, Space]:
        """The space of each study, by what is added to a study's given name."""
        typed = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        whole = parse_space(OverridesParser.create(config_loader=self.frozen._loader).parse_overrides(typed))
        parts = whole.by("method") if self.study["per"] == "method" else {"": whole}
        if not all(part.dimensions for part in parts.values()):
            raise UserError(
                "there is nothing to search: give a key several values, as in "
                "'optimizer.lr=tag(log, interval(1e-4, 1e-1))' or 'method.weight=choice(0.1, 1, 10)'"
            )
        return parts

    def _sought(self, name: str, part: Space) -> StudySpec:
        """Each option of a group is composed once, so that what can't be is refused before anything starts."""
        first = [_format_dimension(dimension) for dimension in part.dimensions]
        probe = self._probe(part, first)
        for index, dimension in enumerate(part.dimensions):
            if isinstance(dimension, Choice) and dimension.key in options.defaults():
                for value in dimension.values[1:]:
                    self._probe(part, [*first[:index], dimension.typed(value), *first[index + 1 :]])
        way = SearchOptions(self.n_trials, self.sampler, self.startup, self.pruner, self.seed)
        given = "-".join(filter(None, [str(self.study["name"]), name])) if self.study["name"] else None
        return specify_study(part, probe.record, self.master.objective, way, given)

    def _probe(self, part: Space, drawn: Sequence[str]) -> Job:
        composed = self.frozen.compose(self.master, [*part.fixed, *drawn, *part.seeds[:1]], keep=False)
        return self.command.describe_job(read_composed(composed, composed.hydra))


def _format_dimension(dimension: Dimension) -> str:
    return dimension.typed(dimension.values[0]) if isinstance(dimension, Choice) else dimension.typed(dimension.low)


def _check_choice(key: str, value: Any, possible: Collection[str]) -> None:
    if value not in possible:
        raise UserError(f"{key} takes {', '.join(possible)}, got {value!r}{nearest(str(value), possible)}")
