"""A study in its folder: what was tried and what came of it, and by that what to try next. The one file of Optuna's.

The journal has all of it, and is written before anything is done, so that an interrupted study resumes,
with the trials that it would have made otherwise: what trial k draws depends on k and on the trials that ended before.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from tl_runner.errors import UserError
from tl_runner.storage.lock import hold_lock
from tl_runner.sweep.agreed import compute_agreements
from tl_runner.sweep.space import Choice, Dimension
from tl_runner.sweep.study_spec import StudySpec

NAME = "search"  # of the one study in a journal, whatever its folder is called
STATES = {"ok": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda startup, seed: TPESampler(n_startup_trials=startup, seed=seed),
    "random": lambda startup, seed: RandomSampler(seed),
}
PRUNERS: Mapping[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "none": lambda startup: optuna.pruners.NopPruner(),
    "median": lambda startup: optuna.pruners.MedianPruner(n_startup_trials=startup),
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The study in a folder, which is made if need be.

    Several processes may be at one study: its budget is shared, and none makes a trial of a number twice. Without
    `prunes` none is pruned. Raises `UserError` where the folder has a study of something else.
    """

    def __init__(self, sought: StudySpec, prunes: bool = True):
        sought.folder.mkdir(parents=True, exist_ok=True)
        self.sought, self.way, self.lock = sought, sought.way, sought.folder / "study"
        journals = JournalFileSymlinkLock(str(sought.journal))
        _repair_journal(sought.journal, journals)
        with hold_lock(self.lock):
            self.optuna_study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(sought.journal), journals)),
                study_name=NAME,
                direction="maximize",
                pruner=PRUNERS[self.way.pruner if prunes else "none"](self.way.startup),
                load_if_exists=True,
            )
            before = self.optuna_study.user_attrs
            if "id" not in before:
                self.optuna_study.set_user_attr("sought", sought.description)
                self.optuna_study.set_user_attr("id", sought.id)
            elif before["id"] != sought.id:
                raise UserError(
                    f"{sought.folder} has another study: {before['sought']}. This is: {sought.description}. "
                    "Choose another hydra.sweeper.study.name"
                )
            self.unfinished = [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]
        self.given_trials = len(self.trials()) - len(
            self.unfinished
        )  # trials that have ended, or that this process makes

    @property
    def remaining_trials(self) -> int:
        """How many trials are to come."""
        return max(self.way.trials - self.given_trials, len(self.unfinished))

    @property
    def words(self) -> str:
        """What is about to happen, in words."""
        words = self.sought.words
        if self.given_trials:
            words += f", {self.given_trials} of them already complete"
        if self.unfinished:
            words += f", {len(self.unfinished)} started before"
        return words

    def trials(self) -> list[FrozenTrial]:
        return self.optuna_study.get_trials(deepcopy=False)

    def ask(self) -> tuple[Trial, list[str]] | None:
        """A trial and what to type for it; first those that were begun and are not over. None: all have been given."""
        with hold_lock(self.lock):
            trials = self.trials()
            begun = [number for number in self.unfinished if trials[number].state == TrialState.RUNNING]
            self.given_trials = len(trials) - len(begun)
            if begun:
                self.optuna_study.sampler = self._sampler(begun[0])
                trial = Trial(self.optuna_study, trials[begun[0]]._trial_id)  # Optuna has no other way back to a trial
            elif len(trials) < self.way.trials:
                self.optuna_study.sampler = self._sampler(len(trials))
                trial = self.optuna_study.ask()
            else:
                return None
            self.unfinished = begun[1:]
            self.given_trials += 1
            return trial, [dimension.typed(_draw_value(trial, dimension)) for dimension in self.sought.dimensions]

    def report(self, trial: Trial, points: Sequence[tuple[int, float]]) -> bool:
        """Put points of its curve, as step and value, on record, up to the one at which the trial is to be pruned.

        Whether it is.
        """
        known = self.trials()[trial.number].intermediate_values if points else {}
        for step, value in points:
            if step not in known:
                trial.report(value, step)
                if trial.should_prune():
                    return True
        return False

    def end(self, trial: Trial, state: str, value: float | None = None, **facts: Any) -> None:
        """Put on record what became of a trial; nothing changes where another process has done so."""
        with hold_lock(self.lock):
            if self.trials()[trial.number].state == TrialState.RUNNING:
                for name, fact in facts.items():
                    trial.set_user_attr(name, fact)
                self.optuna_study.tell(trial, value, STATES[state])

    def best(self) -> FrozenTrial | None:
        """Of the trials that came to their end the one with the highest value, of equals the most informative."""
        values = self.values()
        ended = [trial for trial in self.trials() if trial.number in values]
        return max(ended, key=lambda trial: (values[trial.number], trial.user_attrs["information"]), default=None)

    def values(self) -> dict[int, float]:
        """The value of each trial that came to its end, by its number.

        Agreement is that among all of these trials, whichever ended first. The sampler has to go by what a trial's was
        when it ended, among those that had ended before.
        """
        ended = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if self.by == "agreement":
            found = compute_agreements([trial.user_attrs["runs"] for trial in ended])
        else:
            found = [trial.value or 0.0 for trial in ended]
        return {trial.number: value for trial, value in zip(ended, found, strict=True)}

    @property
    def by(self) -> str:
        """The objective that its trials were judged by: `auto` is one of two."""
        return next(
            (trial.user_attrs["by"] for trial in self.trials() if "by" in trial.user_attrs), self.sought.objective
        )

    def judges_by(self, objective: str) -> None:
        """Refuse to compare trials that are judged by different objectives."""
        if self.by not in ("auto", objective):
            raise UserError(
                f"one trial is judged by {self.by}, another by {objective}: with granted=auto only methods that need"
                " granted labels have some. Say granted=… or objective=…, or hydra.sweeper.study.per=method for a study"
                " of each method"
            )

    def agreement(self, runs: Sequence[str]) -> float:
        """Of a trial that has just ended, with itself and those that ended before."""
        before = [trial.user_attrs["runs"] for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return compute_agreements([*before, runs])[-1]

    def typed(self, trial: FrozenTrial) -> list[str]:
        return [dimension.typed(trial.params[_name(dimension)]) for dimension in self.sought.dimensions]

    def _sampler(self, number: int) -> BaseSampler:
        """The sampler of a trial, with a seed of its own: a resumed study draws what it would have drawn."""
        seed = int(np.random.SeedSequence((self.way.seed, number)).generate_state(1)[0])
        return SAMPLERS[self.way.sampler](self.way.startup, seed)


def state(trial: FrozenTrial) -> str:
    """A name of STATES, or unfinished."""
    return next((name for name, known in STATES.items() if known == trial.state), "unfinished")


def _draw_value(trial: Trial, dimension: Dimension) -> Any:
    name = _name(dimension)
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, dimension.values)
    if dimension.whole:
        return trial.suggest_int(
            name, int(dimension.low), int(dimension.high), step=int(dimension.step or 1), log=dimension.log
        )
    return trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _name(dimension: Dimension) -> str:
    return dimension.key.lstrip("+")


def _repair_journal(journal: Path, lock: JournalFileSymlinkLock) -> None:
    """Take away half a line at the end of a journal: its process was killed, and what comes after could not be read."""
    lock.acquire()
    try:
        content = journal.read_bytes() if journal.exists() else b""
        if content and not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)
    finally:
        lock.release()
