"""Several domains of one dataset as sources and targets: a table of all pairs, or of each domain held out."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from tl_runner.plurals import count_noun
from tl_runner.report.cells import NAMES, percent
from tl_runner.report.settings import Setting, group_settings
from tl_runner.report.statistics import ScoreName
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.record import RunRecord

PAIRED = ("source", "target")  # the options of a dataset that name a domain
LEAST = 2  # domains, as sources or as targets, that make a table


class DomainMatrix(NamedTuple):
    """A table: the names of its columns, the first of which heads the rows, and its rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str


def build_matrices(records: Sequence[RunRecord], score: ScoreName = "headline") -> list[DomainMatrix]:
    """A table for each setting that has runs between several domains, a row a source and a column a target.

    Of domains that were held out, each from a pool of the others, there is one table of all settings, a row each.
    """
    families: dict[str, list[Setting]] = defaultdict(list)
    for setting in group_settings(records):
        if setting.first.data.domains.get("source"):
            families[_describe_family(setting)].append(setting)
    found: list[DomainMatrix] = []
    for family in families.values():
        found += _build_family(family, score)
    return found


def _build_family(family: Sequence[Setting], score: ScoreName) -> Iterator[DomainMatrix]:
    """The tables of settings on the domains of one dataset with the same labels granted."""
    by_method: dict[str, list[Setting]] = defaultdict(list)
    for setting in family:
        by_method[setting.configuration(with_backbone=True)].append(setting)
    held_out: dict[frozenset[str], list[list[Setting]]] = defaultdict(list)  # by all domains, sources and target
    for settings in by_method.values():
        alone = [each for each in settings if not each.first.data.members]
        if _count(alone, "source") >= LEAST and _count(alone, "target") >= LEAST:
            yield _build_square(alone, score)
        pooled: dict[frozenset[str], list[Setting]] = defaultdict(list)
        for each in settings:
            if members := each.first.data.members:
                pooled[frozenset([*members, _name(each, "target")])].append(each)
        for domains, of_them in pooled.items():
            if _count(of_them, "target") >= LEAST:
                held_out[domains].append(of_them)
    for methods in held_out.values():
        yield _build_held_out(methods, score)


def _build_square(settings: Sequence[Setting], score: ScoreName) -> DomainMatrix:
    """All pairs of one method."""
    sources, targets = (_list_domains(settings, side) for side in PAIRED)
    targets = [name for name in sources if name in targets] + [name for name in targets if name not in sources]
    cells = {(_name(each, "source"), _name(each, "target")): each for each in settings}
    rows = [
        [source, *_write([cells.get((source, target)) for target in targets], score, targets.count(source))]
        for source in sources
    ]
    title = f"{_title(settings[0])}: {_about(settings, score)}"
    note = "A row is a source, a column a target."
    return DomainMatrix(title, ["source \\ target", *targets, "mean"], rows, f"{note} {_tally(settings)}")


def _build_held_out(methods: Sequence[Sequence[Setting]], score: ScoreName) -> DomainMatrix:
    """Each domain as the target of all others: a row a method."""
    every = [setting for settings in methods for setting in settings]
    targets = _list_domains(every, "target")
    rows = []
    for settings in methods:
        of_target = {_name(each, "target"): each for each in settings}
        rows.append([settings[0].label, *_write([of_target.get(target) for target in targets], score, 0)])
    title = f"{_describe_task(every[0])}, one domain held out: {_about(every, score)}"
    note = "A column is a target; its source is the other domains, pooled."
    return DomainMatrix(title, ["method", *targets, "mean"], rows, f"{note} {_tally(every)}")


def _write(settings: Sequence[Setting | None], score: ScoreName, empty: int) -> list[str]:
    """The cells of a row, mean ± sd over seeds in percent, and their mean if no more than these many are empty."""
    cells, means = list[str](), list[float]()
    for setting in settings:
        values = [*setting.values("selected", score).values()] if setting else []
        if values:
            means.append(fmean(values))
        spread = f" ± {percent(stdev(values))}" if len(values) > 1 else ""
        cells.append(f"{percent(fmean(values))}{spread}" if values else "–" if setting is None else "failed")
    return [*cells, percent(fmean(means)) if means and len(means) + empty >= len(cells) else "–"]


def _describe_family(setting: Setting) -> str:
    """What the runs of one table have in common: all of a dataset but its domains and files."""
    node = drop_locations(setting.first.config.get("dataset")) or {}
    rest = {key: value for key, value in node.items() if key not in PAIRED}
    return json.dumps([setting.first.choices["dataset"], rest, str(setting.first.granted)], sort_keys=True, default=str)


def _name(setting: Setting, side: str) -> str:
    return str(setting.first.data.domains.get(side))


def _list_domains(settings: Iterable[Setting], side: str) -> list[str]:
    return [*dict.fromkeys(_name(each, side) for each in settings)]


def _count(settings: Sequence[Setting], side: str) -> int:
    return len(_list_domains(settings, side))


def _title(setting: Setting) -> str:
    return f"{setting.first.choices['dataset']} {setting.label}{_describe_granted(setting)}"


def _describe_task(setting: Setting) -> str:
    return f"{setting.first.choices['dataset']}{_describe_granted(setting)}"


def _describe_granted(setting: Setting) -> str:
    granted = str(setting.first.granted)
    return "" if granted == "0" else f" granted={granted}"


def _about(settings: Sequence[Setting], score: ScoreName) -> str:
    counts = {len(each.scored) for each in settings}
    seeds = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else count_noun(max(counts), "seed")
    name = NAMES[settings[0].metric(score)]
    return f"{name[0].lower()}{name[1:]} on the target, {seeds}"


def _tally(settings: Sequence[Setting]) -> str:
    """How many runs there are, and how many of them failed."""
    runs = [run for each in settings for run in each.runs]
    failed = sum(run.status in ("failed", "diverged") for run in runs)
    return f"{count_noun(len(runs), 'run')}, {failed} failed."
