"""Batches of a split that is in memory as one tensor, augmented a batch at a time.

    for images, labels in Batches(train, 128, mean=mean, std=std, pad=4, generator=generator):

No worker processes: an index and one gather per batch keep up with the models of this course. The
idea, and filling the border by reflection, follow airbench (Jordan 2024, arXiv 2404.00498).
"""

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Split(NamedTuple):
    images: Tensor  # uint8 [N, 3, 32, 32]
    labels: Tensor  # int64 [N]


def augment(
    images: Tensor, *, generator: torch.Generator, pad: int = 4, mirror: bool = True
) -> Tensor:
    """Shift each image by up to `pad` pixels each way and mirror half of them; shapes are kept.

    Images are [B, C, H, W] of any type; uint8 is fastest. This is the usual CIFAR augmentation
    (He et al. 2016, section 4.2), with the border filled by reflection rather than black: a black
    bar would tell the model the shift. Raises ValueError for a `pad` not below the image's size.
    """
    return _gather(images, *_draw(images, pad, mirror, generator))


class Batches:
    """Batches of a split as (float32 normalised images [B, 3, H, W], int64 labels [B]).

    Iterating once is one epoch: every image once, or, with `drop_last`, only full batches. With
    `shuffle` each epoch draws a new order, and `pad` and `mirror` are those of `augment`; whatever
    is random is drawn from `generator`, or, as in torch, from the global one. `mean` and `std` are
    [3], for images in [0, 1]. With `device` the whole split is moved there once.

    Raises ValueError if there is no batch, `pad` is not below the images' size, or the split is not
    one of uint8 images and whole numbers.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        shuffle: bool = True,
        generator: torch.Generator | None = None,
        pad: int = 0,
        mirror: bool = False,
        drop_last: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        images, labels = checked(split)
        self.images, self.labels = (
            images.to(device or images.device),
            labels.to(device or labels.device),
        )
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.shuffle, self.pad, self.mirror, self.drop_last = shuffle, pad, mirror, drop_last
        self.generator = torch.default_generator if generator is None else generator
        if len(self.images) != len(self.labels) or len(self) == 0:
            raise ValueError(
                f"{len(self.images)} images and {len(self.labels)} labels make no batch of "
                f"{self.batch_size}: give as many labels as images, and no larger a batch."
            )
        mean, std = (
            torch.as_tensor(value, dtype=torch.float32, device=self.images.device).view(1, -1, 1, 1)
            for value in (mean, std)
        )
        # (pixel / 255 - mean) / std, as one multiplication and one addition.
        self.scale, self.offset = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        n = len(self.images)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, device = len(self.images), self.images.device
        order = torch.arange(n, device=device)
        if self.shuffle:
            order = torch.randperm(n, generator=self.generator, device=self.generator.device)
            order = order.to(device)
        if is_augmented := bool(self.pad or self.mirror):
            rows, columns = _draw(self.images, self.pad, self.mirror, self.generator)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = self.images[chosen]
            if is_augmented:
                here = slice(start, start + self.batch_size)
                images = _gather(images, rows[here], columns[here])
            yield images.float().mul_(self.scale).add_(self.offset), self.labels[chosen]


def checked(split: Split) -> Split:
    """The split with its labels in int64, in which -1 is -1 and an index is no mask.

    Raises ValueError unless images are uint8 [N, C, H, W], as all that uses them divides by 255,
    and labels are whole numbers [N].
    """
    images, labels = split
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"The images of a split are {images.dtype} {list(images.shape)}: give uint8 ones "
            "[N, C, H, W], 0 to 255, which are scaled where they are used."
        )
    return Split(images, whole_labels(labels))


def whole_labels(labels: Tensor) -> Tensor:
    """`labels` in int64; raises ValueError unless they are whole numbers [N]."""
    is_whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.ndim != 1 or not is_whole:
        raise ValueError(
            f"labels are {labels.dtype} {list(labels.shape)}: give whole numbers [N], one an image."
        )
    return labels.long()


def whole_number(what: str, value: int, *, at_least: int) -> int:
    """`value` as an int; raises ValueError, calling it `what`, for anything else or less."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < at_least:
        raise ValueError(f"{what} must be a whole number of at least {at_least}, not {value!r}.")
    return number


def numpy_generator(generator: torch.Generator | None) -> np.random.Generator:
    """NumPy's numbers from one draw of `generator`, or of torch's global one: its seed decides."""
    source = torch.default_generator if generator is None else generator
    seed = torch.randint(2**62, (), generator=source, device=source.device)
    return np.random.default_rng(int(seed))


def unit_images(images: Tensor) -> None:
    """Raises ValueError unless `images` are float [B, 3, H, W] with values in [0, 1]."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}: give floats [B, 3, H, W] in [0, 1]; "
            "uint8 images are divided by 255 first."
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images lie between {images.min():.3g} and {images.max():.3g}: give values in [0, 1], "
            "and normalise later."
        )


def _draw(
    images: Tensor, pad: int, mirror: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which rows [B, H] and columns [B, W] of each image its augmented version shows."""
    (n, height, width), device = (images.shape[i] for i in (0, 2, 3)), generator.device
    pad = whole_number("pad", pad, at_least=0)
    if pad >= min(height, width):
        raise ValueError(f"pad is {pad}, but the images are only {height}x{width}: take less.")
    shifts_y, shifts_x = torch.randint(-pad, pad + 1, (2, n, 1), generator=generator, device=device)
    rows = _reflect(torch.arange(height, device=device) + shifts_y, height)
    columns = _reflect(torch.arange(width, device=device) + shifts_x, width)
    if mirror:
        is_mirrored = torch.rand((n, 1), generator=generator, device=device) < 0.5
        columns = torch.where(is_mirrored, columns.flip(1), columns)
    return rows.to(images.device), columns.to(images.device)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions beyond 0 .. size - 1, mirrored at the edge: 2 1 | 0 1 2 3 | 2 1."""
    last = size - 1
    return last - (last - positions.abs()).abs()


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images[b, c, rows[b, y], columns[b, x]] for all b, c, y, x; the fastest way of four tried."""
    pixels = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)  # [B, H*W]
    flat = images.flatten(2)  # [B, C, H*W]
    return flat.gather(2, pixels[:, None].expand_as(flat)).view(images.shape)
