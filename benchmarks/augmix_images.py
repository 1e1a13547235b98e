"""AugMix views of 32x32 images per second: ours on batches, torchvision's v2.AugMix, and Pillow.

The Pillow pipeline goes image by image, in one process, as the authors' code does in each of its
loading processes. All take turns on the same digits, and the ratio is taken round by round, so that
a slow moment of the machine slows all alike. Operations: the nine of the paper for all of them.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image
from turns import Benchmark

from mini import augmix, data

SIZE = 32


def pillow_operations(random: np.random.Generator) -> list[Callable[[Image.Image], Image.Image]]:
    """The nine operations at a fresh level each call."""

    def level() -> float:
        return random.uniform(0.1, 3)

    def signed() -> float:
        return level() if random.random() < 0.5 else -level()

    def affine(image: Image.Image, *six: float) -> Image.Image:
        size, bilinear = (SIZE, SIZE), Image.Resampling.BILINEAR
        return image.transform(size, Image.Transform.AFFINE, six, resample=bilinear)

    return [
        ImageOps.autocontrast,
        ImageOps.equalize,
        lambda image: ImageOps.posterize(image, 4 - int(0.4 * level())),
        lambda image: image.rotate(int(3 * signed()), resample=Image.Resampling.BILINEAR),
        lambda image: ImageOps.solarize(image, 256 - int(25.6 * level())),
        lambda image: affine(image, 1, 0.03 * signed(), 0, 0, 1, 0),
        lambda image: affine(image, 1, 0, 0, 0.03 * signed(), 1, 0),
        lambda image: affine(image, 1, 0, int(signed() * SIZE / 30), 0, 1, 0),
        lambda image: affine(image, 1, 0, 0, 0, 1, int(signed() * SIZE / 30)),
    ]


def pillow_view(image: Image.Image, operations: list, random: np.random.Generator) -> Tensor:
    """One view as a tensor: three chains of one to three operations, mixed."""

    def tensor(picture: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(255)

    weights, m = random.dirichlet([1.0] * 3), random.beta(1.0, 1.0)
    mixed = torch.zeros(3, SIZE, SIZE)
    for weight in weights:
        chain = image.copy()
        for _ in range(random.integers(1, 4)):
            chain = operations[random.integers(9)](chain)
        mixed += float(weight) * tensor(chain)
    return m * tensor(image) + (1 - m) * mixed


def main() -> None:
    bench = Benchmark(__file__, __doc__, "torchvision", "pillow", rounds=7)
    pixels = data.load("digits", n_test=2000).test.images
    batch = pixels.to(bench.device).float() / 255
    pictures = [to_pil_image(image) for image in pixels]
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    operations = pillow_operations(random)
    theirs = v2.AugMix(all_ops=False)

    def ours(n: int) -> None:
        for part in batch[:n].split(250):
            augmix.augmix(part, generator=generator)

    def on_pictures(n: int) -> None:
        for picture in pictures[:n]:
            theirs(picture)

    def on_tensors(n: int) -> None:
        for image in pixels[:n]:
            theirs(image)

    def by_pillow(n: int) -> None:
        for picture in pictures[:n]:
            pillow_view(picture, operations, random)

    runs = {
        "ours": (ours, 2000),
        "v2.AugMix on PIL images": (on_pictures, 100),
        "v2.AugMix on tensors": (on_tensors, 60),
        "Pillow, image by image": (by_pillow, 300),
    }
    bench.compare_images("AugMix views", runs)
    bench.finish()


if __name__ == "__main__":
    main()
