"""Mixed and cut images per second: ours, torchvision's and timm's, from integer labels on.

Batches of 128 digits with one lambda each. torchvision pairs each image with the one before it in
the batch, timm with its mirror place, in place; ours draws a permutation, which costs a copy in
another order.
"""

from functools import partial

import timm.data.mixup
import torch
from torch.nn.functional import one_hot
from torchvision.transforms import v2
from turns import Benchmark

from mini import data, mixup

BATCH, K = 128, 10


def main() -> None:
    bench = Benchmark(__file__, __doc__, "torchvision", "timm", rounds=15)
    images, labels = data.load("digits", n_test=2048).test
    images, labels = images.to(bench.device).float() / 255, labels.to(bench.device)
    generator = torch.Generator().manual_seed(0)

    def ours(mix, n: int) -> None:
        for x, y in zip(images[:n].split(BATCH), labels[:n].split(BATCH), strict=True):
            mix(x, one_hot(y, K).float(), 1.0, generator=generator)

    def theirs(mix, n: int) -> None:
        for x, y in zip(images[:n].split(BATCH), labels[:n].split(BATCH), strict=True):
            mix(x, y)

    def timms(mix, n: int) -> None:  # it mixes in place: the copy belongs to its price
        theirs(lambda x, y: mix(x.clone(), y), n)

    shared = {"label_smoothing": 0.0, "num_classes": K}
    theirs_of = {
        "mixup": (v2.MixUp(num_classes=K), timm.data.mixup.Mixup(mixup_alpha=1.0, **shared)),
        "CutMix": (
            v2.CutMix(num_classes=K),
            timm.data.mixup.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, **shared),
        ),
    }
    for name, mix in (("mixup", mixup.mixup), ("CutMix", mixup.cutmix)):
        torchvisions, of_timm = theirs_of[name]
        runs = {
            "ours": (partial(ours, mix), 2048),
            f"torchvision's v2.{'MixUp' if name == 'mixup' else name}": (
                partial(theirs, torchvisions),
                2048,
            ),
            "timm's Mixup": (partial(timms, of_timm), 2048),
        }
        bench.compare_images(f"{name}, batches of {BATCH}", runs)
    bench.finish()


if __name__ == "__main__":
    main()
