"""The rows of a table, each with its runs: what the figures of a pair of domains are drawn of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_runner.report.page.run_files import RunFiles
from tl_runner.report.settings import group_settings
from tl_runner.storage.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("source_only", "target_only")


@dataclass(frozen=True)
class SettingRuns:
    """One setting: its row of the table, a name that tells it from the others of its pair, and its good runs."""

    name: str
    row: dict[str, Any]
    runs: tuple[RunFiles, ...]

    @property
    def method(self) -> str:
        return self.row["method"]

    @property
    def classes(self) -> list[str]:
        """The names of the target's classes; none where a quantity is predicted."""
        return self.runs[0].record.data.classes


def group_by_pair(
    records: Sequence[RunRecord], frame: "pd.DataFrame", faults: list[str]
) -> dict[str, list[SettingRuns]]:
    """Per pair of the table its settings with results, in the table's order."""
    known = {(each.first.setting, each.pair): each for each in group_settings(records)}
    rows, found = frame.to_dict("records"), dict[str, list[SettingRuns]]()
    for pair in dict.fromkeys(row["pair"] for row in rows):
        those = [{str(key): value for key, value in row.items()} for row in rows if row["pair"] == pair]
        for row, name in zip(those, label_rows(those), strict=True):
            runs = [RunFiles(run, faults) for run in known[row["setting"], pair].scored.values()]
            if runs:
                runs.sort(key=lambda kept: str(kept.record.seed).rjust(9))
                found.setdefault(pair, []).append(SettingRuns(name, row, tuple(runs)))
    return found


def choose_settings(groups: Sequence[SettingRuns], most: int) -> tuple[list[SettingRuns], str]:
    """At most so many settings for a figure, and a sentence on what was left out.

    The baseline comes first, then the best of the table, at the end its worst, so that a loss is not hidden.
    """
    if len(groups) <= most:
        return baseline_first(groups), ""
    first = baseline_first(groups)
    kept = [*first[: most - 1], max(first[most - 1 :], key=groups.index)]
    said = f"{most} of {len(groups)} settings are shown: the baseline, the best of the table and its last."
    return kept, said


def baseline_first(groups: Sequence[SettingRuns]) -> list[SettingRuns]:
    """source_only at the head, where it is among them; the others in their order."""
    return sorted(groups, key=lambda group: group.method != BASELINES[0])


def baseline(group: SettingRuns, groups: Sequence[SettingRuns]) -> SettingRuns | None:
    """The setting that the table compares this one with."""
    return next((other for other in groups if other.row["setting"] == group.row["baseline"]), None)


def find_partner(kept: RunFiles, base: SettingRuns) -> RunFiles | None:
    """The run of the baseline on the same seed."""
    return next((other for other in base.runs if other.record.seed == kept.record.seed), None)


def list_numbers(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a configuration by their dotted names; truth values are none."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from list_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def label_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels of the rows of a pair, with the label budget where only that tells settings apart."""
    labels = [row["label"] for row in rows]
    return [
        f"{row['label']} granted={row['granted']}" if labels.count(row["label"]) > 1 else row["label"] for row in rows
    ]
