"""All runs as one table: a row per setting, over its seeds."""

from collections.abc import Sequence, Set
from math import nan
from typing import Any

import pandas as pd

from tl_runner.report.comparison import Comparison, compared
from tl_runner.report.settings import Setting, settings
from tl_runner.store import RunRecord

SCORES = ("target", "last", "oracle", "source", "regret", "seconds")  # each with its deviation, as target_sd
COLUMNS = (
    *("setting", "pair", "dataset", "method", "backbone", "granted", "variant", "label"),
    *("n", "failed", "unfinished", "seeds"),
    *(column for score in SCORES for column in (score, f"{score}_sd")),
    *("baseline", "pairs", "difference", "low", "high", "p", "verdict", "wins", "ties", "losses", "closed", "best"),
    *("rival", "over_rival", "rival_seeds", "steps"),
)


def leaderboard(records: Sequence[RunRecord], by_labels: Set[str] = frozenset()) -> pd.DataFrame:
    """One row per setting, by pair of domains and label budget, best first by what was selected without target labels.

    n runs that ended well, with their `seeds`, failed (with diverged) and unfinished ones; `variant` tells it from its
    namesakes, `label` is method and variant in one; mean and sd (over seeds, n − 1) of each score, accuracies in
    [0, 1], regret = oracle − selected; and what `comparison` says of it beside its `baseline` (the setting of that, or
    "") and, of auto, its `rival` (the label of that). `steps` are those of training, a source model's among them.
    Settings of runs whose ids are among `by_labels` were tried by a search that saw the target's labels: `variant`
    says so.
    """
    searched = {record.setting for record in records if record.id in by_labels}
    rows = [_row(each, each.setting.first.setting in searched) for each in compared(settings(records))]
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype({"steps": "Int64"})
    order = ["pair", "granted", "target"]
    return table.sort_values(order, ascending=[True, True, False], na_position="last", ignore_index=True)


def _row(of: Comparison, searched: bool) -> dict[str, Any]:
    setting, statuses = of.setting, [run.status for run in of.setting.runs]
    spread = {name: pd.Series(values, dtype=float) for name, values in _scores(setting).items()}
    gain = of.gain._asdict()
    return {
        "setting": setting.first.setting,
        "pair": setting.pair,
        **{key: setting.first.choices.get(key, "?") for key in ("dataset", "method", "backbone")},
        "granted": str(setting.first.granted),
        "variant": " ".join(filter(None, ["oracle search" * searched, setting.variant])),
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
    }


def _scores(setting: Setting) -> dict[str, list[Any]]:
    """What there is of each score, a number a run."""
    selected, oracle = setting.accuracies("selected"), setting.accuracies("oracle")
    return {
        "target": [*selected.values()],
        "last": [*setting.accuracies("last").values()],
        "oracle": [*oracle.values()],
        "source": [*setting.accuracies("source").values()],
        "regret": [oracle[seed] - selected[seed] for seed in selected],
        "seconds": [run.seconds for run in setting.scored.values()],
    }
