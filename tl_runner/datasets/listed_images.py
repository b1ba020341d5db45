"""From image files that were listed, by folders or by lines of a file, to the rows of two domains."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from tl_runner.datasets.classes import Policy, label_knowledge
from tl_runner.datasets.decoded import decode_images
from tl_runner.datasets.domain_folders import DomainFolders, count_left_out, find_classes, label_files, take_classes
from tl_runner.datasets.labelled import ScoreOn, score_on_rows, tell_unlabelled
from tl_runner.datasets.listing import IMAGES, IMAGES_AND_ARRAYS, FileKind, Listing
from tl_runner.datasets.native_size import Size, choose_size
from tl_runner.datasets.pixel_format import Channels, PixelFormat, doubts
from tl_runner.datasets.pool import mark_members
from tl_runner.datasets.source_names import name_domains
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.errors import UserError, check_range
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

SHOWN = 5  # bad files that are named

OnBad = Literal["error", "skip"]


class Reading(NamedTuple):
    """How listed images become rows: the options that `image_folder` and `image_list` share.

    labels: both domains have the `same` classes, or their `shared` ones are used, or they may `differ`; a label_set
    states those of both. size: pixels a side of the central square that is used (see `picture.square`), `auto` by
    the files (see `native_size`). bit_depth, channels: how the numbers of a file are read, where it leaves a doubt, and
    how many bands it has (see `PixelFormat`). on_bad: a file that can't be read is an error, or skipped and counted.
    memory: GiB that the images may take; more stay on disk, memory-mapped.
    """

    labels: Policy
    label_set: tuple[str, ...]
    score_on: ScoreOn
    size: Size
    bit_depth: int | None
    channels: Channels | None
    on_bad: OnBad
    memory: float

    def checked(self) -> "Reading":
        if self.size != "auto":
            check_range(8, 1024, size=self.size)
        check_range(0, memory=self.memory)
        self.format.checked()
        return self

    @property
    def format(self) -> PixelFormat:
        return PixelFormat(self.bit_depth, self.channels)

    @property
    def kind(self) -> FileKind:
        """`.npy` files are images where it is said how many bands they have: else they may be anything."""
        return IMAGES_AND_ARRAYS if isinstance(self.channels, int) else IMAGES


def draw_images(
    listed: Mapping[str, Listing], places: Mapping[str, Sequence[Path]], reading: Reading, unlabelled: str, cache: Path
) -> Drawn:
    """The rows of the roles `source`, where there is one, and `target`; among the latter's may be those of a `test`.

    `places` are the folders or lists of the three, several where source domains are pooled, which give the domains
    their names; `unlabelled` says by what it is known that target rows have no label. Unless `channels` says it,
    images have one channel where no file of either domain has colour, else three.
    """
    how, kind = reading.format, reading.kind
    found = {role: each.folders for role, each in listed.items()}
    names = name_domains({role: each for role, each in places.items() if role != "test"})
    classes = find_classes(found, kind, reading.labels, reading.label_set, names.get("source", ()))
    sides = take_classes(found, kind, classes)
    files = {role: [file for each in side for file in each.files] for role, side in sides.items()}
    size, chosen = reading.size, None
    if size == "auto":
        chosen = choose_size({role: [file.path for file in each] for role, each in files.items()}, how)
        size = chosen.pixels
    images = {role: decode_images(each, size, cache, " + ".join(names[role]), how) for role, each in files.items()}
    bad = {role: side.bad for role, side in images.items()}
    judge_unreadable(sides, bad, reading.on_bad)
    if how.bit_depth is not None and not any(side.facts.numbers.deep_images for side in images.values()):
        raise UserError(f"dataset.bit_depth={how.bit_depth}: no file holds more than 8 bits a pixel; leave it out")
    for role, side in images.items():
        for doubt in doubts(side.facts.numbers, how):
            log.warning("%s: %s", " and ".join(map(str, places[role])), doubt)
    grey = all(side.facts.grey for side in images.values())
    x = {role: side.x[:, :1] if grey else side.x for role, side in images.items()}
    on_disk = sum(pixels.numel() for pixels in x.values()) > reading.memory * 2**30

    def raw(role: str) -> Raw:
        pixels = x[role] if on_disk else x[role].clone(memory_format=torch.contiguous_format)
        where = " and ".join(map(str, places[role]))
        y, part, member = label_files(where, kind, sides[role], classes[role], bad[role])
        paths = np.array([str(file.path) for i, file in enumerate(files[role]) if i not in bad[role]], dtype=object)
        rows = Raw(" + ".join(names[role]), pixels, y, classes[role], part, paths)
        return mark_members(rows, names[role], member)

    target_rows = raw("target")
    tell_unlabelled(target_rows, unlabelled, tested="test" in places)
    notes = {
        "skipped": {role: len(each) for role, each in bad.items()},
        "passed_over": {role: len(each.passed) for role, each in listed.items()},
        "resize": "pillow",
        "pixel_format": how._asdict(),
        "size": chosen,
        **label_knowledge(reading.labels, reading.label_set, count_left_out(found, classes)),
    }
    source_rows = raw("source") if "source" in listed else None
    return Drawn(source_rows, score_on_rows(target_rows, reading.score_on), notes, on_disk=on_disk)


def judge_unreadable(sides: DomainFolders, bad: Mapping[str, Mapping[int, str]], on_bad: OnBad) -> None:
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
