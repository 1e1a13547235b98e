"""The data sets: whole sets of uint8 tensors, which a training loop goes through in `Batches`."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mini.batches import Batches, Split, augment, whole_number

__all__ = ["Batches", "Dataset", "Split", "augment", "load", "subset"]

NAMES = ("digits", "cifar10", "cifar100")
TITLES = {
    "digits": "digits on photographs",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cifar10-jpeg": "CIFAR-10 (JPEG copy)",
}


@dataclass(frozen=True)
class Dataset:
    name: str  # for file names
    title: str  # for people
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor  # [3], of the train images scaled to [0, 1]
    std: Tensor  # [3], likewise
    mirror: bool  # does a left-right mirrored image keep its label?


def load(
    name: str | None = None,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load `name`: "digits", "cifar10", "cifar100", or a folder of 32x32 images.

    Without a name it is the one in the environment variable `MINI_DATA`, else "digits". A folder
    holds train/<class>/ and test/<class>/ with PNG or JPEG files. `n_train` and `n_test` ask for
    that many images with balanced classes, chosen by `seed`; by default digits has 4,000 and
    2,000, and any other set everything there is.

    Raises ValueError in one sentence for whatever is wrong with the name, the sizes or the files.
    """
    # Imported here, with what they load, to spare worker processes: those are sent the data.
    from mini import archives, digits, folders

    name = str(name or os.environ.get("MINI_DATA") or "digits")
    seed = whole_number("seed", seed, at_least=0)
    title = TITLES.get(name, name)
    if name == "digits":
        classes, sizes = digits.CLASSES, {"train": n_train or 4000, "test": n_test or 2000}
        for part, size in (("train", n_train), ("test", n_test)):
            if size is not None:
                sizes[part] = whole_number(f"n_{part}", size, at_least=len(classes))
        train, test = (
            Split(*map(torch.from_numpy, digits.make(sizes[part], part, seed=seed)))
            for part in ("train", "test")
        )
    else:
        if name in NAMES:
            arrays = archives.load(name)
        else:
            folder = Path(name).expanduser().absolute()
            if not folder.is_dir():
                raise ValueError(
                    f"There is no data set called {name!r} and no folder {folder}: choose one of "
                    f"{', '.join(NAMES)}, or give the path of a folder with train/<class>/ and "
                    "test/<class>/ in it."
                )
            arrays = folders.load(folder)
            # What is measured on a folder never goes by a data set's own name.
            name = f"{folder.name}-folder" if folder.name in NAMES else folder.name
            title = TITLES.get(name, name)
        classes = tuple(str(label) for label in arrays["classes"])
        train, test = (
            Split(
                torch.from_numpy(arrays[f"{part}_images"]),
                torch.from_numpy(arrays[f"{part}_labels"]),
            )
            for part in ("train", "test")
        )
        if n_train is not None:
            train = subset(train, n_train, seed=seed, what="n_train")
        if n_test is not None:
            test = subset(test, n_test, seed=seed, what="n_test")
    mean, std = _mean_and_std(train.images)
    return Dataset(name, title, train, test, classes, mean, std, mirror=name != "digits")


def subset(split: Split, n: int, *, seed: int, what: str = "n") -> Split:
    """`n` images of a split, as many of each class (within one, until a class is used up).

    With the same seed, a smaller subset is the beginning of a larger one.
    Raises ValueError, calling `n` by the name `what`, if there are fewer images, or if `n` is
    smaller than the number of classes.
    """
    labels = split.labels.numpy(force=True)
    n = whole_number(what, n, at_least=len(np.unique(labels)))
    if n > len(labels):
        raise ValueError(f"{what} is {n}, but there are only {len(labels)} images: ask for fewer.")
    random = np.random.RandomState(whole_number("seed", seed, at_least=0))
    # Deal the cards: shuffled, the k-th image of every class goes into round k.
    shuffled = random.permutation(len(labels))
    rounds = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        rounds[members] = np.arange(len(members))
    chosen = shuffled[np.argsort(rounds, kind="stable")[:n]]
    index = torch.from_numpy(chosen).to(split.labels.device)
    return Split(split.images[index], split.labels[index])


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel, from its histogram: exact, and no float copy of the whole set."""
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(3)])
    shares = counts.double() / counts.sum(1, keepdim=True)  # [3, 256]
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()  # one-coloured images divide by no zero
