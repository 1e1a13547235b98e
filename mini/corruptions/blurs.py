"""The five blurs of CIFAR-10-C on batches [B, C, H, W]; what is random about them is handed in.

Each does what the script make_cifar_c.py of Hendrycks and Dietterich 2019 (arXiv 1903.12261) does
through scikit-image, OpenCV, ImageMagick and scipy, border included.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Cut off at four sigma; edge pixels are repeated (scikit-image)."""
    radius = int(4 * sigma + 0.5)
    if not radius:
        return x
    weights = torch.from_numpy(_bell(sigma, radius)).to(x)
    return _convolve(_convolve(x, weights[:, None], "replicate"), weights[None], "replicate")


def defocus(x: Tensor, radius: float, smoothing: float) -> Tensor:
    """A disc, itself smoothed by a Gaussian of 3x3; the border is mirrored (OpenCV)."""
    square = np.arange(-2, 3) ** 2
    disc = (square[:, None] + square <= radius**2) / 1.0
    bell = _bell(smoothing, 1)
    disc, bell = torch.from_numpy(disc / disc.sum()), torch.from_numpy(np.outer(bell, bell))
    kernel = _convolve(disc[None, None], bell, "constant")[0, 0]
    return _convolve(x, kernel.to(x), "reflect")


def motion(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """One half of a Gaussian along a line at `angle` [B] degrees (ImageMagick)."""
    steps = torch.arange(2 * radius + 1, device=x.device)
    weights = (-(steps**2) / (2 * sigma**2)).exp()
    angle = angle.deg2rad()[:, None]
    right, down = ((steps * part - 0.5).ceil().long() for part in (angle.cos(), angle.sin()))
    rows, columns = _places(x)
    total = torch.zeros_like(x)
    for weight, dx, dy in zip(weights / weights.sum(), right.T, down.T, strict=True):
        total += weight * _pixels(x, rows + dy.view(-1, 1, 1), columns + dx.view(-1, 1, 1))
    return total


def glass(x: Tensor, sigma: float, reach: int, shifts: Tensor) -> Tensor:
    """Each pixel takes the value of a near one, between two Gaussian blurs.

    `shifts` are [rounds, 2, B, H, W], whole numbers from -reach to reach - 1. The script means to
    swap two pixels, but its two sides are views of one array: it copies, and so does this.
    """
    x = (255 * gaussian(x, sigma) + 1e-3).floor() / 255
    rows, columns = _places(x)
    fixed = (rows <= reach) | (columns <= reach)  # where the script's loops do not go
    for dx, dy in shifts:
        x = _pixels(x, rows + dy.masked_fill(fixed, 0), columns + dx.masked_fill(fixed, 0))
    return gaussian(x, sigma)


def zoom(x: Tensor, largest: float) -> Tensor:
    """The mean of a square image and of its centre, enlarged 1.00, 1.01, ... times (linearly)."""
    factors = np.arange(1, largest, 0.01)
    total = x.clone()
    for factor in factors:
        total += enlarge(x, factor)
    return total / (len(factors) + 1)


def enlarge(x: Tensor, factor: float) -> Tensor:
    """The centre of a square image, `factor` times as large (linearly, scipy)."""
    size = x.shape[2]
    kept = int(np.ceil(size / factor))
    top, enlarged = (size - kept) // 2, round(kept * factor)
    centre = x[:, :, top : top + kept, top : top + kept]
    zoomed = interpolate(centre, size=(enlarged,) * 2, mode="bilinear", align_corners=True)
    trim = (enlarged - size) // 2
    return zoomed[:, :, trim : trim + size, trim : trim + size]


def _bell(sigma: float, radius: int) -> np.ndarray:
    """Gaussian weights at -radius..radius, with the sum 1."""
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _convolve(x: Tensor, kernel: Tensor, mode: str) -> Tensor:
    """Each channel with the same kernel [h, w], of odd sides; `mode` fills the border."""
    height, width = kernel.shape
    padded = pad(x, (width // 2, width // 2, height // 2, height // 2), mode=mode)
    return conv2d(padded.flatten(0, 1)[:, None], kernel[None, None])[:, 0].view_as(x)


def _pixels(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x at rows and columns (broadcast to [B, H, W]), those beyond the edge taken from it."""
    channels, height, width = x.shape[1:]
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)  # [B, H, W]
    return x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, channels, -1)).view_as(x)


def _places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers [H, 1] and column numbers [W]."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    return rows[:, None], columns
