"""Which classes are taken for which, and what each class gained or lost."""

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tl_runner.plurals import count_noun
from tl_runner.report.page.counts import ends, mean_and_deviation, shares
from tl_runner.report.page.drawing import Chart, Scale, spanning
from tl_runner.report.page.figure import Figure, FigureTable, Key, Panel
from tl_runner.report.page.groups import SettingRuns, baseline, choose_settings, find_partner
from tl_runner.report.page.run_files import RunFiles

MOST = 6
DRAWN = 30  # classes up to which a matrix can be read
NAMED = 12  # up to which its cells hold figures
LISTED = 10  # of the most frequent mistakes, or of the classes that changed most


def mean_shares(group: SettingRuns) -> tuple[NDArray[np.float64], int] | None:
    """(C, C) shares of each true class by predicted class, mean over the seeds, and how many seeds."""
    found = [shares(run.confusion) for run in group.runs if run.confusion is not None]
    if not found:
        return None
    table = np.stack([each for each in found if each.shape == found[0].shape])
    counted = np.isfinite(table).sum(0)
    return np.divide(np.nansum(table, 0), counted, out=np.full(table.shape[1:], np.nan), where=counted > 0), len(table)


def matrices(groups: Sequence[SettingRuns]) -> Figure:
    """A matrix per setting, where classes are few; else its most frequent mistakes."""
    title = "Confusions on the target"
    scored = [group for group in groups if group.runs[0].confusion is not None]
    shown, left_out = choose_settings(scored, MOST)
    panels, cells = [], []
    for group in shown:
        table, n = mean_shares(group) or (np.zeros((0, 0)), 0)
        names = group.classes
        wrong = _mistakes(table, names)
        words = f"{group.name}: most frequent mistakes: " + ", ".join(
            f"{t} taken for {p} {100 * s:.0f} %" for t, p, s in wrong[:3]
        )
        if len(table) <= DRAWN:
            panels.append(Panel(group.name, _matrix(table, names, words), f"n = {n}"))
        else:
            rows = [[true, predicted, f"{100 * share:.0f} %"] for true, predicted, share in wrong]
            cells.append(
                FigureTable(f"{group.name} · n = {n}", ["true class", "predicted", "share of the true class"], rows)
            )
    if not shown:
        return Figure(
            "confusions",
            title,
            missing="No run of this pair has predictions with true labels to show (diagnose=none leaves them out).",
        )
    caption = (
        "Rows are true classes, columns predicted ones in the order of the rows, of the target's test split at the"
        " selected checkpoint. A cell is the share of its true class in %, mean over n seeds."
        f" {'Cells without a figure hold less than 1 %.' if panels else ''} "
    )
    return Figure("confusions", title, caption + left_out, panels, cells=cells)


def gains(groups: Sequence[SettingRuns]) -> Figure:
    """A panel per setting: each class's accuracy minus that of the baseline on the same seed."""
    title = "Classes that gained and lost against the baseline"
    bases = {group.name: baseline(group, groups) for group in groups}
    compared = {group.name: paired_differences(group, base) for group in groups if (base := bases[group.name])}
    those = [group for group in groups if len(compared.get(group.name, ()))]
    shown, left_out = choose_settings(those, MOST)
    if not shown:
        return Figure(
            "gains",
            title,
            missing="No run has the accuracy of each class beside a run of source_only on the same seed and data.",
        )
    points = {group.name: [mean_and_deviation(column) for column in compared[group.name].T] for group in shown}
    reached = [end for each in points.values() for mean, sd, _ in each for end in ends(mean, sd)]
    x = spanning([0.0, *reached], "points gained", percent=True)
    panels = []
    for group in shown:
        named = [each for each in zip(group.classes, points[group.name], strict=False) if isfinite(each[1][0])]
        most = sorted(named, key=lambda each: -abs(each[1][0]))[: 2 * LISTED]
        listed = [each for each in named if each in most]
        said = ", ".join(f"{name} {100 * mean:+.1f}" for name, (mean, *_) in listed)
        chart = Chart.of_rows([name for name, _ in listed], x, f"{group.name}, points gained by class: {said}", 280)
        chart.upright(0.0, "reference")
        for row, (_, (mean, sd, _)) in enumerate(listed):
            kind = "c0" if mean >= 0 else "c3"
            chart.bar(0.0, mean, -row - 0.54, -row - 0.86, kind)
            chart.reach(-row - 0.7, mean - sd, mean + sd, "ink")
        panels.append(Panel(group.name, chart.svg, f"n = {count_noun(len(compared[group.name]), 'pair')}"))
    caption = (
        "Accuracy of each class on the target's test split minus that of source_only on the same seed and data, in"
        " points: mean over n pairs ± one standard deviation. "
    )
    if any(len(each) > 2 * LISTED for each in points.values()):
        caption += f"The {2 * LISTED} classes that changed most are shown. "
    return Figure(
        "gains",
        title,
        caption + left_out,
        panels,
        [Key("square", "c0", "gain"), Key("square", "c3", "loss"), Key("line", "ink", "± one deviation")],
    )


def by_class(kept: RunFiles) -> NDArray[np.float64] | None:
    """(C,) accuracy of each class on the target's test split; NaN for classes without rows."""
    classes = kept.record.diagnosis and kept.record.diagnosis.classes
    if classes and (found := classes.target) is not None:
        return np.array([nan if value is None else value for value in found], dtype=np.float64)
    return None if kept.confusion is None else np.diag(shares(kept.confusion)).copy()


def paired_differences(group: SettingRuns, base: SettingRuns) -> NDArray[np.float64]:
    """(pairs, C): accuracy by class minus that of the baseline, a row for each seed that both have."""
    rows = []
    for run in group.runs:
        other = find_partner(run, base)
        mine, theirs = by_class(run), by_class(other) if other else None
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            rows.append(mine - theirs)
    return np.array([row for row in rows if row.shape == rows[0].shape])


def _mistakes(table: NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, str, float]]:
    """The most frequent (true, predicted, share of the true class), most frequent first."""
    wrong = np.nan_to_num(table.copy())
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    places = [divmod(int(place), len(wrong)) for place in order]
    return [
        (names[true], names[predicted], float(wrong[true, predicted]))
        for true, predicted in places
        if wrong[true, predicted] > 0
    ]


def _matrix(table: NDArray[np.float64], names: Sequence[str], words: str) -> Markup:
    size = len(table)
    axis = Scale(0.0, float(size))
    chart = Chart(axis, axis, words, (300, 300), bare=True)
    chart.box = (58, 6, 238, 238)
    short = [name if len(name) <= 7 else f"{name[:6]}…" for name in names]
    every = -(-size // 15)
    for true in range(size):
        for predicted in range(size):
            share = table[true, predicted]
            if not share > 0.004:
                continue
            chart.bar(
                predicted,
                predicted + 1,
                size - true,
                size - true - 1,
                "c0" if true == predicted else "c3",
                float(share),
            )
            if size <= NAMED and share >= 0.01:
                chart.text(
                    predicted + 0.5, size - true - 0.5, f"{100 * share:.0f}", "strong" if share > 0.7 else "cell"
                )
        if true % every == 0:
            chart.text(-0.15, size - true - 0.5, short[true], anchor="end")
            chart.text(
                true + 0.5,
                -0.5 * size / 15 - 0.1,
                short[true] if size <= 15 and max(map(len, short)) <= 3 else str(true),
            )
    chart.frame()
    return chart.svg
