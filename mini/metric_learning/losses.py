"""Losses of a labelled batch that a fair comparison sets beside the triplets' and the pairs'.

Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020, arXiv:2003.08505, whose
losses are those of pytorch-metric-learning: what is here gives its values and gradients, but where
its exponentials are 0, at low temperatures, and ours go on. Read downwards: the pairs of a batch,
each by itself; its triplets; a positive among all negatives of its anchor; then losses that compare
an image with one vector a class, which is learned beside the network and thrown away after it. Only
`contrastive_of_all` and `triplet_of_all` take embeddings as they are. The others look at cosines:
they scale rows to length 1 themselves, in float32 or more, and a row of zeros is at cosine 0 to
everything. `NormalizedSoftmax` with temperature T, `CosFace` with scale 1 / T and no margin, and
`ProxyNCA` with scale 1 / (2 T) are one loss.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize, one_hot, relu

from mini.data.batches import whole_number
from mini.metric_learning.triplets import _partners, checked, distances


def contrastive_of_all(
    embeddings: Tensor, labels: Tensor, positive_margin: float, negative_margin: float
) -> Tensor:
    """All pairs of a batch: max(0, d - positive_margin), and max(0, negative_margin - d) of others.

    Embeddings are float `[N, D]`, taken as they are, labels whole `[N]`. The mean over the pairs of
    one class where it is above 0, plus the same of the pairs of two; a kind of which there is none
    adds 0. This is the loss that Musgrave et al. call contrastive: distances d are plain, where
    Hadsell et al. 2006 (equation 4; `contrastive` here) square both terms, and positives have a
    margin. A negative `positive_margin` m, as their search chose for one data set, has a value |m|
    above that of 0 and the same gradient, unless two of a class are at distance 0. Raises
    ValueError for labels that do not fit, embeddings that are not finite, and margins that are not
    finite, of which the negative pairs' is above 0 and above the other.
    """
    if not -math.inf < positive_margin < negative_margin < math.inf or negative_margin <= 0:
        raise ValueError(
            f"positive_margin={positive_margin}, negative_margin={negative_margin}: expected "
            "finite numbers, the second above 0 and above the first, such as 0 and 0.5."
        )
    labels = checked(embeddings, labels)
    d = distances(embeddings, embeddings)
    is_same = labels[:, None] == labels
    is_itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    near = relu(d - positive_margin)[is_same & ~is_itself]
    far = relu(negative_margin - d)[~is_same]
    return _mean_above_0(near) + _mean_above_0(far)


def _mean_above_0(losses: Tensor) -> Tensor:
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def triplet_of_all(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """`triplet_hinge` of all triplets of a batch: max(0, d+ - d- + margin), over those above 0.

    Embeddings are float `[N, D]`, taken as they are, labels whole `[N]`. Of `mine(..., "all")` it
    is the same, without three embeddings a triplet: 64 images of three classes hold 56 thousand
    triplets and 4 thousand distances. Raises ValueError for labels that do not fit, embeddings that
    are not finite, a margin that is not finite and above 0, and a batch that holds no triplet.
    """
    _check_above_0("margin", margin)
    is_positive, is_negative = _partners(checked(embeddings, labels))
    d = distances(embeddings, embeddings)
    anchor, positive = torch.where(is_positive)
    apart = d[anchor, positive][:, None] - d[anchor] + margin  # [pairs, N]
    return _mean_above_0(relu(apart)[is_negative[anchor]])


def nt_xent(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """-log(exp(s+ / T) / (exp(s+ / T) + sum of exp(s- / T))): a positive among all negatives.

    Embeddings are float `[N, D]`, labels whole `[N]`, s are cosines, T is `temperature`. The mean
    over all ordered pairs (anchor, positive) of a batch: a class of K images has K (K - 1) of them,
    so that a large one weighs more. The sum is over the images of other classes than the anchor's;
    its other positives are in no sum, where Khosla et al. 2020 (supervised contrastive) have them
    in each. With two views of every image, and the image for a class, it is equation 1 of Chen et
    al. 2020 (SimCLR); without cosines and T the N-pair loss (Sohn 2016). Of a collapsed network
    with K images of each class it is log(1 + N - K). Raises ValueError for labels that do not fit,
    embeddings that are not finite, a temperature that is not finite and above 0, and a batch that
    holds no triplet.
    """
    _check_above_0("temperature", temperature)
    is_positive, is_negative = _partners(checked(embeddings, labels))
    s = cosines(embeddings, embeddings).div(temperature)
    negatives = s.where(is_negative, -math.inf).logsumexp(dim=1)  # [N]
    anchor, positive = torch.where(is_positive)
    return -logsigmoid(s[anchor, positive] - negatives[anchor]).mean()


class NormalizedSoftmax(nn.Module):
    """Classification by cosines: cross-entropy of cos(x, w_k) / T over the classes k.

    NormFace (Wang et al. 2017), and Zhai & Wu 2019, with temperature T = `temperature`; there is no
    bias. `weights` `[K, D]` are drawn from a standard normal by `generator`; only their directions
    count. Called with embeddings float `[N, D]` and whole labels `[N]`, 0 .. K-1, it gives the mean
    over images. Raises ValueError for a temperature that is not finite and above 0, fewer than two
    classes and no dimensions; when called, for embeddings and labels that do not fit.
    """

    def __init__(self, k: int, dim: int, temperature: float, *, generator: torch.Generator):
        super().__init__()
        _check_above_0("temperature", temperature)
        self.temperature = temperature
        self.weights = _one_a_class(k, dim, generator)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = _of_classes(embeddings, labels, self.weights)
        return cross_entropy(cosines(embeddings, self.weights) / self.temperature, labels)


class CosFace(nn.Module):
    """`NormalizedSoftmax` with a margin: the cosine of an image's own class counts `margin` less.

    Equation 4 of Wang et al. 2018: cross-entropy of s (cos(x, w_k) - m [k is the label]), with
    s = `scale` and m = `margin`, both in units of cosines. (ArcFace, Deng et al. 2019, takes its
    margin from the angle.) Without a margin it is `NormalizedSoftmax` with T = 1 / s. Weights, call
    and errors are as there; a margin must be finite and not below 0: one above 2 is more than two
    cosines can differ.
    """

    def __init__(
        self, k: int, dim: int, scale: float, margin: float, *, generator: torch.Generator
    ):
        super().__init__()
        _check_above_0("scale", scale)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin={margin}: expected a finite number, 0 or more, such as 0.35.")
        self.scale, self.margin = scale, margin
        self.weights = _one_a_class(k, dim, generator)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = _of_classes(embeddings, labels, self.weights)
        s = cosines(embeddings, self.weights)
        margins = self.margin * one_hot(labels, len(self.weights)).to(s.dtype)
        return cross_entropy(self.scale * (s - margins), labels)


class ProxyNCA(nn.Module):
    """Neighbours by proxy: cross-entropy of -s d^2 from an image to one proxy p_k a class.

    Movshovitz-Attias et al. 2017 in the variant of pytorch-metric-learning, which Musgrave et al.
    tuned: rows and proxies at length 1, s = `scale`, and the softmax over all proxies. The paper
    has s = 1 and leaves the image's own proxy out of the sum, as Z is of other classes: that is
    log(exp(L) - 1) of an image's loss L here, is below 0 for good ones, and goes on pulling them.
    As d^2 = 2 - 2 cos, this is `NormalizedSoftmax` with T = 1 / (2 s). `proxies` `[K, D]`, call and
    errors are as there.
    """

    def __init__(self, k: int, dim: int, scale: float, *, generator: torch.Generator):
        super().__init__()
        _check_above_0("scale", scale)
        self.scale = scale
        self.proxies = _one_a_class(k, dim, generator)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = _of_classes(embeddings, labels, self.proxies)
        d = distances(*_at_length_1(embeddings, self.proxies))
        return cross_entropy(-self.scale * d.square(), labels)


# What the losses share


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """x_i . y_j / (|x_i| |y_j|) of all rows of `x` `[N, D]` and `y` `[M, D]`: `[N, M]`.

    In float32 or more, 0 where a row is 0.
    """
    x, y = _at_length_1(x, y)
    return x @ y.T


def _at_length_1(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both with rows of length 1, in one type: float32 or more."""
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return normalize(x.to(kind)), normalize(y.to(kind))


def _one_a_class(k: int, dim: int, generator: torch.Generator) -> nn.Parameter:
    shape = whole_number("k", k, at_least=2), whole_number("dim", dim, at_least=1)
    return nn.Parameter(torch.randn(shape, generator=generator, device=generator.device))


def _of_classes(embeddings: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The labels in int64; ValueError unless they and the embeddings fit the weights `[K, D]`."""
    labels = checked(embeddings, labels)
    k, dim = weights.shape
    if embeddings.shape[1] != dim or labels.min() < 0 or labels.max() >= k:
        raise ValueError(
            f"Embeddings {list(embeddings.shape)} with labels from {int(labels.min())} to "
            f"{int(labels.max())}, but the weights are for {dim} numbers and classes 0 to {k - 1}: "
            "number the classes that are trained on from 0."
        )
    return labels


def _check_above_0(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value}: expected a finite number above 0.")
