"""A user's own images: a folder per domain, and in it a folder per class."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.classes import (
    WAYS_UNLABELLED,
    Policy,
    count_names,
    label_knowledge,
    select_stated,
    warn_of_missing_classes,
)
from tl_runner.datasets.decoded import decode_images
from tl_runner.datasets.labelled import (
    TEST,
    TRAIN,
    ScoreOn,
    WhetherLabelled,
    refuse_policy_without_labels,
    score_on_rows,
    tell_unlabelled,
)
from tl_runner.datasets.listing import UNLABELLED, ClassFolder, Listing, class_folders, folders, quoted
from tl_runner.datasets.pixel_format import Channels, PixelFormat, doubts
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError, check_range, nearest
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

SHOWN = 5  # bad files that are named
DomainFolders = Mapping[str, Sequence[ClassFolder]]  # of the source, where there is one, and of the target


def image_folder(
    seed: int,
    cache: Path,
    root: str = "data",
    source: str | None = None,
    target: str | None = None,
    labels: Literal["same", "shared", "differ"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    size: int = 64,
    bit_depth: int | None = None,
    channels: Channels | None = None,
    on_bad: Literal["error", "skip"] = "error",
    memory: float = 2.0,
) -> Drawn:
    """Images under `root/<domain>/<class>/` or `root/<domain>/{train,val,test}/<class>/`, at any depth.

    source, target, test: names of domains; a source of None is in the backbone's weights, and a `test` is the target's
    test split. labels: both domains have the `same` classes, or their `shared` ones are used, or they may `differ`; a
    label_set states those of both. labelled: whether the target's folders name classes (see `class_folders`). size:
    pixels a side of the central square that is used (see `picture.square`). bit_depth, channels: how the numbers of a
    file are read, where it leaves a doubt (see `PixelFormat`). on_bad: a file that can't be read is an error, or
    skipped and counted. memory: GiB that the images may take; more stay on disk, memory-mapped. Unless `channels` says
    it, they have one channel where no file of either domain has colour, else three. The seed decides nothing here.
    """
    check_range(8, 1024, size=size)
    check_range(0, memory=memory)
    base = Path(root).expanduser()
    domains = _domains(base, {"source": source, "target": target, "test": test})
    how = PixelFormat(bit_depth, channels).checked()
    listed = _list_domains(domains, base, labelled)
    found = {role: each.folders for role, each in listed.items()}
    classes = _classes(found, labels, [normalize("NFC", name) for name in label_set])
    sides = {role: [each for each in found[role] if each.label in (None, *classes[role])] for role in found}
    for each in (each for side in sides.values() for each in side):
        if not each.files:
            raise UserError(f"{str(each.path)!r} holds no image (other files: {each.others}): fill or remove it")
    if others := sum(each.others for side in sides.values() for each in side):
        log.warning("ignored %s without an image extension: run.log lists them", count_noun(others, "file"))
    images = {
        role: decode_images([file for each in side for file in each.files], size, cache, domains[role].name, how)
        for role, side in sides.items()
    }
    bad = {role: side.facts.bad for role, side in images.items()}
    _judge(sides, bad, on_bad)
    if bit_depth is not None and not any(side.facts.numbers.deep_images for side in images.values()):
        raise UserError(f"dataset.bit_depth={bit_depth}: no file holds more than 8 bits a pixel; leave it out")
    for role, side in images.items():
        for doubt in doubts(side.facts.numbers, how):
            log.warning("%s: %s", domains[role], doubt)
    grey = all(side.facts.grey for side in images.values())
    x = {role: side.x[:, :1] if grey else side.x for role, side in images.items()}
    on_disk = sum(pixels.numel() for pixels in x.values()) > memory * 2**30

    def raw(role: str) -> Raw:
        pixels = x[role] if on_disk else x[role].clone(memory_format=torch.contiguous_format)
        y, part = _rows(domains[role], sides[role], classes[role], bad[role])
        files = [str(file.path) for each in sides[role] for file in each.files]
        names = np.array([file for index, file in enumerate(files) if index not in bad[role]], dtype=object)
        return Raw(normalize("NFC", domains[role].name), pixels, y, classes[role], part, names)

    target_rows = raw("target")
    tell_unlabelled(target_rows, _why_unlabelled(found["target"], labelled), tested="test" in domains)
    left_out = {
        role: count_names(each.label for each in side if each.label not in (None, *classes[role]) for _ in each.files)
        for role, side in found.items()
    }
    notes = {
        "skipped": {role: len(files) for role, files in bad.items()},
        "passed_over": {role: len(each.passed) for role, each in listed.items()},
        "resize": "pillow",
        "pixel_format": how._asdict(),
        **label_knowledge(labels, label_set, left_out),
    }
    source_rows = raw("source") if "source" in domains else None
    return Drawn(source_rows, score_on_rows(target_rows, score_on), notes, on_disk=on_disk)


def _list_domains(domains: Mapping[str, Path], root: Path, labelled: WhetherLabelled) -> dict[str, Listing]:
    """The class folders of the source, if there is one, and of the target, among them those of a `test` domain."""
    listed: dict[str, Listing] = {}
    if "source" in domains:
        listed["source"] = class_folders(domains["source"], root)
    known = {each.label for each in listed["source"].folders} if listed else set[str | None]()
    listed["target"] = class_folders(domains["target"], root, labelled, known)
    if "test" in domains:
        if any(each.part == TEST for each in listed["target"].folders):
            raise UserError(f"dataset.test: {domains['target']} is divided and has a test part already")
        own = [each if each.part else each._replace(part=TRAIN) for each in listed["target"].folders]
        test = class_folders(domains["test"], root)
        kept = [*own, *(each._replace(part=TEST) for each in test.folders)]
        listed["target"] = Listing(kept, (*listed["target"].passed, *test.passed))
    return listed


def _why_unlabelled(target: Sequence[ClassFolder], labelled: WhetherLabelled) -> str:
    """By what it is known that images of the target have no label."""
    if labelled == "no":
        return "dataset.labelled=no"
    named = [each.path.name for each in target if each.label is None and each.path.name in UNLABELLED]
    what = f"a folder {named[0]!r}" if named else "images outside any class folder"
    return f"{what}; dataset.labelled=yes or no says how to read the folders"


def _domains(root: Path, named: Mapping[str, str | None]) -> dict[str, Path]:
    """The folder of each role, looked up among those that are there: no name leads out of the root."""
    if not root.is_dir():
        raise UserError(f"there is no folder {str(root.absolute())!r}: set dataset.root=…")
    there = folders(root, root)
    if not there:
        raise UserError(f"{str(root)!r} holds no folder: it needs one for each domain, or set dataset.root=…")
    if named["target"] is None:
        raise UserError(
            f"name the domains, with dataset.source=… dataset.target=…, or only the target where the source is in the"
            f" backbone's weights: {str(root)!r} holds {quoted(there)}"
        )
    chosen = {role: normalize("NFC", name) for role, name in named.items() if name is not None}
    for role, name in chosen.items():
        if name not in there:
            deeper = [str(path) for path in there.values() if name in folders(path, root)]
            instead = f" – {deeper[0]!r} holds it: set dataset.root={deeper[0]}" if deeper else nearest(name, there)
            raise UserError(f"dataset.{role}={name}: {str(root)!r} holds {quoted(there)}{instead}")
    places: dict[Path, str] = {}
    for role, name in chosen.items():
        other = places.setdefault(there[name].resolve(), role)
        if other != role:
            why = "the test images must be others" if role == "test" else "there is nothing to transfer"
            raise UserError(f"{other} and {role} are both {name!r}: {why}")
    return {role: there[name] for role, name in chosen.items()}


def _classes(found: DomainFolders, labels: Policy, label_set: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The classes of each role, by name."""
    unlabelled = sum(len(each.files) for each in found["target"] if each.label is None)
    refuse_policy_without_labels(labels, unlabelled)
    named = {role: {each.label: each.path for each in side if each.label is not None} for role, side in found.items()}
    classes = {role: tuple(sorted(paths)) for role, paths in named.items()}
    if label_set:
        return dict.fromkeys(named, tuple(sorted(select_stated(label_set, classes, labels, unlabelled))))
    if "source" not in named:
        if unlabelled:
            raise UserError(
                "the target has images without a label, and there is no source whose classes it has: name a"
                " dataset.source, or the classes, as in dataset.label_set=[cat,dog]"
            )
        return classes
    shared = named["source"].keys() & named["target"].keys()
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
            raise UserError(f"no class is in both: {quoted(classes['source'])} and {quoted(classes['target'])}")
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


def _judge(sides: DomainFolders, bad: Mapping[str, Mapping[int, str]], on_bad: str) -> None:
    """Refuse or report the unreadable files of both domains together."""
    files = {role: [file for each in side for file in each.files] for role, side in sides.items()}
    told = [f"{str(files[role][i].path)!r} ({reason})" for role in bad for i, reason in bad[role].items()]
    if not told:
        return
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    all_files = count_noun(sum(map(len, files.values())), "file")
    what = f"{len(told)} of {all_files} can't be read: {', '.join(told[:SHOWN])}{more}"
    if on_bad == "error":
        raise UserError(f"{what}; fix or remove them, or set dataset.on_bad=skip")
    log.warning("skipped: %s", what)


def _rows(
    domain: Path, side: Sequence[ClassFolder], classes: Sequence[str], bad: Mapping[int, str]
) -> tuple[Tensor, Tensor | None]:
    """The class and, in a divided domain, the part of each image that could be read."""
    folder = torch.tensor([i for i, each in enumerate(side) for _ in each.files])
    readable = torch.ones(len(folder), dtype=torch.bool)
    readable[list(bad)] = False
    folder = folder[readable]
    of_folder = [UNKNOWN if each.label is None else classes.index(each.label) for each in side]
    y = torch.tensor(of_folder)[folder]
    if lost := sorted({*of_folder} - {UNKNOWN} - set(y.tolist())):
        raise UserError(f"{domain}: of class {quoted(classes[i] for i in lost)} no image can be read")
    divided = side[0].part is not None
    return y, torch.tensor([each.part for each in side])[folder] if divided else None
