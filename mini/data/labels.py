"""Labels: some of them made wrong, and data sets divided by class."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mini.data.batches import Split, checked, whole_labels, whole_number
from mini.data.sets import Dataset, mean_and_std, random_seed


def flip_labels(
    labels: Tensor, share: float, *, num_classes: int, keep_true: bool, generator: torch.Generator
) -> Tensor:
    """New labels: round(`share` * N) of them, chosen at random, are drawn again, uniformly.

    `labels` are whole numbers [N] in 0 .. `num_classes` - 1, and stay as they are; `share` is in
    [0, 1]; the result has their shape, type and device. What is wrong afterwards is `new != old`.

    `keep_true=True` draws from all K classes, so that a label may come out as it was: a share of
    `share` * (K - 1) / K is wrong on average (Zhang et al. 2017, "Understanding deep learning
    requires rethinking generalization", section 2, "partially corrupted labels").
    `keep_true=False` draws from the K - 1 others: exactly round(`share` * N) labels are wrong
    (Nakkiran et al. 2020, "Deep Double Descent"). Both papers throw a coin for every label
    instead, which makes the number of those drawn again random too.

    Raises ValueError for other labels, shares or numbers of classes.
    """
    num_classes = whole_number("num_classes", num_classes, at_least=2)
    old = whole_labels(labels)
    lowest, highest = map(int, old.aminmax()) if len(old) else (0, 0)
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"labels reach from {lowest} to {highest}: expected 0 to {num_classes - 1}, as "
            f"num_classes is {num_classes}."
        )
    if not 0 <= share <= 1:  # neither is a share that is not a number
        raise ValueError(f"share is {share}: expected a number between 0 and 1, such as 0.4.")
    n, device = round(share * len(labels)), generator.device
    chosen = torch.randperm(len(labels), generator=generator, device=device)[:n].to(labels.device)
    first = 0 if keep_true else 1  # no step leads back to the true label
    steps = torch.randint(first, num_classes, (n,), generator=generator, device=device)
    new = old.clone()
    new[chosen] = (new[chosen] + steps.to(labels.device)) % num_classes
    return new.to(labels.dtype)


def select_classes(dataset: Dataset, labels: Sequence[int]) -> Dataset:
    """The data set of these classes alone: class `labels[i]` of `dataset` becomes class i.

    Every split keeps the order of its images; `classes` keeps the names; `mean` and `std` are
    those of the train images that are left.
    Raises ValueError for a label that is no class, is named twice or has no image in a split, and
    for no label at all.
    """
    labels = [whole_number("A label", label, at_least=0) for label in labels]
    if not labels or len(set(labels)) < len(labels) or max(labels) >= len(dataset.classes):
        raise ValueError(
            f"labels are {labels}: name one or more of 0 to {len(dataset.classes) - 1}, each once."
        )
    places = torch.full((len(dataset.classes),), -1)
    places[labels] = torch.arange(len(labels))
    splits = {}
    for part in ("train", "test", "validation"):
        if (split := getattr(dataset, part)) is not None:
            images, old = checked(split)
            new = places.to(old.device)[old]
            splits[part] = Split(images[new >= 0], new[new >= 0])
            counts = splits[part].labels.bincount(minlength=len(labels))
            if missing := [dataset.classes[labels[i]] for i in (counts == 0).nonzero().flatten()]:
                raise ValueError(
                    f"The {part} images have none of class {missing[0]}: load more images, or "
                    "choose classes that have some."
                )
    mean, std = mean_and_std(splits["train"].images)
    names = tuple(dataset.classes[label] for label in labels)
    return replace(dataset, **splits, classes=names, mean=mean, std=std)


def split_classes(dataset: Dataset, *sizes: int, seed: int) -> tuple[Dataset, ...]:
    """Data sets of `sizes` classes each, drawn by `seed`; no class is in two of them.

        known, unknown = split_classes(dataset, 6, 4, seed=seed)

    Each is what `select_classes` gives for its classes. They are dealt out in one random order,
    and each part is labelled in that order. So a larger first part begins with the classes of a
    smaller one, and consecutive labels of a part are a random fold of it. Whatever part is looked
    at, normalise it by `mean` and `std` of the one that was trained on.
    Raises ValueError unless the sizes are whole numbers of at least 1 and there are classes enough.
    """
    sizes = [whole_number("A number of classes", size, at_least=1) for size in sizes]
    count = len(dataset.classes)
    if not sizes or sum(sizes) > count:
        raise ValueError(
            f"Parts of {sizes} classes are asked for, but there are {count} classes: ask for at "
            f"least one part, and for {count} classes at most."
        )
    generator = torch.Generator().manual_seed(random_seed(seed))
    order = torch.randperm(count, generator=generator)[: sum(sizes)]
    return tuple(select_classes(dataset, part.tolist()) for part in order.split(sizes))
