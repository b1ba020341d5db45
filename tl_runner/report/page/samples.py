"""Samples of both domains, with what models made of them, and what a run by weights weighed most and least."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.page.figure import Figure, FigureTable, Gallery, LabelledPicture
from tl_runner.report.page.groups import BASELINES, SettingRuns
from tl_runner.report.page.pictures import RIGHT, shorten_names, uri
from tl_runner.report.page.run_files import RunFiles
from tl_runner.report.page.sound_samples import draw_sounds
from tl_runner.report.page.text_samples import draw_texts
from tl_runner.storage.record import RunRecord

COLUMNS = 10  # of a table's rows
MOST = 4  # settings of weights


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """The first seed's samples, with what source_only and the best other setting predict."""
    title = "Samples and mistakes"
    several = [run for group in (*_by(groups, BASELINES[0]), *_others(groups)) for run in group.runs[:1]]
    called = {id(run): group.name for group in groups for run in group.runs}
    if read := _of_one_sight(several, "target_texts")[:2]:
        return draw_texts("samples", title, read, [called[id(run)] for run in read])
    if heard := _of_one_sight(several, "target_spectrograms")[:2]:
        return draw_sounds("samples", title, heard, [called[id(run)] for run in heard])
    runs = _of_one_sight(several, "target_samples")[:2]
    if not runs:
        return Figure(
            "samples",
            title,
            missing="No run of this pair has sample images to show (tables have none, diagnose=none leaves them out).",
        )
    names = [called[id(run)] for run in runs]
    short = shorten_names(names)
    galleries = []
    for side in ("source", "target"):
        shown = [
            (name, run) for name, run in zip(short, runs, strict=True) if run.diagnosis(f"{side}_samples") is not None
        ]
        if shown:
            domain = shown[0][1].record.data.domains.get(side, "")
            galleries.append(Gallery(f"{side}: {domain}", _pictures(side, shown)))
    listed = [n if n == said else f"{said} {n}" for n, said in zip(names, short, strict=True)]
    caption = (
        f"The first rows of both test splits of seed {runs[0].record.seed} (n = 1 run a setting): the true class, and"
        f" below it what the selected checkpoint of {' and of '.join(listed)} predicts, ✗ where it is wrong."
    )
    return Figure("samples", title, caption, galleries=galleries)


def draw_weighted_rows(groups: Sequence[SettingRuns]) -> Figure:
    """Per setting with weights, of its first run: the source rows that weigh most, and least."""
    title = "What weighed most and least"
    found = [(group, group.runs[0]) for group in groups if group.runs[0].diagnosis("heaviest") is not None]
    if not found:
        return Figure("weighed", title, missing="No run of this pair that weighs source rows kept its weights.")
    galleries, cells = [], []
    for group, run in found[:MOST]:
        for which in ("heaviest", "lightest"):
            rows, weights = run.diagnosis(which), run.diagnosis(f"{which}_weights")
            if rows is None or weights is None or not len(rows):
                continue
            heading = f"{group.name} · seed {run.record.seed} · {which}"
            if run.record.data.input == "text":
                weighed = [[f"{w:.3g}", text] for w, text in zip(weights, run.texts(which), strict=True)]
                cells.append(FigureTable(heading, ["weight", "text"], weighed))
            elif rows.dtype == np.uint8 and rows.ndim == 4:
                lines: list[list[tuple[str, bool | None]]] = [[(f"{weight:.3g}", None)] for weight in weights]
                pictures = [
                    LabelledPicture(uri(row), f"{which} source row {number} of {group.name}, weight {said[0][0]}", said)
                    for number, (row, said) in enumerate(zip(rows, lines, strict=False), 1)
                ]
                galleries.append(Gallery(heading, pictures))
            else:
                flat = rows.reshape(len(rows), -1)
                cells.append(_table(heading, _inputs(run.record, flat.shape[1]), flat, weights))
    caption = (
        "The source's training rows with the largest and the smallest importance in the first run of the setting (n"
        " = 1), with their weights, whose mean over the source is 1. What weighs most should look like the target."
    )
    if len(found) > MOST:
        caption += f" {MOST} of {len(found)} settings with weights are shown."
    return Figure("weighed", title, caption, galleries=galleries, cells=cells)


def _pictures(side: str, runs: Sequence[tuple[str, RunFiles]]) -> list[LabelledPicture]:
    """Each image with its true class and what each run predicts; of a source with other classes the images alone."""
    first = runs[0][1]
    images, labels = first.diagnosis(f"{side}_samples"), first.diagnosis(f"{side}_labels")
    if images is None:
        return []
    scores, classes = first.record.scores, first.record.data.classes
    if labels is None or (side == "source" and not (scores and scores.source)):
        return [LabelledPicture(uri(image), f"{side} sample {number}", []) for number, image in enumerate(images, 1)]
    predicted = [(name, run.diagnosis(f"{side}_predicted")) for name, run in runs]
    pictures = []
    for number, (image, true) in enumerate(zip(images, labels, strict=False)):
        guesses = [(name, guessed[number]) for name, guessed in predicted if guessed is not None]
        said = [
            (f"{name}: {_class(classes, guess)}", bool(guess == true) if true >= 0 else None) for name, guess in guesses
        ]
        words = "; ".join(f"{text}, {RIGHT[verdict]}" for text, verdict in said)
        true_class = _class(classes, true) if true >= 0 else "unknown"
        lines: list[tuple[str, bool | None]] = [(true_class, None), *said]
        pictures.append(LabelledPicture(uri(image), f"{side} sample, true class {true_class}. {words}", lines))
    return pictures


def _class(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


def _of_one_sight(runs: Sequence[RunFiles], name: str) -> list[RunFiles]:
    """Those runs that kept samples by this name, the same as the first of them."""
    kept = [(run, found) for run in runs if (found := run.diagnosis(name)) is not None]
    return [run for run, found in kept if np.array_equal(found, kept[0][1])]


def _by(groups: Sequence[SettingRuns], method: str) -> list[SettingRuns]:
    return [group for group in groups if group.method == method][:1]


def _others(groups: Sequence[SettingRuns]) -> list[SettingRuns]:
    return [group for group in groups if group.method not in BASELINES]


def _inputs(record: RunRecord, count: int) -> list[str]:
    """What the numbers of an input are called: the columns of a user's table as they are encoded, else x0, x1, …."""
    names: list[str] = []
    for column in (record.data.encoding or {}).get("columns", ()):
        if column["kind"] == "categorical":
            names += [f"{column['name']}={category}" for category in column["categories"]]
        else:
            names += [f"{column['name']} (scaled)", *[f"{column['name']} missing"] * column["gaps"]]
    return names if len(names) == count else [f"x{number}" for number in range(count)]


def _table(heading: str, names: Sequence[str], rows: NDArray[Any], weights: NDArray[Any]) -> FigureTable:
    told = rows[:, :COLUMNS]
    more = [f"and {rows.shape[1] - COLUMNS} more"] if rows.shape[1] > COLUMNS else []
    columns = ["weight", *names[:COLUMNS], *more]
    lines = [
        [f"{w:.3g}", *(f"{value:.2f}" for value in row), *([""] * len(more))]
        for w, row in zip(weights, told, strict=False)
    ]
    return FigureTable(heading, columns, lines)
