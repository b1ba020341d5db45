"""A user's own images: a folder per domain, and in it a folder per class."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import torch

from tl_runner.datasets.classes import label_knowledge
from tl_runner.datasets.decoded import decode_images
from tl_runner.datasets.domain_folders import (
    DomainFolders,
    count_left_out,
    explain_unlabelled,
    find_classes,
    find_domains,
    label_files,
    list_domains,
    take_classes,
)
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled, score_on_rows, tell_unlabelled
from tl_runner.datasets.listing import IMAGES
from tl_runner.datasets.pixel_format import Channels, PixelFormat, doubts
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.errors import UserError, check_range
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

SHOWN = 5  # bad files that are named


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
    domains = find_domains(base, IMAGES, {"source": source, "target": target, "test": test})
    how = PixelFormat(bit_depth, channels).checked()
    listed = list_domains(domains, base, IMAGES, labelled)
    found = {role: each.folders for role, each in listed.items()}
    classes = find_classes(found, IMAGES, labels, label_set)
    sides = take_classes(found, IMAGES, classes)
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
        y, part = label_files(domains[role], IMAGES, sides[role], classes[role], bad[role])
        files = [str(file.path) for each in sides[role] for file in each.files]
        names = np.array([file for index, file in enumerate(files) if index not in bad[role]], dtype=object)
        return Raw(normalize("NFC", domains[role].name), pixels, y, classes[role], part, names)

    target_rows = raw("target")
    tell_unlabelled(target_rows, explain_unlabelled(found["target"], IMAGES, labelled), tested="test" in domains)
    notes = {
        "skipped": {role: len(files) for role, files in bad.items()},
        "passed_over": {role: len(each.passed) for role, each in listed.items()},
        "resize": "pillow",
        "pixel_format": how._asdict(),
        **label_knowledge(labels, label_set, count_left_out(found, classes)),
    }
    source_rows = raw("source") if "source" in domains else None
    return Drawn(source_rows, score_on_rows(target_rows, score_on), notes, on_disk=on_disk)


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
