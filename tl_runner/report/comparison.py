"""Each setting beside its baseline, beside training with all labels, and beside the best of its kind."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any, NamedTuple

from tl_runner.report.settings import Setting
from tl_runner.report.statistics import LEVEL, Paired, holm, paired

ALIKE = ("train", "optimizer", "schedule", "augment", "pretrain", "select")  # groups that a baseline had better share
WORSE = ("negative transfer", "maybe worse")
UNTESTED = Paired(0, nan, nan, nan, nan, 0, 0, 0)


@dataclass(frozen=True)
class Comparison:
    """A setting and what it is compared with. `gain` is over the baseline, its p corrected over all tested with it.

    `verdict`: better, negative transfer; maybe better, maybe worse, which are so before that correction alone; no
    difference shown; "" for a baseline and where too few seeds are shared.
    `best`: not shown to be worse than the best with the same labels on the same data, nor (maybe) worse than the
    baseline. `rival`, of `auto` alone: the best other setting with the same labels, on the same seeds. `closed`: which
    share it closes of the gap from the baseline to training on all target labels; nan where there is no such gap.
    """

    setting: Setting
    baseline: Setting | None
    gain: Paired
    verdict: str
    best: bool
    rival: "Rival | None"
    closed: float


class Rival(NamedTuple):
    """What one might have run instead: its label, what the setting gains over it, and on how many seeds of both."""

    label: str
    gain: float
    seeds: int


def compared(settings: Sequence[Setting]) -> list[Comparison]:
    """Of all settings, in their order."""
    cells: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        cells[setting.cell].append(setting)
    bases = {id(s): _reference(s, cells[s.cell], s.first.baseline) for s in settings}
    uppers = {id(s): _reference(s, cells[s.cell], "target_only", granted="all") for s in settings}
    gains = {id(s): _gain(s, bases[id(s)]) for s in settings}
    families: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting in settings:
        families[setting.cell, str(setting.first.granted)].append(setting)
    best: set[int] = set()
    for family in families.values():
        corrected = holm([gains[id(s)].p for s in family])
        gains |= {id(s): gains[id(s)]._replace(p=p) for s, p in zip(family, corrected, strict=True)}
        best |= _best(family)
    verdicts = {id(s): _verdict(gains[id(s)]) for s in settings}
    return [
        Comparison(
            setting=s,
            baseline=bases[id(s)],
            gain=gains[id(s)],
            verdict=verdicts[id(s)],
            best=id(s) in best and verdicts[id(s)] not in WORSE,
            rival=_rival(s, families[s.cell, str(s.first.granted)]) if s.first.choices["method"] == "auto" else None,
            closed=_closed(s, bases[id(s)], uppers[id(s)]),
        )
        for s in settings
    ]


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


def _gain(setting: Setting, base: Setting | None) -> Paired:
    if base is None:
        return UNTESTED
    return paired(setting.accuracies("selected"), base.accuracies("selected"), _resolution(setting))


def _resolution(setting: Setting) -> float:
    """What one row of the target's test split is worth."""
    rows: Mapping[str, Any] = setting.first.data.get("rows") or {}
    return 1 / rows["target"][2] if rows.get("target") else 0.0


def _best(family: Sequence[Setting]) -> set[int]:
    """The highest mean of several seeds, and what is not shown to be worse: paired over seeds, corrected."""
    means = {id(s): fmean(s.accuracies("selected").values()) for s in family if len(s.scored) > 1}
    top = max((s for s in family if id(s) in means), key=lambda s: means[id(s)], default=None)
    if top is None:
        return set()
    others = [s for s in family if s is not top and id(s) in means]
    against = [_gain(s, top) for s in others]
    corrected = holm([each.p for each in against])
    equal = {id(s) for s, p in zip(others, corrected, strict=True) if p >= LEVEL}
    return {id(top), *equal}


def _rival(setting: Setting, family: Sequence[Setting]) -> Rival | None:
    """The other setting that is best on the seeds of both; of those that share the most seeds."""
    mine, found = setting.accuracies("selected"), []
    for other in family:
        theirs = other.accuracies("selected")
        if (seeds := mine.keys() & theirs.keys()) and other.first.choices["method"] != setting.first.choices["method"]:
            found.append(Rival(other.label, fmean(mine[seed] - theirs[seed] for seed in seeds), len(seeds)))
    return min(found, key=lambda rival: (-rival.seeds, rival.gain), default=None)


def _verdict(gain: Paired) -> str:
    if isnan(gain.p):
        return ""
    if gain.p < LEVEL:
        return "better" if gain.difference > 0 else "negative transfer"
    return "maybe better" if gain.low > 0 else "maybe worse" if gain.high < 0 else "no difference shown"


def _closed(setting: Setting, base: Setting | None, upper: Setting | None) -> float:
    if base is None or upper is None:
        return nan
    scores = [each.accuracies("selected") for each in (setting, base, upper)]
    seeds = set.intersection(*map(set, scores))
    if not seeds:
        return nan
    mine, low, high = (fmean(of[seed] for seed in seeds) for of in scores)
    return (mine - low) / (high - low) if high > low else nan
