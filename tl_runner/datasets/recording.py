"""One sound file as a waveform of a wanted rate and length. libsndfile reads it, through soundfile."""

import re
from collections.abc import Mapping
from functools import cache
from math import ceil, gcd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.sound_shifts import to_whole_numbers
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun

SOUND_ENDINGS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})
LOWEST, HIGHEST = 4000, 192000  # Hz
TOP = 0.999  # of full scale: samples beyond are where a recording was cut off, as a rule
CLIPPED_SHARE = 0.01  # share of such samples from which a recording is called clipped
MARGIN = 32  # samples that resampling needs around what is kept, on either side, at the lower rate
PROMISED = re.compile(r"^ *(?:data|SSND) +: (\d+) \(should be (\d+)\)", re.MULTILINE)  # bytes, in libsndfile's words
STREAMED = 0x7FFF0000  # bytes from which a promise is what programs write that do not know how much will follow
UNFINISHED = re.compile(
    r"^Length : (\d+)\nRIFF : (\d+)\n(?:.*\n)*data : 0$", re.MULTILINE
)  # bytes in the file, and said


class Header(NamedTuple):
    """How a file was made: Hz, samples, channels."""

    sample_rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


class Met(NamedTuple):
    """How many recordings are silent in what is kept, clipped (1 % of samples at full scale), beyond full scale, of
    several channels, resampled, and of these raised to a higher rate, longer than what is kept, or shorter."""

    silent: int = 0
    clipped: int = 0
    beyond: int = 0
    mixed: int = 0
    resampled: int = 0
    raised: int = 0
    longer: int = 0
    shorter: int = 0

    def joined(self, other: "Met") -> "Met":
        return Met(*(one + another for one, another in zip(self, other, strict=True)))

    def facts(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Met":
        """From JSON's words; raises `KeyError`, `TypeError` or `ValueError` where they are no such facts."""
        return cls(*(int(said[name]) for name in cls._fields))


@cache
def import_soundfile() -> Any:
    """The library soundfile, and in it libsndfile; raises `UserError` where it is missing."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # without its wheel it looks for the system's libsndfile
        raise UserError(
            'sound files are read by the library soundfile, which is not here: pip install "tl_runner[audio]"'
        ) from error
    return soundfile


def has_known_rate(header: Header) -> bool:
    """Whether the rate is one of sound, and no mistake of a header."""
    return LOWEST <= header.sample_rate <= HIGHEST


def measure_recording(path: Path) -> Header:
    """By its header alone; raises whatever its reader does."""
    found = import_soundfile().info(path)
    return Header(found.samplerate, found.frames, found.channels)


def try_recording(path: Path, sample_rate: int, samples: int) -> tuple[Tensor, Met] | str:
    """What `read_recording` gives, or why it gives nothing."""
    try:
        return read_recording(path, sample_rate, samples)
    except Exception as error:  # whatever a hostile file makes a decoder do
        return _explain_unreadable(error, path)


def read_recording(path: Path, sample_rate: int, samples: int) -> tuple[Tensor, Met]:
    """The middle of the file (samples,) int16 at this rate, and what was met; a shorter one amid silence.

    Channels are averaged. No more is read than is kept. Raises `UserError` where there is nothing to be heard or the
    file is cut off, and whatever its reader does.
    """
    with import_soundfile().SoundFile(path) as file:
        header = Header(file.samplerate, file.frames, file.channels)
        if not has_known_rate(header):
            raise UserError(f"its header says {header.sample_rate} Hz: {LOWEST} to {HIGHEST} Hz are read")
        _check_complete(file.extra_info, header.samples)
        common = gcd(header.sample_rate, sample_rate)
        up, down = sample_rate // common, header.sample_rate // common
        needed = ceil(samples * down / up)
        margin = 0 if up == down else ceil(MARGIN * max(1.0, down / up))
        first = max(0, (header.samples - needed) // 2 - margin)
        file.seek(first)
        wanted = min(needed + 2 * margin, header.samples - first)
        found = file.read(wanted, dtype="float32", always_2d=True)
    if len(found) < wanted:
        raise UserError(f"it is cut off: it should hold {count_noun(header.samples, 'sample')}")
    if not np.isfinite(found).all():
        raise UserError("it holds numbers that are not finite (NaN or infinity)")
    wave = found.mean(1)
    whole = round(header.samples * up / down)
    if up != down:
        from scipy.signal import resample_poly

        wave = resample_poly(wave, up, down).astype(np.float32)
    top = np.abs(found).max(initial=0)
    row = to_whole_numbers(torch.from_numpy(place_in_middle(wave, samples)))
    met = Met(
        silent=int(not row.any()),
        clipped=int(np.mean(np.abs(found) >= TOP) >= CLIPPED_SHARE),
        beyond=int(top > 1),
        mixed=int(header.channels > 1),
        resampled=int(up != down),
        raised=int(up > down),
        longer=int(whole > samples),
        shorter=int(whole < samples),
    )
    return row, met


def _check_complete(told: str, samples: int) -> None:
    """Raise `UserError` where a header, by what libsndfile tells of it, promises more than there is, or nothing.

    libsndfile itself takes a file that is cut off for a shorter one.
    """
    promised = PROMISED.search(told)
    if promised and int(promised[2]) < int(promised[1]) < STREAMED:
        raise UserError(f"it is cut off: {promised[2]} of {promised[1]} bytes of sound are there")
    if samples:
        return
    unfinished = UNFINISHED.search(told)
    if unfinished and int(unfinished[1]) > int(unfinished[2]) + 8:  # bytes before those that RIFF counts
        raise UserError("its header was never completed: it says that there are no samples, but bytes follow")
    raise UserError("it holds no samples")


def place_in_middle(wave: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """The middle of a waveform, or all of it in the middle of silence: (samples,)."""
    extra = len(wave) - samples
    if extra >= 0:
        return wave[extra // 2 : extra // 2 + samples]
    before = -extra // 2
    return np.pad(wave, (before, -extra - before))


def _explain_unreadable(error: Exception, path: Path) -> str:
    """Why a file gives no waveform, in words."""
    if isinstance(error, UserError):
        return str(error)
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    return f"it is damaged, or no sound file that libsndfile reads ({said})"
