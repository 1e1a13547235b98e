"""Open-world classification: answer for the classes that were seen, refuse the others.

Shu, Xu, Liu, "DOC: Deep Open Classification of Text Documents", EMNLP 2017, arXiv:1709.08716; and
Fei, Liu, "Breaking the Closed World Assumption in Text Classification", NAACL 2016 (CBS). Read
downwards: seen and unseen classes; DOC, as in section 2 of its paper: loss, thresholds, rule; the
measures; CBS. What becomes of the refused is in `mini.openset.discovery`. Throughout, K classes
are seen, with labels 0 .. K-1, and -1 means "none of these".
Differences from DOC's released code: it asks the threshold of the likeliest class only, where the
paper (and this file) reject if *all* classes refuse; its alpha is 1, the paper's is 3; it drops
logits at random while training; it uses text.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid, one_hot

from mini.data import Dataset, Split
from mini.data.batches import checked, whole_labels
from mini.data.sets import mean_and_std
from mini.training.metrics import one_label_a_row


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


def seen_only(split: Split, seen: Sequence[int]) -> Split:
    """The images of the classes in `seen`, labelled 0 .. K-1.

    Raises ValueError if one of the classes has no image, or the images are not uint8.
    """
    images, labels = checked(split)
    labels = open_labels(labels, seen)
    for place, label in enumerate(seen):
        if not (labels == place).any():
            raise ValueError(f"Class {label} has no image here: choose among those that have.")
    return Split(images[labels >= 0], labels[labels >= 0])


def closed_world(dataset: Dataset, seen: Sequence[int], *, held_out: float, seed: int) -> Dataset:
    """All that training and tuning may touch: training images of the classes in `seen`.

    Its `train` has the share 1 - `held_out` of them, its `test` the others; `mean` and `std` come
    from them too. Raises ValueError if `held_out` is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out}: expected a share between 0 and 1, such as 0.2.")
    images, labels = seen_only(dataset.train, seen)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split([len(order) - round(held_out * len(order))])
    train, rest = (Split(images[part], labels[part]) for part in parts)
    mean, std = mean_and_std(train.images)
    names = tuple(dataset.classes[label] for label in seen)
    return replace(
        dataset, train=train, validation=None, test=rest, classes=names, mean=mean, std=std
    )


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


# Measures


def open_f1(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> float:
    """F1, averaged over the K seen classes and "unknown"; an empty class counts 0.

    Raises ValueError for an answer or a label that is none of -1 .. K-1, which would not count.
    """
    # Imported where needed: scikit-learn takes a second to load, and the notebook starts without.
    from sklearn.metrics import f1_score

    every = range(-1, num_classes)
    if not (np.isin(predicted, every).all() and np.isin(labels, every).all()):
        raise ValueError(f"Answers and labels must be -1 to {num_classes - 1}: see open_labels.")
    return float(f1_score(labels, predicted, labels=every, average="macro", zero_division=0))


def oscr(known_scores: ArrayLike, known_correct: ArrayLike, unknown_scores: ArrayLike) -> float:
    """Area under the open-set classification rate curve, in [0, 1] (Dhamija et al. 2018).

    The curve: over all thresholds, the share of knowns that are both accepted and correctly
    classified, against the share of unknowns accepted. Its area is the mean over unknowns of the
    share of knowns that are correct and score higher, ties counting half. `known_scores` and
    `known_correct` are `[N]`, `unknown_scores` `[M]`; higher means more surely known.
    Raises ValueError for empty lists, unequal lengths, or a score that is not a number.
    """
    scores, unknown = (np.asarray(s, dtype=float) for s in (known_scores, unknown_scores))
    is_correct = np.asarray(known_correct, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_correct.shape or not scores.size or not unknown.size:
        raise ValueError(
            f"Got {scores.shape} scores of knowns, {is_correct.shape} marks and {unknown.shape} "
            "scores of unknowns: expected [N], [N] and [M], none of them empty."
        )
    if np.isnan(scores).any() or np.isnan(unknown).any():
        raise ValueError("A score is not a number: look at the model's outputs first.")
    correct = np.sort(scores[is_correct])
    higher = len(correct) - np.searchsorted(correct, unknown, side="right")  # [M]
    at_least = len(correct) - np.searchsorted(correct, unknown, side="left")
    return float((higher + at_least).mean() / 2 / len(scores))


# CBS: one linear classifier per class, in the space of similarities to that class's centre


def class_centres(features: Tensor, labels: Tensor) -> Tensor:
    """The mean feature vector of each class, `[K, D]`, from `[N, D]` and labels 0 .. K-1.

    Raises ValueError for other labels, or a class without features, which has no mean.
    """
    labels = one_label_a_row(features, labels)
    present, classes = labels.unique().tolist(), list(range(int(labels.max()) + 1))
    if present != classes:
        raise ValueError(f"The labels are {present}: give features of every class from 0 on.")
    return torch.stack([features[labels == k].mean(dim=0) for k in classes])


def centre_similarities(features: Tensor, centre: Tensor) -> Tensor:
    """Two similarities of `[N, D]` to one centre `[D]`: minus the distance, cosine. `[N, 2]`."""
    distance = (features - centre).norm(dim=1)
    return torch.stack([-distance, cosine_similarity(features, centre[None])], dim=1)


def svm_scores(
    features: Tensor, labels: Tensor, queries: Tensor, centres: Tensor | None = None
) -> Tensor:
    """Decision values `[M, K]` of K linear SVMs, class against rest, trained on `[N, D]`.

    With `centres`, SVM k sees `centre_similarities` to centre k (CBS learning), else the features;
    either is scaled to unit variance first.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    columns = []
    for k in range(int(labels.max()) + 1):
        views = features, queries
        if centres is not None:
            views = [centre_similarities(x, centres[k]) for x in views]
        svm = make_pipeline(StandardScaler(), LinearSVC(random_state=0))
        svm.fit(views[0].numpy(), (labels == k).numpy())
        columns.append(torch.from_numpy(svm.decision_function(views[1].numpy())))
    return torch.stack(columns, dim=1)
