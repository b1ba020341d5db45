"""IDX, the format of MNIST and its successors: a header and bytes.

Two zero bytes, the type (8 is an unsigned byte), the number of dimensions, each dimension as four bytes
big-endian, then the items in C order; plain or gzipped (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_runner.errors import UserError

GZIP = b"\x1f\x8b"
DEFLATE = 1032  # bytes that one byte of a gzip file can stand for, at most (https://zlib.net/zlib_tech.html)


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes; raises `UserError` unless the file holds exactly what it promises."""
    try:
        with file.open("rb") as stream:
            zipped = stream.read(2) == GZIP
        with gzip.open(file) if zipped else file.open("rb") as stream:
            start = stream.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08":
                raise UserError(f"{file} is not an IDX file of unsigned bytes: it starts with 0x{start.hex()}")
            sides = struct.unpack(f">{start[3]}I", stream.read(4 * start[3]))
            promised = math.prod(sides)
            if promised > file.stat().st_size * (DEFLATE if zipped else 1):
                raise UserError(f"{file} promises {promised} bytes, which it is too short for")
            items = stream.read(promised + 1)  # one more than there should be: also makes gzip check its sum
            if len(items) != promised:
                held = "more" if len(items) > promised else len(items)
                raise UserError(f"{file} promises {sides}, that is {promised} bytes, and holds {held}")
            return np.frombuffer(items, np.uint8).reshape(sides)
    except UserError:
        raise
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{file} can't be read as an IDX file: {error}") from error
