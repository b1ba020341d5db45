"""Whether the scores of candidates ranked them as finished runs did."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from statistics import correlation, mean
from typing import Any, NamedTuple

from tl_runner.engine.screen import Screened
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.identity import identify
from tl_runner.storage.record import NEUTRAL, RunRecord

COMPARED = ("source_only", "feature_extract", "finetune")  # no adaptation, a head on frozen features, all of it trained
LEAST = 3  # candidates with runs that a rank correlation takes
APART = {"dataset", "backbone", "augment", "pretrain", "seed", *NEUTRAL}  # what a candidate says, and what says nothing


class Made(NamedTuple):
    """What the finished runs of a method came to: `accuracy` of each candidate (nan where there is none), of `runs`.

    `granted` is their label budget. Accuracies are those of the target's test split at the checkpoint that was chosen
    without its labels, in [0, 1], means over seeds; where a quantity is predicted it is R².
    """

    method: str
    granted: str
    accuracy: list[float]
    runs: int


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of a score and a method's accuracy over n candidates; nan where one is constant."""

    score: str
    method: str
    n: int
    rho: float


def match_runs(candidates: Sequence[Screened], records: Iterable[RunRecord]) -> list[Made]:
    """The accuracies of these candidates with each of the methods `COMPARED` that has finished runs of some of them.

    A run is a candidate's if dataset (and its files), backbone, augment and, where it began from a source model,
    pretrain are the candidate's, and the stage too: feature_extract's layer, else the last. Runs of a method that
    differ in anything else but the seed are not averaged: those of the setting that has most candidates count.
    """
    found: dict[str, dict[str, dict[int, list[RunRecord]]]] = {method: {} for method in COMPARED}
    for run in records:
        for index in _find_candidates(candidates, run):
            of_setting = found[run.choices["method"]].setdefault(_identify_rest(run.config), defaultdict(list))
            of_setting[index].append(run)
    return [_summarise(method, settings, len(candidates)) for method, settings in found.items() if settings]


def list_runs(candidates: Sequence[Screened], records: Iterable[RunRecord]) -> list[RunRecord]:
    """The finished runs of any of these candidates with the methods `COMPARED`, whatever else they differ in."""
    return [run for run in records if _find_candidates(candidates, run)]


def correlate_ranks(
    candidates: Sequence[Screened], made: Sequence[Made], scores: Mapping[str, int]
) -> list[RankCorrelation]:
    """For each score and method the agreement over the candidates that have both, where these are at least `LEAST`.

    `scores` maps a score's name to 1 where more is better, −1 where less is; a positive correlation is always for it.
    """
    found = []
    for name, sign in scores.items():
        for method in made:
            both = [
                (sign * candidate.scores[name], accuracy)
                for candidate, accuracy in zip(candidates, method.accuracy, strict=True)
                if name in candidate.scores and accuracy == accuracy  # noqa: PLR0124 – no nan
            ]
            if len(both) >= LEAST:
                found.append(RankCorrelation(name, method.method, len(both), spearman(*zip(*both, strict=True))))
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """The correlation of the ranks, in [−1, 1]; nan where all of one side are equal."""
    from scipy.stats import rankdata

    if len(set(x)) < 2 or len(set(y)) < 2:
        return nan
    return correlation(rankdata(x).tolist(), rankdata(y).tolist())


def _summarise(method: str, settings: Mapping[str, Mapping[int, Sequence[RunRecord]]], candidates: int) -> Made:
    """Of the setting with most candidates, then most runs."""
    chosen = max(settings.values(), key=lambda of: (len(of), sum(map(len, of.values()))))
    accuracy = [
        mean(run.headline for run in chosen[index] if run.headline is not None) if index in chosen else nan
        for index in range(candidates)
    ]
    granted = sorted({str(run.granted) for of in chosen.values() for run in of})
    return Made(method, " or ".join(granted), accuracy, sum(map(len, chosen.values())))


def _find_candidates(candidates: Sequence[Screened], run: RunRecord) -> list[int]:
    """Where those are that a run is one of: see `match_runs`."""
    if run.choices["method"] not in COMPARED or run.status != "ok" or run.headline is None:
        return []
    layer, found = run.config["method"].get("layer"), []
    for index, candidate in enumerate(candidates):
        here = candidate.record
        if here.choices["dataset"] != run.choices["dataset"] or here.choices["backbone"] != run.choices["backbone"]:
            continue
        staged = candidate.stage == layer or (candidate.last and layer is None)
        if staged and run.data.files == here.data.files and _is_same_candidate(here.config, run):
            found.append(index)
    return found


def _is_same_candidate(config: Mapping[str, Any], run: RunRecord) -> bool:
    parts = ["dataset", "backbone", "augment", *(["pretrain"] if run.training.start in ("source", "features") else [])]
    return _identify_parts(config, parts) == _identify_parts(run.config, parts)


def _identify_parts(config: Mapping[str, Any], parts: Sequence[str]) -> str:
    return identify({**{part: config.get(part) for part in parts}, "dataset": drop_locations(config.get("dataset"))})


def _identify_rest(config: Mapping[str, Any]) -> str:
    """What runs must have in common beside their candidates' parts, to be compared over these."""
    method = {key: value for key, value in config["method"].items() if key != "layer"}
    return identify({**{key: value for key, value in config.items() if key not in APART}, "method": method})
