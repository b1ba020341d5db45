"""All runs as one table: a row per setting, over its seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from math import nan
from typing import Any

import pandas as pd

from tl_runner.report.agreement import compare_seeds, measure_agreement
from tl_runner.report.comparison import Comparison, compared
from tl_runner.report.settings import Setting, group_settings, order_budget
from tl_runner.report.statistics import ScoreName
from tl_runner.storage.record import RunRecord

# Each with its deviation, as target_sd.
SCORES = ("target", "estimated", "agreement", "last", "oracle", "source", "majority", "regret", "seconds")
COLUMNS = (
    "setting", "pair", "dataset", "method", "backbone", "granted", "variant", "label",
    "n", "failed", "unfinished", "seeds",
    *(column for score in SCORES for column in (score, f"{score}_sd")),
    "baseline", "pairs", "difference", "low", "high", "p", "verdict", "wins", "ties", "losses", "closed", "best",
    "rival", "over_rival", "rival_seeds", "steps",
    "score", "seed_kind", "test_rows", "pool_rows", "by_rows", "needed", "below_majority",
    "seeds_agree",
)  # fmt: skip


def build_leaderboard(
    records: Sequence[RunRecord], by_labels: Set[str] = frozenset(), score: ScoreName = "headline"
) -> pd.DataFrame:
    """One row per setting, by pair of domains and label budget, best first by what was selected without target labels.

    Where the target has no labels, they are sorted by `agreement`, or by `estimated` accuracy (see `sections.Scores`).

    n runs that ended well, with their `seeds`, failed (with diverged) and unfinished ones; `variant` tells it from
    its namesakes, `label` is method and variant in one; mean and sd (over seeds, n − 1) of each checkpoint's
    `score`, of which 1 is perfect; regret = oracle − selected; `majority` is what saying the most frequent class of the
    target's test split, or the mean of a quantity, scores, `below_majority` how many runs score less. What `comparison`
    says of it beside its `baseline` (the setting of that, or "") and, of auto, its `rival` (the label of that);
    `seed_kind`, with its rows, and `by_rows` say by which test. `seeds_agree`: see `agreement.compare_seeds`; where no
    label is known. `steps` are those of training, a source model's among them. Settings of runs whose ids are among
    `by_labels` were tried by a search that saw the target's labels: `variant` says so.
    """
    settings = group_settings(records)
    agreements = _measure_agreements(settings)
    searched = {record.setting for record in records if record.id in by_labels}
    rows = [
        _row(each, each.setting.first.setting in searched, score, agreements.get(id(each.setting), {}))
        for each in compared(settings, score)
    ]
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype({"steps": "Int64"})
    table["merit"] = table["target"].fillna(table["agreement"]).fillna(table["estimated"])
    table["budget"] = table["granted"].map(order_budget)
    order = ["pair", "budget", "merit"]
    table = table.sort_values(order, ascending=[True, True, False], na_position="last", ignore_index=True)
    return table.drop(columns=["budget", "merit"])


def _measure_agreements(settings: Sequence[Setting]) -> dict[int, dict[Any, float]]:
    """By setting and seed, of those that no label scored, among the others on the same data with the same labels."""
    families: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting in settings:
        if setting.unlabelled:
            families[setting.cell, str(setting.first.granted)].append(setting)
    found = {}
    for family in families.values():
        found |= {id(each): values for each, values in zip(family, measure_agreement(family), strict=True)}
    return found


def _row(of: Comparison, searched: bool, score: ScoreName, agreement: Mapping[Any, float]) -> dict[str, Any]:
    setting, statuses = of.setting, [run.status for run in of.setting.runs]
    spread = {name: pd.Series(values, dtype=float) for name, values in _scores(setting, score, agreement).items()}
    gain = of.gain._asdict()
    selected, majority = setting.values("selected", score), setting.values("majority", score)
    return {
        "setting": setting.first.setting,
        "pair": setting.pair,
        **{key: setting.first.choices.get(key, "?") for key in ("dataset", "method", "backbone")},
        "granted": str(setting.first.granted),
        "variant": " ".join(filter(None, ["oracle search" if searched else "", setting.variant])),
        "label": setting.label,
        "n": len(setting.scored),
        "failed": sum(status in ("failed", "diverged") for status in statuses),
        "unfinished": statuses.count("running"),
        "seeds": " ".join(map(str, setting.scored)),
        **{name: values.mean() for name, values in spread.items()},
        **{f"{name}_sd": values.std(ddof=1) for name, values in spread.items()},
        "baseline": of.baseline.first.setting if of.baseline else "",
        **gain,
        "verdict": of.verdict,
        "closed": of.closed,
        "best": of.best,
        "rival": of.rival.label if of.rival else "",
        "over_rival": of.rival.gain if of.rival else nan,
        "rival_seeds": of.rival.seeds if of.rival else 0,
        "steps": setting.steps,
        "score": setting.metric(score),
        "seed_kind": of.seeds.kind if setting.scored else "",
        "test_rows": of.seeds.test,
        "pool_rows": of.seeds.pool,
        "by_rows": of.by_rows,
        "needed": of.needed,
        "below_majority": sum(selected[seed] < majority[seed] for seed in selected.keys() & majority.keys()),
        "seeds_agree": compare_seeds(setting) if setting.unlabelled else nan,
    }


def _scores(setting: Setting, score: ScoreName, agreement: Mapping[Any, float]) -> dict[str, list[Any]]:
    """What there is of each checkpoint's score, a number a run."""
    found = {name: setting.values(name, score) for name in ("selected", "last", "oracle", "source", "majority")}
    selected, oracle = found.pop("selected"), found["oracle"]
    return {
        "target": [*selected.values()],
        "estimated": [*setting.estimates.values()],
        "agreement": [*agreement.values()],
        **{name: [*values.values()] for name, values in found.items()},
        "regret": [oracle[seed] - selected[seed] for seed in selected if seed in oracle],
        "seconds": [run.seconds for run in setting.scored.values()],
    }
