"""What a study is to find, where it is kept, and how it goes about it. Nothing here needs Optuna."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tl_runner.plurals import count_noun
from tl_runner.storage.identity import identify
from tl_runner.storage.record import RunRecord
from tl_runner.sweep.space import Dimension, Space


class Objective(NamedTuple):
    """What a search maximises. All are of the checkpoint that each run has chosen without target labels."""

    meaning: str
    evidence: str | None  # the field of `checkpoint_selection.Evidence`, used midway too; None: not known midway
    share: bool = True  # of 1, shown in percent


OBJECTIVES = {
    "auto": Objective("floor where granted labels are held out, else agreement: see these", "floor"),
    "floor": Objective(
        "accuracy on held-out granted labels, else on the source's val split: no target label but those granted",
        "floor",
    ),
    "information": Objective(
        "H(mean p) − mean H(p) of the predictions on the target's val split, of log C: no target label",
        "information",
    ),
    "bnm": Objective(
        "nuclear norm of the predictions on the target's val split, of 1: no target label", "nuclear_norm"
    ),
    "dev": Objective(
        "minus the risk by deep embedded validation, of source val rows that weigh as the target's: no target label",
        "risk",
        share=False,
    ),
    "agreement": Objective(
        "rows of the target's val split on which a trial says what the mean of all trials says: no target label", None
    ),
    "oracle": Objective(
        "accuracy on the target's test split: chosen by target labels (oracle), which nobody has in practice", None
    ),
}


class SearchOptions(NamedTuple):
    """How to search: for how many trials in all, by which sampler, of which the first `startup` are drawn blindly."""

    trials: int
    sampler: str
    startup: int
    pruner: str
    seed: int

    @property
    def words(self) -> str:
        """All but the number of trials, which may grow."""
        return f"{self.sampler}, {count_noun(self.startup, 'trial')} at random, pruner {self.pruner}, seed {self.seed}"


class StudySpec(NamedTuple):
    """A study, before anything is tried; `id` is equal where the same is searched in the same way."""

    folder: Path
    id: str
    dimensions: Sequence[Dimension]
    fixed: Sequence[str]
    seeds: Sequence[str]
    objective: str
    way: SearchOptions

    @property
    def journal(self) -> Path:
        return self.folder / "journal.log"

    @property
    def space(self) -> str:
        return "; ".join(dimension.words for dimension in self.dimensions)

    @property
    def words(self) -> str:
        """What is about to happen, in words."""
        pruned = ""
        if self.way.pruner != "none" and self.objective == "auto":
            pruned = ", pruned only where granted labels are held out"
        elif self.way.pruner != "none" and OBJECTIVES[self.objective].evidence is None:
            pruned = f", none is pruned: {self.objective} is not known before a run ends"
        return f"{self.folder}: {self.space}; {count_noun(self.way.trials, 'trial')}{pruned}"

    @property
    def description(self) -> str:
        """All of it but the folder and the number of trials, in words."""
        fixed = " ".join([*self.fixed, *self.seeds]) or "the defaults"
        return f"{self.space} with {fixed} by {self.objective} ({self.way.words})"


def specify_study(part: Space, probe: RunRecord, objective: str, way: SearchOptions, name: str | None) -> StudySpec:
    """The study of a space, of which `probe` is a run: that of the first value of each dimension.

    Without a `name` of its own the folder is called by what is searched, so that the same command finds it again.
    """
    known = [dimension.words for dimension in part.dimensions]
    seeds = part.seeds or (probe.seed,)
    own = identify({"run": probe.setting, "space": known, "seeds": seeds, "objective": objective, "way": way.words})
    searched = {dimension.key for dimension in part.dimensions}
    called = [probe.choices[group] for group in ("dataset", "method") if group not in searched]
    words = [name] if name else [*called, own]
    folder = "-".join([*words, "oracle"] if objective == "oracle" else words)
    return StudySpec(probe.outputs / "studies" / folder, own, part.dimensions, part.fixed, part.seeds, objective, way)
