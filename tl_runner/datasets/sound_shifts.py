"""What turns the sound of a source into that of a target: named shifts with a severity from 1 to 5.

A shift takes waveforms (n, samples) in [−1, 1] and their rate, and is computed in one batch.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.domains import FULL_SCALE

SoundShift = Literal["none", "noise", "reverb", "telephone", "speed", "clip"]
Change = Callable[[Tensor, int, int, torch.Generator], Tensor]

CHUNK = 256  # waveforms of whole numbers that are floats at one time
DECAY = math.log(1000)  # an amplitude that falls to e^−DECAY falls by 60 dB
STEEP = 8  # the order of the telephone's slopes: 48 dB an octave


def _noise(x: Tensor, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Normal noise, by 20, 15, 10, 5 or 0 dB less powerful than the sound."""
    return add_noise(x, (20, 15, 10, 5, 0)[severity - 1], generator)


def add_noise(x: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Each row (n, samples) with normal noise, 10 log10(power of the sound / power of the noise) = ratio, exactly.

    The sound of a row is what lies between its first and its last sample that is not 0: a short recording stands in
    silence, which would else make the noise weaker.
    """
    noise = torch.randn(x.shape, generator=generator)
    share = _count_sounding(x) / x.shape[1]
    factor = (_power(x) / share / _power(noise)).sqrt() * 10 ** (-ratio / 20)
    return x + factor * noise


def _count_sounding(x: Tensor) -> Tensor:
    """Samples of each row (n, samples) from its first to its last that is not 0, all of a silent row: (n, 1)."""
    sounding = (x != 0).int()
    before, behind = (each.argmax(1, keepdim=True) for each in (sounding, sounding.flip(1)))
    return x.shape[1] - before - behind


def _reverb(x: Tensor, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A room whose sound takes 0.2, 0.4, 0.6, 0.9 or 1.2 s to fall by 60 dB; each row is in one of its own."""
    seconds = (0.2, 0.4, 0.6, 0.9, 1.2)[severity - 1]
    response = draw_response(len(x), seconds, sample_rate, generator)
    size = x.shape[1] + response.shape[1] - 1
    heard = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(response, size), size)[:, : x.shape[1]]
    return heard * (_power(x) / _power(heard).clamp_min(1e-12)).sqrt()  # as loud as it was


def draw_response(n: int, seconds: float, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Impulse responses (n, taps) of rooms: the sound itself, then noise that falls by 60 dB in so many seconds.

    h_t = δ_t + g ε_t e^(−DECAY t / (seconds · rate)), g such that the noise has the power of the sound. Polack 1988.
    """
    t = torch.arange(1, math.ceil(seconds * sample_rate)) / (seconds * sample_rate)
    tail = torch.randn(n, len(t), generator=generator) * torch.exp(-DECAY * t)
    return torch.cat([torch.ones(n, 1), tail / tail.square().sum(1, keepdim=True).sqrt()], 1)


def _telephone(x: Tensor, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """A narrow band: 100–3800, 200–3600, 300–3400 (a telephone's), 400–2800 or 500–2200 Hz."""
    low, high = ((100, 3800), (200, 3600), (300, 3400), (400, 2800), (500, 2200))[severity - 1]
    return keep_band(x, low, high, sample_rate)


def keep_band(x: Tensor, low: float, high: float, sample_rate: int) -> Tensor:
    """Frequencies between these, by the gains [1 + (low/f)^16]^−½ [1 + (f/high)^16]^−½ of Butterworth, undelayed."""
    f = torch.fft.rfftfreq(x.shape[1], 1 / sample_rate).clamp_min(1e-3)
    gain = ((1 + (low / f) ** (2 * STEEP)) * (1 + (f / high) ** (2 * STEEP))).rsqrt()
    return torch.fft.irfft(torch.fft.rfft(x) * gain, x.shape[1])


def _speed(x: Tensor, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Played 1.1, 1.2, 1.3, 1.45 or 1.6 times as fast, and so higher, in the middle of silence."""
    return play_faster(x, (1.1, 1.2, 1.3, 1.45, 1.6)[severity - 1])


def play_faster(x: Tensor, factor: float) -> Tensor:
    """Each row (n, samples) resampled to samples / factor, a tone of f to one of f · factor, with zeros around it.

    What would lie above half the rate is left out: the spectrum is cut, and read as that of a shorter row.
    """
    n = x.shape[1]
    short = round(n / factor)
    heard = torch.fft.irfft(torch.fft.rfft(x)[:, : short // 2 + 1], short) * (short / n)
    before = (n - short) // 2
    return F.pad(heard, (before, n - short - before))


def _clip(x: Tensor, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Cut off at 50, 30, 20, 12 or 7 % of the row's peak, and as loud at its peak as it was."""
    share = (0.5, 0.3, 0.2, 0.12, 0.07)[severity - 1]
    peak = x.abs().amax(1, keepdim=True)
    return x.clamp(-share * peak, share * peak) / share


SOUND_SHIFTS: dict[str, Change] = {
    "noise": _noise,
    "reverb": _reverb,
    "telephone": _telephone,
    "speed": _speed,
    "clip": _clip,
}


def shift_sound(x: Tensor, shift: str, severity: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Waveforms (n, 1, samples) int16 under a named shift, cut off at full scale; `none` returns them as they are.

    They are never floats all at once.
    """
    if shift == "none":
        return x
    shifted = torch.empty_like(x)
    for before, after in zip(x.split(CHUNK), shifted.split(CHUNK), strict=True):
        heard = SOUND_SHIFTS[shift](before[:, 0].float() / FULL_SCALE, severity, sample_rate, generator)
        after.copy_(to_whole_numbers(heard)[:, None])
    return shifted


def to_whole_numbers(x: Tensor) -> Tensor:
    """Waveforms in [−1, 1] as int16, rounded, what is beyond cut off."""
    return (x * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)


def _power(x: Tensor) -> Tensor:
    return x.square().mean(1, keepdim=True)
