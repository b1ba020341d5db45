"""Texts of a user's own: in two files, in one with a column that names the domain, or a file for each text."""

import inspect
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets import domain_folders, domain_tables
from tl_runner.datasets.cells import Cells, Table
from tl_runner.datasets.classes import Policy, label_knowledge, split_label, warn_of_order
from tl_runner.datasets.clean_text import clean_text
from tl_runner.datasets.content import text_digests
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled, score_on_rows, tell_unlabelled, with_test_rows
from tl_runner.datasets.listing import TEXTS
from tl_runner.datasets.pool import mark_members
from tl_runner.datasets.source_names import Several, name_domains, name_sources
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.datasets.text_columns import TextColumns
from tl_runner.datasets.text_files import read_text
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun, pluralize

log = logging.getLogger(__name__)

OnEmpty = Literal["error", "skip"]
WAYS = f"{domain_tables.WAYS}; or folders (dataset.root=FOLDER dataset.source=DOMAIN dataset.target=DOMAIN)"
FOR_TABLES = ("file", "domain", "text", "label", "missing", "separator")  # options that mean nothing beside a root


class Found(NamedTuple):
    """The rows of the source, if there is one, and of the target; what was skipped and left out, by role.

    `why` says by what it is known that rows of the target have no label.
    """

    rows: dict[str, Raw]
    skipped: dict[str, int]
    left_out: Mapping[str, Mapping[str, int]]
    why: str
    notes: Mapping[str, Any] = {}


def text(
    seed: int,
    source: Several = None,
    target: str | None = None,
    file: str | None = None,
    domain: str | None = None,
    root: str | None = None,
    text: str = "text",
    label: str = "label",
    labels: Literal["same", "differ", "shared"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    on_empty: OnEmpty = "error",
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "NULL", "?"),
    separator: str = "auto",
    encoding: str = "auto",
) -> Drawn:
    """Two domains of texts: rows of files (CSV, Parquet, or an object a line as JSON), or files in folders.

    Files: `source` and `target`, or one `file` with the column `domain` of which these are values; the columns (or
    keys) `text` and `label`. A domain may have several, by a pattern or a folder. A label that is empty or one of the
    words `missing` is missing. Folders: `root/<domain>/<class>/*.txt`, or with train, val and test between these, at
    any depth. A source of None is in the backbone's weights. labels, label_set, labelled, score_on and test are as in
    `table.table` and `folder.image_folder`. on_empty: an empty text is an error, or skipped and counted. Texts are as
    `clean_text` makes them. The seed decides nothing here.
    """
    asked: dict[str, Several] = {"source": source, "target": target, "test": test}
    policy = Labelling(labels, label_set, labelled)
    if root is None:
        columns = TextColumns(text, label, domain, Dialect.parse(separator, encoding, missing=missing))
        columns.warn_of_separator([file] if file else [name for each in asked.values() for name in name_sources(each)])
        found = _read_tables(asked, file, columns, policy, on_empty)
    else:
        _refuse_columns(file=file, domain=domain, text=text, label=label, missing=tuple(missing), separator=separator)
        found = _read_folders(asked, Path(root).expanduser(), policy, on_empty, encoding)
    target_rows = found.rows["target"]
    tell_unlabelled(target_rows, found.why, tested=test is not None)
    notes = {"skipped": found.skipped, **found.notes, **label_knowledge(labels, label_set, found.left_out)}
    return Drawn(found.rows.get("source"), score_on_rows(target_rows, score_on), notes)


class Labelling(NamedTuple):
    """What is known of the classes, and whether the target's labels are to be read."""

    policy: Policy
    label_set: Sequence[str]
    labelled: WhetherLabelled


def _read_tables(
    asked: Mapping[str, Several], file: str | None, columns: TextColumns, labelling: Labelling, on_empty: OnEmpty
) -> Found:
    domain_tables.refuse_said_twice(text=(columns.text,), label=(columns.label,), domain=(columns.domain,))
    tables = domain_tables.read_domains(
        f"dataset=text takes {WAYS}",
        columns.read,
        asked,
        file,
        columns.domain,
        columns.dialect.missing,
        needed=["target"],
    )
    sides, names, skipped = dict[str, Table](), dict[str, Cells](), dict[str, int]()
    for role, table in tables.items():
        whether = labelling.labelled if role == "target" else "yes"
        if whether == "yes":
            columns.check_label(table)
        texts, kept = _clean(role, table.cells[columns.text], table.places(), on_empty)
        side = replace(table, cells={**table.cells, columns.text: texts}).take(kept)
        skipped[role] = int((~kept).sum())
        sides[role], names[role] = split_label(
            side, columns.label, columns.dialect.missing, columns.read_literally, whether
        )
    classes = domain_tables.find_classes(names, labelling.policy, labelling.label_set, sides)
    warn_of_order({name for side in classes.values() for name in side}, columns.label)
    sides, names, left_out, _ = domain_tables.leave_out_other_classes(sides, names, classes)

    def raw(role: str) -> Raw:
        y = [UNKNOWN if name is None else classes[role].index(name) for name in names[role]]
        side = sides[role]
        own = _raw(side.name, side.cells[columns.text], torch.tensor(y), classes[role], side.places())
        return mark_members(own, [name for name, _ in side.members], side.member)

    rows = {role: raw(role) for role in sides}
    if "test" in rows:
        rows["target"] = with_test_rows(rows["target"], rows.pop("test"))
    why = domain_tables.explain_unlabelled(tables["target"], columns.label, labelling.labelled)
    return Found(rows, skipped, left_out, why, {"written": {role: dict(table.found) for role, table in tables.items()}})


def _read_folders(
    asked: Mapping[str, Several], root: Path, labelling: Labelling, on_empty: OnEmpty, encoding: str
) -> Found:
    domains = domain_folders.find_domains(root, TEXTS, asked)
    listed = domain_folders.list_domains(domains, root, TEXTS, labelling.labelled)
    found = {role: each.folders for role, each in listed.items()}
    names = name_domains({role: each for role, each in domains.items() if role != "test"})
    classes = domain_folders.find_classes(found, TEXTS, labelling.policy, labelling.label_set, names.get("source", ()))
    sides = domain_folders.take_classes(found, TEXTS, classes)
    rows, skipped = dict[str, Raw](), dict[str, int]()
    for role, side in sides.items():
        files = [str(file.path) for each in side for file in each.files]
        texts, kept = _clean(role, _read_files(files, encoding), files, on_empty)
        empty = np.flatnonzero(~kept)
        skipped[role] = len(empty)
        where = " and ".join(map(str, domains[role]))
        y, part, member = domain_folders.label_files(where, TEXTS, side, classes[role], set(empty.tolist()))
        places = [name for name, keep in zip(files, kept, strict=True) if keep]
        pooled = _raw(" + ".join(names[role]), texts[kept], y, classes[role], places, part)
        rows[role] = mark_members(pooled, names[role], member)
    why = domain_folders.explain_unlabelled(found["target"], TEXTS, labelling.labelled)
    passed = {"passed_over": {role: len(each.passed) for role, each in listed.items()}}
    return Found(rows, skipped, domain_folders.count_left_out(found, classes), why, passed)


def _read_files(files: Sequence[str], encoding: str) -> list[str]:
    """The text in each; where some can't be read, the first is named, and how many more there are."""
    texts, refused = list[str](), list[UserError]()
    for file in files:
        try:
            texts.append(read_text(file, file, encoding))
        except UserError as error:
            refused.append(error)
    if len(refused) > 1:
        others = count_noun(len(refused) - 1, "other file")
        raise UserError(f"{refused[0]} ({others} can't be read either)") from refused[0]
    if refused:
        raise refused[0]
    return texts


def _clean(
    role: str, texts: Collection[str | None], places: Sequence[str], on_empty: OnEmpty
) -> tuple[Cells, NDArray[np.bool_]]:
    """The clean texts (n,), and which (n,) of them are not empty; refuses empty ones, or says that they are skipped."""
    cleaned = np.array([clean_text(each or "") for each in texts], dtype=object)
    kept = cleaned != ""
    if kept.all():
        return cleaned, kept
    empty = [place for place, keep in zip(places, kept, strict=True) if not keep]
    whose = "target's test part" if role == "test" else role
    what = (
        f"{len(empty)} of the {count_noun(len(kept), 'text')} of the {whose} {pluralize(len(empty), 'is')} empty:"
        f" {list_names(empty)}"
    )
    if on_empty == "error" or not kept.any():
        skip = "; or set dataset.on_empty=skip, which leaves them out, without a prediction" if kept.any() else ""
        raise UserError(f"{what}. Write them, or take them out{skip}")
    log.warning("skipped, and not predicted: %s", what)
    return cleaned, kept


def _raw(
    name: str, texts: Cells, y: Tensor, classes: tuple[str, ...], places: Sequence[str], part: Tensor | None = None
) -> Raw:
    return Raw(name, text_digests(texts.tolist()), y, classes, part, np.array(places, dtype=object), texts=texts)


def _refuse_columns(**given: Any) -> None:
    """Options of tables, where texts are files."""
    defaults = inspect.signature(text).parameters
    if said := [key for key in FOR_TABLES if given[key] != defaults[key].default]:
        raise UserError(
            "dataset.root reads a file for each text, root/<domain>/<class>/*.txt, and"
            f" dataset.{said[0]} is for tables: leave one of them out"
        )
