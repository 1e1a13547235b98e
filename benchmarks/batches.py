"""Images per second: `mini.data.Batches` beside torchvision's transforms in a DataLoader.

Both shuffle, shift by up to four pixels (reflected border), mirror half of the images, and
normalise. Rounds alternate between the three; the table shows medians. The transforms are those of
v2 on tensors, which are faster than the classic ones on PIL images, and workers live on.

    python benchmarks/batches.py [--rounds 5] [--batch-size 128] [--threads 1]
"""

import argparse
import platform
from statistics import median
from time import perf_counter

import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.transforms import v2

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


def images_per_second(batches) -> float:
    """The speed of one epoch of `batches`."""
    start, count = perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return count / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    dataset = data.load()
    normal = {"mean": dataset.mean, "std": dataset.std}
    generator = torch.Generator().manual_seed(0)
    images = Images(dataset)
    contestants = {
        "mini.data.Batches": data.Batches(
            dataset.train, options.batch_size, **normal, pad=PAD, mirror=True, generator=generator
        )
    }
    for workers in (0, 2):
        contestants[f"DataLoader, {workers} workers"] = DataLoader(
            images,
            options.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(options.rounds + 1):
        for name, batches in contestants.items():
            speed = images_per_second(batches)
            if round_:  # the first round warms up
                speeds[name].append(speed)

    print(
        f"{dataset.title}, {len(images):,} images, batches of {options.batch_size}, "
        f"{options.rounds} rounds, {options.threads} thread(s)"
    )
    ours = median(speeds["mini.data.Batches"])
    print(f"{'':24}{'images/s':>10}{'slowest':>10}{'fastest':>10}{'ours / it':>11}")
    for name, values in speeds.items():
        middle = median(values)
        numbers = f"{middle:>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}"
        print(f"{name:24}{numbers}{ours / middle:>10.1f}x")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}, {torch.get_num_threads()} "
        f"thread(s) of {torch.multiprocessing.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
