"""Texts of the target's test split, with what models made of them: which changed class between two settings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tl_runner.plurals import count_noun
from tl_runner.report.page.figure import Figure, FigureTable
from tl_runner.report.page.run_files import RunFiles

MOST = 12  # texts that are listed
WRONG = " ✗"


def draw_texts(name: str, title: str, runs: Sequence[RunFiles], names: Sequence[str]) -> Figure:
    """Of two runs the texts whose class changes from the first to the second; of one those that it gets wrong."""
    first = runs[0]
    if not first.record.data.classes:
        return Figure(name, title, missing="A quantity is predicted, so that no text changes its class.")
    texts, labels = first.texts("target_texts"), first.diagnosis("target_labels")
    told = [run.diagnosis("target_predicted") for run in runs]
    predicted = [each for each in told if each is not None]
    if labels is None or len(predicted) < len(runs):
        return Figure(name, title, missing="The run's diagnosis lacks the predictions for its texts.")
    n, known = min(len(texts), len(labels)), labels[: len(texts)] >= 0
    predicted, labels = [each[:n] for each in predicted], labels[:n]
    if len(runs) > 1:
        chosen, heading, caption = _compare(predicted[0], predicted[1], labels, known, names)
    else:
        chosen = known & (predicted[0] != labels)
        heading = f"{names[0]} gets {int(chosen.sum())} of {count_noun(int(known.sum()), 'labelled text')} wrong"
        caption = "There is one setting, so that there is nothing to compare it with."
    classes = first.record.data.classes
    rows = [
        [
            texts[row],
            classes[labels[row]] if known[row] else "unknown",
            *(_say(classes, int(each[row]), int(labels[row])) for each in predicted),
        ]
        for row in np.flatnonzero(chosen)[:MOST]
    ]
    domain = first.record.data.domains.get("target", "")
    caption = (
        f"{caption} The first {n} test texts of {domain}, seed {first.record.seed} (n = 1 run a setting), predicted by"
        f" the selected checkpoint; ✗ where that is wrong. Long texts are shortened."
        + (f" {MOST} are listed." if int(chosen.sum()) > MOST else "")
    )
    return Figure(name, title, caption, cells=[FigureTable(heading, ["text", "class", *names], rows)])


def _compare(
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    labels: NDArray[np.int16],
    known: NDArray[np.bool_],
    names: Sequence[str],
) -> tuple[NDArray[np.bool_], str, str]:
    """Which texts (n,) change class, with the heading and what the caption says of how many became right."""
    changed = before != after
    right, wrong = (int((known & changed & (each == labels)).sum()) for each in (after, before))
    heading = f"{int(changed.sum())} of {count_noun(len(labels), 'text')} changed class from {names[0]} to {names[1]}"
    return changed, heading, f"Of those with a label {right} became right, and {wrong} were right before."


def _say(classes: Sequence[str], predicted: int, label: int) -> str:
    return classes[predicted] + (WRONG if 0 <= label != predicted else "")
