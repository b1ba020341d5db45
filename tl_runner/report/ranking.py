"""Methods over several pairs of domains: their average ranks, and which of them differ by more than chance."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from tl_runner.report.statistics import Ranks, ranks


class Ranking(NamedTuple):
    """The ranks of the settings with the same label budget that all pairs have; `left_out` are those that some lack."""

    granted: str
    ranks: Ranks
    left_out: tuple[str, ...]


def rankings(frame: pd.DataFrame) -> Iterator[Ranking]:
    """Of a leaderboard, for each label budget of which two or more pairs have two or more settings in common."""
    rows = [row for row in frame.to_dict("records") if row["n"]]
    for granted in sorted({row["granted"] for row in rows}):
        scores: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["granted"] == granted:
                scores.setdefault(row["label"], {})[row["pair"]] = row["target"]
        pairs = {pair for of in scores.values() for pair in of}
        complete = {label: of for label, of in scores.items() if of.keys() == pairs}
        if min(len(pairs), len(complete)) >= 2:
            yield Ranking(granted, ranks(pd.DataFrame(complete)), tuple(sorted(scores.keys() - complete.keys())))
