"""Domains in tables of a user's own, a file for each or one with a column that tells them apart, and their classes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.cells import Cells, Table, format_option, normalise_categories, observed, pool_tables
from tl_runner.datasets.classes import (
    Classes,
    Policy,
    count_names,
    resolve_classes,
    select_stated,
    sort_names,
    warn_of_spelling,
)
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.labelled import WhetherLabelled
from tl_runner.datasets.read_table import read_alike
from tl_runner.datasets.source_names import Several, name_sources, refuse_one_place_twice, tell_apart
from tl_runner.datasets.spelling import about_respelled, find_respelled
from tl_runner.errors import UserError, list_names, nearest
from tl_runner.plurals import count_noun, pluralize

log = logging.getLogger(__name__)

WAYS = (
    "two files (dataset.source=a.csv dataset.target=b.csv; a domain may have several, by a folder or by a pattern such"
    " as 'a-*.csv'), or one with a column that names the domain"
    " (dataset.file=all.csv dataset.domain=COLUMN dataset.source=VALUE dataset.target=VALUE)"
)


def read_domains(
    takes: str,
    reading: Callable[..., Table],
    named: Mapping[str, Several],
    file: str | None,
    domain: str | None,
    missing: Sequence[str],
    needed: Sequence[str] = ("source", "target"),
) -> dict[str, Table]:
    """The rows of the source, the target and, if it is named, the test part: from files, or from one by its column.

    Several sources are pooled. `takes` says what may be asked for; those `needed` must be. `reading` reads what an
    option names: it gets the name, how that was typed, and perhaps columns to be read `as_text`. `missing` are the
    words for a missing value, which is no domain.
    """
    asked = {role: names for role, each in named.items() if (names := name_sources(each))}
    if file is None and domain is None and asked.keys() >= {*needed}:
        roles = [(role, name) for role, names in asked.items() for name in names]
        refuse_one_place_twice([(role, name, Path(name)) for role, name in roles], "rows")
        tables = {(role, name): reading(name, f"dataset.{role}={name}") for role, name in roles}
        tables = read_alike(tables, lambda role, name, mixed: reading(name, f"dataset.{role}={name}", as_text=mixed))
        _refuse_shared_files(tables)
        domains = [key for key in tables if key[0] != "test"]
        apart = tell_apart([tables[key].name for key in domains], [tables[key].file for key in domains])
        tables |= {key: replace(tables[key], name=name) for key, name in zip(domains, apart, strict=True)}
        return {role: pool_tables([tables[role, name] for name in each]) for role, each in asked.items()}
    if file is None or domain is None:
        given = {**named, "file": file, "domain": domain}
        said = " ".join(f"dataset.{key}={_say(value)}" for key, value in given.items() if value is not None)
        raise UserError(f"{takes}; given: {said or 'none of them'}")
    of_row, table = reading(file, f"dataset.file={file}").split_off(domain, "domain")
    of_row = normalise_categories(of_row)
    there = sort_names(observed(of_row))
    keys = dict.fromkeys((*needed, *asked))
    for key, value in ((each, name) for each in keys for name in asked.get(each, (None,))):
        if value not in there:
            said = f"dataset.{key}={value}: there is no such value" if value else f"dataset.{key} must name a value"
            gap = [word for word in missing if Dialect(missing=[word]).is_absent(str(value).strip(), literal=True)]
            kept = format_option("missing", [word for word in missing if word not in gap])
            mend = f". {value} is a word for a missing value: {kept} changes that" if gap else ""
            raise UserError(
                f"{said} in column {domain!r} of {file}{nearest(value or '', there)} (it has {list_names(there)}){mend}"
            )
    refuse_one_place_twice([(role, name, Path(name)) for role, names in asked.items() for name in names], "rows")
    if without := len(of_row) - len(observed(of_row)):
        log.warning(
            "%s: ignored %s without a value in column %r, which names the domain",
            file,
            count_noun(without, "row"),
            domain,
        )

    def take(names: Sequence[str]) -> Table:
        return pool_tables([replace(table.take(of_row == name), name=name) for name in names])

    return {role: take(names) for role, names in asked.items()}


def _say(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else f"[{','.join(value)}]"


def refuse_said_twice(**options: Sequence[str | None]) -> None:
    """Refuse a column that two options name."""
    said: dict[str, str] = {}
    for key, columns in options.items():
        for name in filter(None, columns):
            if name in said:
                raise UserError(f"column {name!r} is named twice, in dataset.{said[name]} and in dataset.{key}")
            said[name] = key


def find_classes(
    names: Mapping[str, Cells], labels: Policy, label_set: Sequence[str], tables: Mapping[str, Table]
) -> dict[str, Classes]:
    """The classes of each role; those of the test part are the target's.

    Of several source domains one may lack a class that others have, which is said; those `shared` are in all of them.
    """
    of_target = np.concatenate([cells for role, cells in names.items() if role != "source"])
    target = sort_names(observed(of_target))
    unlabelled = len(of_target) - len(observed(of_target))
    if "source" not in names:
        return dict.fromkeys(("target", "test"), _without_source(target, labels, label_set, unlabelled))
    source = sort_names(names["source"])
    members = _list_classes(names["source"], tables["source"])
    for (one, mine), (other, theirs) in combinations(members.items(), 2):
        if labels == "same" and (pairs := find_respelled(theirs, mine)):
            told = about_respelled(pairs, (one, other))
            raise UserError(f"classes of the sources differ only in spelling: {told}. Write them alike")
    for member, own in members.items():
        if lacking := [name for name in source if name not in own]:
            log.warning("the source domain %s has no row of class %s, which others have", member, list_names(lacking))
            source = tuple(name for name in source if name in own) if labels == "shared" else source
    warn_of_spelling(source, target, labels)
    source, target = resolve_classes(source, target, labels, label_set, unlabelled)
    return {"source": source, "target": target, "test": target}


def _refuse_shared_files(tables: Mapping[tuple[str, str], Table]) -> None:
    """Refuse a file that two roles or two sources read, by whatever names, patterns and folders."""
    seen = dict[Path, tuple[str, str]]()
    for key, table in tables.items():
        for file in table.files or (table.file,):
            first = seen.setdefault(Path(file).resolve(), key)
            if first != key:
                (role, name), (other, second) = first, key
                raise UserError(
                    f"dataset.{role} and dataset.{other} both read {file}, as {name!r} and {second!r}: rows of one file"
                    " must be in one domain. Name the files, or a pattern that leaves this one out"
                )


def _list_classes(names: Cells, table: Table) -> dict[str, set[str]]:
    """The classes of each domain that the rows of a pool are of."""
    if table.member is None:
        return {}
    return {name: {*names[table.member == position]} for position, (name, _) in enumerate(table.members)}


def _without_source(target: Classes, labels: Policy, label_set: Sequence[str], unlabelled: int) -> Classes:
    """The target's classes, where it stands alone: as stated, or by its labels."""
    if label_set:
        return select_stated(label_set, {"target": target}, labels, unlabelled)
    if unlabelled:
        raise UserError(
            f"{count_noun(unlabelled, 'row')} of the target {pluralize(unlabelled, 'has')} no label, and there is no"
            " source whose classes it has: name a dataset.source, or the classes, as in dataset.label_set=[no,yes]"
        )
    return target


def leave_out_other_classes(
    sides: Mapping[str, Table], names: Mapping[str, Cells], classes: Mapping[str, Classes]
) -> tuple[dict[str, Table], dict[str, Cells], dict[str, dict[str, int]], dict[str, NDArray[np.bool_]]]:
    """The rows of each role, and their names, without those of a class that it does not use; how many these are, by
    class, those of the test part with the target's; and which rows of each role are kept.
    """
    tables, labels, kept_of = dict[str, Table](), dict[str, Cells](), dict[str, NDArray[np.bool_]]()
    left_out: dict[str, list[str]] = {"source" if role == "source" else "target": [] for role in names}
    for role, y in names.items():
        used = {None, *classes[role]}
        kept = np.array([name in used for name in y.tolist()], dtype=np.bool_)
        left_out["source" if role == "source" else "target"] += [*y[~kept]]
        kept_of[role] = kept
        tables[role], labels[role] = (sides[role], y) if kept.all() else (sides[role].take(kept), y[kept])
    return tables, labels, {role: count_names(of) for role, of in left_out.items()}, kept_of


def explain_unlabelled(target: Table, label: str, labelled: WhetherLabelled) -> str:
    """By what it is known that rows of the target have no label."""
    if labelled == "no":
        return "dataset.labelled=no"
    empty = "column {!r} of {} is empty or NA there" if label in target.header else "there is no column {!r} in {}"
    return empty.format(label, target.file)
