"""Domains in folders of a user's own, a folder for each class: which files are whose, and of which class.

What the folders hold, images or texts, is opened elsewhere.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import torch
from torch import Tensor

from tl_runner.datasets.classes import (
    WAYS_UNLABELLED,
    Policy,
    count_names,
    select_stated,
    warn_of_missing_classes,
)
from tl_runner.datasets.labelled import TEST, TRAIN, WhetherLabelled, refuse_policy_without_labels
from tl_runner.datasets.listing import UNLABELLED, ClassFolder, FileKind, Listing, class_folders, folders, quoted
from tl_runner.datasets.source_names import Several, name_sources, refuse_one_place_twice
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

DomainFolders = Mapping[str, Sequence[ClassFolder]]  # of the source, where there is one, and of the target


def find_domains(
    root: Path, kind: FileKind, named: Mapping[str, Several], follow_links: bool = False
) -> dict[str, tuple[Path, ...]]:
    """The folder of each role, or of each of its several domains: looked up there, so that no name leaves the root.

    A link does only with `follow_links`.
    """
    within = None if follow_links else root
    if not root.is_dir():
        raise UserError(f"there is no folder {str(root.absolute())!r}: set dataset.root=…")
    there = folders(root, within)
    if not there:
        raise UserError(f"{str(root)!r} holds no folder: it needs one for each domain, or set dataset.root=…")
    if named["target"] is None:
        raise UserError(
            f"name the domains, with dataset.source=… dataset.target=…, or only the target where the source is in the"
            f" backbone's weights: {str(root)!r} holds {quoted(there)}"
        )
    names = {role: name_sources(name) for role, name in named.items()}
    chosen = [(role, normalize("NFC", name)) for role, each in names.items() for name in each]
    for role, name in chosen:
        if name not in there:
            deeper = [str(path) for path in there.values() if name in folders(path, within)]
            instead = f" – {deeper[0]!r} holds it: set dataset.root={deeper[0]}" if deeper else nearest(name, there)
            raise UserError(f"dataset.{role}={name}: {str(root)!r} holds {quoted(there)}{instead}")
    refuse_one_place_twice([(role, name, there[name]) for role, name in chosen], f"{kind.noun}s")
    return {role: tuple(there[name] for of, name in chosen if of == role) for role in dict(chosen)}


def list_domains(
    domains: Mapping[str, Sequence[Path]],
    root: Path,
    kind: FileKind,
    labelled: WhetherLabelled,
    follow_links: bool = False,
) -> dict[str, Listing]:
    """The class folders of the source, if there is one, and of the target, among them those of a `test` domain."""
    within = None if follow_links else root
    listed: dict[str, Listing] = {}
    if "source" in domains:
        listed["source"] = join_listings([class_folders(each, within, kind) for each in domains["source"]])
    known = {each.label for each in listed["source"].folders} if listed else set[str | None]()
    (target,) = domains["target"]
    listed["target"] = class_folders(target, within, kind, labelled, known)
    if "test" in domains:
        if any(each.part == TEST for each in listed["target"].folders):
            raise UserError(f"dataset.test: {target} is divided and has a test part already")
        own = [each if each.part else each._replace(part=TRAIN) for each in listed["target"].folders]
        test = join_listings([class_folders(each, within, kind) for each in domains["test"]])
        kept = [*own, *(each._replace(part=TEST) for each in test.folders)]
        listed["target"] = Listing(kept, (*listed["target"].passed, *test.passed))
    return listed


def join_listings(listings: Sequence[Listing]) -> Listing:
    """Those of several domains as one, in which each folder knows its domain."""
    folders = [each._replace(member=k) for k, listing in enumerate(listings) for each in listing.folders]
    return Listing(folders, tuple(path for listing in listings for path in listing.passed))


def _list_classes(source: Sequence[ClassFolder], names: Sequence[str], used: Collection[str] = ()) -> list[set[str]]:
    """The classes of each of several source domains, of these names; warns where one lacks what others have.

    Of classes that are `used` alone, if such are named.
    """
    members = sorted({each.member for each in source})
    classes = [{each.label for each in source if each.member == k and each.label is not None} for k in members]
    every = set[str]().union(*classes)
    for k, own in zip(members, classes, strict=True):
        if lacking := sorted(name for name in every - own if not used or name in used):
            log.warning("the source domain %s has no class %s, which others have", names[k], quoted(lacking))
    return classes


def find_classes(
    found: DomainFolders, kind: FileKind, labels: Policy, label_set: Sequence[str], names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The classes of each role, by name; `names` are those of the source's domains."""
    label_set = [normalize("NFC", name) for name in label_set]
    unlabelled = sum(len(each.files) for each in found["target"] if each.label is None)
    refuse_policy_without_labels(labels, unlabelled)
    named = {role: {each.label: each.path for each in side if each.label is not None} for role, side in found.items()}
    classes = {role: tuple(sorted(paths)) for role, paths in named.items()}
    if label_set:
        _list_classes(found.get("source", ()), names, label_set)
        return dict.fromkeys(named, tuple(sorted(select_stated(label_set, classes, labels, unlabelled))))
    if "source" not in named:
        if unlabelled:
            raise UserError(
                f"the target has {kind.noun}s without a label, and there is no source whose classes it has: name a"
                " dataset.source, or the classes, as in dataset.label_set=[cat,dog]"
            )
        return classes
    members = _list_classes(found["source"], names)
    shared = named["source"].keys() & named["target"].keys()
    if labels == "shared":
        shared = shared.intersection(*members)
    if labels == "same":
        if extra := [str(path) for name, path in named["target"].items() if name not in shared]:
            raise UserError(
                f"the target has classes that the source does not have: {quoted(extra)} (it has"
                f" {quoted(classes['source'])}). {_ways(len(shared), unlabelled)}"
            )
        warn_of_missing_classes([name for name in classes["source"] if name not in shared], unlabelled)
        return dict.fromkeys(named, classes["source"])
    if labels == "shared":
        if not shared:
            both = "both" if len(members) == 1 else "all domains"
            raise UserError(f"no class is in {both}: {quoted(classes['source'])} and {quoted(classes['target'])}")
        return dict.fromkeys(named, tuple(sorted(shared)))
    return classes


def _ways(shared: int, unlabelled: int) -> str:
    """What to do about classes that only the target has."""
    if unlabelled:
        return WAYS_UNLABELLED
    ways = (
        "dataset.labels=differ for a method that can transfer between them, or dataset.labelled=no if the target's"
        " folders are no classes"
    )
    if not shared:
        return f"Set {ways}"
    own = "dataset.label_set=[…] to state the classes yourself"
    return f"Set dataset.labels=shared to use the {shared} that both have, {own}, {ways}"


def take_classes(
    found: DomainFolders, kind: FileKind, classes: Mapping[str, Collection[str]]
) -> dict[str, list[ClassFolder]]:
    """The folders of each role whose class is used; refuses one that holds nothing, warns of files of other kinds."""
    sides = {role: [each for each in found[role] if each.label in (None, *classes[role])] for role in found}
    for each in (each for side in sides.values() for each in side):
        if not each.files:
            advice = kind.advice if each.others else ""
            raise UserError(
                f"{str(each.path)!r} holds no {kind.noun} (other files: {each.others}): fill or remove it{advice}"
            )
    if others := sum(each.others for side in sides.values() for each in side):
        log.warning("ignored %s without %s: run.log lists them", count_noun(others, "file"), kind.ending)
    return sides


def count_left_out(found: DomainFolders, classes: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
    """By role, how many files there are of each class that is not used."""
    return {
        role: count_names(each.label for each in side if each.label not in (None, *classes[role]) for _ in each.files)
        for role, side in found.items()
    }


def explain_unlabelled(target: Sequence[ClassFolder], kind: FileKind, labelled: WhetherLabelled) -> str:
    """By what it is known that files of the target have no label."""
    if labelled == "no":
        return "dataset.labelled=no"
    named = [each.path.name for each in target if each.label is None and each.path.name in UNLABELLED]
    what = f"a folder {named[0]!r}" if named else f"{kind.noun}s outside any class folder"
    return f"{what}; dataset.labelled=yes or no says how to read the folders"


def label_files(
    domain: str, kind: FileKind, side: Sequence[ClassFolder], classes: Sequence[str], bad: Collection[int] = ()
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The class, the part where a domain is divided, and the member of each file, but of those at the positions `bad`.

    `domain` is what to call the place. Of several domains, those that nobody divided have their files in train.
    """
    folder = torch.tensor([i for i, each in enumerate(side) for _ in each.files])
    readable = torch.ones(len(folder), dtype=torch.bool)
    readable[list(bad)] = False
    folder = folder[readable]
    of_folder = [UNKNOWN if each.label is None else classes.index(each.label) for each in side]
    y = torch.tensor(of_folder)[folder]
    if lost := sorted({*of_folder} - {UNKNOWN} - set(y.tolist())):
        raise UserError(f"{domain}: of class {quoted(classes[i] for i in lost)} no {kind.noun} can be read")
    divided = any(each.part is not None for each in side)
    part = torch.tensor([TRAIN if each.part is None else each.part for each in side])[folder] if divided else None
    return y, part, torch.tensor([each.member for each in side])[folder]
