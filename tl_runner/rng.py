"""Randomness by name: each use has a stream of its own, so that what one part draws shifts no other part's numbers.

One stream is shared on purpose: the source model and the run read the source in the same order.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Rng:
    """A named stream of random numbers: `Rng(seed)` is a run's, `rng.child("head")` that of one use in it.

    It holds no state: asked again, it gives the same numbers. They come as a generator, or, for code that takes none,
    as an integer (`seed`) or as what torch draws by default (`as_default`).
    """

    root: int
    names: tuple[object, ...] = ()

    def child(self, *names: object) -> "Rng":
        """The stream of this use, independent of all others; each value of a step or an epoch names one, too."""
        return Rng(self.root, (*self.names, *names))

    @cached_property
    def seed(self) -> int:
        """For what takes an integer: the run's own seed, or a hash of it and the names, below 2^63 for torch."""
        if not self.names:
            return self.root
        digest = blake2b(repr((self.root, *self.names)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def generator(self) -> torch.Generator:
        """At the beginning of the stream, on the CPU, so that a GPU draws the same."""
        return torch.Generator().manual_seed(self.seed)

    def numpy(self) -> np.random.Generator:
        """The same for NumPy; its numbers are others."""
        return np.random.default_rng(self.seed)

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Within, torch's default generator draws from the stream: a layer that is built takes its weights from there.

        Afterwards it is where it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            yield

    def start_training(self) -> None:
        """Seed the generators of the process, torch's, NumPy's and Python's: dropout and the like know no others."""
        torch.manual_seed(self.seed)
        np.random.seed(self.seed % 2**32)  # it takes no more bits
        random.seed(self.seed)


def get_state() -> dict[str, Any]:
    """Where the process's generators stand, for a checkpoint, in plain types and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, torch.tensor(numbers), gauss],
    }


def restore_state(state: Mapping[str, Any]) -> None:
    """Set the process's generators to a state that `get_state` returned. GPUs that were not in use keep theirs."""
    torch.set_rng_state(state["torch"])
    for device, numbers in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(numbers, device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))


@lru_cache(maxsize=32)  # an epoch's order per stream and domain: drawn once, sliced at every step
def _order(rng: Rng, length: int, epoch: int, device: torch.device) -> Tensor:
    return torch.randperm(length, generator=rng.child(epoch).generator()).to(device, non_blocking=True)


def rows(rng: Rng, length: int, n: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """The rows of a stream that a step draws: min(n, length) of them, from shuffled epochs end to end.

    Pure: the same arguments give the same rows, so that no sampler has a state to save. A batch is always
    full; one that crosses the end of an epoch continues with the next.
    """
    n = min(n, length)
    first = step * n
    epochs = range(first // length, (first + n - 1) // length + 1)
    order = torch.cat([_order(rng, length, epoch, torch.device(device)) for epoch in epochs])
    start = first - epochs[0] * length
    return order[start : start + n]


def weighted_rows(rng: Rng, chances: Tensor, n: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """The rows that a step draws where some are likelier than others: n of them by their chances, also again.

    Pure, as `rows`.
    """
    generator = rng.child("weighted", step).generator()
    return torch.multinomial(chances.double(), n, replacement=True, generator=generator).to(device, non_blocking=True)


def allot_rows(n: int, sizes: Sequence[int], by: Literal["balanced", "proportional"]) -> list[int]:
    """How many of n rows each of several domains of these sizes gets: as many as any other, or by its size.

    Each has two at least, since BatchNorm has no variance of one row; what rounding leaves goes to the first, or where
    most is missing (largest remainders). Raises `ValueError` where n is less than that.
    """
    if n < 2 * len(sizes):
        raise ValueError(f"{n} rows are fewer than two of each of {len(sizes)} domains")
    shares = [1 / len(sizes) if by == "balanced" else size / sum(sizes) for size in sizes]
    spare = n - 2 * len(sizes)
    wanted = [max(n * share - 2, 0.0) for share in shares]
    wanted = [spare * each / (sum(wanted) or 1) for each in wanted]
    counts = [int(each) for each in wanted]
    order = sorted(range(len(sizes)), key=lambda k: (counts[k] - wanted[k], k))
    for k in order[: spare - sum(counts)]:
        counts[k] += 1
    return [count + 2 for count in counts]


def episodes(rng: Rng, labels: Tensor, shape: tuple[int, int, int, int], step: int) -> Tensor:
    """The rows of a step's small tasks, (tasks · ways · (shots + queries),), in the order task, class, row.

    `shape` is (tasks, ways, shots, queries), `labels` (n,) are the classes of the stream's rows. The classes of a task
    differ, and so do the rows of a class, but where it has too few: then rows come again. Pure, as `rows`. Raises
    `ValueError` where fewer than `ways` classes have rows.
    """
    tasks, ways, shots, queries = shape
    generator = rng.child("episodes", step).generator()
    members = _members(labels)
    if len(members) < ways:
        raise ValueError(f"tasks of {ways} classes can't be drawn from {len(members)}")
    drawn = []
    for _ in range(tasks):
        for index in torch.randperm(len(members), generator=generator)[:ways].tolist():
            found = members[index]
            again = -(-(shots + queries) // len(found))
            order = torch.cat([torch.randperm(len(found), generator=generator) for _ in range(again)])
            drawn.append(found[order[: shots + queries]])
    return torch.cat(drawn).to(labels.device, non_blocking=True)


@lru_cache(maxsize=8)  # by the tensor itself: its labels leave the device once, not at every step
def _members(labels: Tensor) -> list[Tensor]:
    """The row numbers of each class that has rows, on the CPU."""
    listed = labels.cpu()
    return [(listed == index).nonzero().squeeze(1) for index in listed.unique()]
