"""Image operations on whole batches, each image at its own strength: Pillow's, without Pillow.

Images are uint8 [N, 3, H, W] before and after; strengths are [N], in physical units: degrees,
slopes, whole pixels, factors, bits, grey levels. AugMix and AutoAugment take theirs from here, and
so does whoever looks at one. Uncovered pixels are black. Arithmetic is in whole numbers, or so that
rounding errors, which differ between processors, are far from changing a result.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

GREY = 128  # what cutout puts: the middle of the range
TIE = 1e-6  # of a pixel: a place between two of them belongs to the further right or down one


def each(
    images: Tensor, numbers: np.ndarray, run: Callable[[int, Tensor, np.ndarray], Tensor]
) -> Tensor:
    """Image i after operation `numbers[i]`, of which -1 changes nothing; uint8 [N, 3, H, W].

    `run(number, part, rows)` is called once for each number, with the images at `rows`.
    """
    groups = [np.flatnonzero(numbers == i) for i in range(-1, numbers.max(initial=-1) + 1)]
    parts = []
    for number, rows in enumerate(groups, start=-1):
        part = images.index_select(0, torch.from_numpy(rows).to(images.device))
        parts.append(run(number, part, rows) if number >= 0 and len(rows) else part)
    order = np.argsort(np.concatenate(groups))
    return torch.cat(parts).index_select(0, torch.from_numpy(order).to(images.device))


def is_nearest(interpolation: str) -> bool:
    """Raises ValueError for what is neither "nearest" nor "bilinear"."""
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(f'interpolation is {interpolation!r}: give "nearest" or "bilinear".')
    return interpolation == "nearest"


# What depends on the values alone.


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to the range 0 to 255; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = torch.where(high > low, 255 / (high - low).float(), 1)
    return ((images - torch.where(high > low, low, 0)) * scale + 1e-3).int().byte()


def equalize(images: Tensor) -> Tensor:
    """Flatten each channel's histogram by Pillow's rule; a channel of a single value stays."""
    values = images.flatten(2).long()  # [N, 3, H*W]
    counts = values.new_zeros(*values.shape[:2], 256)
    counts.scatter_add_(2, values, values.new_ones(1).expand_as(values))
    brightest = counts.gather(2, values.amax(2, keepdim=True))  # how many have the largest value
    step = (values.shape[2] - brightest) // 255
    table = ((step // 2 + counts.cumsum(2) - counts) / step.clamp(min=1)).int()
    table = torch.where(step > 0, table, torch.arange(256, device=images.device).int())
    return table.clamp(max=255).byte().gather(2, values).view_as(images)


def invert(images: Tensor) -> Tensor:
    """255 minus each value."""
    return ~images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` [N], 0 to 8, of each value."""
    return images & (256 - 2 ** (8 - _column(bits).int())).byte()


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values from `threshold` [N] up; 256 changes nothing, 255 turns white black."""
    return images ^ (255 * (images >= _column(threshold)).byte())


# Blends of an image with a plainer one: factor 0 gives that, 1 the image, more exaggerates.


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` [N] times each value."""
    return _blend(images.new_zeros(1).float(), images, factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` [N], with the grey values of the image."""
    return _blend(_grey(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` [N], with the mean of the grey values, rounded."""
    n, grey = images[0, 0].numel(), _grey(images)
    mean = (2 * grey.int().sum((2, 3), keepdim=True) + n) // (2 * n)
    return _blend(mean.float(), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` [N], with the image after a 3x3 filter; the border stays as it is."""
    if min(images.shape[2:]) < 3:
        return images.clone()
    smooth = images.float()
    middle = smooth[:, :, 1:-1, 1:-1]
    rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * middle
    middle.copy_(((total + 6) / 13).floor_())  # weights 1 and, in the middle, 5; rounded
    return _blend(smooth, images, factor)


# What moves pixels.


def rotate(images: Tensor, degrees: Tensor, interpolation: str = "nearest") -> Tensor:
    """Turn by `degrees` [N] about the centre, counter-clockwise where they are positive."""
    angle = _column(degrees).deg2rad()
    cos, sin, ratio = angle.cos(), angle.sin(), images.shape[2] / images.shape[3]
    return _affine(images, [cos, -ratio * sin, 0, sin / ratio, cos, 0], interpolation)


def shear_x(images: Tensor, slope: Tensor, interpolation: str = "nearest") -> Tensor:
    """Row y, counted from the upper edge, moves left by `slope` [N] times y."""
    slope = _column(slope) * images.shape[2] / images.shape[3]
    return _affine(images, [1, slope, slope, 0, 1, 0], interpolation)


def shear_y(images: Tensor, slope: Tensor, interpolation: str = "nearest") -> Tensor:
    """Column x, counted from the left edge, moves up by `slope` [N] times x."""
    slope = _column(slope) * images.shape[3] / images.shape[2]
    return _affine(images, [1, 0, 0, slope, 1, slope], interpolation)


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    """Move right by whole `pixels` [N]."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - _column(pixels)[:, 0].int()
    return _pick(images, torch.arange(height, device=images.device).view(-1, 1), x)


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    """Move down by whole `pixels` [N]."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device).view(-1, 1) - _column(pixels)[:, 0].int()
    return _pick(images, y, torch.arange(width, device=images.device))


def cutout(images: Tensor, pixels: Tensor, centres: Tensor) -> Tensor:
    """Cover a square of `pixels` [N] whole pixels a side with grey; outside is cut off.

    The middle is the pixel `centres` [N, 2], row and column, or its upper left corner where
    `pixels` are even (DeVries & Taylor 2017, arXiv 1708.04552).
    """
    inside = None
    for size, centre in zip(images.shape[2:], centres.unbind(1), strict=True):
        from_start = torch.arange(size, device=images.device) - (centre - pixels // 2).view(-1, 1)
        covered = (from_start >= 0) & (from_start < pixels.view(-1, 1))  # [N, size]
        inside = covered if inside is None else inside[:, None, :, None] & covered[:, None, None]
    return images.masked_fill(inside, GREY)


def _column(strengths: Tensor) -> Tensor:
    """[N] as [N, 1, 1, 1], which broadcasts against images."""
    if strengths.ndim != 1:
        raise ValueError(f"strengths are {list(strengths.shape)}: give [N], one an image.")
    return strengths.view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    """Pillow's grey values, whole, float [N, 1, H, W]: 0.299 R + 0.587 G + 0.114 B, rounded.

    The weights are in 65,536ths: all sums stay below 2^24, and float32 holds them exactly.
    """
    red, green, blue = images.float().split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) / 2**16).floor_()


def _blend(plain: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """plain + factor (images - plain), cut off to whole numbers from 0 to 255.

    Product and sum are rounded one by one, as IEEE 754 says: the same on every processor.
    """
    change = (images.float() - plain).mul_(_column(factor).float())
    return change.add_(plain).clamp_(0, 255).byte()


def _affine(images: Tensor, matrix: list[Tensor | float], interpolation: str) -> Tensor:
    """(x, y) comes from (a x + b y + c, d x + e y + f), black outside; values are cut off.

    Coordinates run from -1 to 1 between the image's edges; the six numbers are [N, 1, 1, 1] or 1.
    """
    nearest = is_nearest(interpolation)
    # Which pixel is nearest is told in float64, which some accelerators lack.
    kind = {"dtype": torch.float64, "device": "cpu"} if nearest else {"device": images.device}
    height, width = images.shape[2:]
    y = ((2 * torch.arange(height, **kind) + 1) / height - 1).view(-1, 1)
    x = (2 * torch.arange(width, **kind) + 1) / width - 1
    a, b, c, d, e, f = (part[:, 0].to(y) if isinstance(part, Tensor) else part for part in matrix)
    from_x, from_y = a * x + (b * y + c), d * x + (e * y + f)
    if nearest:
        rows, columns = (
            ((1 + place) * size / 2 + TIE).floor().to(images.device, torch.int32)
            for place, size in ((from_y, height), (from_x, width))
        )
        return _pick(images, rows, columns)
    shape = (len(images), height, width)
    from_x, from_y = from_x.expand(shape), from_y.expand(shape)
    grid = torch.stack([from_x, from_y], dim=3)  # affine_grid, which takes twice as long
    found = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    inside = (from_x.abs() < 1) & (from_y.abs() < 1)
    return (found + 1e-3).byte() * inside[:, None]


def _pick(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Pixel (y, x) of each image, black outside; both are whole, and broadcast to [N, H, W]."""
    height, width = images.shape[2:]
    inside = ((y >= 0) & (y < height)) & ((x >= 0) & (x < width))
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    place = place.flatten(1)[:, None].long().expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, place).view_as(images) * inside[:, None].byte()
