"""Randomness by name: every use has a seed of its own, so that what one part draws shifts no other part."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *names: object) -> int:
    """An independent seed for a named use."""
    digest = blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


@contextmanager
def chance_of(seed: int, *names: object) -> Iterator[None]:
    """Within, torch's default generator is seeded for this named use; after, it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *names))
        yield


def seed_generators(seed: int) -> None:
    """Seed every generator from which training itself may draw: torch's (dropout, noise), NumPy's and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more bits
    random.seed(seed)


def get_state() -> dict[str, Any]:
    """Where these generators stand, in plain types and tensors."""
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
    """Set these generators to a state of `state`; those of other GPUs than were in use are left."""
    torch.set_rng_state(state["torch"])
    for device, numbers in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(numbers, device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))


@lru_cache(maxsize=8)  # an epoch's order per stream: drawn once, sliced at every step
def _order(seed: int, stream: str, length: int, epoch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(derive(seed, stream, epoch))
    return torch.randperm(length, generator=generator).to(device)


def rows(seed: int, stream: str, length: int, n: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """The rows of a stream that a step draws: min(n, length) of them, from shuffled epochs end to end.

    Pure: the same arguments give the same rows, so that no sampler has a state to save. A batch is always
    full; one that crosses the end of an epoch goes on with the next.
    """
    n = min(n, length)
    first = step * n
    epochs = range(first // length, (first + n - 1) // length + 1)
    order = torch.cat([_order(seed, stream, length, epoch, torch.device(device)) for epoch in epochs])
    start = first - epochs[0] * length
    return order[start : start + n]


def episodes(seed: int, stream: str, labels: Tensor, shape: tuple[int, int, int, int], step: int) -> Tensor:
    """The rows of a step's small tasks, (tasks · ways · (shots + queries),), in the order task, class, row.

    `shape` is (tasks, ways, shots, queries), `labels` (n,) are the classes of the stream's rows. The classes of a task
    differ, and so do the rows of a class, but where it has too few: then rows come again. Pure, as `rows`. Raises
    `ValueError` where fewer than `ways` classes have rows.
    """
    tasks, ways, shots, queries = shape
    generator = torch.Generator().manual_seed(derive(seed, stream, "episodes", step))
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
    return torch.cat(drawn).to(labels.device)


def _members(labels: Tensor) -> list[Tensor]:
    """The row numbers of each class that has rows, on the CPU."""
    listed = labels.cpu()
    return [(listed == index).nonzero().squeeze(1) for index in listed.unique()]
