"""The corruptions of CIFAR-10-C, for any images, without a download.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, arXiv 1903.12261. Parameters are those of the script that made the data
set (make_cifar_c.py), for images of 32x32. Its fifteen corruptions are COMMON; three of its four
extra ones, which are kept for choosing settings, are EXTRA (spatter is left out for length). Frost
needs photographs that are not ours to hand on: mini.corruptions.photographs says what to install.
As in the data set, the result is cut off to 8 bits.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mini.corruptions import blurs, photographs, warps
from mini.data.batches import unit_images, whole_number


def corrupt(
    images: Tensor, name: str, severity: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """`images`, float [B, 3, N, N] in [0, 1], with corruption `name` of CORRUPTIONS.

    `severity` is 1 to 5; what is random is drawn from `generator`, for each image anew. Returns
    multiples of 1/255 in [0, 1]. Raises ValueError for another name, severity, type or shape, and
    ModuleNotFoundError for frost without its photographs.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"There is no corruption {name!r}: choose of {', '.join(CORRUPTIONS)}.")
    if whole_number("severity", severity, at_least=1) > 5:
        raise ValueError(f"severity is {severity}: give a whole number from 1 to 5.")
    unit_images(images)
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images are {list(images.shape)}: give square ones.")
    function, parameters = CORRUPTIONS[name]
    random = _Random(torch.default_generator if generator is None else generator, images)
    corrupted = function(images, parameters[severity - 1], random).clamp(0, 1)
    return (255 * corrupted + 1e-3).floor() / 255


@dataclass
class _Random:
    """Random tensors like the images, from a generator that may be on another device."""

    generator: torch.Generator
    like: Tensor

    def normal(self, *shape: int) -> Tensor:
        g = self.generator
        return torch.randn(shape, generator=g, device=g.device).to(self.like)

    def uniform(self, *shape: int) -> Tensor:
        g = self.generator
        return torch.rand(shape, generator=g, device=g.device).to(self.like)

    def below(self, limit: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to limit - 1."""
        g = self.generator
        drawn = torch.randint(limit, shape, generator=g, device=g.device)
        return drawn.to(self.like.device)

    def poisson(self, rates: Tensor) -> Tensor:
        return torch.poisson(rates.to(self.generator.device), self.generator).to(self.like)


# Noise.


def gaussian_noise(x: Tensor, sigma: float, random: _Random) -> Tensor:
    return x + sigma * random.normal(*x.shape)


def shot_noise(x: Tensor, photons: float, random: _Random) -> Tensor:
    """Light comes in photons: Poisson counts."""
    return random.poisson(x * photons) / photons


def impulse_noise(x: Tensor, share: float, random: _Random) -> Tensor:
    """A share of all values becomes 0 or 1."""
    place, salt = random.uniform(*x.shape), random.uniform(*x.shape)
    return torch.where(place < share, (salt < 0.5).to(x), x)


def speckle_noise(x: Tensor, sigma: float, random: _Random) -> Tensor:
    return x + x * sigma * random.normal(*x.shape)


# Blur.


def gaussian_blur(x: Tensor, sigma: float, _: _Random) -> Tensor:
    return blurs.gaussian(x, sigma)


def defocus_blur(x: Tensor, parameters: tuple[float, float], _: _Random) -> Tensor:
    return blurs.defocus(x, *parameters)


def motion_blur(x: Tensor, parameters: tuple[int, float], random: _Random) -> Tensor:
    """In a direction of its own for each image, -45 to 45 degrees."""
    return blurs.motion(x, *parameters, 90 * random.uniform(len(x)) - 45)


def glass_blur(x: Tensor, parameters: tuple[float, int, int], random: _Random) -> Tensor:
    sigma, reach, rounds = parameters
    shifts = 2 * reach * random.uniform(rounds, 2, len(x), *x.shape[2:]) - reach
    return blurs.glass(x, sigma, reach, shifts.floor().long())


def zoom_blur(x: Tensor, largest: float, _: _Random) -> Tensor:
    return blurs.zoom(x, largest)


# Weather.


def snow(
    x: Tensor, parameters: tuple[float, float, float, float, int, float, float], random: _Random
) -> Tensor:
    """The image lightened towards its grey; flakes that fall on it, and the same ones rotated."""
    mean, spread, zoom, least, radius, sigma, kept = parameters
    flakes = mean + spread * random.normal(len(x), 1, *x.shape[2:])
    flakes = blurs.enlarge(flakes, zoom)
    flakes = flakes * (flakes >= least)
    # In the script both layers are files of 8 bits; the first is cut off, the second rounded.
    flakes = (255 * flakes.clamp(max=1)).floor() / 255
    angle = -45 - 90 * random.uniform(len(x))
    flakes = (255 * blurs.motion(flakes, radius, sigma, angle) + 0.5).floor() / 255
    red, green, blue = x.split(1, dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    lightened = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey + 0.5)
    return lightened + flakes + flakes.rot90(2, (2, 3))


def frost(x: Tensor, parameters: tuple[float, float], random: _Random) -> Tensor:
    """Add a photograph of frost: for each image one of five, at a place of its own."""
    kept, added = parameters
    size, photos = x.shape[2], photographs.frost()
    if size >= (smallest := min(min(photo.shape[1:]) for photo in photos)):
        raise ValueError(f"images are {size}x{size}: frost needs less than {smallest}x{smallest}.")
    which, places = random.below(len(photos), len(x)), random.uniform(len(x), 2)
    layers = [
        _cut(photos[i], size, *place)
        for i, place in zip(which.tolist(), places.tolist(), strict=True)
    ]
    return kept * x + added * torch.stack(layers).to(x) / 255


def _cut(photo: Tensor, size: int, down: float, right: float) -> Tensor:
    """A square of `photo`, which lies `down` and `right` from 0 at one end of it to 1."""
    top, left = int(down * (photo.shape[1] - size)), int(right * (photo.shape[2] - size))
    return photo[:, top : top + size, left : left + size]


def fog(x: Tensor, parameters: tuple[float, float], random: _Random) -> Tensor:
    """Add a cloud, and scale back to the brightest value the image had."""
    thickness, decay = parameters
    brightest = x.amax((1, 2, 3), keepdim=True)
    size = x.shape[2]
    side = 2 ** math.ceil(math.log2(size))
    cloud = _plasma(len(x), side, decay, random)[:, None, :size, :size]
    return (x + thickness * cloud) * brightest / (brightest + thickness)


def _plasma(n: int, side: int, decay: float, random: _Random) -> Tensor:
    """Fractal height maps [n, side, side] in [0, 1] by the diamond-square algorithm."""
    heights = random.uniform(n, side, side)
    heights[:, 0, 0] = 0.0
    step, wibble = side, 100.0

    def place(rows: slice, columns: slice, four: Tensor) -> None:
        noise = wibble * (2 * random.uniform(*four.shape) - 1)
        heights[:, rows, columns] = four / 4 + wibble * noise

    while step >= 2:
        whole, half = slice(0, None, step), slice(step // 2, None, step)
        corner = heights[:, whole, whole].clone()
        square = corner + corner.roll(-1, 1)
        place(half, half, square + square.roll(-1, 2))
        centre = heights[:, half, half].clone()
        place(whole, half, centre + centre.roll(1, 1) + corner + corner.roll(-1, 2))
        place(half, whole, centre + centre.roll(1, 2) + corner + corner.roll(-1, 1))
        step, wibble = step // 2, wibble / decay
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


# Digital.


def brightness(x: Tensor, added: float, _: _Random) -> Tensor:
    """Added to the value (HSV), which is the largest channel: hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, x * brighter / value, brighter)


def saturate(x: Tensor, parameters: tuple[float, float], _: _Random) -> Tensor:
    """Saturation (HSV) times one number plus another; value and hue stay. Grey counts as red."""
    factor, added = parameters
    value = x.amax(1, keepdim=True)
    span = value - x.amin(1, keepdim=True)
    red = torch.tensor([0, 1, 1], device=x.device).to(x).view(1, 3, 1, 1)
    away = torch.where(span > 0, (value - x) / span, red)  # 0 in the largest channel, 1 least
    saturation = torch.where(value > 0, span / value, 0)
    return value - value * (factor * saturation + added).clamp(0, 1) * away


def contrast(x: Tensor, kept: float, _: _Random) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return kept * (x - mean) + mean


def elastic_transform(x: Tensor, shares: tuple[float, float, float], random: _Random) -> Tensor:
    """An affine map, then a smooth displacement; `shares` are of the image's side."""
    height, sigma, reach = (share * x.shape[2] for share in shares)
    x = warps.affine(x, reach * (2 * random.uniform(len(x), 3, 2) - 1))
    if not height:
        return x
    field = 2 * random.uniform(len(x), 2, *x.shape[2:]) - 1
    return warps.displace(x, height * warps.smooth(field, sigma))


def pixelate(x: Tensor, factor: float, _: _Random) -> Tensor:
    """Shrink and enlarge by Pillow's box filter, which rounds after each direction."""
    size = x.shape[2]
    small = int(size * factor)
    for matrix in (_box(size, small), _box(small, size)):
        matrix = torch.from_numpy(matrix).to(x)
        x = (255 * x @ matrix.T + 0.5).floor() / 255
        x = (255 * matrix @ x + 0.5).floor() / 255
    return x


def _box(old: int, new: int) -> np.ndarray:
    """The matrix [new, old] that means over the old pixels whose centres a new pixel covers."""
    centres = (np.arange(new) + 0.5) * old / new
    distance = (np.arange(old) + 0.5 - centres[:, None]) / max(old / new, 1)
    covered = (distance > -0.5) & (distance <= 0.5)
    return covered / covered.sum(axis=1, keepdims=True)


def jpeg_compression(x: Tensor, quality: int, _: _Random) -> Tensor:
    """Through Pillow, one image at a time."""
    decoded = []
    for pixels in (255 * x).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    stacked = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    return stacked.to(x) / 255


# name: (function, its parameters at severity 1 to 5), in the benchmark's order.
CORRUPTIONS = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": (motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40)),
    "speckle_noise": (speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "saturate": (saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}

EXTRA = ("speckle_noise", "gaussian_blur", "saturate")
COMMON = tuple(name for name in CORRUPTIONS if name not in EXTRA)  # the fifteen of the benchmark
