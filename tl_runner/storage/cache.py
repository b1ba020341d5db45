"""Tensors in outputs/cache for any run that needs the same: whole, under a hash of all they depend on, or not there.

Nobody waits for anybody: processes that compute the same write the same bytes under the same name.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from torch import Tensor, uint8

from tl_runner.storage.atomic import write_atomically

log = logging.getLogger(__name__)

CHECKSUM = "blake2b"  # its name among a file's metadata


def load_cached(file: Path) -> dict[str, Tensor] | None:
    """None where there is nothing, or nothing that is whole: then it is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = file.read_bytes()
        found = load(content)
        if _read_checksum(content) != _checksum(found):
            raise ValueError("the checksum is wrong")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, SafetensorError) as error:
        log.warning("files in %s are damaged, or too old (%s): what they held is computed again", file.parent, error)
        return None
    with suppress(OSError):  # of a cache that is for reading alone
        os.utime(file)  # when it was read last: see `drop_oldest`
    return found


def keep_cached(file: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether it is kept now: a full disk, say, is no reason to lose what was computed."""
    from safetensors.torch import save

    kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, save(kept, {CHECKSUM: _checksum(kept)}))
    except OSError as error:
        log.warning("%s can't be written to (%s): other runs compute the same again", file.parent, error.strerror)
        return False
    return True


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def _read_checksum(content: bytes) -> str | None:
    """From the header of a safetensors file: its length in 8 bytes, then JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header.get("__metadata__", {}).get(CHECKSUM)


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
