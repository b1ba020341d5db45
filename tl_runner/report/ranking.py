"""Methods over several pairs of domains: their average ranks, and which of them differ by more than chance."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from tl_runner.report.settings import Setting, distinguish_labels, group_settings
from tl_runner.report.statistics import Ranks, ScoreName, ranks
from tl_runner.storage.record import RunRecord

LEAST = 5  # pairs: with fewer, ranks hardly ever differ by more than chance, whatever the methods do


class Ranking(NamedTuple):
    """The ranks of the configurations with the same label budget that all pairs have; `left_out` are those that some
    lack. `ranks` is None below `LEAST` pairs."""

    granted: str
    pairs: int
    ranks: Ranks | None
    left_out: tuple[str, ...]


def rankings(records: Sequence[RunRecord], score: ScoreName = "headline") -> Iterator[Ranking]:
    """For each label budget of which two or more pairs have two or more configurations in common.

    A configuration is the same on two pairs if all of it is but the dataset; the network too, unless every pair has a
    single one, which then belongs to the pair (images and tables take different ones). On each pair a score is the mean
    over the seeds that all compared configurations have there.
    """
    scored = [setting for setting in group_settings(records) if setting.scored]
    for granted in sorted({str(setting.first.granted) for setting in scored}):
        yield from _ranking(granted, [each for each in scored if str(each.first.granted) == granted], score)


def _ranking(granted: str, scored: Sequence[Setting], score: ScoreName) -> Iterator[Ranking]:
    networks: dict[str, set[str]] = defaultdict(set)  # a network with other options is another network
    for setting in scored:
        networks[setting.pair].add(json.dumps(setting.first.config.get("backbone"), sort_keys=True, default=str))
    single = all(len(found) == 1 for found in networks.values())
    by_key: dict[str, dict[str, Setting]] = defaultdict(dict)
    for setting in scored:
        by_key[setting.configuration(with_backbone=not single)][setting.pair] = setting
    complete = {key: of for key, of in by_key.items() if of.keys() == networks.keys()}
    if min(len(networks), len(complete)) < 2:
        return
    labels = _labels({key: next(iter(of.values())) for key, of in by_key.items()}, single)
    table = {
        labels[key]: _means({pair: of[pair] for pair in networks}, complete, score) for key, of in complete.items()
    }
    frame = pd.DataFrame(table).dropna()  # a pair on which no seed is shared
    if len(frame) < 2:
        return
    found = ranks(frame) if len(frame) >= LEAST else None
    yield Ranking(granted, len(frame), found, tuple(sorted(labels[key] for key in by_key.keys() - complete.keys())))


def _means(
    of: dict[str, Setting], complete: dict[str, dict[str, Setting]], score: ScoreName
) -> dict[str, float | None]:
    """By pair, over the seeds that all complete configurations have there; None where they share none."""
    means = {}
    for pair, setting in of.items():
        shared = set[Any].intersection(*({*other[pair].values("selected", score)} for other in complete.values()))
        values = setting.values("selected", score)
        means[pair] = fmean(values[seed] for seed in sorted(shared, key=str)) if shared else None
    return means


def _labels(firsts: dict[str, Setting], single: bool) -> dict[str, str]:
    """A name for each configuration: its method, and as much more as tells it from others of that method."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, setting in firsts.items():
        choices = setting.first.choices
        groups[choices["method"], "" if single else choices["backbone"]].append(key)
    several = len({network for _, network in groups}) > 1
    of_pair = {"dataset", "backbone"} if single else {"dataset"}
    return {
        key: " ".join(filter(None, [method, network * several, said]))
        for (method, network), keys in groups.items()
        for key, said in zip(keys, distinguish_labels([firsts[key].first for key in keys], of_pair), strict=True)
    }
