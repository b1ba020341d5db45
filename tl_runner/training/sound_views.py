"""Random views of waveforms (n, 1, samples), as pure functions of a batch and a seed: see `augment`.

Spans of time and bands of frequency are taken out of the wave itself, where SpecAugment masks a spectrogram. So a model
gets waveforms in training as in use, no stage of it knows of training, and methods that compare two views have them.
"""

import math

import torch
from torch import Tensor

MASKS = 2  # of each kind
WIDEST = 0.4  # share of the time, or of the bands, that a mask takes at most, at magnitude 1
BEND = 8.0  # half the rate in units of 700 Hz, about: the mel scale from 8 to 16 kHz


def move_and_amplify(x: Tensor, chance: Tensor, shift: float, gain: float) -> Tensor:
    """Each row moved by up to `shift` of its length, what leaves one end coming in at the other, and up to `gain` dB
    louder or softer.

    chance (2, n) in [0, 1). Moved round, so that no silence appears which the recording did not have.
    """
    samples = x.shape[-1]
    steps = ((2 * chance[0] - 1) * shift * samples).round().long()
    at = (torch.arange(samples, device=x.device) - steps[:, None]) % samples
    factor = 10 ** ((2 * chance[1] - 1) * gain / 20)
    return x.gather(-1, at[:, None]) * factor[:, None, None]


def mask(x: Tensor, chance: Tensor, magnitude: float) -> Tensor:
    """Each row without two bands of frequency, and silent in two spans of time; they may overlap.

    chance (8, n) in [0, 1): the widths, in proportion to `magnitude`, and the places. Bands are measured on a scale
    like mel. After SpecAugment; Park et al., Interspeech 2019.
    """
    of_bands, at_bands, of_spans, at_spans = chance.view(4, MASKS, -1)
    samples = x.shape[-1]
    f = _middles(samples // 2 + 1, x.device)
    kept = _outside((BEND * f).log1p() / math.log1p(BEND), WIDEST * magnitude * of_bands, at_bands)
    x = torch.fft.irfft(torch.fft.rfft(x) * kept[:, None], samples)
    return x * _outside(_middles(samples, x.device), WIDEST * magnitude * of_spans, at_spans)[:, None]


def _middles(n: int, device: torch.device) -> Tensor:
    """Those of n equal parts of [0, 1]."""
    return (torch.arange(n, device=device) + 0.5) / n


def _outside(position: Tensor, width: Tensor, place: Tensor) -> Tensor:
    """Which positions (k,) in [0, 1] lie in no mask of a row: (n, k) bool; of masks width and place (masks, n)."""
    centre = width / 2 + place * (1 - width)
    return ((position - centre[..., None]).abs() >= width[..., None] / 2).all(0)
