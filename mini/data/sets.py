"""The data sets: whole sets of uint8 tensors, which a training loop goes through in `Batches`."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mini import files
from mini.data.batches import Split, checked, whole_labels, whole_number

DIGITS = ("digits", "plain-digits")
NAMES = (*DIGITS, "cifar10", "cifar100")
TITLES = {
    "digits": "digits on photographs",
    "plain-digits": "plain digits",
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
    validation: Split | None = None  # for choosing settings: other images than train and test


def load(
    name: str | None = None,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    n_validation: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load `name`: "digits", "plain-digits", "cifar10", "cifar100", or a folder of 32x32 images.

    Without a name it is the one in the environment variable `MINI_DATA`, else "digits". A folder
    holds train/<class>/ and test/<class>/ with image files. `n_train` and `n_test` ask for
    that many images with balanced classes; by default digits have 4,000 and 2,000, and any other
    set everything there is. `n_validation` asks for as balanced a part of the training images that
    `train` does not have; then `train` is, by default, what is left.

    `seed` draws the images: of digits their poses and photographs, of another set which images are
    chosen (where all are taken, it draws nothing). Digits draw from pools that are the same for
    every seed, and `train` from a smaller one when there is a validation part; of the other sets
    `n_train` images are the same with and without it.

    `mirror` of the result is true but for digits; for a folder whose images mean another thing, or
    none, when mirrored left to right, such as digits or text, `MINI_MIRROR=no` makes it false.

    Raises ValueError in one sentence for whatever is wrong with the name, the sizes or the files.
    """
    source = name = str(name or named())
    seed = random_seed(seed)
    sizes = {"train": n_train, "test": n_test, "validation": n_validation}
    if name in DIGITS:
        classes, splits = _draw_digits(sizes, seed, photographs=name == "digits")
    else:
        name, pool = _read_pool(name)
        classes, splits = tuple(map(str, pool["classes"])), _draw_images(pool, sizes, seed)
    mean, std = mean_and_std(splits["train"].images)
    return Dataset(
        name,
        TITLES.get(name, name),
        classes=classes,
        mean=mean,
        std=std,
        mirror=may_mirror(source),
        **splits,
    )


def named(default: str = "digits") -> str:
    """What `MINI_DATA` names, a folder as its absolute path; where it names nothing, `default`.

    Raises ValueError for what is neither a data set nor a folder.
    """
    value = os.environ.get("MINI_DATA") or default
    if value in NAMES:
        return value
    return str(_existing(value, files.absolute(value, "MINI_DATA")))


def may_mirror(name: str) -> bool:
    """Does a mirrored image of this data set keep its label? Of a folder, what `MINI_MIRROR` says.

    It does where it says nothing. Raises ValueError for anything but yes and no.
    """
    if name in NAMES:
        return name not in DIGITS
    answer = os.environ.get("MINI_MIRROR") or "yes"
    if answer not in ("yes", "no"):
        raise ValueError(f"MINI_MIRROR={answer!r}: expected 'yes' or 'no'.")
    return answer == "yes"


def pool_digest(name: str) -> str:
    """A SHA-256 of everything that `load(name)` draws from: all images, labels and classes.

    Raises ValueError as `load` does.
    """
    if name in DIGITS:
        from mini.data import digits

        arrays = digits.sources()
    else:
        _, arrays = _read_pool(name)
    return _sha256(arrays)


def content_digest(dataset: Dataset) -> str:
    """A SHA-256 of what a network learns from and is tested on: the images and labels of `train`
    and `test`, how many classes there are, and whether images are mirrored in training.

    Names are no part of it, and `mean` and `std` follow from the images.
    """
    count = np.array(len(dataset.classes), dtype=np.int64)
    arrays = {"classes": count, "mirror": np.array(dataset.mirror)}
    for part in ("train", "test"):
        images, labels = checked(getattr(dataset, part))
        arrays |= {f"{part}_images": images.numpy(force=True)}
        arrays |= {f"{part}_labels": labels.numpy(force=True)}
    return _sha256(arrays)


def _sha256(arrays: files.Arrays) -> str:
    whole = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        whole.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        whole.update(np.ascontiguousarray(array).view(np.uint8).data)
    return whole.hexdigest()


def subset(split: Split, n: int, *, seed: int, what: str = "n") -> Split:
    """`n` images of a split, as many of each class (within one, until a class is used up).

    With the same seed, a smaller subset is the beginning of a larger one.
    The images are of any type and kept as they are. Raises ValueError, calling `n` by the name
    `what`, if there are fewer images, or if `n` is smaller than the number of classes, and unless
    labels are whole numbers [N].
    """
    labels = whole_labels(split.labels).numpy(force=True)
    chosen, _ = _deal(labels, n, seed=seed, what=what)
    index = torch.from_numpy(chosen).to(split.labels.device)
    return Split(split.images[index], split.labels[index])


def random_seed(seed: int) -> int:
    """`seed` as an int that numpy and torch take; raises ValueError for anything else."""
    seed = whole_number("seed", seed, at_least=0)
    if seed >= 2**32:
        raise ValueError(f"seed must be a whole number below 2**32, not {seed}.")
    return seed


def mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel, [C] and [C], of uint8 [N, C, H, W] scaled to [0, 1].

    From its histogram: exact, and no float copy of the whole set. Raises ValueError for images of
    another type, which may be scaled already, or none.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}: give uint8 [N, C, H, W], 0 to 255, "
            "and at least one."
        )
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    channels = images.transpose(0, 1).flatten(1)  # [C, N*H*W]
    counts = torch.stack([channel.bincount(minlength=256) for channel in channels])
    shares = counts.double() / counts.sum(1, keepdim=True)  # [C, 256]
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()  # one-coloured images divide by no zero


# The sources are imported where they are needed: every worker process loads data, and torchvision,
# which only the archives need, takes longer to import than digits take to make.


def _draw_digits(
    sizes: dict[str, int | None], seed: int, *, photographs: bool
) -> tuple[tuple[str, ...], dict[str, Split]]:
    from mini.data import digits

    asked = {"train": 4000, "test": 2000} | {k: n for k, n in sizes.items() if n is not None}
    pools = {"train": "rest"} if "validation" in asked else {}
    splits = {}
    for part, n in asked.items():
        n = whole_number(f"n_{part}", n, at_least=len(digits.CLASSES))
        arrays = digits.make(n, pools.get(part, part), seed=seed, photographs=photographs)
        splits[part] = Split(*map(torch.from_numpy, arrays))
    return digits.CLASSES, splits


def _read_pool(name: str) -> tuple[str, files.Arrays]:
    """The data set's name and all of its images, as read-only arrays."""
    if name in NAMES:
        from mini.data import archives

        return name, archives.load(name)
    try:
        folder = Path(name).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{name}: there is no such home folder here: write it out.") from None
    _existing(name, folder)
    from mini.data import folders

    # What is measured on a folder never goes by a data set's own name.
    name = f"{folder.name}-folder" if folder.name in NAMES else folder.name
    return name, folders.load(folder)


def _existing(name: str, folder: Path) -> Path:
    """The folder that `name` means; ValueError if it is none."""
    if not folder.is_dir():
        raise ValueError(
            f"There is no data set called {name!r} and no folder {folder}: choose one of "
            f"{', '.join(NAMES)}, or give the path of a folder with train/<class>/ and "
            "test/<class>/ in it."
        )
    return folder


def _draw_images(pool: files.Arrays, sizes: dict[str, int | None], seed: int) -> dict[str, Split]:
    """Of each part the images asked for, copied from the arrays of a pool."""
    n_train, n_test, n_validation = (sizes[part] for part in ("train", "test", "validation"))
    labels, test_labels = pool["train_labels"], pool["test_labels"]
    chosen = {"test": np.arange(len(test_labels))}
    if n_test is not None:
        chosen["test"], _ = _deal(test_labels, n_test, seed=seed, what="n_test")
    rest = np.arange(len(labels))
    if n_train is not None:
        chosen["train"], rest = _deal(labels, n_train, seed=seed, what="n_train")
    if n_validation is not None:
        picked, left = _deal(
            labels[rest],
            n_validation,
            seed=seed,
            what="n_validation",
            source=" beside those of train",
        )
        chosen["validation"], rest = rest[picked], rest[left]
    chosen.setdefault("train", rest)
    for part in ("train", "validation") if n_validation is not None else ():
        counts = np.bincount(labels[chosen[part]], minlength=len(pool["classes"]))
        if missing := pool["classes"][counts == 0].tolist():
            other = "validation" if part == "train" else "train"
            raise ValueError(
                f"The {part} part has no image of the class {missing[0]}, as n_{other} is "
                f"{sizes[other]} and takes all of them: ask for fewer."
            )
    splits = {}
    for part, index in chosen.items():
        source = "test" if part == "test" else "train"
        arrays = pool[f"{source}_images"][index], pool[f"{source}_labels"][index]
        splits[part] = Split(*map(torch.from_numpy, arrays))
    return splits


def _deal(
    labels: np.ndarray, n: int, *, seed: int, what: str, source: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Places in `labels` of `n` images with balanced classes, and, in order, of the others."""
    n = whole_number(what, n, at_least=len(np.unique(labels)))
    if n > len(labels):
        raise ValueError(
            f"{what} is {n}, but there are only {len(labels)} images{source}: ask for fewer, in a "
            "notebook by its first cell, or give more."
        )
    random = np.random.RandomState(random_seed(seed))
    # Deal the cards: shuffled, the k-th image of every class goes into round k.
    shuffled = random.permutation(len(labels))
    rounds = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        rounds[members] = np.arange(len(members))
    order = shuffled[np.argsort(rounds, kind="stable")]
    return order[:n], np.sort(order[n:])
