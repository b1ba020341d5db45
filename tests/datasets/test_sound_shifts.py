"""Shifts of sound against what they say: decibels, seconds, Hz, factors and shares, each measured from the outside."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from tl_runner.datasets.sound_shifts import (
    SOUND_SHIFTS,
    add_noise,
    draw_response,
    keep_band,
    play_faster,
    shift_sound,
    to_whole_numbers,
)
from tl_runner.domains import FULL_SCALE

RATE = 8000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hz: float, n: int = 1, samples: int = 4000) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hz * torch.arange(samples) / RATE).expand(n, -1)


def power(x: torch.Tensor) -> torch.Tensor:
    return x.double().square().mean(-1)


@pytest.mark.parametrize("ratio", [20, 10, 0])
def test_noise_has_the_asked_share_of_the_power_in_each_row(ratio):
    """Of the sound's power, whatever silence it stands in: float32 rounds by far less than a thousandth of a dB."""
    sound = F.pad(tone(440, 6, 3000) * torch.linspace(0.1, 1, 6)[:, None], (1, 1), value=0.05)
    for x in (sound, F.pad(sound, (500, 2000)), F.pad(sound, (0, 9000))):
        noise = add_noise(x, ratio, seeded()) - x
        decibels = 10 * torch.log10(power(sound) / power(noise))
        torch.testing.assert_close(decibels, torch.full((6,), ratio).double(), atol=1e-3, rtol=0)
    assert abs(torch.corrcoef(noise)[0, 1]) < 0.1  # each row has its own
    assert add_noise(torch.zeros(1, 100), ratio, seeded()).abs().max() == 0  # of silence there is no ratio


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2])
def test_a_room_falls_silent_in_the_asked_time(seconds):
    """By Schroeder's backward integral: the slope of the energy that is still to come, from −5 to −25 dB."""
    responses = draw_response(8, seconds, RATE, seeded())
    torch.testing.assert_close(responses[:, 0].square(), responses[:, 1:].square().sum(1), atol=1e-4, rtol=0)
    left = responses[:, 1:].double().square().flip(1).cumsum(1).flip(1).mean(0)
    decibels = 10 * torch.log10(left / left[0])
    first, last = (int((decibels < level).nonzero()[0]) for level in (-5, -25))
    measured = 60 * (last - first) / RATE / (decibels[first] - decibels[last]).item()
    assert measured == pytest.approx(seconds, rel=0.05)  # eight rooms of 1600 taps or more: 2 % of sampling


def test_reverberation_is_the_convolution_with_the_response_as_loud_as_before():
    x = torch.randn(2, 500, generator=seeded(1))
    heard = SOUND_SHIFTS["reverb"](x, 1, RATE, seeded(2))
    response = draw_response(2, 0.2, RATE, seeded(2))
    slow = torch.stack([response[:, k, None] * F.pad(x, (k, 0))[:, :500] for k in range(500)]).sum(0)
    slow = slow * (power(x) / power(slow)).sqrt()[:, None]
    torch.testing.assert_close(heard, slow.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(power(heard), power(x), rtol=1e-4, atol=0)


def test_a_telephone_passes_the_band_and_stops_what_is_outside():
    """Tones: 3 dB less at the corners, next to nothing less within, 48 dB less an octave outside."""
    heard = {hz: keep_band(tone(hz), 300, 3400, RATE) for hz in (150, 300, 1000, 3400)}
    gains = {hz: (power(x) / power(tone(hz))).item() for hz, x in heard.items()}
    assert gains[1000] == pytest.approx(1, abs=1e-3)
    assert gains[300] == pytest.approx(0.5, abs=0.01) and gains[3400] == pytest.approx(0.5, abs=0.01)
    assert 10 * math.log10(gains[150]) == pytest.approx(-48, abs=0.5)


@pytest.mark.parametrize("factor", [1.1, 1.25, 1.6])
def test_faster_speech_is_shorter_and_its_tones_are_higher(factor):
    heard = play_faster(tone(440), factor)[0]
    sounding = heard.abs() > 0.01
    edges = sounding.nonzero().squeeze()
    assert edges[-1] - edges[0] + 1 == pytest.approx(4000 / factor, abs=20)
    assert edges[0] == pytest.approx(4000 - 1 - edges[-1], abs=20)  # in the middle
    spectrum = torch.fft.rfft(heard[edges[0] : edges[-1]], 2**16).abs()
    assert spectrum.argmax().item() * RATE / 2**16 == pytest.approx(440 * factor, rel=0.003)
    assert heard.abs().max() == pytest.approx(0.3, rel=0.05)


def test_clipping_flattens_all_beyond_the_share_of_the_peak_and_keeps_the_peak():
    x = tone(440) * torch.tensor([[1.0], [0.1]])
    heard = SOUND_SHIFTS["clip"](x, 1, RATE, seeded())
    peak = x.abs().amax(1, keepdim=True)
    flat = (heard.abs() >= 0.999 * peak).float().mean(1)
    torch.testing.assert_close(heard.abs().amax(1), peak[:, 0])
    torch.testing.assert_close(flat, torch.full((2,), 2 / 3), atol=0.01, rtol=0)  # |sin| > ½ for two thirds of its time
    torch.testing.assert_close(heard[x.abs() < 0.4 * peak], x[x.abs() < 0.4 * peak] / 0.5)


@pytest.mark.parametrize("shift", SOUND_SHIFTS)
def test_a_shift_is_seeded_takes_whole_numbers_and_grows_with_its_severity(shift):
    generator = seeded(3)
    x = to_whole_numbers(0.2 * torch.randn(300, 1, 2000, generator=generator))  # white: no band of it is empty
    before = x.clone()
    shifted = [shift_sound(x, shift, severity, RATE, seeded(4)) for severity in range(1, 6)]
    assert torch.equal(x, before) and all(each.dtype == torch.int16 and each.shape == x.shape for each in shifted)
    assert torch.equal(shift_sound(x, shift, 3, RATE, seeded(4)), shifted[2])
    spectra = [torch.fft.rfft(each.float()).abs().mean((0, 1)) for each in (x, *shifted)]
    likeness = [F.cosine_similarity(x.float(), each.float(), dim=-1).mean().item() for each in shifted]
    worse = {
        "reverb": [power(each[..., 1000:].float()).mean().item() for each in clicks(shift)],  # late energy of a click
        "speed": [(spectrum - spectra[0]).abs().mean().item() for spectrum in spectra[1:]],
    }.get(shift, [1 - each for each in likeness])
    assert all(a < b for a, b in pairwise(worse)), worse


def clicks(shift: str) -> list[torch.Tensor]:
    x = torch.zeros(20, 1, 4000, dtype=torch.int16)
    x[..., 0] = FULL_SCALE - 1
    return [shift_sound(x, shift, severity, RATE, seeded(4)) for severity in range(1, 6)]


def test_no_shift_is_the_rows_themselves_and_whole_numbers_end_at_full_scale():
    x = torch.zeros(2, 1, 10, dtype=torch.int16)
    assert shift_sound(x, "none", 0, RATE, seeded()) is x
    assert to_whole_numbers(torch.tensor([-2.0, -1, 0, 0.5, 1, 2])).tolist() == [-32768, -32768, 0, 16384, 32767, 32767]
    assert FULL_SCALE == 32768
