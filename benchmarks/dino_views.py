"""DINO's views of 32x32 images per second: ours on batches, and torchvision's image by image.

Two global views of 24 pixels and two local ones of 16, antialiased bilinear both, without colours.
All take turns on the same digits, and the ratio is taken round by round, so that a slow moment of
the machine slows all alike.
"""

from functools import partial

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image
from turns import Benchmark

from mini import data, dino

GLOBAL, LOCAL, BATCH = 24, 16, 128


def main() -> None:
    bench = Benchmark(__file__, __doc__, "torchvision", "pillow", rounds=7)
    pixels = data.load("digits", n_test=2048).test.images
    batch = pixels.to(bench.device).float() / 255
    pictures = [to_pil_image(image) for image in pixels]
    generator = torch.Generator().manual_seed(0)
    crops = [v2.RandomResizedCrop(GLOBAL, scale=(0.4, 1.0), antialias=True)] * 2
    crops += [v2.RandomResizedCrop(LOCAL, scale=(0.1, 0.4), antialias=True)] * 2

    def ours(n: int) -> None:
        for part in batch[:n].split(BATCH):
            dino.multicrop(
                part, n_local=2, global_size=GLOBAL, local_size=LOCAL, generator=generator
            )

    def one_by_one(images, n: int) -> None:
        for image in images[:n]:
            for crop in crops:
                crop(image)

    runs = {
        "ours": (ours, 2048),
        "v2.RandomResizedCrop on tensors": (partial(one_by_one, batch), 200),
        "v2.RandomResizedCrop on PIL images": (partial(one_by_one, pictures), 200),
    }
    bench.compare_images("DINO views, 2 + 2 an image", runs)
    bench.finish()


if __name__ == "__main__":
    main()
