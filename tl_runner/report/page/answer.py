"""The answer for one data set, in a paragraph of plain words, from the rows of the table alone."""

from collections.abc import Sequence
from math import isfinite, nan

from tl_runner.plurals import count_noun
from tl_runner.report.cells import HUGE, Row, format_spread, unlabelled
from tl_runner.report.comparison import OTHER_LABELS

LISTED = 6  # settings that a sentence names


def answer(rows: Sequence[tuple[str, Row]]) -> list[str]:
    """Sentences on (name, row) of one data set: the best without target labels, the best with some, what did harm."""
    if unlabelled([row for _, row in rows]):
        return _answer_without_labels(rows)
    scored = [(name, row) for name, row in rows if isfinite(row.get("target", nan))]
    if not scored:
        return ["No run of this pair has ended well: there is no answer yet."]
    sentences, called = [], {row["setting"]: name for name, row in rows}
    free = [each for each in scored if each[1]["granted"] == "0" and each[1]["method"] != "target_only"]
    if free:
        name, row = max(free, key=_target)
        sentences.append(
            f"Highest without target labels: {_describe_setting(name, row, called.get(row['baseline'], ''))}"
        )
        if row["method"] == "source_only" and len(free) > 1:
            sentences.append("Nothing that was tried did better than no adaptation.")
    granted = [each for each in scored if each not in free and each[1]["method"] not in ("source_only", "target_only")]
    if granted:
        name, row = max(granted, key=_target)
        budget = "" if f"granted={row['granted']}" in name else f" (granted={row['granted']})"
        highest = _describe_setting(name + budget, row, called.get(row["baseline"], ""))
        sentences.append(f"Highest with granted target labels: {highest}")
    tested = [each for each in scored if each[1].get("verdict") not in (None, "", OTHER_LABELS)]
    better = [each for each in tested if each[1]["verdict"] == "better"]
    if tested and not better:
        sentences.append("No setting is shown to be better than its baseline.")
    elif tested:
        sentences.append(
            f"Shown to be better than the baseline: {len(better)} of {count_noun(len(tested), 'setting')}."
        )
    if harmed := _list_settings(tested, "negative transfer"):
        sentences.append(f"Negative transfer: {harmed}.")
    elif tested:
        sentences.append("No negative transfer is shown.")
    for verdict in ("maybe better", "maybe worse"):
        if listed := _list_settings(tested, verdict):
            sentences.append(f"{verdict.capitalize()}, before Holm's correction alone: {listed}.")
    if not tested:
        sentences.append(
            "Nothing was compared with a baseline by a test: that takes runs of both on the same seeds, at least"
            " three, with the same labels."
        )
    return sentences


def _answer_without_labels(rows: Sequence[tuple[str, Row]]) -> list[str]:
    """What can be said where no target label is known: who agrees most with all, and how good that may be."""
    unknown = "The target has no labels: no accuracy on it is known."
    agreeing = [each for each in rows if isfinite(each[1].get("agreement", nan))]
    if not agreeing:
        return [unknown, "Three or more settings are needed to compare them by how far they agree."]
    name, row = max(agreeing, key=lambda each: each[1]["agreement"])
    share, settings, n = format_spread(row, "agreement"), count_noun(len(agreeing), "setting"), int(row["n"])
    sentences = [unknown, f"{name} agrees most with the mean prediction of {settings}: {share} % (n = {n})."]
    if isfinite(row["estimated"]):
        guess = format_spread(row, "estimated")
        sentences.append(f"Its accuracy is estimated to be {guess} %, which may be far off.")
    return sentences


def format_points(share: float) -> str:
    """`+12.8`, in points, with the sign for minus."""
    if not isfinite(share):
        return "–"
    return (f"{100 * share:+.1f}" if abs(share) < HUGE else f"{100 * share:+.2g}").replace("-", "−")


def probability(p: float) -> str:
    if not isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _list_settings(rows: Sequence[tuple[str, Row]], verdict: str) -> str:
    """The settings of this verdict with their differences, the largest first."""
    those = sorted((each for each in rows if each[1]["verdict"] == verdict), key=lambda e: -abs(e[1]["difference"]))
    more = f" and {len(those) - LISTED} more" if len(those) > LISTED else ""
    return ", ".join(f"{name} {format_points(row['difference'])}" for name, row in those[:LISTED]) + more


def _describe_setting(name: str, row: Row, base: str) -> str:
    difference = row.get("difference", nan)
    score = f"{name} {format_spread(row, 'target')} %"
    if not isfinite(difference):
        return f"{score} (n = {int(row['n'])})."
    if not isfinite(row.get("p", nan)):
        why = "which saw other labels: not tested" if row.get("verdict") == OTHER_LABELS else "not tested"
        return f"{score}, {format_points(difference)} points over {base} ({why}, n = {int(row['pairs'])})."
    p = probability(row["p"])
    between = f"{format_points(row['low'])} to {format_points(row['high'])}; " if isfinite(row.get("low", nan)) else ""
    tested = f"p {p}" if p.startswith("<") else f"p = {p}"
    return f"{score}, {format_points(difference)} points over {base} ({between}{tested}, n = {int(row['pairs'])})."


def _target(each: tuple[str, Row]) -> float:
    return each[1]["target"]
