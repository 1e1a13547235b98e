"""Corruptions: parity with scipy, Pillow and colorsys, and with the script's loops."""

import colorsys
import contextlib
import io
import math
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch.nn.functional import interpolate

from mini import data
from mini.corruptions import (
    COMMON,
    CORRUPTIONS,
    EXTRA,
    blurs,
    corrupt,
    families,
    photographs,
    warps,
)

NAMES = sorted(CORRUPTIONS)
RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur"}
RANDOM |= {"motion_blur", "fog", "snow", "frost", "elastic_transform"}
STEP = 1.01 / 255  # one level of 8 bits: where two roundings may differ
INSTALLED = find_spec("imagecorruptions")  # before tests put their own in front of it


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


def random_like(images: torch.Tensor) -> families._Random:
    return families._Random(seeded(), images)


def close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    """Sums of up to a hundred products, all of them below 100, in float64."""
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-12, rtol=0)


@contextlib.contextmanager
def made_up_photographs():
    """A package of six photographs to read, with an alpha channel; whoever imports it fails."""
    pictures = [
        np.random.default_rng(i).integers(256, size=(200 + 45 * i, 350 - 30 * i, 4), dtype=np.uint8)
        for i in range(6)
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        package = Path(folder, "imagecorruptions")
        (package / "frost").mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError")
        for name, picture in zip((*photographs.FROST, "frost6.jpg"), pictures, strict=False):
            Image.fromarray(picture).save(package / "frost" / name, "PNG")
        patch.syspath_prepend(folder)
        yield pictures


@pytest.fixture(autouse=True, scope="module")
def _photographs():
    """What is tested here does not depend on what is installed."""
    with made_up_photographs():
        yield


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


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_change_nothing(name):
    images = photos(3)
    others = torch.stack([images[0], images[1].flip(0), images[2]])
    found, beside = (corrupt(x, name, 3, generator=seeded()) for x in (images, others))
    assert torch.equal(found[0], beside[0])
    if name != "shot_noise":  # how many numbers a Poisson count takes depends on its rate
        assert torch.equal(found[2], beside[2])


def distances(name: str) -> list[float]:
    images = photos(10)
    far = [(corrupt(images, name, s, generator=seeded()) - images).abs().mean() for s in (1, 3, 5)]
    return [distance.item() for distance in far]


ODD = {"glass_blur", "saturate", "defocus_blur", "frost", "elastic_transform"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - ODD))
def test_higher_severity_is_further_away(name):
    first, third, fifth = distances(name)
    assert first < third < fifth


def test_two_severities_are_as_odd_as_in_the_script():
    """Elastic: the affine map shrinks while waves get steeper. Frost: the image fades, too."""
    first, third, fifth = distances("elastic_transform")
    assert first > third > fifth
    first, third, fifth = distances("frost")
    assert first < third
    assert first < fifth


def test_the_fifteen_are_those_of_the_benchmark_and_the_others_extra():
    """In the order in which make_cifar_c.py makes them; it has one extra more, spatter."""
    noises = ["gaussian_noise", "shot_noise", "impulse_noise"]
    blurred = ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]
    weather = ["snow", "frost", "fog", "brightness"]
    digital = ["contrast", "elastic_transform", "pixelate", "jpeg_compression"]
    assert list(families.COMMON) == noises + blurred + weather + digital
    assert list(families.EXTRA) == ["speckle_noise", "gaussian_blur", "saturate"]
    assert list(CORRUPTIONS) == [*COMMON, *EXTRA]


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
        "snow": [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        "frost": [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        "elastic_transform": [  # each times the side of the image, 32
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ],
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


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """The script's clipped zoom of an image [32, 32, channels]."""
    kept = math.ceil(32 / factor)
    top = (32 - kept) // 2
    zoomed = ndimage.zoom(image[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
    trim = (len(zoomed) - 32) // 2
    return zoomed[trim : trim + 32, trim : trim + 32]


def streaked(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur of an image [channels, 32, 32], at `angle` in radians."""
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    total = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        dx, dy = (math.ceil(i * part - 0.5) for part in (math.cos(angle), math.sin(angle)))
        rows, columns = (np.clip(np.arange(32) + d, 0, 31) for d in (dy, dx))
        total += weight / sum(weights) * image[:, rows][:, :, columns]
    return total


@each_severity
def test_zoom_blur_is_that_of_scipy(severity):
    factors = np.arange(1, level("zoom_blur", severity), 0.01)
    expected = []
    for image in noise().permute(0, 2, 3, 1).numpy():
        total = image + sum(enlarged(image, factor) for factor in factors)
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
    pairs = zip(images.numpy(), angles, strict=True)
    expected = [streaked(image, radius, sigma, angle) for image, angle in pairs]
    found = corrupt(images, "motion_blur", severity, generator=seeded())
    agree(found.double(), cut(np.stack(expected)))


@given(st.sampled_from([name for name in NAMES if "blur" in name]), st.floats(0, 1))
@settings(max_examples=20)
def test_a_blur_leaves_one_colour_alone(name, value):
    value = round(255 * value) / 255
    flat = torch.full((2, 3, 32, 32), value, dtype=torch.float64)
    agree(corrupt(flat, name, 5, generator=seeded()), flat)


# Weather


@each_severity
def test_snow_is_that_of_scipy_and_of_loops(severity):
    mean, spread, factor, least, radius, sigma, kept = level("snow", severity)
    images = noise() / 2
    random, expected = random_like(images), []
    layers, angles = random.normal(3, 1, 32, 32).numpy(), -45 - 90 * random.uniform(3).numpy()
    for image, layer, angle in zip(images.numpy(), layers, np.radians(angles), strict=True):
        flakes = enlarged(mean + spread * layer[0, :, :, None], factor)
        flakes[flakes < least] = 0
        flakes = np.floor(255 * np.clip(flakes, 0, 1)) / 255
        flakes = streaked(flakes[None, :, :, 0], radius, sigma, angle)[0]
        flakes = np.floor(255 * flakes + 0.5) / 255
        grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
        lightened = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 0.5)
        expected.append(lightened + flakes + np.rot90(flakes, 2))
    close(families.snow(images, level("snow", severity), random_like(images)), np.stack(expected))


def test_snow_falls_and_is_white():
    """On black, most of the difference between neighbours lies across the way down."""
    found = corrupt(torch.zeros(40, 3, 32, 32), "snow", 3, generator=seeded())
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    down, right = (found.diff(dim=dim).abs().mean() for dim in (2, 3))
    assert down < 0.8 * right


@each_severity
def test_frost_is_a_part_of_a_photograph_on_a_part_of_the_image(severity):
    images = noise(40)
    kept, added = level("frost", severity)
    random = random_like(images)
    which, places = random.below(5, 40), random.uniform(40, 2)
    assert set(which.tolist()) == set(range(5))
    with made_up_photographs() as pictures:
        found = corrupt(images, "frost", severity, generator=seeded())
    # OpenCV resizes as torch does: sides are multiples of 5, so both make as many pixels.
    photos = [torch.from_numpy(p[:, :, :3]).permute(2, 0, 1)[None].double() for p in pictures]
    photos = [interpolate(photo, scale_factor=0.2, mode="bilinear")[0].numpy() for photo in photos]
    expected = []
    for image, i, place in zip(images.numpy(), which.tolist(), places.numpy(), strict=True):
        top, left = (
            int(u * (side - 32)) for u, side in zip(place, photos[i].shape[1:], strict=True)
        )
        frost = photos[i][:, top : top + 32, left : left + 32] / 255
        expected.append(cut(kept * image + added * frost))
    agree(found, np.stack(expected))


def test_frost_says_what_to_install():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photographs, "find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="pip install --no-deps imagecorruptions"):
            corrupt(photos(), "frost", 1)


def test_frost_needs_images_smaller_than_its_photographs():
    corrupt(torch.rand(1, 3, 39, 39), "frost", 1)
    with pytest.raises(ValueError, match="frost needs less than 40x40"):
        corrupt(torch.rand(1, 3, 40, 40), "frost", 1)


@pytest.mark.skipif(INSTALLED is None, reason="frost: pip install --no-deps imagecorruptions")
def test_the_photographs_are_those_of_the_package():
    """Sides of 900, 560, 560, 527 and 660 pixels by 600, 315, 315, 350 and 495, rounded."""
    folder = Path(INSTALLED.submodule_search_locations[0]) / "frost"
    shapes = [tuple(photo.shape) for photo in photographs._read(folder)]
    assert shapes == [(3, 120, 180), (3, 63, 112), (3, 63, 112), (3, 70, 105), (3, 99, 132)]


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


@each_severity
def test_elastic_is_that_of_scipy(severity):
    """With its mirror for OpenCV's border, and the map of homogeneous places inverted."""
    images = noise()
    height, sigma, reach = (32 * share for share in level("elastic_transform", severity))
    random, expected = random_like(images), []
    shifts = reach * (2 * random.uniform(3, 3, 2).numpy() - 1)
    fields = 2 * random.uniform(3, 2, 32, 32).numpy() - 1 if height else np.zeros((3, 2, 32, 32))
    y, x = np.mgrid[:32, :32]
    corners = np.array([[26, 26], [26, 6], [6, 6]])
    for image, shift, field in zip(images.numpy(), shifts, fields, strict=True):
        before, after = (np.vstack([points.T, np.ones(3)]) for points in (corners, corners + shift))
        ahead = before @ np.linalg.inv(after)  # from where a pixel is drawn to where it was
        columns, rows, _ = np.tensordot(ahead, np.stack([x, y, np.ones_like(x)]), 1)
        image = [
            ndimage.map_coordinates(channel, (rows, columns), order=1, mode="mirror")
            for channel in image
        ]
        right, down = (
            height * ndimage.gaussian_filter(part, sigma, mode="reflect", truncate=3)
            for part in field
        )
        image = [
            ndimage.map_coordinates(channel, (y + down, x + right), order=1, mode="reflect")
            for channel in image
        ]
        expected.append(image)
    parameters = level("elastic_transform", severity)
    found = families.elastic_transform(images, parameters, random_like(images))
    close(found, np.array(expected))


def test_the_affine_map_moves_the_image_as_its_corners_move():
    images = noise()
    shifts = torch.tensor([3.0, 2.0], dtype=torch.float64).expand(3, 3, 2)  # right, down
    found = warps.affine(images, shifts)
    close(found[:, :, 2:, 3:], images[:, :, :-2, :-3].numpy())
    close(found[:, :, 2:, :3], images[:, :, :-2, 1:4].flip(3).numpy())  # mirrored at a pixel
    close(warps.affine(images, 0 * shifts), images.numpy())


def test_a_displaced_pixel_is_the_one_that_lies_there():
    images = noise()
    shifts = torch.tensor([3.0, 2.0], dtype=torch.float64).view(1, 2, 1, 1).expand(3, 2, 32, 32)
    found = warps.displace(images, shifts)
    close(found[:, :, :-2, :-3], images[:, :, 2:, 3:].numpy())
    close(found[:, :, :-2, -3:], images[:, :, 2:, -3:].flip(3).numpy())  # mirrored at the edge


@pytest.mark.parametrize("size", [5, 32])
@pytest.mark.parametrize("sigma", [0.1, 0.96, 1.92, 6.4])
def test_fields_are_smoothed_as_by_scipy(sigma, size):
    """Also where a Gaussian is wider than the image and its mirror image."""
    fields = torch.rand(2, 2, size, size, dtype=torch.float64, generator=seeded())
    expected = ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    close(warps.smooth(fields, sigma), expected)


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


@pytest.mark.parametrize("name", ["gaussian noise", "spatter", ""])
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
