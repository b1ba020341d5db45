"""Several source domains as one: their rows together, each knowing its own."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.split import Raw
from tl_runner.errors import UserError, list_names


def pool(sources: Sequence[Raw]) -> Raw:
    """The rows of all of these domains in this order; one alone stays as it is.

    They must have names of their own, the same classes or quantity, rows of one shape, and all or none of them `names`,
    `texts`, `group` and `time`. Where one of them is divided into parts by its makers and another is not, the second's
    rows are all in train, and what is missing is cut from them.
    """
    first, *others = sources
    if not others:
        return first
    for other in others:
        _refuse_unlike(first, other)
    names = [each.name for each in sources]
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise UserError(f"two of the sources are called {twice[0]}: each must have a name of its own")
    return first._replace(
        name=" + ".join(each.name for each in sources),
        x=torch.cat([each.x for each in sources]),
        y=torch.cat([each.y for each in sources]),
        part=None if all(each.part is None for each in sources) else torch.cat([each.parts for each in sources]),
        names=_join([each.names for each in sources]),
        group=_join([each.group for each in sources]),
        time=_join([each.time for each in sources]),
        texts=_join([each.texts for each in sources]),
        members=tuple(each.name for each in sources),
        member=torch.repeat_interleave(torch.tensor([len(each.y) for each in sources])),
    )


def mark_members(raw: Raw, names: Sequence[str], member: Tensor | NDArray[np.int64] | None) -> Raw:
    """The rows of a pool that were read together: `member` (n,) says whose each is. Of one domain it stays as it is."""
    return raw if len(names) < 2 else raw._replace(members=tuple(names), member=torch.as_tensor(member))


def _refuse_unlike(one: Raw, other: Raw) -> None:
    """Refuse two domains whose rows can't be told by one description."""
    shapes = [tuple(each.x.shape[1:]) for each in (one, other)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"the rows of {one.name} have the shape {shapes[0]}, those of {other.name} {shapes[1]}: the sources must"
            " have one"
        )
    if one.quantity != other.quantity:
        raise UserError(
            f"{one.name} has the quantity {one.quantity}, {other.name} {other.quantity}: the sources must have the same"
        )
    if one.classes != other.classes:
        raise UserError(
            f"the classes of {one.name} are {list_names(one.classes)}, those of {other.name}"
            f" {list_names(other.classes)}: the sources must have the same, in the same order, which y numbers"
        )
    for key in ("names", "texts", "group", "time"):
        if (getattr(one, key) is None) != (getattr(other, key) is None):
            has, lacks = (one, other) if getattr(other, key) is None else (other, one)
            raise UserError(f"the rows of {has.name} have `{key}`, and those of {lacks.name} have none: give it to all")
    for each in (one, other):
        if each.members:
            raise UserError(f"{each.name} is a pool already: pool all of its domains and the others at once")


def _join(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    held = [each for each in arrays if each is not None]  # all or none, see `_refuse_unlike`
    return np.concatenate(held) if held else None
