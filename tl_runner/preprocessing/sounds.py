"""Sound files as a run's model takes them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tl_runner.datasets.recording import SOUND_ENDINGS, Met, import_soundfile, try_recording
from tl_runner.datasets.recordings import Cut, tell_doubts
from tl_runner.domains import FULL_SCALE
from tl_runner.errors import UserError
from tl_runner.preprocessing.batching import Input, Portion

SOFTEST = 60.0  # dB below full scale, of random inputs


@dataclass(frozen=True)
class Sounds:
    """Sound file -> waveform (1, 1, samples) float32 in [−1, 1], as the run's own recordings were read.

    Channels are averaged, what has another rate is resampled, the middle is kept of a longer one, and a shorter one
    stands in the middle of silence. `shift` is what the run did to its target's sound: not done to what is predicted.
    """

    sample_rate: int
    samples: int
    shift: str = "none"

    takes: ClassVar[str] = "sound files"

    @property
    def endings(self) -> frozenset[str]:
        """How the files are named that are taken from a folder."""
        return SOUND_ENDINGS

    @property
    def numbers(self) -> int:
        """How many an input is made of."""
        return self.samples

    @property
    def facts(self) -> dict[str, Any]:
        """What somebody must know to do the same elsewhere, in JSON's words."""
        return {
            "kind": "sound",
            "shape": [1, self.samples],
            "sample_rate": self.sample_rate,
            "range": [-1.0, 1.0],
            "channels": "averaged",
            "resample": "scipy.signal.resample_poly",
            "cut": "the middle, or all of it in the middle of silence",
        }

    def __call__(self, *files: str | PathLike[str]) -> Tensor:
        """(n, 1, samples), a row for each file; raises `UserError` at one it can't use."""
        if not files:
            raise UserError("name at least one sound file")
        rows = []
        for file in files:
            found = self._attempt(Path(file))
            if isinstance(found, str):
                raise UserError(f"{fspath(file)}: {found}")
            rows.append(found[0])
        return torch.stack(rows)

    def portions(self, inputs: Sequence[Input], at_most: int) -> Iterator[Portion]:
        """The files in order, decoded `at_most` at a time, each by the path that it was asked for."""
        import_soundfile()  # refused once, and not for each file
        met = Met()
        with ThreadPoolExecutor() as pool:  # libsndfile lets go of the interpreter
            for start in range(0, len(inputs), at_most):
                paths = [each.path for each in inputs[start : start + at_most]]
                found = [*zip(map(str, paths), pool.map(self._attempt, paths), strict=True)]
                good = [(name, *read) for name, read in found if not isinstance(read, str)]
                bad = {name: why for name, why in found if isinstance(why, str)}
                met = reduce(Met.joined, (each for *_, each in good), met)
                x = torch.stack([row for _, row, _ in good]) if good else torch.empty(0, 1, self.samples)
                yield Portion([name for name, *_ in good], x, bad)
        tell_doubts("what was predicted", met, Cut(self.sample_rate, self.samples))

    def random(self, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """Noise (n, 1, samples), each row of a loudness of its own: up to 60 dB below the largest that training met."""
        noise = low + (high - low) * torch.rand(n, 1, self.samples, generator=generator)
        return noise * 10 ** (-SOFTEST / 20 * torch.rand(n, 1, 1, generator=generator))

    def _attempt(self, file: Path) -> tuple[Tensor, Met] | str:
        """The input (1, samples) and what was met, or why there is none."""
        if file.exists() and not file.is_file():  # a pipe would be waited for
            return "that is a folder" if file.is_dir() else "that is no regular file"
        found = try_recording(file, self.sample_rate, self.samples)
        return found if isinstance(found, str) else (found[0][None].float() / FULL_SCALE, found[1])
