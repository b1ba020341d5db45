"""From a user's own sound files, in a folder per domain and class, to the rows of two domains."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_runner.datasets.classes import Policy, label_knowledge
from tl_runner.datasets.domain_folders import (
    count_left_out,
    explain_unlabelled,
    find_classes,
    find_domains,
    label_files,
    list_domains,
    take_classes,
)
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled, score_on_rows, tell_unlabelled
from tl_runner.datasets.listed_images import OnBad, judge_unreadable
from tl_runner.datasets.listing import RECORDINGS, ClassFolder
from tl_runner.datasets.pool import mark_members
from tl_runner.datasets.recordings import Cut, choose_cut, decode_recordings, tell_doubts
from tl_runner.datasets.source_names import Several, name_domains
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.errors import UserError

FOLDER = "folder"  # the group of a file is the folder within the class that it lies in


class RecordingOptions(NamedTuple):
    """How folders of recordings become rows: options of `audio.audio`, where they are explained."""

    labels: Policy
    label_set: tuple[str, ...]
    labelled: WhetherLabelled
    score_on: ScoreOn
    group: str | None
    sample_rate: int | Literal["auto"]
    seconds: float | Literal["auto"]
    on_bad: OnBad
    memory: float


def draw_recordings(
    root: Path, asked: Mapping[str, Several], options: RecordingOptions, cache: Path
) -> tuple[Drawn, Cut]:
    """The rows of the roles `source`, where there is one, and `target`, among them those of a `test`; and their cut."""
    places = find_domains(root, RECORDINGS, asked)
    listed = list_domains(places, root, RECORDINGS, options.labelled)
    found = {role: each.folders for role, each in listed.items()}
    names = name_domains({role: each for role, each in places.items() if role != "test"})
    classes = find_classes(found, RECORDINGS, options.labels, options.label_set, names.get("source", ()))
    sides = take_classes(found, RECORDINGS, classes)
    groups = {role: find_groups(side, options.group) for role, side in sides.items()}
    files = {role: [file for each in side for file in each.files] for role, side in sides.items()}
    paths = {role: [file.path for file in each] for role, each in files.items()}
    cut = choose_cut(paths, options.sample_rate, options.seconds)
    decoded = {role: decode_recordings(each, cut, cache, " + ".join(names[role])) for role, each in files.items()}
    bad = {role: each.bad for role, each in decoded.items()}
    judge_unreadable(sides, bad, options.on_bad)
    on_disk = 2 * sum(each.x.numel() for each in decoded.values()) > options.memory * 2**30

    def raw(role: str) -> Raw:
        where = " and ".join(map(str, places[role]))
        tell_doubts(where, decoded[role].met, cut)
        y, part, member = label_files(where, RECORDINGS, sides[role], classes[role], bad[role])
        group = groups[role]
        kept = [i for i in range(len(files[role])) if i not in bad[role]]
        rows = Raw(
            " + ".join(names[role]),
            decoded[role].x if on_disk else decoded[role].x.clone(),
            y,
            classes[role],
            part,
            np.array([str(paths[role][i]) for i in kept], dtype=object),
            group=None if group is None else group[kept],
        )
        return mark_members(rows, names[role], member)

    target = raw("target")
    tell_unlabelled(target, explain_unlabelled(found["target"], RECORDINGS, options.labelled), tested="test" in places)
    notes = {
        "skipped": {role: len(each) for role, each in bad.items()},
        "passed_over": {role: len(each.passed) for role, each in listed.items()},
        **label_knowledge(options.labels, options.label_set, count_left_out(found, classes)),
    }
    source = raw("source") if "source" in listed else None
    return Drawn(source, score_on_rows(target, options.score_on), notes, on_disk=on_disk), cut


def find_groups(side: Sequence[ClassFolder], by: str | None) -> NDArray[np.object_] | None:
    """The group of each file: the name of a folder within its class, or what an expression finds in the file's name.

    Of an expression its first group counts, or all that it matched. Raises `UserError` where a file has none.
    """
    if by is None:
        return None
    if by == FOLDER:
        found = [file.path.relative_to(each.path).parts[:-1][:1] for each in side for file in each.files]
        why = "lies in no folder within its class: root/<domain>/<class>/<group>/FILE"
    else:
        try:
            expression = re.compile(by)
        except re.error as error:
            raise UserError(f"dataset.group={by} is no regular expression ({error}), and not `{FOLDER}`") from error
        matches = [expression.search(file.path.name) for each in side for file in each.files]
        found = [match and tuple(filter(None, (match.groups() or (match[0],))[:1])) for match in matches]
        why = f"has nothing in its name that dataset.group={by} matches"
    files = [file for each in side for file in each.files]
    if none := next((file for file, group in zip(files, found, strict=True) if not group), None):
        raise UserError(f"dataset.group: {str(none.path)!r} {why}. Rows of a group stay in one split; each needs one")
    return np.array([group[0] for group in found if group], dtype=object)
