"""Tables of a user's own: two, of a file or more each, or one with a column that says which domain a row is of."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.cells import Cells, Table, format_option, map_words, normalise_categories, observed
from tl_runner.datasets.classes import (
    Classes,
    label_knowledge,
    sort_names,
    split_label,
    warn_of_order,
)
from tl_runner.datasets.columns import ColumnKind, kinds
from tl_runner.datasets.content import count_shared
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.domain_tables import (
    WAYS,
    explain_unlabelled,
    find_classes,
    leave_out_other_classes,
    read_domains,
    refuse_said_twice,
)
from tl_runner.datasets.encoding import code, encode, fit, matrix
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled, score_on_rows, tell_unlabelled, with_test_rows
from tl_runner.datasets.pool import mark_members
from tl_runner.datasets.quantities import refuse_options_of_classes, split_quantity
from tl_runner.datasets.read_table import read_table
from tl_runner.datasets.row_roles import RowFacts, RowRoles
from tl_runner.datasets.source_names import Several
from tl_runner.datasets.spelling import about_respelled, doubles, find_respelled
from tl_runner.datasets.split import Drawn, Encoding, Raw
from tl_runner.domains import UNKNOWN, has_label
from tl_runner.errors import UserError, list_names, nearest
from tl_runner.plurals import count_noun
from tl_runner.tasks import TaskName

log = logging.getLogger(__name__)


def table(
    seed: int,
    source: Several = None,
    target: str | None = None,
    file: str | None = None,
    domain: str | None = None,
    label: str = "label",
    labels: Literal["same", "differ", "shared"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    split: str | None = None,
    group: str | None = None,
    time: str | None = None,
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
    dates: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "NULL", "?"),
    separator: str = "auto",
    encoding: str = "auto",
    decimal: str = "point",
    thousands: str = "none",
    task: TaskName = "classification",
) -> Drawn:
    """Two domains of rows, from delimited text with a header or from Parquet: columns of numbers and of categories.

    The `label` column holds classes, or with `task=regression` a quantity, which is called by its name.

    A domain is a file, all files that match a pattern, or all tables in a folder. How the text is written is found, or
    said: see `dialect.Dialect`. The columns `split`, `group` and `time` divide the rows: see `row_roles.RowRoles`.

    The raw rows are those of `encoding.matrix`; they are encoded by what `encoding.fit` finds in the source's training
    rows. A column is numeric or categorical by the source's cells, unless an option names it. Rows of the target need
    no label (see `classes.split_label`); those of `test`, which are its test split, do. Nothing is drawn: a file says
    the same at every `seed`.
    """
    roles = RowRoles(split, group, time)
    refuse_said_twice(
        label=(label,), domain=(domain,), split=(split,), group=(group,), time=(time,),
        categorical=categorical, numeric=numeric, dates=dates, drop=drop,
    )  # fmt: skip
    roles.check(test)
    dialect = Dialect.parse(separator, encoding, decimal, thousands, missing, dates)
    quantity = label if task == "regression" else None
    literal = {name for name in (domain, *roles.columns, *categorical, None if quantity else label) if name is not None}
    reading = partial(read_table, dialect=dialect, drop=drop, literal=literal)
    asked: dict[str, Several] = {"source": source, "target": target, "test": test}
    tables = read_domains(f"dataset=table takes {WAYS}", reading, asked, file, domain, missing)
    untouched = Dialect.parse(separator, encoding)
    literally = partial(read_table, said=label, dialect=untouched, only={label}, literal={label})
    notes: dict[str, Any] = {"written": {role: dict(table.found) for role, table in tables.items()}}
    facts = dict[str, RowFacts]()
    for role in tables:
        tables[role], facts[role] = roles.read(tables[role])
    whether: dict[str, WhetherLabelled] = {role: labelled if role == "target" else "yes" for role in tables}
    sides, labels_of = dict[str, Table](), dict[str, tuple[Tensor, Classes]]()
    named = {"categorical": categorical, "numeric": numeric, "dates": dates, "drop": drop}
    if quantity:
        refuse_options_of_classes(labels, label_set)
        for role, table in tables.items():
            sides[role], values = split_quantity(table, label, missing, literally, whether[role])
            labels_of[role] = torch.from_numpy(values), ()
        _refuse_other_columns(sides, label, **named)
    else:
        names = dict[str, Cells]()
        for role, table in tables.items():
            sides[role], names[role] = split_label(table, label, missing, literally, whether[role])
        _refuse_other_columns(sides, label, **named)
        classes = find_classes(names, labels, label_set, sides)
        warn_of_order({*classes["source"], *classes["target"]}, label)
        sides, names, left_out, kept = leave_out_other_classes(sides, names, classes)
        facts = {role: facts[role].take(kept[role]) for role in sides}
        notes |= label_knowledge(labels, label_set, left_out)
        labels_of = {role: (number_classes(names[role], classes[role]), classes[role]) for role in sides}
    found = kinds(sides, categorical, numeric, missing, dates)

    def raw(role: str) -> Raw:
        side, (y, classes), (part, of_group, of_time) = sides[role], labels_of[role], facts[role]
        places = np.array(side.places(), dtype=object)
        x = torch.from_numpy(matrix(side, found))
        own = Raw(side.name, x, y, classes, part, places, quantity, group=of_group, time=of_time)
        return mark_members(own, [name for name, _ in side.members], side.member)

    rows = {role: raw(role) for role in sides}
    target_rows = with_test_rows(rows["target"], rows["test"]) if "test" in rows else rows["target"]
    tell_unlabelled(target_rows, explain_unlabelled(tables["target"], label, labelled), "test" in rows)
    _warn_of_shared_rows(rows["source"], target_rows)
    _warn_of_unseen(sides, found)
    encoded = _fitted_by(sides["source"], found)
    return Drawn(rows["source"], score_on_rows(target_rows, score_on), notes, encoding=encoded)


def number_classes(names: Cells, classes: Classes) -> Tensor:
    """The positions (n,) of these names among the classes; `UNKNOWN` of None."""
    numbers = {None: UNKNOWN, **{name: index for index, name in enumerate(classes)}}
    return torch.from_numpy(map_words(names, numbers, np.int64))


def _fitted_by(source: Table, found: Mapping[str, ColumnKind]) -> Callable[[Tensor], Encoding]:
    """What fits the encoding on rows of the source: it must know the words behind the codes of its categories."""
    words = {
        code(name): name
        for column, kind in found.items()
        if kind == "categorical"
        for name in _categories(source.cells[column])
    }

    def fitted(x: Tensor) -> Encoding:
        facts = fit(x.numpy(), found, words)
        return Encoding(partial(encode, facts=facts), facts)

    return fitted


def _refuse_other_columns(sides: Mapping[str, Table], label: str, **options: Sequence[str]) -> None:
    """All sides must have the same columns, in any order, and the options may name no others."""
    tables = [*sides.values()]
    for key, columns in options.items():
        there = {name for table in tables for name in (table.header if key == "drop" else table.cells)}
        for name in columns:
            if name not in there:
                files = " and ".join(dict.fromkeys(table.file for table in tables))
                raise UserError(
                    f"dataset.{key}: there is no column {name!r} in {files}{nearest(name, there)}"
                    f" (possible: {list_names(sorted(there))})"
                )
    for mine, theirs in permutations(tables, 2):
        if extra := [name for name in mine.cells if name not in theirs.cells]:
            close = nearest(extra[0], theirs.cells)
            labels = f" It has no column {label!r}: if one of these holds the labels, name it so."
            raise UserError(
                f"{mine.file} has columns that {theirs.file} does not have: {list_names(extra)}{close}."
                f"{'' if label in mine.header else labels}"
                " Rename them, or leave them out: dataset.drop=[…]"
            )


def _warn_of_shared_rows(source: Raw, target: Raw) -> None:
    """Rows that are in both domains, with their labels where all have one: refuse a copy of the domain, warn of some.

    Of a target with unlabelled rows the labels are not compared.
    """
    labelled = bool(has_label(target.y).all())

    def rows(raw: Raw) -> np.ndarray:
        codes = np.array([code(name) for name in raw.classes])
        labels = (codes[raw.y.numpy()] if raw.classes else raw.y.numpy()) if labelled else np.zeros(len(raw.y))
        return np.column_stack([raw.x.numpy(), labels])

    again, equal = count_shared(rows(source), rows(target))
    if equal:
        raise UserError(f"{source.name} and {target.name} hold the same rows: there is nothing to transfer")
    if again:
        log.warning(
            "%d of the %s of the target also %s in the source%s: if these are the same cases, the target's score is too"
            " optimistic",
            again, count_noun(len(target.x), "row"), "occurs" if again == 1 else "occur",
            ", with the same label" if labelled else "",
        )  # fmt: skip


def _warn_of_unseen(sides: Mapping[str, Table], found: Mapping[str, ColumnKind]) -> None:
    """Warn of categories that the source does not have: they are encoded as all zeros.

    Refuses a column where another side spells all of its categories otherwise than the source.
    """
    for column in (name for name, kind in found.items() if kind == "categorical"):
        categories = {role: _categories(table.cells[column]) for role, table in sides.items()}
        here = categories["source"]
        for role, there in categories.items():
            for group in doubles(there):
                log.warning(
                    "column %r of the %s (%s) has categories that differ only in case or spacing: %s. Each counts"
                    " as one of its own", column, role, sides[role].file, list_names(map(repr, group)),
                )  # fmt: skip
            pairs = find_respelled(there, here)
            if pairs and len(pairs) == len(there):
                raise UserError(
                    f"column {column!r}: the source and the {role} have no category in common, as they spell them"
                    f" differently: {about_respelled(pairs)}. Write them alike, or leave the column out:"
                    f" {format_option('drop', [column])}"
                )
            if new := [name for name in there if name not in here]:
                spelling = f". These differ only in spelling: {about_respelled(pairs)}" if pairs else ""
                log.warning(
                    "column %r: the source has none of the %s's %s: they are encoded like a missing value%s",
                    column, role, list_names(new), spelling,
                )  # fmt: skip


def _categories(cells: Cells) -> Classes:
    return sort_names(normalise_categories(np.array(sorted(set(observed(cells).tolist())), dtype=object)))
