"""Images per second: `mini.data.Batches` beside torchvision's transforms in a DataLoader.

Both shuffle, shift by up to four pixels (reflected border), mirror half of the images, and
normalise. The transforms are those of v2 on tensors, which are faster than the classic ones on PIL
images, and workers live on.
"""

from functools import partial

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from turns import Benchmark

from mini import data

PAD = 4


class Images(torch.utils.data.Dataset):
    """A split as a DataLoader wants it: one image at a time, through the transforms."""

    def __init__(self, dataset: data.Dataset) -> None:
        self.split = dataset.train
        self.transforms = v2.Compose(
            [
                v2.RandomCrop(32, padding=PAD, padding_mode="reflect"),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(dataset.mean.tolist(), dataset.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transforms(self.split.images[i]), self.split.labels[i]


def epoch(batches) -> None:
    for _ in batches:
        pass


def main() -> None:
    bench = Benchmark(__file__, __doc__, "torchvision", rounds=5, batch_size=128)
    dataset, size = data.load(), bench.chosen.batch_size
    normal = {"mean": dataset.mean, "std": dataset.std}
    generator = torch.Generator().manual_seed(0)
    ours = data.Batches(dataset.train, size, **normal, pad=PAD, mirror=True, generator=generator)
    contestants = {"ours": ours} | {
        f"DataLoader, {workers} workers": DataLoader(
            Images(dataset),
            size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for workers in (0, 2)
    }
    steps = {who: partial(epoch, batches) for who, batches in contestants.items()}
    work = dict.fromkeys(steps, len(dataset.train.labels))
    bench.compare(f"batches of {size} augmented images", steps, unit="images/s", work=work)
    bench.finish()


if __name__ == "__main__":
    main()
