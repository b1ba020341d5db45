"""The settings of a table, each with its runs: what the figures of a data set are drawn of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_runner.report.page.kept import Kept
from tl_runner.store import RunRecord

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("source_only", "target_only")


@dataclass(frozen=True)
class Group:
    """One setting: its row of the table, a name that tells it from the others of its data set, and its good runs."""

    name: str
    row: dict[str, Any]
    runs: tuple[Kept, ...]

    @property
    def method(self) -> str:
        return self.row["method"]

    @property
    def classes(self) -> list[str]:
        """The names of the target's classes."""
        return [str(name) for name in self.runs[0].record.data.get("classes", ())]


def grouped(records: Sequence[RunRecord], frame: "pd.DataFrame", faults: list[str]) -> dict[str, list[Group]]:
    """Per data set of the table its settings with results, in the table's order."""
    found: dict[str, list[Group]] = {}
    by_setting: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.status == "ok" and record.scores:
            by_setting.setdefault(record.setting, []).append(record)
    rows = frame.to_dict("records")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        those = [row for row in rows if row["dataset"] == dataset]
        labels = names(those)
        for row, name in zip(those, labels, strict=True):
            runs = [Kept(run, faults) for run in by_setting.get(row["setting"], ()) if _of(run, row)]
            if runs:
                runs.sort(key=lambda kept: str(kept.record.seed).rjust(9))
                found.setdefault(dataset, []).append(Group(name, row, tuple(runs)))
    return found


def chosen(groups: Sequence[Group], most: int) -> tuple[list[Group], str]:
    """At most so many settings for a figure, and a sentence on what was left out.

    The baseline comes first, then the best of the table, at the end its worst, so that a loss is not hidden.
    """
    if len(groups) <= most:
        return baseline_first(groups), ""
    first = baseline_first(groups)
    kept = [*first[: most - 1], max(first[most - 1 :], key=groups.index)]
    said = f"{most} of {len(groups)} settings are shown: the baseline, the best of the table and its last."
    return kept, said


def baseline_first(groups: Sequence[Group]) -> list[Group]:
    """source_only at the head, where it is among them; the others in their order."""
    return sorted(groups, key=lambda group: group.method != BASELINES[0])


def partner(kept: Kept, groups: Sequence[Group]) -> Kept | None:
    """The run of source_only that this one is paired with: same seed, data and backbone, else as alike as there is."""
    mine = kept.record
    alike = [
        other
        for group in groups
        if group.method == BASELINES[0]
        for other in group.runs
        if other.record.seed == mine.seed
        and other.record.data.get("fingerprint") == mine.data.get("fingerprint")
        and other.record.config.get("backbone") == mine.config.get("backbone")
    ]
    return min(alike, key=lambda other: _apart(other.record, mine), default=None)


def numbers(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a configuration by their dotted names; truth values are none."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method, and of what else is in the table only what tells settings of one method apart."""
    found = []
    for row in rows:
        alike = [other for other in rows if other["method"] == row["method"]]
        words = [str(row["method"])]
        for key in ("backbone", "granted", "variant"):
            if len({other[key] for other in alike}) > 1 and row[key]:
                words.append(f"granted={row[key]}" if key == "granted" else str(row[key]))
        found.append(" ".join(words))
    return found


def _of(record: RunRecord, row: Mapping[str, Any]) -> bool:
    """Whether the run is of this row: settings on several states of their files have a row for each, which says so."""
    _, told, files = str(row["variant"]).rpartition("files ")
    return not told or files == "?" or str(record.where.get("files") or "?").startswith(files)


def _apart(one: RunRecord, other: RunRecord) -> tuple[int, str]:
    keys = (one.config.keys() | other.config.keys()) - {"method"}
    return sum(one.config.get(key) != other.config.get(key) for key in keys), one.id
