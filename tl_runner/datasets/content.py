"""What a row holds, as a number: orders and compares rows whatever file or place they come from."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 1024  # rows copied at a time: a memory-mapped tensor may be larger than memory


def digests(x: Tensor) -> NDArray[np.uint64]:
    """A hash (n,) of the bytes of each row of x (n, …); equal rows have equal hashes."""
    hashes = [
        blake2b(row.tobytes(), digest_size=8).digest() for chunk in x.split(CHUNK) for row in chunk.contiguous().numpy()
    ]
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


def text_digests(texts: Sequence[str]) -> Tensor:
    """Two hashes (n, 2) int64 of each text: what stands for it where rows are compared, ordered and counted."""
    hashes = b"".join(blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return torch.from_numpy(np.frombuffer(hashes, dtype="<i8").reshape(-1, 2).copy())


def count_shared(known: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, bool]:
    """How many rows of `other` (m, d) are, to the last bit, among `known` (n, d); whether both hold the same rows."""
    of_known, of_other = _mix(known), _mix(other)
    again = np.isin(of_other, of_known)
    equal = len(known) == len(other) and bool((np.sort(of_known) == np.sort(of_other)).all())
    return int(again.sum()), equal


def _mix(rows: NDArray[np.float64]) -> NDArray[np.uint64]:
    """A 64-bit hash (n,) of each row's bits, all rows at once (the mixing of SplitMix64, Steele et al. 2014)."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + np.ascontiguousarray(column).view(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
