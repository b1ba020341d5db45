"""Tables of a user's own: two CSV files, or one with a column that says which domain a row is of."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, permutations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.cells import Cells, Table, format_option, list_names, normalise_categories, observed, read_cells
from tl_runner.datasets.classes import (
    Classes,
    Policy,
    count_names,
    label_knowledge,
    resolve_classes,
    sort_names,
    split_label,
    warn_of_order,
    warn_of_spelling,
)
from tl_runner.datasets.columns import ColumnKind, kinds
from tl_runner.datasets.encoding import code, encode, fit, matrix
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled, score_on_rows, tell_unlabelled, with_test_rows
from tl_runner.datasets.spelling import about_respelled, doubles, find_respelled
from tl_runner.datasets.split import Drawn, Encoding, Raw
from tl_runner.domains import UNKNOWN, has_label
from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

WAYS = (
    "two files (dataset.source=a.csv dataset.target=b.csv), or one with a column that names the domain"
    " (dataset.file=all.csv dataset.domain=COLUMN dataset.source=VALUE dataset.target=VALUE)"
)


def csv(
    seed: int,
    source: str | None = None,
    target: str | None = None,
    file: str | None = None,
    domain: str | None = None,
    label: str = "label",
    labels: Literal["same", "differ", "shared"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "NULL", "?"),
    separator: Literal["comma", "semicolon", "tab", "pipe"] = "comma",
) -> Drawn:
    """Two domains of rows, from UTF-8 text with a header: columns of numbers and of categories.

    The raw rows are those of `encoding.matrix`; they are encoded by what `encoding.fit` finds in the source's training
    rows. A column is numeric or categorical by the source's cells, unless an option names it. Rows of the target need
    no label (see `classes.split_label`); those of `test`, which are its test split, do. Nothing is drawn: a file says
    the same at every `seed`.
    """
    _refuse_said_twice(label=(label,), domain=(domain,), categorical=categorical, numeric=numeric, drop=drop)
    reading = partial(read_cells, separator=separator, missing=missing, drop=drop)
    tables = _domains(reading, {"source": source, "target": target, "test": test}, file, domain, missing)
    literally = partial(read_cells, said=label, separator=separator, missing=(), only={label})
    sides, names = dict[str, Table](), dict[str, Cells]()
    for role, table in tables.items():
        whether = labelled if role == "target" else "yes"
        sides[role], names[role] = split_label(table, label, missing, literally, whether)
    _refuse_other_columns(sides, label, categorical=categorical, numeric=numeric, drop=drop)
    classes = _resolve_classes(names, labels, label_set)
    warn_of_order({*classes["source"], *classes["target"]}, label)
    left_out: dict[str, list[str]] = {"source": [], "target": []}
    for role, y in names.items():
        kept = np.array([name is None or name in classes[role] for name in y])
        left_out["source" if role == "source" else "target"] += [*y[~kept]]
        sides[role], names[role] = sides[role].take(kept), y[kept]
    found = kinds(sides, categorical, numeric, missing)

    def raw(role: str) -> Raw:
        table, side = sides[role], classes[role]
        y = torch.tensor([UNKNOWN if name is None else side.index(name) for name in names[role]])
        places = np.array(table.places(), dtype=object)
        return Raw(table.name, torch.from_numpy(matrix(table, found)), y, side, names=places)

    rows = {role: raw(role) for role in sides}
    target_rows = with_test_rows(rows["target"], rows["test"]) if "test" in rows else rows["target"]
    tell_unlabelled(target_rows, _why_unlabelled(tables["target"], label, labelled), "test" in rows)
    _warn_of_shared_rows(rows["source"], target_rows)
    _warn_of_unseen(sides, found)
    notes = label_knowledge(labels, label_set, {role: count_names(of) for role, of in left_out.items()})
    encoding = _fitted_by(sides["source"], found)
    return Drawn(rows["source"], score_on_rows(target_rows, score_on), notes, encoding=encoding)


def _resolve_classes(names: Mapping[str, Cells], labels: Policy, label_set: Sequence[str]) -> dict[str, Classes]:
    """The classes of each role; those of the test part are the target's."""
    of_target = np.concatenate([cells for role, cells in names.items() if role != "source"])
    source, target = sort_names(names["source"]), sort_names(observed(of_target))
    warn_of_spelling(source, target, labels)
    unlabelled = len(of_target) - len(observed(of_target))
    source, target = resolve_classes(source, target, labels, label_set, unlabelled)
    return {"source": source, "target": target, "test": target}


def _why_unlabelled(target: Table, label: str, labelled: WhetherLabelled) -> str:
    """By what it is known that rows of the target have no label."""
    if labelled == "no":
        return "dataset.labelled=no"
    empty = "column {!r} of {} is empty or NA there" if label in target.header else "there is no column {!r} in {}"
    return empty.format(label, target.file)


def _domains(
    reading: Callable[[str, str], Table],
    named: Mapping[str, str | None],
    file: str | None,
    domain: str | None,
    missing: Sequence[str],
) -> dict[str, Table]:
    """The rows of the source, the target and, if it is named, the test part: from files, or from one by its column."""
    asked = {role: name for role, name in named.items() if name is not None}
    if file is None and domain is None and asked.keys() >= {"source", "target"}:
        _refuse_one_for_two({role: str(Path(name).expanduser().resolve()) for role, name in asked.items()}, asked)
        return {role: reading(name, f"dataset.{role}={name}") for role, name in asked.items()}
    if file is None or domain is None:
        given = {**named, "file": file, "domain": domain}
        said = " ".join(f"dataset.{key}={value}" for key, value in given.items() if value is not None)
        raise UserError(f"dataset=csv takes {WAYS}; given: {said or 'none of them'}")
    of_row, table = reading(file, f"dataset.file={file}").split_off(domain, "domain")
    of_row = normalise_categories(of_row)
    there = sort_names(observed(of_row))
    for key in dict.fromkeys(("source", "target", *asked)):
        value = asked.get(key)
        if value not in there:
            said = f"dataset.{key}={value}: there is no such value" if value else f"dataset.{key} must name a value"
            gap = [word for word in missing if word.strip().lower() == str(value).strip().lower()]
            kept = format_option("missing", [word for word in missing if word not in gap])
            mend = f". {value} is a word for a missing value: {kept} changes that" if gap else ""
            raise UserError(
                f"{said} in column {domain!r} of {file}{nearest(value or '', there)} (it has {list_names(there)}){mend}"
            )
    _refuse_one_for_two(asked, asked)
    if without := len(of_row) - len(observed(of_row)):
        log.warning(
            "%s: ignored %s without a value in column %r, which names the domain",
            file,
            count_noun(without, "row"),
            domain,
        )
    return {role: replace(table.take(of_row == value), name=value) for role, value in asked.items()}


def _refuse_one_for_two(places: Mapping[str, str], named: Mapping[str, str]) -> None:
    """Refuse two roles of the same rows; `places` says where a role's rows are, `named` how that was typed."""
    for (role, place), (other, same) in combinations(places.items(), 2):
        if place == same:
            why = "there is nothing to transfer" if other == "target" else "the test rows must be others"
            raise UserError(f"dataset.{role} and dataset.{other} are both {named[role]}: {why}")


def _fitted_by(source: Table, found: Mapping[str, ColumnKind]) -> Callable[[Tensor], Encoding]:
    """What fits the encoding on rows of the source: it must know the words behind the codes of its categories."""
    words = {
        code(name): name
        for column, kind in found.items()
        if kind == "categorical"
        for name in set(normalise_categories(observed(source.cells[column])))
    }

    def fitted(x: Tensor) -> Encoding:
        facts = fit(x.numpy(), found, words)
        return Encoding(partial(encode, facts=facts), facts)

    return fitted


def _refuse_said_twice(**options: Sequence[str | None]) -> None:
    said: dict[str, str] = {}
    for key, columns in options.items():
        for name in filter(None, columns):
            if name in said:
                raise UserError(f"column {name!r} is named twice, in dataset.{said[name]} and in dataset.{key}")
            said[name] = key


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

    def rows(raw: Raw) -> Counter[bytes]:
        labels = [code(raw.classes[y]) if labelled else 0.0 for y in raw.y.tolist()]
        return Counter(row.tobytes() for row in np.column_stack([raw.x.numpy(), labels]))

    known, other = rows(source), rows(target)
    if known == other:
        raise UserError(f"{source.name} and {target.name} hold the same rows: there is nothing to transfer")
    if again := sum(count for row, count in other.items() if row in known):
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
    return sort_names(normalise_categories(np.array(sorted(set(observed(cells))), dtype=object)))
