"""Views of waveforms: moved and amplified as said, masked where the spectrogram shows it, and nothing else changed."""

import pytest
import torch

from tl_runner.models.spectrogram import LogMel
from tl_runner.storage.sections import SoundInfo
from tl_runner.training.augment import shift, strong, strong_view, weak
from tl_runner.training.sound_views import WIDEST, mask, move_and_amplify


def sound(n: int = 40, samples: int = 4000) -> torch.Tensor:
    return 0.1 * torch.randn(n, 1, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("view", [shift, weak, strong])
def test_a_view_is_a_function_of_its_seed_and_leaves_its_input(view):
    x = sound()
    before = x.clone()
    assert torch.equal(view(x, 7), view(x, 7)) and not torch.equal(view(x, 7), view(x, 8))
    assert torch.equal(x, before) and view(x, 7).shape == x.shape


def test_a_row_is_moved_round_and_amplified_by_what_was_drawn():
    x = sound(3, 100)
    moved = move_and_amplify(x, torch.tensor([[0.0, 0.5, 0.999], [0.5, 0.75, 0.25]]), shift=0.1, gain=6.0)
    expected = [x[0].roll(-10, -1), x[1] * 10 ** (3 / 20), x[2].roll(10, -1) * 10 ** (-3 / 20)]
    torch.testing.assert_close(moved, torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_what_is_switched_off_does_nothing():
    x = sound()
    assert torch.equal(weak(x, 1, shift=0.0, gain=0.0), x)
    torch.testing.assert_close(strong(x, 1, shift=0.0, gain=0.0, magnitude=0.0), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(shift(x, 1).square().sum(-1), x.square().sum(-1))  # its loudness is its own


def test_masked_spans_are_silent_and_masked_bands_lack_their_power():
    """Masks of the widest width in known places; beside them the wave and its spectrum are as they were."""
    x, samples = sound(1), 4000
    only_time = torch.tensor([0.0, 0, 0, 0, 1, 1, 0, 1])[:, None]  # two spans: the first 40 % and the last
    y = mask(x, only_time, 1.0)
    share = round(WIDEST * samples)
    assert y[..., :share].abs().max() < 1e-6 and y[..., -share:].abs().max() < 1e-6
    torch.testing.assert_close(y[..., share:-share], x[..., share:-share], atol=1e-5, rtol=0)
    only_bands = torch.tensor([1.0, 1, 0, 1, 0, 0, 0, 0])[:, None]
    power = torch.fft.rfft(mask(x, only_bands, 1.0)).abs()[0, 0] / torch.fft.rfft(x).abs()[0, 0]
    bent = (1 + 8 * torch.arange(0.5, len(power)) / len(power)).log() / torch.tensor(9.0).log()
    outside = (bent > WIDEST + 1e-3) & (bent < 1 - WIDEST - 1e-3)
    torch.testing.assert_close(power[outside], torch.ones(int(outside.sum())), atol=1e-3, rtol=0)
    assert power[(bent < WIDEST - 1e-3) | (bent > 1 - WIDEST + 1e-3)].max() < 1e-3


def test_strong_views_show_in_the_spectrogram_and_more_the_larger_their_magnitude():
    front, x = LogMel(SoundInfo(8000, 32, 32.0, 20.0, "none")), sound()
    lost = [(front(strong(x, 1, 0.0, True, m, 0.0)) < 0.1).float().mean().item() for m in (0.1, 0.5, 1.0)]
    assert (front(x) < 0.1).float().mean() == 0 and 0 <= lost[0] < 0.1 < lost[1] < lost[2] < 0.8
    assert torch.equal(strong_view(x, 5, 0.7), strong(x, 5, magnitude=0.7))
