"""Randomness by name: every use has a seed of its own, so that what one part draws shifts no other part."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b

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
