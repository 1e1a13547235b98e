"""Open-world classification: answer for the classes that were seen, refuse the others.

Shu, Xu, Liu, "DOC: Deep Open Classification of Text Documents", EMNLP 2017, arXiv:1709.08716. Read
downwards: seen and unseen classes; then DOC, as in section 2 of its paper: loss, thresholds, rule.
Other ways to refuse are in `mini.openset.rivals`, the field's measures in `mini.openset.measures`;
what becomes of the refused is in `mini.openset.discovery`. Throughout, K classes are seen, with
labels 0 .. K-1, and -1 means "none of these".
Differences from DOC's released code: it asks the threshold of the likeliest class only, where the
paper (and this file) reject if *all* classes refuse; its alpha is 1, the paper's is 3; it drops
logits at random while training; it uses text.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from mini.data import Dataset, Split, select_classes
from mini.data.batches import whole_labels
from mini.data.sets import mean_and_std


def open_labels(labels: Tensor, seen: Sequence[int]) -> Tensor:
    """Class labels `[N]` as places in `seen`, 0 .. K-1, and -1 for every class not in it.

    Whatever type the labels have, the places are int64, which has a -1. Raises ValueError for a
    class that is named twice, or labels that are no whole numbers.
    """
    labels = whole_labels(labels)
    if len(set(seen)) != len(seen):
        raise ValueError(f"seen={list(seen)} names a class twice: name each once.")
    places = torch.full_like(labels, -1)
    for place, label in enumerate(seen):
        places[labels == label] = place
    return places


def closed_world(dataset: Dataset, seen: Sequence[int], *, held_out: float, seed: int) -> Dataset:
    """All that training and tuning may touch: training images of the classes in `seen`.

    Class `seen[i]` becomes class i. The result's `train` has the share 1 - `held_out` of these
    images, its `test` the others; `mean` and `std` are those of its `train`. Raises ValueError if
    `held_out` is not between 0 and 1, and as `mini.data.select_classes` does.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out}: expected a share between 0 and 1, such as 0.2.")
    world = select_classes(replace(dataset, test=dataset.train, validation=None), seen)
    images, labels = world.train
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split([len(order) - round(held_out * len(order))])
    train, rest = (Split(images[part], labels[part]) for part in parts)
    mean, std = mean_and_std(train.images)
    return replace(world, train=train, test=rest, mean=mean, std=std)


# DOC


def one_vs_rest_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """K yes-or-no cross-entropies, summed over classes, averaged over the batch (section 2.2).

    `logits` is `[B, K]`, `labels` `[B]` in 0 .. K-1; the loss is a scalar. Raises ValueError for
    another label: an image of no seen class must not get here.
    """
    labels = _check_labels(labels, logits)
    sign = 2 * one_hot(labels, logits.shape[1]) - 1  # [B, K]: 1 at the label, else -1
    return -logsigmoid(sign * logits).sum(dim=1).mean()


def fit_thresholds(probabilities: Tensor, labels: Tensor, *, alpha: float = 3.0) -> Tensor:
    """t_i = max(0.5, 1 - alpha * sigma_i) for each class, `[K]` in float64 (section 2.3).

    sigma_i is the deviation of the Gaussian around 1 that fits the scores p(y = i | x) of class i's
    own examples x and their mirror images 2 - p. `probabilities` is `[N, K]` in [0, 1], `labels`
    `[N]` in 0 .. K-1. Raises ValueError for other values, or a class without examples.
    """
    labels = _check_labels(labels, probabilities)
    p = probabilities.double()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("Scores must be in [0, 1]: give probabilities (sigmoids), not logits.")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha={alpha}: expected a number of at least 0, such as 3.")
    is_own = one_hot(labels, p.shape[1])  # [N, K]
    count = is_own.sum(dim=0)
    if (count == 0).any():
        missing = (count == 0).nonzero().flatten().tolist()
        raise ValueError(f"No examples of class {missing}: give some of each class.")
    sigma = ((is_own * (1 - p) ** 2).sum(dim=0) / count).sqrt()  # the mirror image adds the same
    return (1 - alpha * sigma).clamp(min=0.5)


def predict_open(logits: Tensor, thresholds: Tensor) -> Tensor:
    """The likeliest class, or -1 if every class's probability is below its threshold (section 2.3).

    `logits` is `[N, K]`, `thresholds` `[K]` of probabilities; returns labels `[N]`.
    Raises ValueError for shapes that differ, thresholds outside [0, 1], or a logit that is NaN.
    """
    if logits.ndim != 2 or thresholds.shape != logits.shape[1:]:
        shapes = f"{list(logits.shape)} and {list(thresholds.shape)}"
        raise ValueError(f"Logits and thresholds have shapes {shapes}: expected [N, K] and [K].")
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError("Thresholds are compared with probabilities: they must be in [0, 1].")
    if logits.isnan().any():
        raise ValueError("Some logits are not a number: look at the training they come from.")
    is_passed = logits.double().sigmoid() >= thresholds.double().to(logits.device)  # [N, K]
    return torch.where(is_passed.any(dim=1), logits.argmax(dim=1), -1)


def _check_labels(labels: Tensor, scores: Tensor) -> Tensor:
    """The labels in int64."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        shapes = f"{list(scores.shape)} and {list(labels.shape)}"
        raise ValueError(f"Scores and labels have shapes {shapes}: expected [N, K] and [N].")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"Labels reach from {int(labels.min())} to {int(labels.max())}, but the seen classes "
            f"are 0 to {scores.shape[1] - 1}: leave the unseen ones out."
        )
    return whole_labels(labels)
