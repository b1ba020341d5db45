"""The classes of two domains: read from a column, and what follows where they are not the same."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from tl_runner.datasets.cells import NUMBER, Cells, Table, listed, names
from tl_runner.errors import Refused

Policy = Literal["same", "differ", "shared"]
Classes = tuple[str, ...]
FEW = 20  # classes, up to which no label is taken for a measurement or an identifier


def without_label(table: Table, label: str) -> tuple[Table, Cells]:
    """The table's features, and the name of each row's class (n,)."""
    cells, features = table.split_off(label, "label")
    if not features.cells:
        raise Refused(f"{table.file} has no column but the label {label!r} to learn from")
    empty = np.flatnonzero(cells == None)  # noqa: E711  (of each cell)
    if len(empty):
        raise Refused(
            f"{len(empty)} of the {len(cells)} rows of {table.name} have no label in column {label!r}"
            f" ({table.file}, lines {listed(map(str, table.lines[empty]))}): take them out; the target's labels are"
            " needed to score, and kept from the methods"
        )
    classes = names(cells)
    different = set(classes)
    fractions = all(NUMBER.fullmatch(name) for name in different) and any(float(name) % 1 for name in different)
    if len(different) > FEW and (fractions or len(different) > len(classes) / 2):
        raise Refused(
            f"column {label!r} of {table.file} has {len(different)} different values in {len(classes)} rows, like"
            f" {classes[0]!r}: a label is one of a few classes, and no measurement (that would be regression, which"
            " tl_runner does not do). dataset.label=COLUMN names another"
        )
    return features, classes


def in_order(names: Iterable[str]) -> Classes:
    """Each name once: by value where all are numbers, else as text."""
    found = set(names)
    if all(map(NUMBER.fullmatch, found)):
        return tuple(sorted(found, key=lambda name: (float(name), name)))
    return tuple(sorted(found))


def agree(source: Sequence[str], target: Sequence[str], policy: Policy) -> tuple[Classes, Classes]:
    """The classes that each side is left with.

    `same` refuses sides that differ, `shared` keeps what both have, `differ` all that each has. Refuses fewer than two.
    """
    if policy == "shared":
        source = target = [name for name in source if name in target]
    if policy == "same" and set(source) != set(target):
        only = [
            f"the {side} alone has {', '.join(map(repr, extra))}"
            for side, mine, other in (("source", source, target), ("target", target, source))
            if (extra := [name for name in mine if name not in other])
        ]
        raise Refused(
            f"the domains' classes differ: {'; '.join(only)}. dataset.labels=shared keeps the rows of shared classes;"
            " dataset.labels=differ keeps all, for methods that transfer between label sets"
        )
    for side, left in (("source", source), ("target", target)):
        if len(left) < 2:
            what = f"one class, {left[0]!r}" if left else "no class"
            raise Refused(f"dataset.labels={policy} leaves the {side} {what}: at least 2 are needed")
    return tuple(source), tuple(target)
