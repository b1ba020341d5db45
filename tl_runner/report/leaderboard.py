"""All runs as one table: a row per setting, over its seeds."""

from collections.abc import Iterator, Mapping, Sequence, Set
from math import nan
from typing import Any

import pandas as pd

from tl_runner.store import NEUTRAL, RunRecord

NAMES = ["dataset", "method", "backbone", "granted"]
TOLD = 3  # keys that a table names where settings differ; the records have them all
SCORES = ["source", "target", "last", "oracle", "seconds"]


def leaderboard(records: Sequence[RunRecord], by_labels: Set[str] = frozenset()) -> pd.DataFrame:
    """One row per setting: n runs that ended well, failed (with diverged) and unfinished ones, `variant` for what
    tells it from others of its name, and mean and sd (over seeds, n − 1) of each score; accuracies in [0, 1].

    Settings of runs whose ids are among `by_labels` were tried by a search that saw the target's labels: it is said.

    Sorted by dataset, then by the target accuracy of the checkpoint selected without target labels.
    """
    if not records:
        return pd.DataFrame(columns=["setting", *NAMES, "variant", "n", "failed", "unfinished"])
    variants = _variants(records)
    rows = pd.DataFrame([_row(record) for record in records])
    rows = rows.sort_values("status", key=lambda status: status != "ok")
    groups = rows.groupby(["setting", "files"], sort=False)  # runs on other files are no other seeds
    names = groups[NAMES].first()  # of a run that ended well, where there is one: it knows what granted=auto was
    counts = groups["status"].agg(
        n=lambda status: (status == "ok").sum(),
        failed=lambda status: status.isin(["failed", "diverged"]).sum(),
        unfinished=lambda status: (status == "running").sum(),
    )
    table = pd.concat([names, counts], axis=1)
    for name in SCORES:
        table[name], table[f"{name}_sd"] = groups[name].mean(), groups[name].std(ddof=1)
    table = table.reset_index()
    several = table["setting"].duplicated(keep=False)
    told = [f"files {files[:6] or '?'}" if again else "" for files, again in zip(table["files"], several, strict=True)]
    seen = {record.setting for record in records if record.id in by_labels}
    marks = ["oracle search" if setting in seen else "" for setting in table["setting"]]
    named = [" ".join(filter(None, [m, variants.get(s, "")])) for m, s in zip(marks, table["setting"], strict=True)]
    table.insert(len(NAMES) + 1, "variant", [" ".join(filter(None, both)) for both in zip(named, told, strict=True)])
    table = table.drop(columns="files")
    return table.sort_values(["dataset", "target"], ascending=[True, False], na_position="last", ignore_index=True)


def _row(record: RunRecord) -> dict[str, Any]:
    scores = record.scores if record.status == "ok" and record.scores else {}

    def accuracy(name: str) -> float:
        return (scores.get(name) or {}).get("accuracy", nan)

    return {
        **{key: record.choices.get(key, "?") for key in ("dataset", "method", "backbone")},
        "granted": str(record.granted),
        "setting": record.setting,
        "files": str(record.where.get("files") or ""),
        "status": record.status,
        "source": accuracy("source"),
        "target": accuracy("selected"),
        "last": accuracy("last"),
        "oracle": accuracy("oracle"),
        "seconds": record.seconds if scores else nan,
    }


def _variants(records: Sequence[RunRecord]) -> dict[str, str]:
    """Per setting, the keys in which it differs from others of its dataset that have results; at most `TOLD` of them.

    A group's keys are compared among settings with the same choice of that group: a method's among its own.
    """
    composed = {record.setting: record for record in records if "method" in record.config}
    flat = {setting: dict(_flatten(record.config)) for setting, record in composed.items()}
    proven = {record.setting for record in records if record.status == "ok"}
    described = {}
    for setting, record in composed.items():
        peers = [s for s in proven & flat.keys() if composed[s].choices["dataset"] == record.choices["dataset"]]
        different = []
        for key, value in flat[setting].items():
            group = key.partition(".")[0]
            alike = [s for s in peers if composed[s].choices.get(group) == record.choices.get(group)]
            if any(flat[s].get(key, value) != value for s in alike):
                said = f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                different.append((len({str(flat[s].get(key)) for s in alike}), said))
        different.sort(key=lambda counted: -counted[0])  # what has most values tells most
        more = [f"and {len(different) - TOLD} more"] if len(different) > TOLD else []
        described[setting] = " ".join([*(said for _, said in different[:TOLD]), *more])
    return described


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif key != "_target_" and (prefix or key not in NEUTRAL | {"seed", "granted"}):
            yield f"{prefix}{key}", value
