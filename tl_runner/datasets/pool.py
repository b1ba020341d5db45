"""Several source domains as one: their rows together, each knowing its own."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.split import Raw
from tl_runner.errors import UserError


def pool(sources: Sequence[Raw]) -> Raw:
    """The rows of all of these domains, which have the same classes, in this order; one alone stays as it is.

    Where one of them is divided into parts by its makers and another is not, the second's rows are all in train, and
    what is missing is cut from them.
    """
    first, *others = sources
    if not others:
        return first
    shapes = {tuple(each.x.shape[1:]): each.name for each in sources}
    if len(shapes) > 1:
        (one, name), (two, other) = [*shapes.items()][:2]
        raise UserError(f"the rows of {name} have the shape {one}, those of {other} {two}: the sources must have one")
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


def _join(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    held = [each for each in arrays if each is not None]
    return np.concatenate(held) if held else None
