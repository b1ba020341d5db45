"""Checkpoints on disk, from which an interrupted training resumes."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from tl_runner.storage.atomic import open_atomically

DIGEST = 16  # bytes of a hash at the end of the file, by which one that is not as it was written is known

log = logging.getLogger(__name__)


class Checkpoint:
    """A file that holds the newest state, and beside it the one before: each is there whole or not at all.

    `every`: seconds between two states. States are mappings of tensors, numbers, text, lists and mappings.
    """

    def __init__(self, path: Path, every: float):
        self.path = path
        self.before = path.with_name(f"{path.stem}.before{path.suffix}")
        self.every = every
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, its tensors on the CPU; None where there is none."""
        for file in (self.path, self.before):
            try:
                return _read(file)
            except FileNotFoundError:
                continue
            except Exception as error:  # a truncated archive shows in many ways
                log.warning("%s can't be read (%s)", file, str(error).partition("\n")[0])
        return None

    @contextmanager
    def around(self, state: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Keep the state before the block, if it is time to; and if the block is left by an exception, in any case."""
        if due := time.monotonic() - self._saved >= self.every:
            self._save(state())
        try:
            yield
        except BaseException:
            if not due:
                self._save(state())
            raise

    def remove(self) -> None:
        for file in (self.path, self.before):
            file.unlink(missing_ok=True)

    def _save(self, state: Mapping[str, Any]) -> None:
        """If the state can't be written, warn and continue: only the chance to resume is lost."""
        self._saved = time.monotonic()
        try:
            with open_atomically(self.path, keeping=self.before) as file:
                buffer = BytesIO()
                torch.save(dict(state), buffer)
                file.write(buffer.getbuffer())
                file.write(blake2b(buffer.getbuffer(), digest_size=DIGEST).digest())
        except (OSError, RuntimeError) as error:  # torch tells a full disk by the latter
            log.warning("could not save a checkpoint: %s", str(error).partition("\n")[0])


def _read(file: Path) -> dict[str, Any]:
    content = memoryview(file.read_bytes())
    state, digest = content[:-DIGEST], content[-DIGEST:]
    if blake2b(state, digest_size=DIGEST).digest() != digest:
        raise ValueError("it is corrupt")
    return torch.load(BytesIO(state), map_location="cpu", weights_only=True)
