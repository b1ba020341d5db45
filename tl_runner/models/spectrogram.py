"""From waveforms to log-mel spectrograms, as the first stage of a model: what is saved then takes waveforms.

A spectrogram (n, 1, mels, frames) is a grey picture in about [0, 1], so that networks for images take it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.errors import UserError
from tl_runner.storage.sections import SoundInfo

FLOOR = 1e-8  # of the power of a full-scale tone: −80 dB, below which nothing is told apart
RANGE = 80.0  # dB from there to the tone
SILENCE = 1e-12  # below what 16 bits can tell from nothing
FLAT = 0.8  # dB, the least deviation that is divided by: an even hum stays even


def hz_to_mel(hz: Tensor) -> Tensor:
    """2595 log10(1 + f / 700): HTK's formula, O'Shaughnessy 1987."""
    return 2595 * torch.log10(1 + hz / 700)


def mel_to_hz(mel: Tensor) -> Tensor:
    """The inverse, 700 (10^(m / 2595) − 1)."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(mels: int, bins: int, sample_rate: int) -> Tensor:
    """Triangles (bins, mels) over `bins` frequencies from 0 to half the rate, their corners equally far apart in mel.

    Each is 1 at its centre and 0 at the centres beside it, and linear in Hz between them. HTK's are linear in mel and
    weigh magnitudes; these weigh powers, as torchaudio's do on the same scale. Raises `UserError` where one is so
    narrow that no frequency is in it.
    """
    hz = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64)
    corners = mel_to_hz(torch.linspace(0, hz_to_mel(hz[-1]).item(), mels + 2, dtype=torch.float64))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (hz[:, None] - left) / (centre - left)
    falling = (right - hz[:, None]) / (right - centre)
    filters = torch.minimum(rising, falling).clamp_min(0)
    if empty := int((filters.sum(0) == 0).sum()):
        raise UserError(
            f"{empty} of dataset.mels={mels} bands are narrower than the {sample_rate / 2 / (bins - 1):.0f} Hz that a"
            " window tells apart: take fewer, or a longer dataset.window"
        )
    return filters.float()


class LogMel(nn.Module):
    """Waveforms (n, 1, samples) in [−1, 1] -> log-mel spectrograms (n, 1, mels, frames).

    Frames of a Hann window stand every hop, with silence before the beginning and behind the end, as `torch.stft` has
    them with `center` and `pad_mode="constant"`. The power of each frequency, 1 for a tone of full scale, is summed by
    `mel_filters`, and told in dB: v = 1 + dB / 80, 0 at −80 dB and below. So a tone of full scale is about 1 in its
    band, −1.5 to +4.5 dB: a window spreads it over neighbouring frequencies, the more of them the more it is padded.

    normalise: `none` gives v. `utterance` gives what `normalise_row` does: neither loudness nor the silence around a
    short recording counts. `domain` gives 0.5 + (v − μ) / 4σ with the mean and deviation of each mel band over all rows
    and frames: a BatchNorm layer without weights, so that each domain has its own where networks have that (see
    `models.batchnorm`), and so that a microphone which dampens a band does not count.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sound: SoundInfo):
        super().__init__()
        self.sound = sound
        length = round(sound.sample_rate * sound.window / 1000)
        self.hop = round(sound.sample_rate * sound.hop / 1000)
        self.size = 2 ** math.ceil(math.log2(length))  # of the transform: a power of two is fast
        before = (self.size - length) // 2
        window = F.pad(torch.hann_window(length), (before, self.size - length - before))
        self.register_buffer("window", window * (2 / window.sum()))  # a tone of full scale then has the power 1
        self.register_buffer("filters", mel_filters(sound.mels, self.size // 2 + 1, sound.sample_rate))
        self.bands = nn.BatchNorm1d(sound.mels, affine=False) if sound.normalise == "domain" else None

    def extra_repr(self) -> str:
        """What the record says of a model's input."""
        return ", ".join(f"{name}={value}" for name, value in vars(self.sound).items())

    def count_frames(self, samples: int) -> int:
        return samples // self.hop + 1

    def forward(self, x: Tensor) -> Tensor:
        # What torch.stft does, to the last bit; but that has no rule for torch.vmap, by which runs are fused.
        frames = F.pad(x[:, 0], (self.size // 2, self.size // 2)).unfold(-1, self.size, self.hop)
        spectrum = torch.fft.rfft(frames * self.window)
        power = ((spectrum.real.square() + spectrum.imag.square()) @ self.filters).transpose(1, 2)
        if self.sound.normalise == "utterance":
            return normalise_row(power)[:, None]
        v = 1 + 10 * power.clamp_min(FLOOR).log10() / RANGE
        return (v if self.bands is None else 0.5 + self.bands(v) / 4)[:, None]


def normalise_row(power: Tensor) -> Tensor:
    """Powers (n, mels, frames) -> 0.5 + (dB − μ) / 4σ, at least 0, by the mean and deviation of what a row lets hear.

    That is what is less than 80 dB below the loudest of the row; all else is 0. So a row that is played softer, or
    stands in more silence, has the same spectrogram, and a silent one is 0.
    """
    decibels = 10 * power.clamp_min(SILENCE).log10()
    heard = (power > SILENCE) & (decibels > decibels.amax((1, 2), keepdim=True) - RANGE)
    n = heard.sum((1, 2), keepdim=True).clamp_min(1)
    mean = (decibels * heard).sum((1, 2), keepdim=True) / n
    variance = ((decibels - mean).square() * heard).sum((1, 2), keepdim=True) / n
    normal = 0.5 + (decibels - mean) / (4 * variance.sqrt().clamp_min(FLAT))
    return (normal * heard).clamp_min(0)


def find_sound(model: nn.Module) -> SoundInfo | None:
    """How a model reads waveforms; None where it reads something else."""
    return next((part.sound for part in model.modules() if isinstance(part, LogMel)), None)
