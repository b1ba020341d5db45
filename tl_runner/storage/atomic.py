"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(path: Path, keeping: Path | None = None, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file to be filled, under its name once the block has ended well: temporary beside it, synced, then renamed.

    What had this name before is gone, or goes by the name `keeping`. Without `sync` a machine that loses its power may
    leave it empty.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file.file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    Path(file.name).chmod(0o644)  # temporary files are made for their owner alone
    if keeping and path.exists():
        path.replace(keeping)
    Path(file.name).replace(path)


def write_atomically(path: Path, content: bytes, sync: bool = True) -> None:
    """The whole file or none of it; see `open_atomically`."""
    with open_atomically(path, sync=sync) as file:
        file.write(content)
