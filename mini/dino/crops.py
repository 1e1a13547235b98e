"""Random crops and colours for self-supervised training, on whole batches of tensors.

Szegedy et al. 2015 (arXiv:1409.4842, section 6) drew boxes of random area and shape; SimCLR (Chen
et al. 2020) and BYOL (Grill et al. 2020) made them, with random colours, what a network must see
through. Boxes are clipped to the image where torchvision draws them again.
"""

import math

import torch
from torch import Tensor


def random_boxes(
    n: int, size: int, scale: tuple[float, float], *, generator: torch.Generator | None = None
) -> Tensor:
    """`n` boxes in a square of `size` pixels: int64 `[n, 4]` of top, left, height, width.

    Areas are uniform in `scale` (shares of the square, in (0, 1]), ratios of width to height
    log-uniform in 3/4 to 4/3, sides rounded and clipped to the square, places uniform. Raises
    ValueError for another `scale`.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale={scale}: expected two shares with 0 < smallest <= largest <= 1.")
    area, ratio, y, x = torch.rand(4, n, generator=generator).double()
    area = size**2 * (scale[0] + (scale[1] - scale[0]) * area)
    ratio = torch.exp(math.log(4 / 3) * (2 * ratio - 1))
    height = (area / ratio).sqrt().round().clamp(1, size)
    width = (area * ratio).sqrt().round().clamp(1, size)
    top, left = y * (size - height + 1), x * (size - width + 1)
    return torch.stack([top.floor(), left.floor(), height, width], dim=1).long()


def resized_crop(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut box b out of image b and resize it: `[B, C, H, W]`, `[B, 4]` -> `[B, C, size, size]`.

    Bilinear and antialiased, as in Pillow and torchvision: where a box shrinks, a pixel of the view
    is a mean over the part of the box that it stands for. Nothing outside the box shows. A negative
    width mirrors the crop. Rows and columns are resized by one matrix each, so that a batch of
    different boxes is two batched products.
    """
    top, left, height, width = boxes.to(images).T[..., None]  # [B, 1] each
    rows = _triangles(top, height, images.shape[2], size)
    columns = _triangles(left, width.abs(), images.shape[3], size)
    columns = torch.where(width[..., None] < 0, columns.flip(1), columns)
    b, c = images.shape[:2]
    tall = rows @ images.transpose(1, 2).flatten(2)  # [B, size, C * W]
    view = tall.view(b, size * c, -1) @ columns.mT  # [B, size * C, size]
    return view.view(b, size, c, size).transpose(1, 2).contiguous()


def _triangles(first: Tensor, length: Tensor, n: int, size: int) -> Tensor:
    """How much each of `n` old pixels counts for each of `size` new ones: `[B, size, n]`, sums 1.

    The new ones share the stretch of the old that begins at `first` and is `length` long, `[B, 1]`
    both. A triangle around the middle of the new pixel reaches to the next middle, or to the next
    old pixel where that is farther, and is cut off where the stretch ends.
    """
    scale = length / size  # pixels of the image a pixel of the view, [B, 1]
    middle = first + scale * (torch.arange(size).to(first) + 0.5)  # [B, size]
    pixel = torch.arange(n).to(first) + 0.5  # [n]
    reach = scale.clamp(min=1)[..., None]
    weights = (1 - (pixel - middle[..., None]).abs() / reach).clamp(min=0)
    inside = (pixel > first) & (pixel < first + length)  # [B, n]
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=-1, keepdim=True)


def recolour(
    images: Tensor, strength: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Jitter brightness, contrast and saturation of each image, and turn some grey (SimCLR).

    For normalised images `[B, C, H, W]`; shapes are kept. At strength 1 an image is multiplied by
    0.6 to 1.4 and shifted by -0.8 to 0.8, the difference of its channels from their mean by 0.4 to
    1.6, or by 0 in one of five images; at 0 nothing changes.
    """
    numbers = torch.rand(4, len(images), 1, 1, 1, generator=generator).to(images)
    contrast, brightness, saturation = 2 * numbers[:3] - 1
    grey = images.mean(dim=1, keepdim=True)
    keep = (1 + 0.6 * strength * saturation) * (numbers[3] >= 0.2 * strength)
    coloured = grey + keep * (images - grey)
    return (1 + 0.4 * strength * contrast) * coloured + 0.8 * strength * brightness


def multicrop(
    images: Tensor,
    *,
    n_local: int,
    generator: torch.Generator | None = None,
    global_size: int | None = None,
    local_size: int = 16,
    global_scale: tuple[float, float] = (0.4, 1.0),
    local_scale: tuple[float, float] = (0.1, 0.4),
    mirror: bool = False,
    colour: float = 0.0,
) -> list[Tensor]:
    """Random crops of each of `images` `[B, C, S, S]`: two global views, then `n_local` local ones.

    Global views are resized to `global_size` (default: S), local ones to `local_size`; scales are
    shares of the area (Caron et al. 2020; DINO, section 3.1). `mirror` turns half of the views
    round, `colour` is the strength of `recolour`. `generator` is on the CPU (default: torch's own).
    Raises ValueError for images that are no square, or a negative `n_local`.
    """
    b, _, size, other = images.shape
    if size != other or n_local < 0:
        raise ValueError(
            f"Expected square images and n_local >= 0, not {size}x{other} and {n_local}."
        )
    views = []
    kinds = [(global_scale, global_size or size)] * 2 + [(local_scale, local_size)] * n_local
    for scale, side in kinds:
        boxes = random_boxes(b, size, scale, generator=generator)
        if mirror:
            boxes[:, 3] *= 1 - 2 * torch.randint(2, (b,), generator=generator)
        view = resized_crop(images, boxes.to(images.device), side)
        views.append(recolour(view, colour, generator=generator) if colour else view)
    return views
