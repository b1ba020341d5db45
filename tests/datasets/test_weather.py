"""Fog, rain, snow, dusk and glare: what their formulas promise, on grey and coloured images of any size."""

import re
from typing import get_args, get_type_hints

import pytest
import torch
import yaml
from conftest import CONF

from tl_runner import config
from tl_runner.datasets import weather
from tl_runner.datasets.image_shifts import IMAGE_SHIFTS, GreyShift, ImageShift, shift_images
from tl_runner.datasets.weather import blur_falling, dusk, glare, luma_of, rain, snow

WEATHER = ("fog", "rain", "snow", "dusk", "glare")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shift", WEATHER)
@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (12, 1, 28, 28), (9, 3, 21, 13), (9, 3, 15, 40), (3, 3, 96, 96)])
def test_weather_grows_with_severity_on_images_of_any_shape(shift, shape):
    x = torch.rand(shape, generator=seeded(1))
    changes = []
    for severity in range(1, 6):
        y = shift_images(x, shift, severity, seeded())
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
        changes.append(float((y - x).abs().mean()))
    assert changes == sorted(set(changes)) and changes[0] > 0.005


@pytest.mark.parametrize("shift", WEATHER)
def test_weather_is_a_function_of_the_generator_and_each_images_own(shift):
    x = torch.full((2, 3, 24, 24), 0.5)
    one, again, other = (shift_images(x, shift, 3, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one[0], one[1])


def test_blur_falling_sums_upright_along_the_fall():
    drops = torch.rand(3, 1, 12 + 4, 20, generator=seeded())
    expected = sum(drops[..., k : k + 12, 5:15] for k in range(5))
    torch.testing.assert_close(blur_falling(drops, 5, torch.zeros(3)), expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 44), (40, 24)])
def test_what_falls_leans_by_a_share_of_the_width(height, width):
    """A line from the top to the bottom; its place in a row is the mean over what it lights."""
    drops = torch.zeros(2, 1, height + 1, 2 * width)
    drops[..., width] = 1.0
    fallen = blur_falling(drops, 2, torch.tensor([0.7, -0.4]))[:, 0]
    places = (fallen * torch.arange(width)).sum(-1) / fallen.sum(-1)
    leant = places[:, 0] - places[:, -1]
    torch.testing.assert_close(leant, torch.tensor([0.7, -0.4]) * width * (height - 1) / height, rtol=0.02, atol=0.02)


def test_rain_on_an_even_image_is_that_image_and_light_streaks():
    """Without contrast to lose; streaks cover 0.06 a severity, less where two cross, and go 0.7 of the way to white."""
    for severity in (1, 3, 5):
        opacity = (rain(torch.full((200, 1, 40, 40), 0.2), severity, seeded()) - 0.2) / 0.8
        assert float(opacity.min()) > -1e-6 and 0.69 < float(opacity.max()) < 0.7 + 1e-6
        covered = 1 - (1 - 0.06 * severity / 8) ** 8
        assert abs(float(opacity.mean()) / 0.7 / covered - 1) < 0.05  # 200 images: the deviation of the mean is 1 %


def test_rain_takes_contrast(monkeypatch):
    monkeypatch.setattr(weather, "blur_falling", lambda drops, length, lean: torch.zeros(len(drops), 1, 16, 16))
    x = torch.rand(4, 3, 16, 16, generator=seeded())
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(rain(x, 5, seeded()), mean + 0.6 * (x - mean))


def test_heavier_rain_keeps_the_drops_of_lighter_rain():
    light, heavy = (rain(torch.zeros(5, 1, 32, 32), severity, seeded()) for severity in (2, 4))
    assert bool((heavy >= light - 1e-6).all())


def test_snow_is_a_whiter_image_and_flakes_alike_when_turned():
    """As in the corruption benchmark: a·x + (1 − a)·max(x, 1.5 luma + 0.5) + flakes + flakes turned by 180°."""
    x = torch.rand(6, 3, 32, 32, generator=seeded(1))
    luma = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    for severity, share in ((1, 0.06), (5, 0.3)):
        flakes = snow(x, severity, seeded()) - (1 - share) * x - share * torch.maximum(x, 1.5 * luma + 0.5)
        assert -1e-6 < float(flakes.min()) < 1e-6 < float(flakes.max())
        torch.testing.assert_close(flakes, flakes.rot90(2, (2, 3)), rtol=0, atol=1e-6)
        torch.testing.assert_close(flakes[:, 0], flakes[:, 2], rtol=0, atol=1e-6)
    assert torch.equal(shift_images(torch.ones(2, 3, 16, 16), "snow", 3, seeded()), torch.ones(2, 3, 16, 16))


def test_flakes_are_the_share_of_a_normal_that_exceeds_their_threshold_at_any_size():
    """On black each pixel has E[z; z > 0.55] twice, z normal of mean 0.05 a severity and deviation 0.3, at most 1."""
    for severity in (1, 3, 5):
        z = torch.linspace(-3, 3, 200001, dtype=torch.float64)
        density = torch.distributions.Normal(0.05 * severity, 0.3).log_prob(z).exp()
        expected = 2 * float((density * torch.where(z > 0.55, z.clamp(max=1), 0.0)).sum() * (z[1] - z[0]))
        for size in (32, 100, 128):
            snowed = snow(torch.zeros(60, 1, size, size), severity, seeded())
            white = 0.06 * severity * 0.5  # of what a black image is blended with
            assert abs(float(snowed.mean() - white) / expected - 1) < 0.15, (severity, size)


@pytest.mark.parametrize(("channels", "tint"), [(1, [1.0]), (3, [0.76, 0.88, 1.0]), (4, [1.0] * 4)])
def test_dusk_is_a_power_with_a_tint_and_noise(channels, tint):
    x = torch.rand(5, channels, 9, 7, generator=seeded(1))
    noise = torch.randn(x.shape, generator=seeded())
    expected = 0.64 * x**1.48 * torch.tensor(tint).view(-1, 1, 1) + 0.03 * noise
    torch.testing.assert_close(dusk(x, 3, seeded()), expected)


def test_glare_is_a_gaussian_veil_that_leaves_white_white():
    """Its logarithm has the second difference −1/(r²·side²) along either axis, and is ln a where the light is."""
    veil = glare(torch.zeros(20, 3, 32, 48), 4, seeded())
    logs = veil[:, 0].double().log()
    for axis, side in ((-2, 32), (-1, 48)):
        bent = logs.diff(n=2, dim=axis)
        torch.testing.assert_close(bent, torch.full_like(bent, -4 / side**2), rtol=0, atol=2e-6)
    peaks = veil.amax((1, 2, 3))
    assert float(peaks.max()) <= 0.76 and float(peaks.min()) > 0.76 * 0.999  # a pixel is never far from the light
    assert torch.equal(veil[:, 0], veil[:, 2])
    white = torch.ones(2, 1, 8, 8)
    assert torch.equal(glare(white, 5, seeded()), white)


def test_the_luma_of_other_than_three_channels_is_their_mean():
    x = torch.rand(2, 5, 3, 4, generator=seeded())
    torch.testing.assert_close(luma_of(x), x.mean(1, keepdim=True))
    torch.testing.assert_close(luma_of(x[:, :1]), x[:, :1])


@pytest.mark.parametrize(
    ("dataset", "names"),
    [("digits", GreyShift), ("fashion", GreyShift), ("cifar10", ImageShift), ("road_signs", ImageShift)],
)
def test_every_shift_of_images_can_be_set_and_is_told_wherever_there_are_some(dataset, names):
    text = (CONF / "dataset" / f"{dataset}.yaml").read_text()
    target = config.locate(yaml.safe_load(text)["_target_"], dataset)
    assert set(get_args(names)) <= {*_flat(get_type_hints(target)["shift"])}
    comment = re.search(r"^shift:(.*\n(?: +#.*\n)*)", text, re.MULTILINE)
    assert comment and set(get_args(names)) <= {*re.findall(r"\w+", comment[1])}


def _flat(hint) -> list[str]:
    """The words of a Literal, or of one that may be None."""
    return [word for part in get_args(hint) for word in ([part] if isinstance(part, str) else get_args(part))]


def test_the_page_on_data_lists_every_shift_of_images():
    page = (CONF.parent / "docs" / "data.md").read_text()
    assert f"`dataset.shift={'|'.join(IMAGE_SHIFTS)}`" in page
