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
