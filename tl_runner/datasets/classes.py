"""The classes of two domains: read from a column, and what follows where they are not the same."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tl_runner.datasets.cells import Cells, Table, format_option, is_missing, normalise_categories, observed
from tl_runner.datasets.dialect import NUMBER, Dialect
from tl_runner.datasets.labelled import WhetherLabelled, refuse_policy_without_labels
from tl_runner.datasets.notation import another_notation
from tl_runner.datasets.spelling import about_respelled, doubles, find_respelled
from tl_runner.errors import UserError, list_names, nearest
from tl_runner.plurals import count_noun, pluralize

log = logging.getLogger(__name__)

Policy = Literal["same", "differ", "shared"]
Classes = tuple[str, ...]
WAYS = (
    "dataset.labels=shared keeps the rows of shared classes; dataset.label_set=[…] states the classes without a look at"
    " the target's labels; dataset.labels=differ keeps all, for methods that transfer between label sets"
)
WAYS_UNLABELLED = (
    "dataset.label_set=[…] states the classes of both, and leaves rows of others out; dataset.labelled=no does not look"
    " at the target's labels"
)
FEW = 20  # classes, up to which no label is taken for a measurement or an identifier


def split_off_label(
    table: Table,
    label: str,
    missing: Sequence[str],
    literally: Callable[[str], Table],
    whether: WhetherLabelled = "yes",
    quantity: bool = False,
) -> tuple[Table, Cells]:
    """The table's features, and the label of each row (n,) as it is written, None where it has none.

    Each row must have one if the table is labelled (`yes`); with `auto` the column may be missing, or empty in some
    rows, and with `no` it is not looked at. `missing` are the words for a missing value; `literally` reads the label of
    a file without regard to them: a class, and no `quantity`, may be called as they are.
    """
    if whether == "no" or (whether == "auto" and label not in table.header):
        cells, features = np.full(len(table), None, dtype=object), table.without(label)
    else:
        cells, features = table.split_off(label, "label")
    if not features.cells:
        raise UserError(f"{table.file} has no column but the label {label!r} to learn from")
    empty = np.flatnonzero(is_missing(cells))
    if len(empty) and whether == "yes":
        places = table.take(empty).places()
        again = [literally(name) for name in table.named]
        found = [observed(each.cells[label][np.isin(each.places(), places)]) for each in again]
        words = sorted({word for each in found for word in each})
        kept = [word for word in missing if not any(Dialect(missing=[word]).is_absent(each, True) for each in words)]
        named = list_names(map(repr, words))
        mend = format_option("missing", kept)
        as_class = f", or, if {named} is a class, set {mend}" if words and not quantity else ""
        lines = list_names(map(str, table.lines[empty]) if table.file_of is None else places)
        raise UserError(
            f"{len(empty)} of the {count_noun(len(cells), 'row')} of {table.name} {pluralize(len(empty), 'has')} no"
            f" label in column {label!r} ({table.file}, {table.unit}s {lines}): take them out{as_class}; of the target"
            " alone rows may have none"
        )
    return features, cells


def split_label(
    table: Table,
    label: str,
    missing: Sequence[str],
    literally: Callable[[str], Table],
    whether: WhetherLabelled = "yes",
) -> tuple[Table, Cells]:
    """The table's features, and the name of each row's class (n,), None where it has none; see `split_off_label`."""
    features, cells = split_off_label(table, label, missing, literally, whether)
    classes = normalise_categories(cells)
    present = observed(classes)
    different = set(present)
    if len(different) > FEW and (_fractions(different) or len(different) > len(present) / 2):
        raise UserError(
            f"column {label!r} of {table.file} has {len(different)} different values in {len(classes)} rows, like"
            f" {present[0]!r}: a label is one of a few classes, and no measurement. dataset.task=regression predicts"
            " numbers; dataset.label=COLUMN names another column"
        )
    return features, classes


def _fractions(names: Iterable[str]) -> bool:
    """Whether all are numbers, with a point or a comma, and not all of them whole."""
    pointed = [name.replace(",", ".") for name in names]
    return all(map(NUMBER.fullmatch, pointed)) and any(float(name) % 1 for name in pointed)


def warn_of_order(classes: Iterable[str], label: str) -> None:
    """Warn where classes look like quantities (many numbers, fractions, amounts, dates): classes have no order."""
    found = list(sort_names(classes))
    fractions, many = _fractions(found) and len(found) > 2, all(map(NUMBER.fullmatch, found)) and len(found) > FEW
    odd = another_notation(np.array(found, dtype=object))
    if fractions or many or (odd and odd.likely):
        log.warning(
            "column %r holds %d different numbers, amounts or dates, from %s to %s: they train as %d unordered"
            " classes, so that a near miss counts like any other error. If they are quantities, dataset.task=regression"
            " predicts them",
            label, len(found), found[0], found[-1], len(found),
        )  # fmt: skip


def warn_of_spelling(source: Sequence[str], target: Sequence[str], policy: Policy) -> None:
    """Classes that differ only in case or spacing, within a side, or between sides where that is not refused."""
    for side, classes in (("source", source), ("target", target)):
        for group in doubles(classes):
            log.warning(
                "classes of the %s differ only in case or spacing: %s. They are %d classes; if they are one, write them"
                " alike", side, list_names(map(repr, group)), len(group),
            )  # fmt: skip
    if policy != "same" and (pairs := find_respelled(target, source)):
        log.warning(
            "dataset.labels=%s: these classes differ only in spelling, and count as different classes: %s. If they"
            " are the same, write them alike in both", policy, about_respelled(pairs),
        )  # fmt: skip


def sort_names(names: Iterable[str]) -> Classes:
    """Each name once: by value where all are numbers, else as text."""
    found = set(names)
    if all(map(NUMBER.fullmatch, found)):
        return tuple(sorted(found, key=lambda name: (float(name), name)))
    return tuple(sorted(found))


def resolve_classes(
    source: Sequence[str],
    target: Sequence[str],
    policy: Policy,
    label_set: Sequence[str] = (),
    unlabelled: int = 0,
) -> tuple[Classes, Classes]:
    """The classes that each side is left with.

    With `same` the target has the source's, whether or not it has rows of each, and no others; `shared` keeps what both
    have, `differ` all that each has. Refuses fewer than two. A `label_set` states the classes of both sides instead,
    whatever the target's labels hold. So many rows of the target are `unlabelled`.
    """
    refuse_policy_without_labels(policy, unlabelled)
    if label_set:
        classes = select_stated(label_set, {"source": source, "target": target}, policy, unlabelled)
        return classes, classes
    if policy == "shared":
        source = target = [name for name in source if name in target]
    if policy == "same":
        if extra := [name for name in target if name not in source]:
            said = f"the target has classes that the source does not have: {', '.join(map(repr, extra))}."
            if pairs := find_respelled(target, source):
                said += f" These differ only in spelling, write them alike: {about_respelled(pairs)}."
            raise UserError(f"{said} {WAYS_UNLABELLED if unlabelled else WAYS}")
        warn_of_missing_classes([name for name in source if name not in target], unlabelled)
        target = source
    for side, left in (("source", source), ("target", target)):
        if len(left) < 2:
            what = f"one class, {left[0]!r}" if left else "no class"
            raise UserError(f"dataset.labels={policy} leaves the {side} {what}: at least 2 are needed")
    return tuple(source), tuple(target)


def warn_of_missing_classes(missing: Sequence[str], unlabelled: int) -> None:
    """Warn of the source's classes that no row of the target has; where rows have no label, that says nothing."""
    if missing and not unlabelled:
        log.warning(
            "the target has no row of class %s. A run is not told, and may predict it; dataset.labels=shared leaves it"
            " out, and shares=rlls lets it count for less", list_names(missing),
        )  # fmt: skip


def select_stated(
    label_set: Sequence[str], sides: Mapping[str, Sequence[str]], policy: Policy, unlabelled: int = 0
) -> Classes:
    """The classes of both sides as a person states them; refuses names that no side has.

    That a class is in no row of the target is not looked at: it is what the statement is there to leave unknown. Nor
    need the target have any of them where so many of its rows are `unlabelled`.
    """
    if policy != "same":
        raise UserError(
            f"dataset.label_set states the classes, and dataset.labels={policy} reads them from the target's labels:"
            " name one of the two"
        )
    there = sort_names({name for side in sides.values() for name in side})
    for name in label_set:
        if name not in there:
            raise UserError(
                f"dataset.label_set: no domain has a class {name!r}{nearest(name, there)} (there are"
                f" {list_names(there)})"
            )
    if len(set(label_set)) < max(2, len(label_set)):
        raise UserError(f"dataset.label_set={list_names(label_set)}: name two classes or more, each once")
    for side, own in sides.items():
        if pairs := find_respelled([name for name in label_set if name not in own], own):
            told = ", ".join(f"{mine!r} and {theirs!r}" for mine, theirs in pairs.items())
            raise UserError(
                f"dataset.label_set names classes that the {side} spells otherwise: {told}. Use one spelling"
            )
        if not {*own} & {*label_set} and not (unlabelled and side == "target"):
            raise UserError(
                f"dataset.label_set={list_names(label_set)}: the {side} has no row of any of these classes (it has"
                f" {list_names(own)})"
            )
    if "source" in sides and (unknown := [name for name in label_set if name not in sides["source"]]):
        log.warning(
            "dataset.label_set: the source has no row of class %s: nothing tells what it is", list_names(unknown)
        )
    return sort_names(label_set)


def label_knowledge(
    policy: Policy, label_set: Sequence[str], left_out: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """What the record says of rows whose class is not used, and of who knew which classes there are.

    left_out: by role the rows of each such class. `shared` knows them from the target's labels, which an unsupervised
    run does not have: where that left rows out it is granted knowledge of the label set, and said.
    """
    if policy != "shared" and not label_set:
        return {}
    counts = {role: sum(rows.values()) for role, rows in left_out.items()}
    told = " and ".join(
        f"{count_noun(counts[role], 'row')} of the {role} ({list_names(rows)})"
        for role, rows in left_out.items()
        if rows
    )
    if label_set:
        if told:
            log.warning("dataset.label_set leaves out %s", told)
        return {"left_out": counts, "label_knowledge": {"by": "label_set", "classes": list(sort_names(label_set))}}
    if not told:
        return {"left_out": counts}
    log.warning(
        "dataset.labels=shared reads from the target's labels which classes there are, and leaves out %s. A run without"
        " target labels does not know that: it is recorded as granted knowledge of the label set. dataset.label_set=[…]"
        " states the classes instead",
        told,
    )
    classes = {role: list(rows) for role, rows in left_out.items()}
    return {"left_out": counts, "label_knowledge": {"by": "target labels", "left_out": classes}}


def count_names(names: Iterable[str]) -> dict[str, int]:
    """How many rows have each name, in the order of classes."""
    found = Counter(names)
    return {name: found[name] for name in sort_names(found)}
