"""Triplets: learn only that an anchor is nearer to its positive than to its negative.

Hoffer, Ailon, "Deep metric learning using Triplet network", SIMBAD 2015, arXiv:1412.6622. Read
downwards: the distance, the paper's loss, which has no margin, the hinge that has one, the loss of
pairs that both are compared with, which triplets of a batch are looked at, and batches that hold
some. d+ is the distance of anchor and positive, two images of a class; d- that of anchor and
negative, which is of another. Embeddings are taken as they are: a network that scales them to
length 1 bounds distances by 2. Differences from the authors' code: its networks answer in the order
(negative, positive), its loss is half the paper's, the mean of two equal squares and not their sum,
and its random triplets are of all images, not of a batch.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu

from mini.data.batches import whole_labels, whole_number
from mini.training.metrics import one_label_a_row


def distance(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| of each row of `x` and `y`, both `[B, D]`: `[B]`, plain and not squared.

    Where the two are equal its gradient is 0, one of those that a length has there; that of a
    square root of squares would not be a number. Raises ValueError unless both are floats of one
    shape `[B, D]`: a single row would be compared with every other.
    """
    if x.shape != y.shape or x.ndim != 2 or not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError(
            f"Embeddings are {x.dtype} {list(x.shape)} and {y.dtype} {list(y.shape)}: give floats "
            "[B, D], as many rows of each."
        )
    return torch.linalg.vector_norm(x - y, dim=1)


def triplet_softmax(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """2 sigmoid(d+ - d-)^2, the mean over triplets: the loss of Hoffer & Ailon.

    Embeddings are `[B, D]`, a triplet a row. With (s+, s-) the softmax of (d+, d-) it is
    |(s+, s- - 1)|^2, where s- - 1 = -s+. It lies in (0, 2), is 0.5 where d+ = d-, as in a collapsed
    network, and needs no margin; its slope by d+ - d-, 4 s^2 (1 - s), is steepest at s = 2/3 and
    falls to 0 for triplets that are very wrong, too. Of no triplets it is 0. Raises ValueError as
    `distance` does.
    """
    s = torch.sigmoid(distance(anchor, positive) - distance(anchor, negative))
    return 2 * s.square().sum() / max(1, len(s))


def triplet_hinge(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """max(0, d+ - d- + margin), the mean over the triplets where it is above 0.

    Embeddings are `[B, D]`, a triplet a row; `margin` is in the units of distances, which are plain
    (FaceNet's are squared). The easy triplets, with a loss of 0, would drown the others: torch's
    loss is the mean over all. Where there is none above 0, it is 0, and so is its gradient. Of a
    collapsed network it is the margin. Raises ValueError as `distance` does, and for a margin that
    is not finite and above 0.
    """
    _check_margin(margin)
    losses = relu(distance(anchor, positive) - distance(anchor, negative) + margin)
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def contrastive(x: Tensor, y: Tensor, is_same: Tensor, margin: float) -> Tensor:
    """The loss of a Siamese network, pairs (Hadsell et al. 2006, equation 4): the triplets' rival.

    Pairs are rows of `x` and `y`, `[B, D]`, and `is_same`, bool `[B]`, says which are of one class.
    Those should be in one place, d^2, and the others at least `margin` apart, max(0, margin - d)^2:
    the mean over the ones plus the mean over the others, so that it does not matter how many there
    are of each; a kind of which there is none adds 0. (The paper weighs each pair by 1/2, and does
    not say how many there are.) Raises ValueError as `triplet_hinge` does, and for `is_same` that
    is not bool `[B]`.
    """
    _check_margin(margin)
    d = distance(x, y)
    if is_same.dtype != torch.bool or is_same.shape != d.shape:
        raise ValueError(f"is_same is {is_same.dtype} {list(is_same.shape)}: bool {list(d.shape)}.")
    near = (d.square() * is_same).sum() / is_same.sum().clamp(min=1)
    far = (relu(margin - d).square() * ~is_same).sum() / (~is_same).sum().clamp(min=1)
    return near + far


def _check_margin(margin: float) -> None:
    if not 0 < margin < math.inf:
        raise ValueError(f"margin={margin}: expected a finite number above 0, such as 0.2.")


# Which triplets


class Triplets(NamedTuple):
    """Places in a batch, int64 [T] each: `network(images)[triplets.anchor]` are embeddings."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


KINDS = ("all", "hard", "semihard")


@torch.no_grad()
def mine(embeddings: Tensor, labels: Tensor, kind: str) -> Triplets:
    """The triplets of a batch: of embeddings float `[N, D]` with whole `labels` `[N]`.

    - "all": each positive of an anchor with each negative, N (K - 1) (N - K) of classes of K;
    - "hard": for each anchor its farthest positive and its nearest negative (batch-hard, Hermans
      et al. 2017, arXiv:1703.07737), at most N;
    - "semihard": for each anchor and positive the nearest negative that is farther than the
      positive (FaceNet, Schroff et al. 2015); a pair without one is left out, where TensorFlow
      takes its farthest negative, so there may be no triplet.

    An image is no positive of itself. One without another of its class is no anchor, and still a
    negative. Of equally far ones the first is taken. There is no margin here: what lies beyond it
    is for `triplet_hinge` to leave out. Raises ValueError for another kind, labels that do not fit,
    embeddings that are not finite, and a batch that holds no triplet: see `class_balanced_batches`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}.")
    is_positive, is_negative = _partners(checked(embeddings, labels))
    anchor, positive = torch.where(is_positive)
    if kind == "all":
        pair, negative = torch.where(is_negative[anchor])
        return Triplets(anchor[pair], positive[pair], negative)
    d = distances(embeddings, embeddings)
    if kind == "hard":
        anchor = anchor.unique()
        farthest = d.where(is_positive, -math.inf).argmax(dim=1)
        nearest = d.where(is_negative, math.inf).argmin(dim=1)
        return Triplets(anchor, farthest[anchor], nearest[anchor])
    is_farther = is_negative[anchor] & (d[anchor] > d[anchor, positive][:, None])  # [pairs, N]
    negative = d[anchor].where(is_farther, math.inf).argmin(dim=1)
    there_is = is_farther.any(dim=1)
    return Triplets(anchor[there_is], positive[there_is], negative[there_is])


@torch.no_grad()
def random_triplets(labels: Tensor, n: int, *, generator: torch.Generator) -> Triplets:
    """`n` triplets of a batch with whole `labels` `[N]`, drawn with replacement.

    The anchor is any image that has another of its class and one of another, its positive any other
    image of its class, its negative any of the other classes, each with the same chance. Raises
    ValueError for a batch that holds no triplet, and n that is no whole number of at least 1.
    """
    n = whole_number("n", n, at_least=1)
    is_positive, is_negative = _partners(whole_labels(labels))

    def draw(may_be: Tensor, times: int) -> Tensor:
        chances = may_be.to(generator.device, torch.float32)
        return chances.multinomial(times, True, generator=generator).to(labels.device)

    anchor = draw(is_positive.any(dim=1), n)
    positive, negative = (draw(of[anchor], 1)[:, 0] for of in (is_positive, is_negative))
    return Triplets(anchor, positive, negative)


def _partners(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whom each image has for positives and for negatives, bool `[N, N]`; ValueError if none do."""
    is_same = labels[:, None] == labels
    is_negative = ~is_same
    is_positive = is_same.fill_diagonal_(False) & is_negative.any(dim=1, keepdim=True)
    if not is_positive.any():
        raise ValueError(
            f"{len(labels)} images of {len(labels.unique())} classes hold no triplet: give two of "
            "a class and one of another, as class_balanced_batches does."
        )
    return is_positive, is_negative


def class_balanced_batches(
    labels: Tensor, *, classes: int, images: int, batches: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Of each batch the places in `labels`: int64 [classes * images], class after class.

        for chosen in class_balanced_batches(labels, classes=8, images=4, batches=100, ...):

    A batch holds `images` different ones of each of `classes` different classes, drawn anew for
    each of `batches`. Every class is dealt out as a shuffled deck, shuffled again where fewer than
    `images` are left: no image comes twice before the rest of its class came once, but for those
    few. `labels` are whole numbers `[N]`. Raises ValueError, when called, for labels that are not,
    numbers below 2 (there would be no positive, or no negative) or above what there is, and no
    whole number of batches of at least 1.
    """
    labels = whole_labels(labels)
    classes = whole_number("classes", classes, at_least=2)
    images = whole_number("images", images, at_least=2)
    batches = whole_number("batches", batches, at_least=1)
    members = [torch.where(labels == label)[0] for label in labels.unique()]
    fewest = min(map(len, members), default=0)
    if classes > len(members) or images > fewest:
        raise ValueError(
            f"A batch of {classes} classes with {images} images each, of {len(members)} classes of "
            f"which one has {fewest} images: ask for fewer."
        )
    return _deal(members, classes, images, batches, generator)


def _deal(
    members: list[Tensor], classes: int, images: int, batches: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """The batches: `members` holds the places of each class's images."""

    def order(n: int) -> Tensor:
        drawn = torch.randperm(n, generator=generator, device=generator.device)
        return drawn.to(members[0].device)

    decks = [places[:0] for places in members]
    for _ in range(batches):
        parts = []
        for k in order(len(members))[:classes].tolist():
            if len(decks[k]) < images:
                decks[k] = members[k][order(len(members[k]))]
            parts.append(decks[k][:images])
            decks[k] = decks[k][images:]
        yield torch.cat(parts)


# What mining and measures share


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| of all rows of `x` `[N, D]` and `y` `[M, D]`: `[N, M]`, in float32 or more.

    From differences, each pair by itself. By way of products, x.x - 2 x.y + y.y, they come twice as
    fast, but rows 50 long may be .04 from themselves in float32: what is near would be ranked by
    rounding, and what is equally far not be seen to be.
    """
    x, y = (rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (x, y))
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def checked(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The labels in int64; ValueError unless there is one an embedding, and these are finite."""
    labels = one_label_a_row(embeddings, labels)
    if not embeddings.is_floating_point() or not embeddings.isfinite().all():
        raise ValueError(
            f"Embeddings are {embeddings.dtype} {list(embeddings.shape)}, or some are not finite: "
            "give floats [N, D], and look at the training they come from."
        )
    return labels
