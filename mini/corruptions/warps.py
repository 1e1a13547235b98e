"""The two warps of elastic_transform on batches [B, C, N, N]; what is random is handed in.

Both do what the script make_cifar_c.py does through OpenCV, scikit-image and scipy, border
included, but for one thing: OpenCV 4.10, say, rounds the places it reads to 1/32 of a pixel (5.0 no
longer does). Places and shifts are in pixels and in the order (x, y): right, down.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def affine(x: Tensor, shifts: Tensor) -> Tensor:
    """The affine map that moves three corners of a square about the middle by `shifts` [B, 3, 2].

    Beyond its border the image is mirrored at the outermost pixels (OpenCV).
    """
    middle, reach = x.shape[2] // 2, x.shape[2] // 3
    corners = reach * torch.tensor([[1, 1], [1, -1], [-1, -1]], device=x.device)
    first, second, third = (corners + shifts).unbind(1)  # [B, 2], seen from the middle
    # The first corner lies opposite to the third, below the second; which is right of the third.
    matrix = torch.stack([second - third, first - second], dim=2) / (2 * reach)
    moved = (first + third) / 2
    # The map says where a pixel goes; to draw one, the place it comes from is needed.
    target = (_places(x) - middle).flatten(1) - moved[:, :, None]  # [B, 2, N * N]
    source = torch.linalg.solve(matrix, target) + middle
    return _sample(x, source.unflatten(2, x.shape[2:]), mirror="pixel")


def displace(x: Tensor, shifts: Tensor) -> Tensor:
    """Each pixel takes the value of the place that is `shifts` [B, 2, N, N] away from it.

    Beyond its border the image is mirrored at its edge, so that border pixels come twice (scipy).
    """
    return _sample(x, _places(x) + shifts, mirror="edge")


def smooth(fields: Tensor, sigma: float) -> Tensor:
    """A Gaussian, cut off at three sigma, over [..., N, N] mirrored at its edge (scikit-image)."""
    matrix = torch.from_numpy(_smoothing(fields.shape[-1], sigma)).to(fields)
    return matrix @ fields @ matrix.T


def _smoothing(size: int, sigma: float) -> np.ndarray:
    """The matrix [size, size] whose rows hold the weights, those beyond the edge folded back."""
    steps = np.arange(-int(3 * sigma + 0.5), int(3 * sigma + 0.5) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    rows = np.arange(size)[:, None]
    columns = (rows + steps) % (2 * size)  # to the image and its mirror image, which repeat
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, np.minimum(columns, 2 * size - 1 - columns)), weights)
    return matrix / weights.sum()


def _sample(x: Tensor, places: Tensor, mirror: str) -> Tensor:
    """x at `places` [B, 2, N, N] between its pixels, linearly; mirrored at a "pixel" or "edge"."""
    size, at_pixel = x.shape[2], mirror == "pixel"
    # To -1 .. 1, from outermost pixel to outermost pixel or from edge to edge.
    unit = 2 * places / (size - 1) - 1 if at_pixel else (2 * places + 1) / size - 1
    return grid_sample(x, unit.movedim(1, 3), padding_mode="reflection", align_corners=at_pixel)


def _places(x: Tensor) -> Tensor:
    """Column and row number of each pixel, [2, N, N]."""
    numbers = torch.arange(x.shape[2], device=x.device).to(x)
    return torch.stack(torch.meshgrid(numbers, numbers, indexing="xy"))
