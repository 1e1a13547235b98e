"""Photographs of frost. They are files of the package imagecorruptions, which is never imported.

    pip install --no-deps imagecorruptions

Bethge Lab's package (Apache licence 2.0, 2 MB) holds the six of Hendrycks and Dietterich. Its code
asks for OpenCV, scikit-image and a part of setuptools that is gone; its files ask for nothing.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FROST = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def frost() -> list[Tensor]:
    """The five of which make_cifar_c.py draws (it names a sixth), uint8 [3, H, W], 1/5 as large.

    Raises ModuleNotFoundError, which says what to install, where the package is not there.
    """
    package = find_spec("imagecorruptions")
    if package is None:
        raise ModuleNotFoundError(
            "frost needs photographs that are no part of this course: to have them, run "
            "pip install --no-deps imagecorruptions"
        )
    return _read(Path(package.submodule_search_locations[0]) / "frost")


@cache
def _read(folder: Path) -> list[Tensor]:
    """The third of every five rows and columns: that is OpenCV's linear resizing to a fifth."""
    images = (Image.open(folder / name).convert("RGB") for name in FROST)
    return [torch.from_numpy(np.array(image)[2::5, 2::5]).permute(2, 0, 1) for image in images]
