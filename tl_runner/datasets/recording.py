"""One sound file as a waveform of a wanted rate and length. libsndfile reads it, through soundfile."""

from collections.abc import Mapping
from functools import cache
from math import ceil, gcd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_runner.errors import UserError
from tl_runner.plurals import count_noun

SOUND_ENDINGS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"})
TOP = 0.999  # of full scale: samples beyond are where a recording was cut off, as a rule
CUT = 0.01  # share of such samples from which a recording is called clipped
MARGIN = 32  # samples that resampling needs around what is kept, on either side, at the lower rate


class Length(NamedTuple):
    """How a file was made: Hz, samples, channels."""

    sample_rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate


class Met(NamedTuple):
    """How many recordings are silent, clipped (1 % of samples at full scale), beyond full scale, of several channels,
    resampled, longer than what is kept of them, or shorter."""

    silent: int = 0
    clipped: int = 0
    beyond: int = 0
    mixed: int = 0
    resampled: int = 0
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
def reader() -> Any:
    """The library soundfile, and in it libsndfile; raises `UserError` where it is missing."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # without its wheel it looks for the system's libsndfile
        raise UserError(
            'sound files are read by the library soundfile, which is not here: pip install "tl_runner[audio]"'
        ) from error
    return soundfile


def measure_recording(path: Path) -> Length:
    """By its header alone; raises whatever its reader does."""
    found = reader().info(path)
    return Length(found.samplerate, found.frames, found.channels)


def read_recording(path: Path, sample_rate: int, samples: int) -> tuple[NDArray[np.float32], Met]:
    """The middle of the file (samples,) at this rate, as float32, and what was met; a shorter one amid silence.

    Channels are averaged. No more is read than is kept. Raises `UserError` where there is nothing to be heard, and
    whatever its reader does.
    """
    with reader().SoundFile(path) as file:
        length = Length(file.samplerate, file.frames, file.channels)
        if not length.samples:
            raise UserError("it holds no samples")
        common = gcd(length.sample_rate, sample_rate)
        up, down = sample_rate // common, length.sample_rate // common
        needed = ceil(samples * down / up)
        margin = 0 if up == down else ceil(MARGIN * max(1.0, down / up))
        first = max(0, (length.samples - needed) // 2 - margin)
        file.seek(first)
        wanted = min(needed + 2 * margin, length.samples - first)
        found = file.read(wanted, dtype="float32", always_2d=True)
    if len(found) < wanted:
        raise UserError(f"it is cut off: it should hold {count_noun(length.samples, 'sample')}")
    if not np.isfinite(found).all():
        raise UserError("it holds numbers that are not finite (NaN or infinity)")
    wave = found.mean(1)
    whole = round(length.samples * up / down)
    if up != down:
        from scipy.signal import resample_poly

        wave = resample_poly(wave, up, down).astype(np.float32)
    top = np.abs(found).max(initial=0)
    met = Met(
        silent=int(top == 0),
        clipped=int(np.mean(np.abs(found) >= TOP) >= CUT),
        beyond=int(top > 1),
        mixed=int(length.channels > 1),
        resampled=int(up != down),
        longer=int(whole > samples),
        shorter=int(whole < samples),
    )
    return place_in_middle(wave, samples), met


def place_in_middle(wave: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """The middle of a waveform, or all of it in the middle of silence: (samples,)."""
    extra = len(wave) - samples
    if extra >= 0:
        return wave[extra // 2 : extra // 2 + samples]
    before = -extra // 2
    return np.pad(wave, (before, -extra - before))


def explain_unreadable(error: Exception, path: Path) -> str:
    """Why a file gives no waveform, in words."""
    if isinstance(error, UserError):
        return str(error)
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    return f"it is damaged, or no sound file that libsndfile reads ({said})"
