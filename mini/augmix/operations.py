"""The nine image operations of AugMix, and the strength that a level gives each of them.

Hendrycks et al. 2020 (arXiv 1912.02781), section 3; strengths are those of the authors' code, where
a level from 0.1 to 10 is drawn for every call. As there, images are 8-bit between two operations
(`mini.data.operations`), shears leave the top left corner in place, uncovered pixels are black, and
colour, contrast, brightness and sharpness are left out, because they overlap with the corruptions
of the test.
"""

import numpy as np
import torch
from torch import Tensor

from mini.data import operations as pixels


def operate(images: Tensor, operations: np.ndarray, levels: np.ndarray) -> Tensor:
    """Operation number `operations[i]` of OPERATIONS at `levels[i]` on image i; number -1: none.

    `images` and the result are uint8 [N, 3, H, W].
    """
    table = list(OPERATIONS.values())

    def run(number: int, part: Tensor, rows: np.ndarray) -> Tensor:
        return table[number](part, torch.from_numpy(levels[rows]).to(part.device, torch.float32))

    return pixels.each(images, operations, run)


# The operations, on images uint8 [N, 3, H, W] and levels float [N], -10 to 10.


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to the range 0 to 255; one of a single value stays."""
    return pixels.autocontrast(images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram by Pillow's rule; a channel of a single value stays."""
    return pixels.equalize(images)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keep the highest 4 - int(0.4 |level|) bits of each value."""
    return pixels.posterize(images, 4 - (0.4 * level.abs()).int())


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert the values from 256 - int(25.6 |level|) up."""
    return pixels.solarize(images, 256 - (25.6 * level.abs()).int())


def rotate(images: Tensor, level: Tensor) -> Tensor:
    """Turn by int(3 level) degrees about the centre, counter-clockwise where it is positive."""
    return pixels.rotate(images, (3 * level).trunc(), "bilinear")


def shear_x(images: Tensor, level: Tensor) -> Tensor:
    """Row y comes from 0.03 level y pixels further right."""
    return pixels.shear_x(images, 0.03 * level, "bilinear")


def shear_y(images: Tensor, level: Tensor) -> Tensor:
    """Column x comes from 0.03 level x pixels further down."""
    return pixels.shear_y(images, 0.03 * level, "bilinear")


def translate_x(images: Tensor, level: Tensor) -> Tensor:
    """Everything comes from int(level W / 30) pixels further right."""
    return pixels.translate_x(images, -(level * images.shape[3] / 30).int())


def translate_y(images: Tensor, level: Tensor) -> Tensor:
    """Everything comes from int(level H / 30) pixels further down."""
    return pixels.translate_y(images, -(level * images.shape[2] / 30).int())


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
