"""Tensors in outputs/cache for any run that needs the same: whole, under a hash of all they depend on, or not there.

Nobody waits for anybody: processes that compute the same write the same bytes under the same name.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from tl_runner.storage.atomic import write_atomically

log = logging.getLogger(__name__)


def load_cached(file: Path) -> dict[str, Tensor] | None:
    """None where there is nothing, or nothing that can be read: then it is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        log.warning("%s can't be used, recomputing it: %s", file, error)
        return None
    with suppress(OSError):  # of a cache that is for reading alone
        os.utime(file)  # when it was read last: see `drop_oldest`
    return found


def keep_cached(file: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether it is kept now: a full disk, say, is no reason to lose what was computed."""
    from safetensors.torch import save

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
    except OSError as error:
        log.warning("%s could not be cached for other runs: %s", file, error)
        return False
    return True


def drop_oldest(files: Iterable[Path], limit: int) -> None:
    """Delete files until `limit` bytes of them are left: those first that were not read for longest."""
    known = dict[Path, os.stat_result]()
    for file in files:
        with suppress(OSError):  # another process has deleted it
            known[file] = file.stat()
    size = sum(found.st_size for found in known.values())
    for file in sorted(known, key=lambda file: known[file].st_mtime):
        if size <= limit:
            return
        with suppress(OSError):  # a file that is in use on Windows goes another time
            file.unlink()
        size -= known[file].st_size
