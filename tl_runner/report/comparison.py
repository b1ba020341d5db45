"""Each setting beside its baseline, beside training with all labels, and beside the best of its kind."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from tl_runner.report.settings import Setting
from tl_runner.report.statistics import (
    LEAST,
    LEVEL,
    Paired,
    ScoreName,
    Seeds,
    compare_paired,
    holm,
    joined,
    rows_variance,
    seeds_needed,
)

ALIKE = ("train", "optimizer", "schedule", "augment", "pretrain", "select")  # groups that a baseline had better share
WORSE = ("negative transfer", "maybe worse")
OTHER_LABELS = "other labels"
UNTESTED = Paired(0, nan, nan, nan, nan, 0, 0, 0)


@dataclass(frozen=True)
class Comparison:
    """A setting and what it is compared with. `gain` is over the baseline, its p corrected over the whole report.

    `verdict`: better, negative transfer; maybe better, maybe worse, which are so before that correction alone; no
    difference shown; other labels, where there is a baseline with another label budget alone, which is not tested; ""
    for a baseline and where nothing can be tested.
    `needed`: of a maybe, how many seeds would make a finding of a difference and spread like these; nan elsewhere,
    inf where no number would.
    `seeds` is how they differ, `by_rows` whether the chance of the test rows is known from predictions (None where it
    is not asked).
    `best`: not shown to be worse than the best with the same labels on the same data, nor (maybe) worse than the
    baseline. `rival`, of `auto` alone: the best other setting with the same labels, on the same seeds. `closed`: which
    share it closes of the gap from the baseline to training on all target labels; nan where there is no such gap.
    """

    setting: Setting
    baseline: Setting | None
    gain: Paired
    verdict: str
    needed: float
    seeds: Seeds
    by_rows: bool | None
    best: bool
    rival: "Rival | None"
    closed: float


class Rival(NamedTuple):
    """What one might have run instead: its label, what the setting gains over it, and on how many seeds of both."""

    label: str
    gain: float
    seeds: int


def compared(settings: Sequence[Setting], score: ScoreName = "headline") -> list[Comparison]:
    """Of all settings, in their order, by this score. Holm's families are all of them, whatever their data."""
    cells: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        cells[setting.cell].append(setting)
    bases = {id(s): _reference(s, cells[s.cell], s.first.baseline) for s in settings}
    uppers = {id(s): _reference(s, cells[s.cell], "target_only", granted="all") for s in settings}
    gains = {id(s): _over_baseline(s, bases[id(s)], score) for s in settings}
    families: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting in settings:
        families[setting.cell, str(setting.first.granted)].append(setting)
    tests = sum(not isnan(gain.p) for gain in gains.values())
    corrected = holm([gains[id(s)].p for s in settings])
    gains |= {id(s): gains[id(s)]._replace(p=p) for s, p in zip(settings, corrected, strict=True)}
    best = _best(families.values(), score)
    verdicts = {id(s): _verdict(s, bases[id(s)], gains[id(s)]) for s in settings}
    return [
        Comparison(
            setting=s,
            baseline=bases[id(s)],
            gain=gains[id(s)],
            verdict=verdicts[id(s)],
            needed=_needed(gains[id(s)], tests) if verdicts[id(s)].startswith("maybe") else nan,
            seeds=_joint_seeds(s, bases[id(s)]),
            by_rows=_by_rows(s, bases[id(s)]),
            best=id(s) in best and verdicts[id(s)] not in WORSE,
            rival=_rival(s, families[s.cell, str(s.first.granted)], score)
            if s.first.choices["method"] == "auto"
            else None,
            closed=_closed(s, bases[id(s)], uppers[id(s)], score),
        )
        for s in settings
    ]


def gain(setting: Setting, base: Setting, score: ScoreName = "headline") -> Paired:
    """What a setting gains over another on the same data, by the test that fits how their seeds differ."""
    mine, theirs = setting.values("selected", score), base.values("selected", score)
    seeds = _joint_seeds(setting, base)
    return compare_paired(mine, theirs, seeds, _of_rows(setting, base, score, seeds.test))


def _reference(setting: Setting, peers: Sequence[Setting], method: str, granted: str | None = None) -> Setting | None:
    """The setting of this method on the same data and backbone that is most like it, in its label budget first."""

    def likeness(other: Setting) -> tuple[bool, int, int]:
        configs = setting.first.config, other.first.config
        same = sum(configs[0].get(group) == configs[1].get(group) for group in ALIKE)
        return str(other.first.granted) == str(setting.first.granted), same, len(other.scored)

    def suits(other: Setting) -> bool:
        return (
            other.first.choices["method"] == method
            and bool(other.scored)
            and other.first.config.get("backbone") == setting.first.config.get("backbone")
            and (granted is None or str(other.first.granted) == granted)
        )

    if not setting.scored or setting.first.choices["method"] == method:
        return None
    return max(filter(suits, peers), key=likeness, default=None)


def _over_baseline(setting: Setting, base: Setting | None, score: ScoreName) -> Paired:
    """Without a test where only one of both saw labels, or other numbers of them."""
    if base is None:
        return UNTESTED
    found = gain(setting, base, score)
    return found if _same_labels(setting, base) else found._replace(low=nan, high=nan, p=nan, spread=None)


def _joint_seeds(setting: Setting, base: Setting | None) -> Seeds:
    return joined([setting.seeds, base.seeds]) if base else setting.seeds


def _same_labels(setting: Setting, base: Setting) -> bool:
    return str(setting.first.granted) == str(base.first.granted)


def _of_rows(setting: Setting, base: Setting, score: ScoreName, test: int) -> Callable[[list[Any]], float]:
    """What gives the variance of the mean gain that comes from the test rows, of these seeds.

    From predictions, where both kept them on the same rows at all seeds. Else as if the two erred independently of each
    other, which they never do as far as they err on the same hard rows: wider. That needs accuracies; of other scores
    nothing is known then (nan).
    """

    metric = setting.metric(score)

    def variance(seeds: list[Any]) -> float:
        if metric == "spearman":
            return nan
        if _have_predictions(setting, base, seeds):
            mine, theirs = ([each.outcomes[seed] for seed in seeds] for each in (setting, base))
            both = zip(mine, theirs, strict=True)
            return rows_variance(metric, [(a.labels, a.predicted, b.predicted) for a, b in both])
        if metric != "accuracy":
            return nan
        accuracies = (setting.values("selected"), base.values("selected"))
        return fmean(sum(of[seed] * (1 - of[seed]) for of in accuracies) / test for seed in seeds)

    return variance


def _have_predictions(setting: Setting, base: Setting, seeds: Iterable[Any]) -> bool:
    """Whether both kept predictions on the same test rows, at each of these seeds."""
    return all(
        seed in setting.outcomes
        and seed in base.outcomes
        and np.array_equal(setting.outcomes[seed].labels, base.outcomes[seed].labels)
        for seed in seeds
    )


def _by_rows(setting: Setting, base: Setting | None) -> bool | None:
    shared = setting.scored.keys() & base.scored.keys() if base else set()
    if base is None or len(shared) < LEAST or not _joint_seeds(setting, base).shares_rows:
        return None
    return _have_predictions(setting, base, shared)


def _best(families: Iterable[Sequence[Setting]], score: ScoreName) -> set[int]:
    """Of each family the highest mean, and what is not shown to be worse: corrected over all families."""
    found, others = set[int](), list[tuple[int, float]]()
    for family in families:
        values = {id(s): s.values("selected", score) for s in family}
        means = {key: fmean(of.values()) for key, of in values.items() if len(of) >= LEAST}
        top = max((s for s in family if id(s) in means), key=lambda s: means[id(s)], default=None)
        if top is not None:
            found.add(id(top))
            others += [(id(s), gain(s, top, score).p) for s in family if s is not top and id(s) in means]
    corrected = holm([p for _, p in others])
    return found | {key for (key, _), p in zip(others, corrected, strict=True) if not p < LEVEL}


def _rival(setting: Setting, family: Sequence[Setting], score: ScoreName) -> Rival | None:
    """The other setting that is best on the seeds of both; of those that share the most seeds."""
    mine, found = setting.values("selected", score), []
    for other in family:
        theirs = other.values("selected", score)
        if (seeds := mine.keys() & theirs.keys()) and other.first.choices["method"] != setting.first.choices["method"]:
            found.append(Rival(other.label, fmean(mine[seed] - theirs[seed] for seed in seeds), len(seeds)))
    return min(found, key=lambda rival: (-rival.seeds, rival.gain), default=None)


def _verdict(setting: Setting, base: Setting | None, gain: Paired) -> str:
    if base is not None and not _same_labels(setting, base):
        return OTHER_LABELS
    if isnan(gain.p):
        return ""
    if gain.p < LEVEL:
        return "better" if gain.difference > 0 else "negative transfer"
    return "maybe better" if gain.low > 0 else "maybe worse" if gain.high < 0 else "no difference shown"


def _needed(gain: Paired, tests: int) -> float:
    """Seeds for a finding that stands among so many tests, whatever the others show (Bonferroni's level)."""
    return float(seeds_needed(gain, LEVEL / tests) or inf)


def _closed(setting: Setting, base: Setting | None, upper: Setting | None, score: ScoreName) -> float:
    if base is None or upper is None:
        return nan
    scores = [each.values("selected", score) for each in (setting, base, upper)]
    seeds = set.intersection(*map(set, scores))
    if not seeds:
        return nan
    mine, low, high = (fmean(of[seed] for seed in seeds) for of in scores)
    return (mine - low) / (high - low) if high > low else nan
