"""One set of labelled images as a task: one half as it is -> the other half under a named shift."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.content import digests
from tl_runner.datasets.image_shifts import severity_of, shift_images
from tl_runner.datasets.split import Drawn, Raw, count_rows_by_part
from tl_runner.errors import UserError, check_range
from tl_runner.rng import Rng

TargetShares = float | tuple[float, ...] | None  # α of a Dirichlet distribution, or the shares themselves


class Halving(NamedTuple):
    """What is to be made of the images: checked before a file is opened.

    Without a source domain all images are the target: the source is in a backbone's weights.
    """

    sourced: bool
    shift: str
    severity: int
    samples: int | None
    size: int


def task(source: str | None, shift: str | None, severity: int | None, samples: int | None, size: int) -> Halving:
    """The options, checked and completed: `shift=None` is `noise` with a source domain, and `none` without."""
    shift = shift or ("none" if source is None else "noise")
    in_range(samples, size)
    return Halving(source is not None, shift, severity_of(shift, severity), samples, size)


def in_range(samples: int | None, size: int) -> None:
    """Refuse fewer than 20 images a domain, and sides of fewer than 8 pixels or more than 1,024."""
    check_range(20, samples=20 if samples is None else samples)
    check_range(8, 1024, size=size)


def shifted_halves(whole: Raw, task: Halving, seed: int) -> Drawn:
    """The two domains of the task, seeded; the images are bytes."""
    source, target = split_halves(whole, seed) if task.sourced else (None, whole)
    source = source and limit_rows(source, task.samples, Rng(seed).child("samples", "source"))
    target = limit_rows(target, task.samples, Rng(seed).child("samples", "target"))
    shifted = task.shift != "none"
    generator = Rng(seed).child("shift", whole.name).generator()
    target = target._replace(
        name=f"{whole.name} {task.shift} {task.severity}" if shifted else whole.name,
        x=shift_images(target.x, task.shift, task.severity, generator),
    )
    notes = {"shift": task.shift, "severity": task.severity if shifted else None, **limit(task.samples)}
    return Drawn(source, target, notes, task.size, drawn_from=count_rows_by_part(whole))


def split_halves(whole: Raw, seed: int) -> tuple[Raw, Raw]:
    """Two random halves, each with half of every part (train, test), so that test images stay test images.

    Rows are divided by their content, not by their place: an image that was published twice is in one half only.
    """
    _, first, content = np.unique(digests(whole.x), return_index=True, return_inverse=True)
    generator = Rng(seed).child("halves", whole.name).generator()
    in_first = torch.zeros(len(first), dtype=torch.bool)
    for members in _members(whole.parts[torch.from_numpy(first)]):
        in_first[members[torch.randperm(len(members), generator=generator)[: len(members) // 2]]] = True
    mask = in_first[torch.from_numpy(content)]
    return whole.take(mask), whole.take(~mask)


def limit_rows(raw: Raw, samples: int | None, rng: Rng) -> Raw:
    """At most `samples` random rows, of each part in proportion; None leaves all."""
    if samples is None or samples >= len(raw.x):
        return raw
    generator = rng.generator()
    kept = [
        members[torch.randperm(len(members), generator=generator)[: samples * len(members) // len(raw.x)]]
        for members in _members(raw.parts)
    ]
    return raw.take(torch.cat(kept).sort().values)


def limit_shares(raw: Raw, shares: TargetShares, rng: Rng) -> Raw:
    """As many random rows as have these class shares, or random ones by Dirichlet(α, …, α); None leaves all.

    Shares are relative, one for each class, and 0 leaves a class out.
    """
    if shares is None:
        return raw
    classes = len(raw.classes)
    if isinstance(shares, int | float):
        check_range(0.01, target_shares=shares)
        wanted = torch.from_numpy(rng.numpy().dirichlet([shares] * classes))
    else:
        wanted = torch.tensor(shares, dtype=torch.double)
        if len(wanted) != classes or not bool((wanted >= 0).all()) or int((wanted > 0).sum()) < 2:
            raise UserError(
                f"target_shares takes a number, or {classes} shares of which two or more are above 0, got {[*shares]}"
            )
    wanted = wanted / wanted.sum()
    there = torch.bincount(raw.y, minlength=classes)
    n = min(float(there[c] / wanted[c]) for c in range(classes) if wanted[c] > 0)
    generator, kept = rng.child("rows").generator(), list[Tensor]()
    for index in range(classes):
        members = (raw.y == index).nonzero().squeeze(1)
        kept.append(members[torch.randperm(len(members), generator=generator)[: round(n * float(wanted[index]))]])
    return raw.take(torch.cat(kept).sort().values)


def limit(samples: int | None) -> dict[str, Any]:
    """What the record says of a limit, where there is one."""
    return {} if samples is None else {"samples": samples}


def _members(part: Tensor) -> list[Tensor]:
    return [(part == index).nonzero().squeeze(1) for index in part.unique()]
