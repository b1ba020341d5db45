"""The spectrogram that models of sound begin with: its formulas, and what its normalisation takes away."""

import math

import numpy as np
import pytest
import torch

from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models.backbones import identity, linear, mlp, resnet18, small
from tl_runner.models.crnn import crnn
from tl_runner.models.inputs import build_backbone
from tl_runner.models.spectrogram import RANGE, LogMel, hz_to_mel, mel_filters, mel_to_hz, normalise_row
from tl_runner.storage.sections import SoundInfo

SOUND = SoundInfo(8000, 32, 32.0, 20.0, "none")
UTTERANCE = SoundInfo(8000, 32, 32.0, 20.0, "utterance")


def noise(n: int = 5, samples: int = 4000, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(n, 1, samples, generator=torch.Generator().manual_seed(0))


def tone(hz: float, samples: int = 4000, rate: int = 8000) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(samples) / rate).view(1, 1, -1)


def test_1000_hz_are_1000_mel_and_back():
    """HTK's scale was made so; the book rounds 999.99."""
    assert hz_to_mel(torch.tensor(1000.0, dtype=torch.float64)).item() == pytest.approx(1000, abs=0.02)
    hz = torch.linspace(0, 8000, 50, dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("mels", "bins", "rate"), [(32, 129, 8000), (64, 257, 16000), (20, 129, 8000)])
def test_filters_are_the_triangles_that_numpy_interpolates(mels, bins, rate):
    filters = mel_filters(mels, bins, rate).double().numpy()
    hz = np.arange(bins) * rate / 2 / (bins - 1)
    top = 2595 * math.log10(1 + rate / 1400)
    corners = [700 * (10 ** (top * k / (mels + 1) / 2595) - 1) for k in range(mels + 2)]
    for k in range(mels):
        np.testing.assert_allclose(filters[:, k], np.interp(hz, corners[k : k + 3], [0, 1, 0]), atol=1e-6)
    between = (hz >= corners[1]) & (hz <= corners[-2])
    np.testing.assert_allclose(filters.sum(1)[between], 1, atol=1e-6)  # neighbours hand over to each other


def test_bands_narrower_than_a_frequency_are_refused():
    with pytest.raises(UserError, match=r"dataset\.mels=128 bands.*narrower than the 31 Hz"):
        mel_filters(128, 129, 8000)


def test_it_is_the_log_of_what_torch_stft_sees():
    front, x = LogMel(SOUND), noise()
    spectrum = torch.stft(x[:, 0], 256, 160, window=front.window, pad_mode="constant", return_complex=True)
    power = torch.einsum("nft,fm->nmt", spectrum.abs().double() ** 2, front.filters.double())
    v = (1 + 10 * torch.log10(power.clamp_min(1e-8)) / RANGE).float()
    torch.testing.assert_close(front(x)[:, 0], v, atol=1e-5, rtol=0)
    assert front(x).shape == (5, 1, 32, front.count_frames(4000)) == (5, 1, 32, 26)


def test_a_tone_of_full_scale_is_one_and_each_20_db_less_a_quarter_less():
    """A tone at the centre of a band, and a window whose transform falls between no two of its frequencies."""
    front = LogMel(SOUND)
    band = int(front.filters.argmax(0)[20])
    x = tone(band * 8000 / 256)
    loud, soft = (front(gain * x)[0, 0, :, 10].max().item() for gain in (1.0, 0.1))
    assert loud == pytest.approx(1, abs=0.02) and loud - soft == pytest.approx(20 / RANGE, abs=1e-4)
    assert front(x)[0, 0, :, 10].argmax() in (19, 20, 21)
    assert front(torch.zeros(1, 1, 4000)).abs().max() == 0


@pytest.mark.parametrize(("rate", "window"), [(8000, 32.0), (16000, 25.0), (22050, 25.0), (16000, 17.0)])
def test_a_tone_of_full_scale_is_about_one_in_any_window(rate, window):
    front = LogMel(SoundInfo(rate, 32, window, 20.0, "none"))
    tones = torch.cat([tone(hz, rate // 2, rate) for hz in torch.linspace(200, 0.45 * rate, 50).tolist()])
    decibels = RANGE * (front(tones)[:, 0, :, 12].amax(1) - 1)
    assert decibels.min() > -1.5 and decibels.max() < 4.5


def test_by_utterance_a_row_has_a_mean_and_a_deviation_of_its_own():
    power = 10 ** torch.empty(5, 32, 26).uniform_(-2, 0, generator=torch.Generator().manual_seed(2))
    y = normalise_row(power)
    decibels = 10 * power.log10()
    expected = [0.5 + (row - row.mean()) / (4 * row.std(correction=0)) for row in decibels]
    torch.testing.assert_close(y, torch.stack(expected).clamp_min(0), atol=1e-5, rtol=0)
    assert normalise_row(torch.full((1, 32, 26), 0.1)).unique().tolist() == [0.5]  # an even hum


@pytest.mark.parametrize("padding", [0, 2000])
def test_by_utterance_neither_loudness_nor_silence_around_a_row_counts(padding):
    by_row, as_it_is = LogMel(UTTERANCE), LogMel(SOUND)
    x = torch.nn.functional.pad(noise(), (padding, padding))
    y = by_row(x)
    torch.testing.assert_close(by_row(0.1 * x), y, atol=1e-4, rtol=0)
    assert (as_it_is(0.1 * x) - as_it_is(x)).abs().max() > 0.2
    longer = by_row(torch.nn.functional.pad(x, (3200, 3200)))  # by 20 frames on either side
    torch.testing.assert_close(longer[..., 20:-20], y, atol=0.02, rtol=0)  # the ends of the noise are heard a bit more
    assert longer[..., :10].unique().tolist() == [0] and by_row(torch.zeros(2, 1, 4000)).unique().tolist() == [0]
    whole_numbers = (y, by_row((x * 32767).round() / 32768))
    torch.testing.assert_close(*whole_numbers, atol=0.02, rtol=0)


def test_by_utterance_a_span_of_silence_leaves_the_rest_as_it_is():
    """As `augment=strong` takes it out."""
    x, by_row = noise(), LogMel(UTTERANCE)
    masked = x.clone()
    masked[..., 1600:2400] = 0
    kept = [*range(8), *range(18, 26)]
    torch.testing.assert_close(by_row(masked)[..., kept], by_row(x)[..., kept], atol=0.08, rtol=0)


def test_by_domain_each_band_has_the_statistics_of_its_batch_and_a_dull_microphone_does_not_count():
    front = LogMel(SoundInfo(8000, 32, 32.0, 20.0, "domain")).train()
    x = noise(20)
    y = front(x)
    torch.testing.assert_close(y.mean((0, 1, 3)), torch.full((32,), 0.5), atol=1e-5, rtol=0)
    deviations = y.std((0, 1, 3), correction=0)
    torch.testing.assert_close(deviations, torch.full((32,), 0.25), atol=5e-3, rtol=0)  # BatchNorm's ε makes it less
    f = torch.fft.rfftfreq(4000, 1 / 8000)
    dull = torch.fft.irfft(torch.fft.rfft(x) / (1 + f / 500), 4000)
    by_row = LogMel(SoundInfo(8000, 32, 32.0, 20.0, "utterance"))
    assert (front(dull) - y).abs().mean() < 0.1 * (by_row(dull) - by_row(x)).abs().mean()


def test_by_domain_statistics_are_those_of_batchnorm_and_are_saved_as_such():
    """So that they follow the domain by whatever follows it for the network's own layers."""
    backbone, width = build_backbone(mlp, (1, 4000), None, SoundInfo(8000, 32, 32.0, 20.0, "domain"))
    model = Model(backbone, width, ("a", "b")).train()
    model.features(noise(), noise(7, level=0.5))
    assert "backbone.spectrogram.bands.running_mean" in model.state_dict()
    assert model.state_dict()["backbone.spectrogram.bands.running_mean"].abs().min() > 0


@pytest.mark.parametrize("backbone", [small, crnn, resnet18, mlp, linear, identity])
def test_a_backbone_of_waveforms_begins_with_the_spectrogram(backbone):
    stages, width = build_backbone(backbone, (1, 4000), None, SOUND)
    model = Model(stages, width, ("a", "b", "c")).eval()
    assert model.stages[0] == "spectrogram" and model(noise()).shape == (5, 3)
    assert "sample_rate=8000, mels=32" in str(model.backbone[0])


def test_the_spectrogram_can_be_made_for_several_runs_at_once():
    """As fused runs do; `torch.stft` would fall back to a loop there."""
    front = LogMel(SoundInfo(8000, 32, 32.0, 20.0, "utterance"))
    both = torch.vmap(front)(torch.stack([noise(), noise(level=0.2)]))
    torch.testing.assert_close(both[0], front(noise()), atol=1e-6, rtol=0)


def test_crnn_reads_in_order_and_takes_any_image():
    net, width = crnn((3, 16, 24), width=20)
    net.eval()
    x = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    assert net(x).shape == (4, width) == (4, 20)
    assert not torch.allclose(net(x), net(x.flip(-1)), atol=1e-4)
    with pytest.raises(UserError, match="backbone=crnn reads images"):
        crnn((8,))


def test_a_spectrogram_that_is_too_small_for_a_network_is_refused_with_what_makes_it_larger():
    with pytest.raises(UserError, match=r"at least 8×8 pixels, got 32×6\. .*32 bands \(dataset\.mels\) × 6 columns"):
        build_backbone(resnet18, (1, 800), None, SOUND)
