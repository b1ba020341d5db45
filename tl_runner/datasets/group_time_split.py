"""Cut a domain into train, val and test by a column: rows of a group stay together, or the latest rows are the test.

A group that several domains have is in the same part in all of them. Nothing here looks at inputs or labels.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.part_names import PARTS
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

Times = NDArray[Any]  # float64, or datetime64
GivenParts = tuple[str, Tensor, NDArray[np.object_]]  # a domain's name; of each row (n,) the given part, the group
ANY = frozenset({0, 1, 2})  # of `PARTS` by position
OFF = 0.1  # of a domain's rows: a part that differs by more from what was wanted is said


def find_open_parts(domains: Iterable[GivenParts]) -> dict[str, frozenset[int]]:
    """The parts that each group may be in, by what the makers of all domains gave: positions in `PARTS`.

    Rows in val or test are there; rows in train may go to a part that their domain lacks, which is cut from train.
    Refuses a group whose rows no one part can hold.
    """
    found = dict[str, frozenset[int]]()
    seen = dict[str, dict[frozenset[int], tuple[str, int]]]()
    for name, given, group in domains:
        lacking = ANY.difference(given.tolist())
        for each, at in sorted({*zip(group.tolist(), given.tolist(), strict=True)}):
            own = frozenset({at}) if at else lacking | {0}
            for others, (first, other) in seen.setdefault(each, {}).items():
                if not own & others:
                    whose = ("", "") if first == name else (f" of {first}", f" of {name}")
                    raise UserError(
                        f"{name}: group {each!r} has rows in {PARTS[other]}{whose[0]} and in {PARTS[at]}{whose[1]}, as"
                        " they were given (dataset.split, dataset.test, dataset.score_on=labelled). Rows of a group"
                        " must be in one part: leave out dataset.group, or what gives the parts"
                    )
            seen[each].setdefault(own, (name, at))
            found[each] = found.get(each, ANY) & own
    return found


def cut_groups(
    rows: Tensor,
    group: NDArray[np.object_],
    wanted: Sequence[int],
    generator: torch.Generator,
    name: str,
    open_parts: Mapping[str, frozenset[int]] = {},
    repeat: bool = False,
) -> list[Tensor]:
    """Rows (n,) as [train, val, test], each group whole; `group` (N,) names that of every row of the domain.

    `wanted` is how many rows val and test should have. A group of which `open_parts` names one part alone is there:
    another domain has it there. The others are ordered by a hash of their names, and shuffled; test takes each that is
    open to it and brings it nearer to its number, then val; the rest is for training. So a group's part depends on the
    groups and their sizes alone.

    Refuses fewer groups than parts, and a part that no group is left for; with `repeat` such a part has groups that
    other domains train on, which is said.
    """
    names = group[rows.numpy()].tolist()
    hashes = {each: _hash(each) for each in names}
    keys, codes, sizes = np.unique([hashes[each] for each in names], return_inverse=True, return_counts=True)
    known = {number: each for each, number in hashes.items()}
    possible = [open_parts.get(known[key], ANY) for key in keys.tolist()]
    cut_parts = [part for part in (2, 1) if wanted[part - 1]]
    have = f"{name} has {count_noun(len(keys), 'group')} ({list_names(sorted(hashes))})"
    if len(keys) <= len(cut_parts):
        raise UserError(
            f"{have} for {len(cut_parts) + 1} parts, and a group is in one alone: name a column with more groups"
        )
    settled = np.array([len(each) == 1 for each in possible])
    part_of = np.array([min(each) if len(each) == 1 else 0 for each in possible])
    without = {part for part in (*cut_parts, 0) if not (settled & (part_of == part)).any()}
    order = torch.randperm(len(keys), generator=generator).tolist()
    left = [key for key in order if not settled[key]]
    for part in cut_parts:
        able, room = [key for key in left if part in possible[key]], len(left) - len(without - {part})
        if repeated := part in without and not able and repeat:
            able = [key for key in order if part_of[key] == 0]
            room = len(able) - 1
        want, taken = wanted[part - 1], list[int]()
        count = int(sizes[settled & (part_of == part)].sum())
        for key in able:
            if len(taken) < room and abs(count + sizes[key] - want) < abs(count - want):
                taken.append(key)
                count += int(sizes[key])
        if part in without and not taken:
            taken = sorted(able, key=lambda each: sizes[each])[:1]
        part_of[taken] = part
        if repeated and taken:
            log.warning(
                "the %s split of %s has groups that other domains have in another split (%s): it has no others for"
                " it",
                PARTS[part], name, list_names(sorted(known[keys[key].item()] for key in taken)),
            )  # fmt: skip
        left = [key for key in left if part_of[key] == 0]
        without -= {part}
    cut = [rows[torch.from_numpy(part_of == part)[torch.from_numpy(codes)]] for part in range(3)]
    for part in (0, *cut_parts):
        if not len(cut[part]):
            raise UserError(
                f"{have}, and none is left for its {PARTS[part]} split: a group is in the same part in all domains, and"
                f" the others settle {settled.sum()} of them. Leave out dataset.group, or what gives the parts"
                " (dataset.split, dataset.test, dataset.score_on=labelled); if nothing does, set another seed"
            )
        want = wanted[part - 1] if part else len(cut[0])
        if abs(len(cut[part]) - want) > OFF * len(rows):
            log.warning(
                "the %s split of %s has %d of its %d rows where about %d were wanted: groups stay whole, and there are"
                " %d%s", PARTS[part], name, len(cut[part]), len(rows), want, len(keys),
                f", {settled.sum()} of them where other domains have them" if settled.any() else "",
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
