"""Shifts of images: each does what its name says, in bytes as in floats."""

from typing import get_args

import pytest
import torch

from tl_runner.datasets import image_shifts
from tl_runner.datasets.image_shifts import IMAGE_SHIFTS, GreyShift, ImageShift, severity_of, shift_images
from tl_runner.datasets.warp import warp
from tl_runner.errors import UserError


def photos(n: int = 48, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Smooth coloured blobs, lighter to the right: neighbours are alike, channels and directions differ."""
    coarse = torch.rand(n, channels, 6, 6, generator=torch.Generator().manual_seed(1)) + torch.linspace(-1, 1, 6)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(0, 1)


def shifted(x: torch.Tensor, shift: str, severity: int) -> torch.Tensor:
    return shift_images(x, shift, severity, torch.Generator().manual_seed(0))


def test_every_shift_has_a_name_that_can_be_set():
    assert get_args(ImageShift) == ("none", *IMAGE_SHIFTS)
    assert set(get_args(ImageShift)) - set(get_args(GreyShift)) == {"grayscale"}


@pytest.mark.parametrize("shift", IMAGE_SHIFTS)
def test_image_shifts_grow_with_severity_and_stay_images(shift):
    x = photos()
    changes = []
    for severity in range(1, 6):
        y = shifted(x, shift, severity)
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
        changes.append((y - x).abs().mean().item())
    assert changes[0] > 0.002 and changes == sorted(set(changes))


@pytest.mark.parametrize("shift", IMAGE_SHIFTS)
def test_bytes_are_shifted_as_floats_are_and_rounded(shift, monkeypatch):
    monkeypatch.setattr(image_shifts, "CHUNK", 20)  # 48 images in three chunks, the last of them short
    bytes_ = (photos() * 255).to(torch.uint8)
    before = bytes_.clone()
    result = shifted(bytes_, shift, 2)
    assert result.dtype == torch.uint8 and torch.equal(bytes_, before)
    generator = torch.Generator().manual_seed(0)
    expected = [shift_images(chunk.float() / 255, shift, 2, generator) for chunk in bytes_.split(20)]
    torch.testing.assert_close(result.float() / 255, torch.cat(expected), rtol=0, atol=0.5 / 255 + 1e-6)


def test_images_of_bytes_are_never_floats_all_at_once(monkeypatch):
    seen = []
    monkeypatch.setattr(image_shifts, "CHUNK", 16)
    monkeypatch.setitem(IMAGE_SHIFTS, "invert", lambda x, severity, generator: seen.append(len(x)) or 1 - x)
    shifted((photos() * 255).to(torch.uint8), "invert", 5)
    assert seen == [16, 16, 16]


def test_no_shift_gives_the_images_themselves():
    x = photos()
    assert shift_images(x, "none", 0, torch.Generator()) is x


def test_a_full_grayscale_has_the_luma_in_all_channels():
    x = photos()
    y = shifted(x, "grayscale", 5)
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    for channel in range(3):
        torch.testing.assert_close(y[:, channel], luma)


def test_grey_images_have_no_colour_to_lose():
    for x in (photos(channels=1), (photos(channels=1) * 255).to(torch.uint8)):
        with pytest.raises(UserError, match=r"dataset.shift=grayscale takes colours away, and these images have 1"):
            shifted(x, "grayscale", 3)


def test_brightness_adds_the_same_everywhere():
    torch.testing.assert_close(shifted(torch.full((1, 3, 4, 4), 0.25), "brightness", 3), torch.full((1, 3, 4, 4), 0.55))


def test_fog_is_white_smooth_the_same_in_all_channels_and_each_images_own():
    opacity = shifted(torch.zeros(2, 3, 32, 32), "fog", 4)  # black under fog shows how dense it is
    assert opacity.min() >= 0.36 and opacity.max() <= 0.72
    assert torch.equal(opacity[:, 0], opacity[:, 2])
    assert not torch.equal(opacity[0], opacity[1])
    steps = (opacity[..., 1:] - opacity[..., :-1]).abs()
    assert 0 < steps.max() <= 0.36 * 3 / 31 + 1e-6  # three of its four drops lie 31 pixels apart
    assert torch.equal(shifted(torch.ones(2, 3, 32, 32), "fog", 4), torch.ones(2, 3, 32, 32))


def test_pixelate_keeps_the_means_of_its_blocks():
    y = shifted(photos(), "pixelate", 5)
    blocks = y.view(-1, 3, 8, 4, 8, 4)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    torch.testing.assert_close(y.mean((-2, -1)), photos().mean((-2, -1)))


def test_a_full_inversion_is_the_negative():
    x = photos()
    torch.testing.assert_close(shifted(x, "invert", 5), 1 - x)


def test_warping_by_a_quarter_turn_is_rot90():
    x = torch.rand(1, 1, 9, 9)
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    torch.testing.assert_close(warp(x, quarter), torch.rot90(x, 1, (2, 3)), rtol=1e-4, atol=1e-5)


def test_a_severity_is_from_1_to_5_and_belongs_to_a_shift():
    assert severity_of("blur", None) == 3 and severity_of("blur", 4) == 4 and severity_of("none", None) == 0
    for severity in (0, 6):
        with pytest.raises(UserError, match="severity must be between 1 and 5"):
            severity_of("blur", severity)
    with pytest.raises(UserError, match="has no shift to belong to"):
        severity_of("none", 2)
