"""Tables of a user's own: two CSV files, or one with a column that says which domain a row is of."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.cells import Cells, Table, format_option, list_names, normalise_categories, observed, read_cells
from tl_runner.datasets.classes import (
    Classes,
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
from tl_runner.datasets.spelling import about_respelled, doubles, find_respelled
from tl_runner.datasets.split import Drawn, Encoding, Raw
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
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "NULL", "?"),
    separator: Literal["comma", "semicolon", "tab", "pipe"] = "comma",
) -> Drawn:
    """Two domains of labelled rows, from UTF-8 text with a header: columns of numbers and of categories.

    The raw rows are those of `encoding.matrix`; they are encoded by what `encoding.fit` finds in the source's training
    rows. A column is numeric or categorical by the source's cells, unless an option names it. Nothing is drawn: a
    file says the same at every `seed`.
    """
    _refuse_said_twice(label=(label,), domain=(domain,), categorical=categorical, numeric=numeric, drop=drop)
    sides = _domains(
        partial(read_cells, separator=separator, missing=missing, drop=drop), source, target, file, domain, missing
    )
    literally = partial(read_cells, said=label, separator=separator, missing=(), only={label})
    (known, ys), (other, yt) = (split_label(table, label, missing, literally) for table in sides)
    _refuse_other_columns(known, other, categorical=categorical, numeric=numeric, drop=drop)
    warn_of_spelling(sort_names(ys), sort_names(yt), labels)
    classes = resolve_classes(sort_names(ys), sort_names(yt), labels, label_set)
    warn_of_order({*classes[0], *classes[1]}, label)
    kept = [np.isin(y, side) for y, side in zip((ys, yt), classes, strict=True)]
    left_out = {role: count_names(y[~rows]) for role, y, rows in zip(("source", "target"), (ys, yt), kept, strict=True)}
    known, other, ys, yt = known.take(kept[0]), other.take(kept[1]), ys[kept[0]], yt[kept[1]]
    found = kinds(known, other, categorical, numeric, missing)

    def raw(table: Table, y: Cells, side: Classes) -> Raw:
        x, labels = torch.from_numpy(matrix(table, found)), torch.tensor([side.index(name) for name in y])
        return Raw(table.name, x, labels, side, names=np.array(table.places(), dtype=object))

    source_rows, target_rows = (raw(*side) for side in zip((known, other), (ys, yt), classes, strict=True))
    _warn_of_shared_rows(source_rows, target_rows)
    _warn_of_unseen(known, other, found)
    notes = label_knowledge(labels, label_set, left_out)
    return Drawn(source_rows, target_rows, notes, encoding=_fitted_by(known, found))


def _domains(
    reading: Callable[[str, str], Table],
    source: str | None,
    target: str | None,
    file: str | None,
    domain: str | None,
    missing: Sequence[str],
) -> tuple[Table, Table]:
    """The source's and the target's rows, from two files or by the values of a column of one."""
    if file is None and domain is None and source is not None and target is not None:
        if Path(source).expanduser().resolve() == Path(target).expanduser().resolve():
            raise UserError(f"dataset.source and dataset.target are one file, {source}: there is nothing to transfer")
        return reading(source, f"dataset.source={source}"), reading(target, f"dataset.target={target}")
    if file is None or domain is None:
        given = {"source": source, "target": target, "file": file, "domain": domain}
        said = " ".join(f"dataset.{key}={value}" for key, value in given.items() if value is not None)
        raise UserError(f"dataset=csv takes {WAYS}; given: {said or 'none of them'}")
    of_row, table = reading(file, f"dataset.file={file}").split_off(domain, "domain")
    of_row = normalise_categories(of_row)
    there = sort_names(observed(of_row))
    for key, value in (("source", source), ("target", target)):
        if value not in there:
            said = f"dataset.{key}={value}: there is no such value" if value else f"dataset.{key} must name a value"
            gap = [word for word in missing if word.strip().lower() == str(value).strip().lower()]
            kept = format_option("missing", [word for word in missing if word not in gap])
            mend = f". {value} is a word for a missing value: {kept} changes that" if gap else ""
            raise UserError(
                f"{said} in column {domain!r} of {file}{nearest(value or '', there)} (it has {list_names(there)}){mend}"
            )
    if source == target:
        raise UserError(f"dataset.source and dataset.target are both {source}: there is nothing to transfer")
    if without := len(of_row) - len(observed(of_row)):
        log.warning(
            "%s: ignored %s without a value in column %r, which names the domain",
            file,
            count_noun(without, "row"),
            domain,
        )
    known, other = (replace(table.take(of_row == value), name=str(value)) for value in (source, target))
    return known, other


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


def _refuse_other_columns(source: Table, target: Table, **options: Sequence[str]) -> None:
    """Both sides must have the same columns, in any order, and the options may name no others."""
    for key, columns in options.items():
        there = {*source.header, *target.header} if key == "drop" else set(source.cells) | set(target.cells)
        for name in columns:
            if name not in there:
                files = " and ".join(dict.fromkeys((source.file, target.file)))
                raise UserError(
                    f"dataset.{key}: there is no column {name!r} in {files}{nearest(name, there)}"
                    f" (possible: {list_names(sorted(there))})"
                )
    for mine, theirs in ((source, target), (target, source)):
        if extra := [name for name in mine.cells if name not in theirs.cells]:
            close = nearest(extra[0], theirs.cells)
            raise UserError(
                f"{mine.file} has columns that {theirs.file} does not have: {list_names(extra)}{close}."
                " Rename them, or leave them out: dataset.drop=[…]"
            )


def _warn_of_shared_rows(source: Raw, target: Raw) -> None:
    """Rows that are in both domains, with their labels: refuse a copy of the domain, warn of some rows."""

    def rows(raw: Raw) -> Counter[bytes]:
        labels = [code(raw.classes[y]) for y in raw.y.tolist()]
        return Counter(row.tobytes() for row in np.column_stack([raw.x.numpy(), labels]))

    known, other = rows(source), rows(target)
    if known == other:
        raise UserError(f"{source.name} and {target.name} hold the same rows: there is nothing to transfer")
    if again := sum(count for row, count in other.items() if row in known):
        log.warning(
            "%d of the %s of the target also %s in the source, with the same label: if these are the same cases, the"
            " target's score is too optimistic",
            again, count_noun(len(target.x), "row"), "occurs" if again == 1 else "occur",
        )  # fmt: skip


def _warn_of_unseen(source: Table, target: Table, found: Mapping[str, ColumnKind]) -> None:
    """Warn of categories that only the target has: they are encoded as all zeros.

    Refuses a column where the target spells all of its categories otherwise than the source.
    """
    for column, kind in found.items():
        if kind == "categorical":
            there, here = (_categories(table.cells[column]) for table in (target, source))
            pairs = find_respelled(there, here)
            if pairs and len(pairs) == len(there):
                raise UserError(
                    f"column {column!r}: the source and the target have no category in common, as they spell them"
                    f" differently: {about_respelled(pairs)}. Write them alike, or leave the column out:"
                    f" {format_option('drop', [column])}"
                )
            for side, table, categories in (("source", source, here), ("target", target, there)):
                for group in doubles(categories):
                    log.warning(
                        "column %r of the %s (%s) has categories that differ only in case or spacing: %s. Each counts"
                        " as one of its own", column, side, table.file, list_names(map(repr, group)),
                    )  # fmt: skip
            if new := [name for name in there if name not in here]:
                spelling = f". These differ only in spelling: {about_respelled(pairs)}" if pairs else ""
                log.warning(
                    "column %r: the source has none of the target's %s: they are encoded like a missing value%s",
                    column, list_names(new), spelling,
                )  # fmt: skip


def _categories(cells: Cells) -> Classes:
    return sort_names(normalise_categories(np.array(sorted(set(observed(cells))), dtype=object)))
