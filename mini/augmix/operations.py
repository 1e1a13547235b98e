"""The nine image operations of AugMix, on whole batches: what Pillow gives, without Pillow.

Hendrycks et al. 2020 (arXiv 1912.02781), section 3; strengths are those of the authors' code, where
a level from 0.1 to 10 is drawn for every call. As there, images are 8-bit between two operations,
shears leave the top left corner in place, uncovered pixels are black, and colour, contrast,
brightness and sharpness are left out, because they overlap with the corruptions of the test.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def operate(images: Tensor, operations: np.ndarray, levels: np.ndarray) -> Tensor:
    """Operation number `operations[i]` of OPERATIONS at `levels[i]` on image i; number -1: none.

    `images` and the result are uint8 [N, 3, H, W].
    """
    groups, parts = [np.flatnonzero(operations == i) for i in range(-1, len(OPERATIONS))], []
    for operation, group in zip([None, *OPERATIONS.values()], groups, strict=True):
        part = images.index_select(0, torch.from_numpy(group).to(images.device))
        if operation and len(group):
            level = torch.from_numpy(levels[group]).to(images.device, torch.float32)
            part = operation(part, level.view(-1, 1, 1, 1))
        parts.append(part)
    order = np.argsort(np.concatenate(groups))
    return torch.cat(parts).index_select(0, torch.from_numpy(order).to(images.device))


# The operations, on images uint8 [N, 3, H, W] and levels float [N, 1, 1, 1], -10 to 10.


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to the range 0 to 255; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = torch.where(high > low, 255 / (high - low).float(), 1)
    return ((images - torch.where(high > low, low, 0)) * scale + 1e-3).int().byte()


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram by Pillow's rule; a channel of a single value stays."""
    values = images.flatten(2).long()  # [N, 3, H*W]
    counts = values.new_zeros(*values.shape[:2], 256)
    counts.scatter_add_(2, values, values.new_ones(1).expand_as(values))
    brightest = counts.gather(2, values.amax(2, keepdim=True))  # how many have the largest value
    step = (values.shape[2] - brightest) // 255
    table = ((step // 2 + counts.cumsum(2) - counts) / step.clamp(min=1)).int()
    table = torch.where(step > 0, table, torch.arange(256, device=images.device).int())
    return table.clamp(max=255).byte().gather(2, values).view_as(images)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keep the highest 4 - int(0.4 |level|) bits of each value."""
    dropped = 4 + (0.4 * level.abs()).int()
    return images & (256 - 2**dropped).byte()


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert the values from 256 - int(25.6 |level|) up."""
    inverted = images >= 256 - (25.6 * level.abs()).int()
    return images ^ (255 * inverted.byte())


def rotate(images: Tensor, level: Tensor) -> Tensor:
    """Turn by int(3 level) degrees about the centre, counter-clockwise where it is positive."""
    angle = (3 * level).trunc().deg2rad()
    cos, sin, ratio = angle.cos(), angle.sin(), images.shape[2] / images.shape[3]
    return _affine(images, [cos, -ratio * sin, 0, sin / ratio, cos, 0])


def shear_x(images: Tensor, level: Tensor) -> Tensor:
    """Row y comes from 0.03 level y pixels further right."""
    slope = 0.03 * level * images.shape[2] / images.shape[3]
    return _affine(images, [1, slope, slope, 0, 1, 0])


def shear_y(images: Tensor, level: Tensor) -> Tensor:
    """Column x comes from 0.03 level x pixels further down."""
    slope = 0.03 * level * images.shape[3] / images.shape[2]
    return _affine(images, [1, 0, 0, slope, 1, slope])


def translate_x(images: Tensor, level: Tensor) -> Tensor:
    """Everything comes from int(level W / 30) pixels further right."""
    shift = (level * images.shape[3] / 30).int()
    return _shift(images, torch.zeros_like(shift), shift)


def translate_y(images: Tensor, level: Tensor) -> Tensor:
    """Everything comes from int(level H / 30) pixels further down."""
    shift = (level * images.shape[2] / 30).int()
    return _shift(images, shift, torch.zeros_like(shift))


OPERATIONS = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "rotate": rotate,
    "solarize": solarize,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}


def _affine(images: Tensor, matrix: list[Tensor | float]) -> Tensor:
    """(x, y) comes from (a x + b y + c, d x + e y + f), bilinear, cut off, black outside.

    Coordinates run from -1 to 1 between the image's edges; the six numbers are [N, 1, 1, 1] or 1.
    """
    height, width = images.shape[2:]
    y = ((2 * torch.arange(height, device=images.device) + 1) / height - 1).view(-1, 1)
    x = (2 * torch.arange(width, device=images.device) + 1) / width - 1
    a, b, c, d, e, f = (part[:, 0] if isinstance(part, Tensor) else part for part in matrix)
    shape = (len(images), height, width)
    from_x = (a * x + (b * y + c)).expand(shape)
    from_y = (d * x + (e * y + f)).expand(shape)
    grid = torch.stack([from_x, from_y], dim=3)  # affine_grid, which takes twice as long
    found = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    inside = (from_x.abs() < 1) & (from_y.abs() < 1)
    return (found + 1e-3).byte() * inside[:, None]


def _shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each pixel from `down` and `right` [N, 1, 1, 1] whole pixels of it; black outside."""
    height, width = images.shape[2:]
    y = down[:, 0] + torch.arange(height, device=images.device).view(-1, 1)  # [N, H, 1]
    x = right[:, 0] + torch.arange(width, device=images.device)  # [N, 1, W]
    inside = ((y >= 0) & (y < height)) & ((x >= 0) & (x < width))
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    place = place.flatten(1)[:, None].long().expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, place).view_as(images) * inside[:, None].byte()
