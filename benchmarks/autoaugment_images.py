"""AutoAugment and RandAugment of 32x32 images per second: ours, torchvision's v2 and timm's.

Ours goes by batches, peers image by image, in one process, as each of their loading processes does.
All take turns on the same digits, and the ratio is taken round by round, so that a slow moment of
the machine slows all alike. AutoAugment: the policy for CIFAR-10, which timm lacks. RandAugment:
two operations at 27 degrees; in timm each of them happens at all times, as in the paper, and it has
15.
"""

from collections.abc import Callable

import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image
from turns import Benchmark

from mini import autoaugment, data

N, M = 2, 9  # in torchvision, which counts to 30, the strength is 3 M


def one_by_one(transform: Callable, images: Tensor | list[Image.Image]) -> Callable[[int], None]:
    """Sends the first n of `images` through `transform`, one after the other."""

    def run(n: int) -> None:
        for image in images[:n]:
            transform(image)

    return run


def main() -> None:
    bench = Benchmark(__file__, __doc__, "torchvision", "timm", "pillow", rounds=7)
    pixels = data.load("digits", n_test=2000).test.images
    batch = pixels.to(bench.device)
    pictures = [to_pil_image(image) for image in pixels]
    generator = torch.Generator().manual_seed(0)

    def apply(n: int) -> None:
        for part in batch[:n].split(250):
            autoaugment.apply(part, autoaugment.CIFAR10_POLICY, generator=generator)

    def rand_augment(n: int) -> None:
        for part in batch[:n].split(250):
            autoaugment.rand_augment(part, N, M, generator=generator)

    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    runs = {
        "ours": (apply, 2000),
        "v2.AutoAugment, tensors": (one_by_one(theirs, pixels), 300),
        "v2.AutoAugment, PIL images": (one_by_one(theirs, pictures), 300),
    }
    bench.compare_images("AutoAugment, policy for CIFAR-10", runs)

    theirs = v2.RandAugment(N, 3 * M)
    timms = rand_augment_transform(f"rand-m{M}-n{N}-p1.0", {})
    runs = {
        "ours": (rand_augment, 2000),
        "v2.RandAugment, tensors": (one_by_one(theirs, pixels), 200),
        "v2.RandAugment, PIL images": (one_by_one(theirs, pictures), 300),
        "timm, PIL images": (one_by_one(timms, pictures), 300),
    }
    bench.compare_images(f"RandAugment, {N} operations", runs)
    bench.finish()


if __name__ == "__main__":
    main()
