"""Rows of the target's test split whose class changes from one setting to another, or that one setting gets wrong."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tl_runner.plurals import count_noun
from tl_runner.report.page.run_files import RunFiles

MOST = 12  # rows that are shown


class ChangedRows(NamedTuple):
    """The first rows that there are, what is said of each, and what stands above and below them all.

    `true` has the name of a row's class, "unknown" without a label; `predicted` for each setting the name of what it
    says, and whether that is right, None where nobody knows.
    """

    rows: list[int]
    true: list[str]
    predicted: list[list[tuple[str, bool | None]]]
    heading: str
    caption: str


def find_changed(noun: str, n: int, runs: Sequence[RunFiles], names: Sequence[str]) -> ChangedRows | str:
    """Of two runs the rows among the first n whose class changes from the first to the second; of one its mistakes.

    Or why nothing can be said.
    """
    record = runs[0].record
    if not record.data.classes:
        return f"A quantity is predicted, so that no {noun} changes its class."
    labels = runs[0].diagnosis("target_labels")
    told = [each for run in runs if (each := run.diagnosis("target_predicted")) is not None]
    if labels is None or len(told) < len(runs):
        return f"The run's diagnosis lacks the predictions for its {noun}s."
    n = min(n, len(labels))
    labels, told = labels[:n], [each[:n] for each in told]
    known = labels >= 0
    if len(runs) > 1:
        chosen = told[0] != told[1]
        right, wrong = (int((known & chosen & (each == labels)).sum()) for each in reversed(told))
        heading = f"{int(chosen.sum())} of {count_noun(n, noun)} changed class from {names[0]} to {names[1]}"
        caption = f"Of those with a label {right} became right, and {wrong} were right before."
    else:
        chosen = known & (told[0] != labels)
        heading = f"{names[0]} gets {int(chosen.sum())} of {count_noun(int(known.sum()), f'labelled {noun}')} wrong"
        caption = "There is one setting, so that there is nothing to compare it with."
    caption += (
        f" The first {n} test {noun}s of {record.data.domains.get('target', '')}, seed {record.seed} (n = 1 run a"
        " setting), predicted by the selected checkpoint; ✗ where that is wrong."
    )
    caption += f" {MOST} are shown." if chosen.sum() > MOST else ""
    rows, classes = [int(row) for row in np.flatnonzero(chosen)[:MOST]], record.data.classes
    predicted = [[(classes[each[row]], _is_right(each[row], labels[row])) for each in told] for row in rows]
    true = [classes[labels[row]] if known[row] else "unknown" for row in rows]
    return ChangedRows(rows, true, predicted, heading, caption)


def _is_right(predicted: np.integer, label: np.integer) -> bool | None:
    return bool(predicted == label) if label >= 0 else None
