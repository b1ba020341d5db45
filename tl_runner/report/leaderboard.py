"""All runs as one table: a row per setting, over its seeds."""

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from tl_runner.store import NEUTRAL, RunRecord

NAMES = ["dataset", "method", "backbone", "granted"]
SCORES = ["source", "target", "last", "oracle", "seconds"]


def leaderboard(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per setting: n runs that ended well, failed (with diverged) and unfinished ones, `variant` for what
    tells it from others of its name, and mean and sd (over seeds, n − 1) of each score; accuracies in [0, 1].

    Sorted by dataset, then by the target accuracy of the checkpoint selected without target labels.
    """
    if not records:
        return pd.DataFrame(columns=["setting", *NAMES, "variant", "n", "failed", "unfinished"])
    variants = _variants(records)
    rows = pd.DataFrame([_row(record) for record in records])
    groups = rows.sort_values("status", key=lambda status: status != "ok").groupby("setting", sort=False)
    names = groups[NAMES].first()  # of a run that ended well, where there is one: it knows what granted=auto was
    counts = groups["status"].agg(
        n=lambda status: (status == "ok").sum(),
        failed=lambda status: status.isin(["failed", "diverged"]).sum(),
        unfinished=lambda status: (status == "running").sum(),
    )
    table = pd.concat([names, counts], axis=1)
    for name in SCORES:
        table[name], table[f"{name}_sd"] = groups[name].mean(), groups[name].std(ddof=1)
    table.insert(len(NAMES), "variant", [variants.get(str(setting), "") for setting in table.index])
    table = table.reset_index()
    return table.sort_values(["dataset", "target"], ascending=[True, False], na_position="last", ignore_index=True)


def _row(record: RunRecord) -> dict[str, Any]:
    scores = record.scores if record.status == "ok" and record.scores else {}

    def accuracy(name: str) -> float:
        return (scores.get(name) or {}).get("accuracy", nan)

    return {
        **{key: record.choices.get(key, "?") for key in ("dataset", "method", "backbone")},
        "granted": str(record.granted),
        "setting": record.setting,
        "status": record.status,
        "source": accuracy("source"),
        "target": accuracy("selected"),
        "last": accuracy("last"),
        "oracle": accuracy("oracle"),
        "seconds": record.seconds if scores else nan,
    }


def _variants(records: Sequence[RunRecord]) -> dict[str, str]:
    """Per setting, the keys in which settings of one dataset differ; a method's own, among those of that method."""
    composed = [record for record in records if "method" in record.config]  # not what could not even be composed
    flat = {record.setting: (record, dict(_flatten(record.config))) for record in composed}
    described = {}
    for setting, (record, config) in flat.items():
        peers = [
            (other, keys) for other, keys in flat.values() if other.choices["dataset"] == record.choices["dataset"]
        ]
        different = []
        for key, value in config.items():
            group = key.partition(".")[0]
            same = [keys for other, keys in peers if other.choices.get(group) == record.choices.get(group)]
            if any(keys.get(key, value) != value for keys in same):
                different.append(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}")
        described[setting] = " ".join(different)
    return described


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif key != "_target_" and (prefix or key not in NEUTRAL | {"seed", "granted"}):
            yield f"{prefix}{key}", value
