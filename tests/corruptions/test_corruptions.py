"""Corruptions: parity with scipy, Pillow and colorsys, and with the script's loops."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mini import data
from mini.corruptions import CORRUPTIONS, blurs, corrupt, families

NAMES = sorted(CORRUPTIONS)
RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur"}
RANDOM |= {"motion_blur", "fog"}
STEP = 1.01 / 255  # one level of 8 bits: where two roundings may differ


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(n: int = 4) -> torch.Tensor:
    """Digits on photographs in float64, all 8-bit values."""
    return data.load("digits", n_train=10, n_test=10).test.images[:n].double() / 255


def noise(n: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    values = torch.randint(256, (n, 3, size, size), generator=seeded(seed))
    return values.double() / 255


def agree(ours: torch.Tensor, theirs, within: float = STEP) -> None:
    difference = (ours - torch.as_tensor(np.asarray(theirs))).abs()
    assert difference.max() <= within
    assert (difference > 1e-6).double().mean() < 0.02


def cut(values: np.ndarray) -> np.ndarray:
    """As the data set stores it."""
    return np.floor(255 * np.clip(values, 0, 1) + 1e-3) / 255


def level(name: str, severity: int):
    return CORRUPTIONS[name][1][severity - 1]


each_severity = pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])


# What all have in common


@pytest.mark.parametrize("name", NAMES)
def test_eight_bit_images_of_the_same_shape_and_type(name):
    for images in (photos(2), photos(2).float(), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 8, 8)):
        before = images.clone()
        found = corrupt(images, name, 5, generator=seeded())
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert torch.equal(images, before)
        levels = 255 * found.double()
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_its_own_and_the_generator_decides(name):
    images = photos(1).expand(3, -1, -1, -1)
    first = corrupt(images, name, 4, generator=seeded(0))
    assert torch.equal(first, corrupt(images, name, 4, generator=seeded(0)))
    differs = not torch.equal(first, corrupt(images, name, 4, generator=seeded(1)))
    assert differs == (name in RANDOM)
    assert (not torch.equal(first[0], first[1])) == (name in RANDOM)
    torch.manual_seed(0)
    default = corrupt(images, name, 4)
    torch.manual_seed(0)
    assert torch.equal(default, corrupt(images, name, 4))


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOM))
def test_a_batch_is_its_images_one_by_one(name):
    images = photos(3)
    alone = torch.cat([corrupt(image[None], name, 3) for image in images])
    torch.testing.assert_close(corrupt(images, name, 3), alone, atol=STEP, rtol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"glass_blur", "saturate", "defocus_blur"}))
def test_higher_severity_is_further_away(name):
    images = photos(10)
    far = [(corrupt(images, name, s, generator=seeded()) - images).abs().mean() for s in (1, 3, 5)]
    assert far[0] < far[1] < far[2]


def test_the_parameters_are_those_of_the_script():
    """make_cifar_c.py of hendrycks/robustness at commit ca36008; zooms are arange(1, c, .01)."""
    published = {
        "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
        "shot_noise": [500, 250, 100, 75, 50],
        "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
        "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
        "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
        "glass_blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        "zoom_blur": [1.06, 1.11, 1.16, 1.21, 1.26],
        "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
        "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
        "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
        "jpeg_compression": [80, 65, 58, 50, 40],
        "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    }
    table = families.CORRUPTIONS
    assert {name: list(parameters) for name, (_, parameters) in table.items()} == published
    assert all(function.__name__ == name for name, (function, _) in table.items())


def test_nothing_is_created_on_another_device():
    images = photos(2).float()
    for name in NAMES:
        with torch.device("meta"):  # where a tensor without a device would land
            found = corrupt(images, name, 3, generator=seeded())
        assert torch.equal(found, corrupt(images, name, 3, generator=seeded())), name


# Noise


@each_severity
def test_noise_has_the_spread_it_should(severity):
    grey = torch.full((20, 3, 32, 32), 0.5, dtype=torch.float64)
    for name, spread in (
        ("gaussian_noise", level("gaussian_noise", severity)),
        ("speckle_noise", 0.5 * level("speckle_noise", severity)),
        ("shot_noise", math.sqrt(0.5 / level("shot_noise", severity))),
    ):
        found = corrupt(grey, name, severity, generator=seeded())
        assert abs(found.std() / spread - 1) < 0.03, name
        assert abs(found.mean() - 0.5) < 0.005, name
    found = corrupt(grey, "impulse_noise", severity, generator=seeded())
    share = level("impulse_noise", severity)
    assert abs((found == 0).double().mean() - share / 2) < 0.002
    assert abs((found == 1).double().mean() - share / 2) < 0.002
    assert (found[:, 0] == 0).ne(found[:, 1] == 0).any()  # every channel for itself


def test_dark_pixels_have_no_shot_and_no_speckle_noise():
    for name in ("shot_noise", "speckle_noise"):
        assert corrupt(torch.zeros(1, 3, 32, 32), name, 5).abs().max() == 0


# Blur


@each_severity
def test_gaussian_blur_is_that_of_scipy(severity):
    sigma = level("gaussian_blur", severity)
    expected = ndimage.gaussian_filter(noise().numpy(), (0, 0, sigma, sigma), mode="nearest")
    agree(corrupt(noise(), "gaussian_blur", severity), cut(expected))


@pytest.mark.parametrize("sigma", [0.1, 0.4, 0.7, 1, 1.5, 2.2])
def test_the_gaussian_ends_at_four_sigma(sigma):
    """The answer to one point is the kernel itself, to the last weight: scipy's, in float64."""
    point = torch.zeros(1, 3, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    found = blurs.gaussian(point, sigma)
    expected = ndimage.gaussian_filter(point.numpy(), (0, 0, sigma, sigma), mode="nearest")
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=0)
    reach = int(4 * sigma + 0.5)
    assert (found[0, 0, 20] > 0).nonzero().flatten().tolist() == [*range(20 - reach, 21 + reach)]


@each_severity
def test_defocus_blur_is_a_correlation_with_a_smoothed_disc(severity):
    radius, alias = level("defocus_blur", severity)
    y, x = np.mgrid[-8:9, -8:9]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    bell /= bell.sum()
    kernel = ndimage.correlate(disc / disc.sum(), np.outer(bell, bell), mode="constant")
    expected = ndimage.correlate(noise().numpy(), kernel[None, None], mode="mirror")
    agree(corrupt(noise(), "defocus_blur", severity), cut(expected))


@each_severity
def test_zoom_blur_is_that_of_scipy(severity):
    factors = np.arange(1, level("zoom_blur", severity), 0.01)
    expected = []
    for image in noise().permute(0, 2, 3, 1).numpy():
        total = image.copy()
        for factor in factors:
            kept = math.ceil(32 / factor)
            top = (32 - kept) // 2
            square = image[top : top + kept, top : top + kept]
            zoomed = ndimage.zoom(square, (factor, factor, 1), order=1)
            trim = (len(zoomed) - 32) // 2
            total += zoomed[trim : trim + 32, trim : trim + 32]
        expected.append(total / (len(factors) + 1))
    agree(corrupt(noise(), "zoom_blur", severity), cut(np.stack(expected)).transpose(0, 3, 1, 2))


def test_glass_blur_copies_from_up_and_left_as_the_scripts_swap_does():
    """The script's loop, on numpy views, with the shifts that our generator draws."""
    sigma, reach, rounds = level("glass_blur", 5)
    images = noise(2).float()
    drawn = torch.rand(rounds, 2, 2, 32, 32, generator=seeded())
    shifts = (2 * reach * drawn - reach).floor().long().numpy()
    assert set(shifts.ravel()) == {-1, 0}
    for b, image in enumerate(images.double().permute(0, 2, 3, 1).numpy()):
        x = cut(ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest"))
        for dx, dy in shifts[:, :, b]:
            for h in range(32 - reach, reach, -1):
                for w in range(32 - reach, reach, -1):
                    there = h + dy[h, w], w + dx[h, w]
                    x[h, w], x[there] = x[there], x[h, w]
        x = cut(ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest"))
        found = corrupt(images, "glass_blur", 5, generator=seeded())[b]
        agree(found.double(), x.transpose(2, 0, 1), within=2 * STEP)


@each_severity
def test_motion_blur_is_half_a_gaussian_along_a_line(severity):
    radius, sigma = level("motion_blur", severity)
    images = noise(3).float()
    angles = np.radians(90 * torch.rand(3, generator=seeded()).numpy() - 45)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    expected = np.zeros(images.shape)
    for b, angle in enumerate(angles):
        for i, weight in enumerate(weights):
            dx, dy = (math.ceil(i * part - 0.5) for part in (math.cos(angle), math.sin(angle)))
            rows, columns = (np.clip(np.arange(32) + d, 0, 31) for d in (dy, dx))
            moved = images[b].numpy()[:, rows][:, :, columns]
            expected[b] += weight / sum(weights) * moved
    found = corrupt(images, "motion_blur", severity, generator=seeded())
    agree(found.double(), cut(expected))


@given(st.sampled_from([name for name in NAMES if "blur" in name]), st.floats(0, 1))
@settings(max_examples=20)
def test_a_blur_leaves_one_colour_alone(name, value):
    value = round(255 * value) / 255
    flat = torch.full((2, 3, 32, 32), value, dtype=torch.float64)
    agree(corrupt(flat, name, 5, generator=seeded()), flat)


# Weather


@each_severity
def test_fog_is_a_fractal_cloud_on_every_channel_alike(severity):
    thickness, _ = level("fog", severity)
    grey = torch.full((8, 3, 32, 32), 0.5, dtype=torch.float64)
    found = corrupt(grey, "fog", severity, generator=seeded())
    assert torch.equal(found[:, 0], found[:, 1])
    scale = 0.5 / (0.5 + thickness)
    cloud = (found / scale - 0.5) / thickness  # back to heights in [0, 1]
    slack = STEP / scale / thickness
    assert cloud.amin((1, 2, 3)).abs().max() <= slack
    assert (cloud.amax((1, 2, 3)) - 1).abs().max() <= slack


def test_the_cloud_is_the_scripts():
    """The diamond-square algorithm written out in numpy, with noise switched off but at first."""

    class Uniform:
        def __init__(self):
            self.calls = 0

        def uniform(self, *shape):
            self.calls += 1
            values = torch.rand(shape, generator=seeded(self.calls), dtype=torch.float64)
            return values

    from mini.corruptions.families import _plasma

    found = _plasma(1, 8, 3, Uniform())[0].numpy()
    source, heights, step, wibble = Uniform(), np.zeros((8, 8)), 8, 100.0
    source.uniform(1, 8, 8)

    def noisy(four):
        drawn = source.uniform(1, *four.shape)[0].numpy()
        return four / 4 + wibble * (2 * drawn - 1) * wibble

    while step >= 2:
        half = step // 2
        corner = heights[::step, ::step]
        square = corner + np.roll(corner, -1, axis=0)
        heights[half::step, half::step] = noisy(square + np.roll(square, -1, axis=1))
        centre = heights[half::step, half::step]
        four = centre + np.roll(centre, 1, axis=0) + corner + np.roll(corner, -1, axis=1)
        heights[::step, half::step] = noisy(four)
        four = centre + np.roll(centre, 1, axis=1) + corner + np.roll(corner, -1, axis=0)
        heights[half::step, ::step] = noisy(four)
        step, wibble = half, wibble / 3
    heights -= heights.min()
    np.testing.assert_allclose(found, heights / heights.max())


# Digital


@each_severity
def test_brightness_and_saturation_are_those_of_colorsys(severity):
    images = noise(1)
    images[0, :, :4] = images[0, :1, :4]  # grey
    images[0, :, 4] = 0.0
    added, (factor, more) = level("brightness", severity), level("saturate", severity)
    brighter, stronger = np.zeros((2, 3, 32, 32))
    for row in range(32):
        for column in range(32):
            h, s, v = colorsys.rgb_to_hsv(*images[0, :, row, column].tolist())
            brighter[:, row, column] = colorsys.hsv_to_rgb(h, s, min(v + added, 1))
            s = min(max(factor * s + more, 0), 1)
            stronger[:, row, column] = colorsys.hsv_to_rgb(h, s, v)
    agree(corrupt(images, "brightness", severity)[0], cut(brighter))
    agree(corrupt(images, "saturate", severity)[0], cut(stronger))


@each_severity
def test_contrast_shrinks_towards_the_mean_of_each_channel(severity):
    images, kept = noise(2) * 0.5, level("contrast", severity)
    mean = images.numpy().mean((2, 3), keepdims=True)
    expected = kept * (images.numpy() - mean) + mean
    agree(corrupt(images, "contrast", severity), cut(expected))


def pillow(images: torch.Tensor) -> list[Image.Image]:
    pixels = (255 * images).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in pixels]


def unpillow(images: list[Image.Image]) -> torch.Tensor:
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0


@each_severity
def test_pixelate_is_that_of_pillow(severity):
    small = int(32 * level("pixelate", severity))
    expected = [
        image.resize((small, small), Image.BOX).resize((32, 32), Image.BOX)
        for image in pillow(noise())
    ]
    agree(corrupt(noise(), "pixelate", severity).float(), unpillow(expected))


@each_severity
def test_jpeg_is_that_of_pillow(severity):
    expected = []
    for image in pillow(photos()):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=level("jpeg_compression", severity))
        expected.append(Image.open(file))
    agree(corrupt(photos(), "jpeg_compression", severity).float(), unpillow(expected), within=1e-6)


# Bad input


@pytest.mark.parametrize("name", ["gaussian noise", "frost", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=r"There is no corruption .* choose of gaussian_noise, "):
        corrupt(photos(), name, 1)


@pytest.mark.parametrize("severity", [0, 6, 1.5, "3", True])
def test_severities_outside_one_to_five_are_refused(severity):
    with pytest.raises(ValueError, match="severity"):
        corrupt(photos(), "fog", severity)


def test_images_of_another_kind_are_refused():
    good = photos()
    for bad, words in (
        ((255 * good).byte(), "uint8 images are divided by 255"),
        (good[0], "give floats"),
        (good[:, :1], "give floats"),
        (255 * good, "give values in .0, 1."),
        (good - 0.1, "give values in .0, 1."),
        (good * math.nan, "give values in .0, 1."),
        (good[:, :, :16], "give square ones"),
    ):
        with pytest.raises(ValueError, match=words):
            corrupt(bad, "fog", 3)
