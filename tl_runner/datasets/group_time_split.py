"""Cut a domain into train, val and test by a column: rows of a group stay together, or the latest rows are the test.

Nothing here looks at inputs or labels.
"""

import logging
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

Times = NDArray[Any]  # float64, or datetime64
OFF = 0.1  # of a domain's rows: a part that differs by more from what was wanted is said


def cut_groups(
    rows: Tensor, group: NDArray[np.object_], wanted: Sequence[int], generator: torch.Generator, name: str
) -> list[Tensor]:
    """Rows (n,) as [train, val, test], each group whole; `group` (N,) names that of every row of the domain.

    `wanted` is how many rows val and test should have. Groups are ordered by a hash of their names, and shuffled; test
    takes each that brings it nearer to its number, then val; the rest is for training. So a group's part depends on the
    groups and their sizes alone. Refuses fewer groups than parts.
    """
    names = group[rows.numpy()]
    keys, codes, sizes = np.unique(np.array([_hash(each) for each in names]), return_inverse=True, return_counts=True)
    parts = [part for part in (2, 1) if wanted[part - 1]]
    if len(keys) <= len(parts):
        raise UserError(
            f"{name} has {count_noun(len(keys), 'group')} ({list_names(sorted(set(names)))}) for"
            f" {len(parts) + 1} parts, and a group is in one alone: name a column with more groups"
        )
    left = torch.randperm(len(keys), generator=generator).tolist()
    part_of = np.zeros(len(keys), dtype=np.int64)
    for part in parts:
        want, count, taken = wanted[part - 1], 0, list[int]()
        room = len(left) - (1 if part == parts[-1] else len(parts))  # so many it may take: each other part needs one
        for key in left:
            if len(taken) < room and abs(count + sizes[key] - want) < abs(count - want):
                taken.append(key)
                count += int(sizes[key])
        taken = taken or [min(left, key=lambda each: sizes[each])]
        part_of[taken] = part
        left = [key for key in left if part_of[key] == 0]
    found = torch.from_numpy(part_of[codes])
    cut = [rows[found == part] for part in range(3)]
    for part, want in (("val", wanted[0]), ("test", wanted[1])):
        got = len(cut[1 if part == "val" else 2])
        if want and abs(got - want) > OFF * len(rows):
            log.warning(
                "the %s split of %s has %d of its %d rows where about %d were wanted: groups stay whole, and there are"
                " %d", part, name, got, len(rows), want, len(keys),
            )  # fmt: skip
    return cut


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def cut_times(rows: Tensor, times: Times, wanted: Sequence[int], name: str) -> list[Tensor]:
    """Rows (n,) as [train, val, test], the earliest first; `times` (N,) are those of every row of the domain.

    Rows of one time stay together: a cut is where the time changes next to where it should be. `wanted` is how many
    rows val and test should have. Within a part rows keep their order.
    """
    of = times[rows.numpy()]
    moments, codes, sizes = np.unique(of, return_inverse=True, return_counts=True)
    needed = 1 + sum(map(bool, wanted))
    if len(moments) < needed:
        raise UserError(
            f"{name} has {count_noun(len(moments), 'different time')} for {needed} parts, and rows of one time are in"
            " one alone"
        )
    ends = np.cumsum(sizes)
    cuts, above = [0, 0], len(moments)  # moments before a cut: of val and of test
    for part in (1, 0):
        if not wanted[part]:
            cuts[part] = above
            continue
        least = 1 + (part == 1 and wanted[0] > 0)
        before = len(rows) - sum(wanted[part:])
        possible = np.arange(least, above)
        cuts[part] = above = int(possible[np.abs(ends[possible - 1] - before).argmin()])
    part_of = np.zeros(len(moments), dtype=np.int64)
    part_of[cuts[0] :] = 1
    part_of[cuts[1] :] = 2
    found = torch.from_numpy(part_of[codes])
    return [rows[found == part] for part in range(3)]


def tell_times(times: Times, parts: Sequence[Tensor]) -> list[list[str]]:
    """The first and the last time in each part, as people write them."""
    return [[_say(of.min()), _say(of.max())] for of in (times[rows.numpy()] for rows in parts)]


def _say(time: Any) -> str:
    return (
        str(time).removesuffix(".000000").removesuffix("T00:00:00") if isinstance(time, np.datetime64) else f"{time:g}"
    )


def refuse_straddling(part: Tensor, group: NDArray[np.object_], parts: Sequence[str], name: str) -> None:
    """Refuse a group of which rows are given (n,) to more than one part."""
    seen: dict[str, int] = {}
    for each, at in zip(group.tolist(), part.tolist(), strict=True):
        if seen.setdefault(each, at) != at:
            raise UserError(
                f"{name}: group {each!r} has rows in {parts[seen[each]]} and in {parts[at]}, as they were given"
                " (dataset.split, dataset.test, dataset.score_on=labelled). Rows of a group must be in one part: leave"
                " out dataset.group, or what gives the parts"
            )
