"""Words spoken by two synthetic speakers, made on the spot: a source of pulses and noise behind moving formants.

A speaker has a pitch, a factor of all formants (1.3 is a shorter vocal tract), a pace and some breath. Words
differ in their sounds alone, so that a network which learnt them from one speaker errs on the other.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TWICE = 2  # words are made at twice the rate: a resonance near half the rate of what is made would drown the others
FRAME = 0.005  # seconds for which the formants stay
BANDWIDTHS = (80.0, 110.0, 170.0)  # of the three formants, in Hz
TILT = 0.7  # of a low-pass y_t = x_t + 0.7 y_{t−1}: a voice loses power towards high frequencies
SPREAD = 0.05  # how far a sound's formants, and a word's pitch and pace, are from the speaker's own: a deviation
NOISE = (20.0, 35.0)  # dB by which a word is louder than what surrounds it


class Sound(NamedTuple):
    """Formants in Hz, how loud the voice and the noise of a narrow place are, and seconds."""

    formants: tuple[float, float, float]
    voice: float
    noise: float
    seconds: float


class Speaker(NamedTuple):
    """Pitch in Hz, the factors of a speaker's formants and pace, and how loud the breath is beside the voice."""

    pitch: float
    formant_factor: float
    pace: float
    breath: float


# The vowels' are about those of Peterson & Barney 1952, for men.
SOUNDS = {
    "a": Sound((730, 1090, 2440), 1.0, 0.0, 0.11),
    "e": Sound((530, 1840, 2480), 1.0, 0.0, 0.10),
    "i": Sound((270, 2290, 3010), 1.0, 0.0, 0.10),
    "o": Sound((570, 840, 2410), 1.0, 0.0, 0.11),
    "u": Sound((300, 870, 2240), 1.0, 0.0, 0.10),
    "m": Sound((250, 1100, 2200), 0.5, 0.0, 0.06),
    "r": Sound((420, 1300, 1600), 0.6, 0.0, 0.05),
    "s": Sound((2400, 3000, 3500), 0.0, 0.5, 0.08),
    "t": Sound((1800, 2600, 3400), 0.0, 0.3, 0.03),
}
WORDS = ("masa", "mesa", "misa", "mosa", "musa", "tara", "tera", "tora")
SPEAKERS = {"low": Speaker(110, 1.0, 1.0, 0.02), "high": Speaker(230, 1.3, 1.3, 0.4)}


def speak(y: NDArray[np.int64], speaker: Speaker, samples: int, sample_rate: int, draw: Generator) -> Floats:
    """A word of `WORDS` for each of y (n,), as a waveform (n, samples) in [−1, 1], somewhere in faint noise."""
    n, rate, made = len(y), TWICE * sample_rate, TWICE * samples
    hop = round(FRAME * rate)
    frames = -(-made // hop)
    formants, voice, noise = _draw_tracks(y, speaker, frames, samples / sample_rate, draw)
    pitch = speaker.pitch * _vary(draw, n)[:, None] * np.linspace(1.08, 0.92, frames)  # it falls towards the end
    of_frame = np.arange(made) // hop
    step = pitch[:, of_frame] / rate
    turns = np.floor(np.cumsum(step, axis=1) + draw.random((n, 1)))
    pulses = np.diff(turns, axis=1, prepend=turns[:, :1]) / np.sqrt(step)  # of one power at any pitch
    hiss = draw.standard_normal((n, made))
    source = voice[:, of_frame] * (pulses + speaker.breath * hiss) + noise[:, of_frame] * hiss
    spectrum = np.fft.rfft(resonate(source, formants, hop, rate))
    waves = np.fft.irfft(spectrum[:, : samples // 2 + 1], samples)
    waves *= (draw.uniform(0.3, 0.7, n) / np.abs(waves).max(1))[:, None]
    level = np.sqrt(np.mean(waves**2, axis=1)) * 10 ** (-draw.uniform(*NOISE, n) / 20)
    return np.clip(waves + level[:, None] * draw.standard_normal((n, samples)), -1, 1)


def _draw_tracks(
    y: NDArray[np.int64], speaker: Speaker, frames: int, seconds: float, draw: Generator
) -> tuple[Floats, Floats, Floats]:
    """Formants (n, 3, frames) in Hz, and how loud voice and noise are (n, frames): from sound to sound, in lines."""
    n, times = len(y), (np.arange(frames) + 0.5) * FRAME
    formants, voice, noise = np.empty((n, 3, frames)), np.empty((n, frames)), np.empty((n, frames))
    for row, number in enumerate(y):
        sounds = [SOUNDS[letter] for letter in WORDS[number]]
        lengths = np.array([sound.seconds for sound in sounds]) * _vary(draw, len(sounds)) / speaker.pace
        start = draw.uniform(0, max(0.0, seconds - lengths.sum()))
        ends = start + np.cumsum(lengths)
        begins = ends - lengths
        knots = np.stack([begins + 0.3 * lengths, ends - 0.3 * lengths], 1).ravel()  # a sound stays in its middle
        hz = np.array([sound.formants for sound in sounds]) * _vary(draw, (len(sounds), 3)) * speaker.formant_factor
        for at in range(3):
            formants[row, at] = np.interp(times, knots, np.repeat(hz[:, at], 2))
        around = np.concatenate([[begins[0]], knots, [ends[-1]]])  # silence before and behind
        for track, loud in ((voice, [each.voice for each in sounds]), (noise, [each.noise for each in sounds])):
            track[row] = np.interp(times, around, [0, *np.repeat(loud, 2), 0])
    return formants, voice, noise


def _vary(draw: Generator, size: int | tuple[int, ...]) -> Floats:
    """Factors about 1, no further off than three deviations."""
    return 1 + SPREAD * np.clip(draw.standard_normal(size), -3, 3)


def resonate(source: Floats, formants: Floats, hop: int, sample_rate: int) -> Floats:
    """Each row (n, samples) through three resonators in a row, all rows side by side.

    y_t = (1 − b − c) x_t + b y_{t−1} + c y_{t−2}; c = −r², b = 2 r cos(2π f / rate), r = exp(−π bandwidth / rate).
    Formants (n, 3, frames) in Hz stay for `hop` samples. Klatt, JASA 1980.
    """
    r = np.exp(-np.pi * np.array(BANDWIDTHS) / sample_rate)[:, None]
    c = -(r**2)
    given = np.ascontiguousarray(source.T)  # a moment of all rows lies together
    heard = np.empty_like(given)
    last, before = np.zeros((3, len(source))), np.zeros((3, len(source)))
    tilt = np.zeros(len(source))
    for start in range(0, source.shape[1], hop):
        b = 2 * r * np.cos(2 * np.pi * formants[:, :, start // hop].T / sample_rate)
        a = 1 - b - c
        for t in range(start, min(start + hop, source.shape[1])):
            x = tilt = given[t] + TILT * tilt
            for k in range(3):
                x = a[k] * x + b[k] * last[k] + c[k] * before[k]
                before[k], last[k] = last[k], x
            heard[t] = x
    return heard.T.copy()
