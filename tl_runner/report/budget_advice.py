"""How many labels, and how many steps, finished runs took to an accuracy: in a sentence each."""

from collections.abc import Sequence
from math import inf

from tl_runner.plurals import count_noun, pluralize
from tl_runner.report.budgets import RESOURCES, Budgets, Curve, Level, Resource

LISTED = 4  # lines that a sentence names


def advise(budgets: Budgets) -> list[str]:
    """A sentence for labels and one for steps, of those that some line was made with several numbers of."""
    found = []
    for by in RESOURCES:
        if curves := _choose(budgets, by):
            found.append(_advise(budgets.accuracy, curves, by))
    return found


def _choose(budgets: Budgets, by: Resource) -> list[Curve]:
    """The curves at one number of the other resource: that at which most lines were made, of these the largest.

    Those that need least come first. A line of one budget has something to say only where that is enough.
    """
    groups: dict[int, list[Curve]] = {}
    for curve in budgets.curves:
        if curve.by == by and (len(curve.levels) > 1 or curve.need(budgets.accuracy).budget is not None):
            groups.setdefault(curve.other, []).append(curve)
    chosen = max(groups.items(), key=lambda group: (len(group[1]), group[0]), default=(0, []))[1]
    needs = {curve.line: curve.need(budgets.accuracy).budget for curve in chosen}
    return sorted(chosen, key=lambda curve: inf if (of := needs[curve.line]) is None else of)


def _advise(accuracy: float, curves: Sequence[Curve], by: Resource) -> str:
    levels = [level for curve in curves for level in curve.levels]
    by_class = all(level.per_class is not None for level in levels)
    phrases = []
    for curve in curves[:LISTED]:
        written = {curve.budget(level): str(_amount(level, by, by_class)) for level in curve.levels}
        needed, interval = curve.need(accuracy).describe(written.__getitem__)
        unit = f" {_unit(1 if needed == '1' else 2, by, by_class)}" if not phrases else ""
        phrases.append(f"{curve.line} {needed}{unit}{interval and f' ({interval})'}")
    if len(curves) > LISTED:
        phrases.append(f"and {count_noun(len(curves) - LISTED, 'line')} more")
    other: Resource = "steps" if by == "labels" else "labels"
    held = _amount(levels[0], other, by_class)
    counts = sorted({level.n for level in levels})
    n = f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    tested = any(curve.need(accuracy).tested for curve in curves[:LISTED])
    note = "ranges by 95 % intervals in brackets" if tested else "no range below 3 seeds"
    reached = f"{100 * accuracy:.0f} % on this target at {held} {_unit(held, other, by_class)}"
    return f"To reach {reached}, finished runs took: {', '.join(phrases)}; {n}, {note}"


def _amount(level: Level, resource: Resource, by_class: bool) -> int:
    if resource == "steps":
        return level.steps
    return level.per_class if by_class and level.per_class is not None else level.labels


def _unit(count: int, resource: Resource, by_class: bool) -> str:
    if resource == "steps":
        return pluralize(count, "step")
    return f"{pluralize(count, 'label')}{' a class' if by_class else ''}"
