"""Deep double descent: where a bigger model, or more data, makes the test error worse.

Nakkiran et al., "Deep Double Descent", ICLR 2020, arXiv:1912.02292. What is exact here comes from
Hastie et al., "Surprises in High-Dimensional Ridgeless Least Squares", 2019, arXiv:1903.08560,
Belkin, Hsu, Xu, "Two Models of Double Descent for Weak Features", 2019, arXiv:1903.07571, and
Nakkiran et al., "Optimal Regularization Can Mitigate Double Descent", ICLR 2021, arXiv:2003.01897.
Read downwards: the fit with the least norm, what it costs in expectation, features that are left
out, several training sets, the simulation that all of this is held against, ridge and bagging,
random features of images (Belkin et al., PNAS 2019, arXiv:1812.11118), and networks that learn
wrong labels. n is the number of examples, p that of features; a problem is isotropic: rows of X are
standard normal, y = X b + noise of variance s2, and r2 = |b|^2. Differences from the papers: risks
are those of finite n (from the mean of an inverse Wishart matrix) with their limits beside them; of
labels an exact share is wrong, where a coin is thrown for each; training keeps one learning rate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, normalize

from mini.data import Batches, Dataset, Split, flip_labels
from mini.data.batches import checked, whole_labels, whole_number
from mini.training import accuracy
from mini.training.precision import device_of, forward_in

Fit = Callable[[Tensor, Tensor], Tensor]  # X [n, p] and y [n] or [n, k] to b [p] or [p, k]
CUTOFF = 1e-10  # between what rounding leaves of a zero, 1e-15, and what p = n has, above 1e-7


def min_norm(X: Tensor, y: Tensor, *, cutoff: float = CUTOFF) -> Tensor:
    """pinv(X) y: of all b that fit best, |X b - y| smallest, the one with the least |b|.

    `X` is float64 [n, p], `y` float64 [n], or [n, k] for k problems at once; b is [p] or [p, k]. In
    directions whose singular value is at most `cutoff` times the largest, b is 0: a number that is
    large is a ridge in disguise at p = n, where the smallest one decides, and one below rounding
    divides by rounding wherever rows repeat. Raises ValueError for other shapes and types (float32
    is such a ridge too), and a cutoff outside of [0, 1).
    """
    if not 0 <= cutoff < 1:
        raise ValueError(f"cutoff={cutoff}: expected a share of the largest singular value, < 1.")
    return _solve(X, y, lambda s: torch.where(s > cutoff * s[0], 1 / s, 0.0))


def _solve(X: Tensor, y: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """V gain(S) U^T y with X = U S V^T: what a linear method makes of each singular value."""
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y) or not X.numel():
        raise ValueError(
            f"X is {list(X.shape)} and y {list(y.shape)}: give [n, p], and [n] or [n, k] with as "
            "many rows, at least one."
        )
    if {X.dtype, y.dtype} != {torch.float64}:
        raise ValueError(f"X is {X.dtype} and y {y.dtype}: give float64, rounding counts here.")
    if X.shape[1] > len(X):  # X = R^T Q^T, and b is Q times the solution for the small R^T
        Q, R = torch.linalg.qr(X.mT)
        return Q @ _solve(R.mT, y, gain)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    columns = y if y.ndim == 2 else y[:, None]
    b = Vh.mT @ (gain(S)[:, None] * (U.mT @ columns))
    return b if y.ndim == 2 else b[:, 0]


# What it costs, in expectation over X and noise


def noise_factor(p: int, n: int) -> float:
    """E tr (X^T X)^+ of standard normal X [n, p]: how much of s2 the fit turns into error.

    p / (n - p - 1) below n, n / (p - n - 1) above (the mean of an inverse Wishart matrix), infinite
    where p and n differ by at most 1. Raises ValueError unless both are whole and at least 1.
    """
    p, n = whole_number("p", p, at_least=1), whole_number("n", n, at_least=1)
    return min(p, n) / (abs(p - n) - 1) if abs(p - n) > 1 else math.inf


def excess_risk(p: int, n: int, *, r2: float, s2: float) -> float:
    """E |b_hat - b|^2 of `min_norm`, in units of y^2, at finite n (limit: Hastie et al., thm. 1).

    s2 p / (n - p - 1) for p < n - 1; r2 (1 - n / p) + s2 n / (p - n - 1) for p > n + 1. Between
    them it is infinite, but without noise, where the first term is all there is. A test error is
    s2 more. Raises ValueError for negative r2 or s2, or numbers p and n that are not whole.
    """
    _not_negative(r2=r2, s2=s2)
    variance = noise_factor(p, n)
    bias = r2 * max(0.0, 1 - n / p)
    return bias + s2 * variance if s2 else bias


def asymptotic_risk(ratio: float, *, r2: float, s2: float) -> float:
    """The limit of `excess_risk` for large n with p / n = `ratio` (Hastie et al., theorem 1).

    s2 g / (1 - g) for g < 1, r2 (1 - 1 / g) + s2 / (g - 1) for g > 1, with g the ratio. Raises
    ValueError for a ratio that is not above 0, and for negative r2 or s2.
    """
    _not_negative(r2=r2, s2=s2)
    if not 0 < ratio < math.inf:
        raise ValueError(f"ratio={ratio}: expected p / n, a finite number above 0.")
    bias = r2 * max(0.0, 1 - 1 / ratio)
    if not s2:
        return bias
    return bias + (s2 * min(ratio, 1) / abs(ratio - 1) if ratio != 1 else math.inf)


def weak_features_risk(p: int, n: int, *, inside: float, outside: float, s2: float) -> float:
    """Mean squared test error with p of D features (Belkin, Hsu, Xu).

    `inside` is |b|^2 of the features that are used, `outside` that of the others, which acts as
    noise: (outside + s2) (1 + p / (n - p - 1)) for p < n - 1, and for p > n + 1
    inside (1 - n / p) + (outside + s2) (1 + n / (p - n - 1)). So it peaks at p = n without noise.
    Raises ValueError as `excess_risk` does.
    """
    _not_negative(inside=inside, outside=outside, s2=s2)
    noise = outside + s2
    return excess_risk(p, n, r2=inside, s2=noise) + noise


def ensemble_risk(p: int, n: int, members: int, *, r2: float, s2: float) -> float:
    """E |b_hat - b|^2 where b_hat is the mean of `members` fits to independent sets of n.

    Bias squared plus variance / members: r2 (1 - n / p)^2 for p > n, else 0, plus
    (r2 (n / p) (1 - n / p) + s2 noise_factor) / members. With one member it is `excess_risk`: its
    r2 (1 - n / p) holds a part that is due to which X was drawn, which a mean takes away.
    Raises ValueError as `excess_risk` does.
    """
    members = whole_number("members", members, at_least=1)
    alone = excess_risk(p, n, r2=r2, s2=s2)
    bias = r2 * max(0.0, 1 - n / p) ** 2
    return bias + (alone - bias) / members


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}: expected a finite number >= 0, a squared length.")


# The same by simulation


def simulate(
    p: int,
    n: int,
    *,
    b: Tensor,
    s2: float,
    draws: int,
    generator: torch.Generator,
    fit: Fit = min_norm,
    members: int = 1,
) -> Tensor:
    """|b_hat - b|^2 of each of `draws` isotropic problems, float64 [draws]: a test error less s2.

    `b` is float64 [D], D >= p: `fit` sees the first p of D features, and estimates 0 for the
    others. b_hat is the mean over `members` independent training sets of n. Near p = n its mean
    over draws is infinite or nearly so: look at the median there. Draws of `excess_risk` where
    D = p; of `weak_features_risk`, less s2, where D > p. Raises ValueError for p > D, and what is
    not whole.
    """
    numbers = {"p": p, "n": n, "draws": draws, "members": members}
    p, n, draws, members = (whole_number(k, v, at_least=1) for k, v in numbers.items())
    _not_negative(s2=s2)
    if b.ndim != 1 or b.dtype != torch.float64 or p > len(b):
        raise ValueError(f"b is {b.dtype} {list(b.shape)}: give float64 [D], of D >= p={p}.")

    def estimate() -> Tensor:
        X = torch.randn(n, len(b), generator=generator, dtype=b.dtype)
        noise = math.sqrt(s2) * torch.randn(n, generator=generator, dtype=b.dtype)
        return fit(X[:, :p], X @ b + noise)

    risks = []
    for _ in range(draws):
        b_hat = sum(estimate() for _ in range(members)) / members
        risks.append((b_hat - b[:p]).square().sum() + b[p:].square().sum())
    return torch.stack(risks)


# What flattens the peak


def ridge(X: Tensor, y: Tensor, penalty: float) -> Tensor:
    """The b with the least |X b - y|^2 + penalty |b|^2: sums over examples, not means.

    Shapes as in `min_norm`, to which it tends as the penalty falls to 0. A singular value s is
    turned into s / (s^2 + penalty), which never exceeds 1 / (2 sqrt(penalty)). Raises ValueError
    as `min_norm` does, and for a penalty that is not above 0.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty={penalty}: expected a finite number above 0; for 0, min_norm.")
    return _solve(X, y, lambda s: s / (s.square() + penalty))


def optimal_penalty(p: int, *, r2: float, s2: float) -> float:
    """p s2 / r2, with which `ridge` has the least mean risk of all (Nakkiran et al. 2021).

    For isotropic problems whose b has a random direction: it is the mean of b given X and y where
    b is normal. Raises ValueError unless p is whole, and r2 and s2 are above 0.
    """
    if not (0 < r2 < math.inf and 0 < s2 < math.inf):
        raise ValueError(f"r2={r2}, s2={s2}: expected finite numbers above 0.")
    return whole_number("p", p, at_least=1) * s2 / r2


def bagged(
    X: Tensor, y: Tensor, members: int, *, generator: torch.Generator, fit: Fit = min_norm
) -> Tensor:
    """The mean of `fit` over `members` bootstrap samples of one training set (Breiman 1996).

    A sample is n rows drawn with replacement, about .632 n different ones: each member has its own
    peak near p = .632 n. Shapes as in `min_norm`. Raises ValueError as `fit` does, and unless
    members is a whole number of at least 1.
    """
    members, total = whole_number("members", members, at_least=1), 0.0
    for _ in range(members):
        rows = torch.randint(len(X), (len(X),), generator=generator)
        total = total + fit(X[rows], y[rows])
    return total / members


# Random features of images


def random_features(
    images: Sequence[Tensor], n: int, *, generator: torch.Generator
) -> list[Tensor]:
    """relu(W v) of each image, one W for all sets: float64 [N, n] for each set in `images`.

        train, test = random_features((data.train.images, data.test.images), 1000, generator=g)

    The sets are uint8 [N, C, H, W]. v is an image less the mean colour of the first set, which is
    to be the training set, averaged over a grid of 8 x 8 and scaled to unit length: 64 C numbers,
    192 of colour images. W is standard normal [n, 64 C], drawn once. The first p columns are p
    features: a sweep over widths draws once, and takes X[:, :p]. Raises ValueError for one tensor
    instead of a sequence of sets, other images, and n that is not whole or below 1.
    """
    n = whole_number("n", n, at_least=1)
    if isinstance(images, Tensor) or not images:
        raise ValueError("Give the sets together, such as (train.images, test.images): one W.")
    checks = [checked(Split(each, torch.zeros(len(each)).long())).images for each in images]
    colour = checks[0].double().mean(dim=(0, 2, 3), keepdim=True) / 255
    W = torch.randn(n, 64 * colour.numel(), generator=generator, dtype=torch.float64)
    sets = []
    for each in checks:
        v = adaptive_avg_pool2d(each.double() / 255 - colour, 8).flatten(1)
        sets.append((normalize(v, dim=1) @ W.mT).relu())
    return sets


def signs(labels: Tensor) -> Tensor:
    """-1.0 for label 0 and 1.0 for label 1, float64: targets [N] of two classes.

    Raises ValueError for other labels.
    """
    labels = whole_labels(labels)
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError("Labels other than 0 and 1: take two classes with data.select_classes.")
    return 2.0 * labels.double() - 1


class Curve(NamedTuple):
    """What `by_width` finds, each float64 [W], or [W, k] for k columns of targets."""

    train_mse: Tensor  # with the targets that were given, wrong ones too
    test_mse: Tensor
    test_error: Tensor  # share of test images on the wrong side of 0
    norm: Tensor  # |b|


def by_width(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    widths: Sequence[int],
    *,
    fit: Fit = min_norm,
) -> Curve:
    """Fit the first p features to the targets, for each p of `widths`, and test.

    `train` is X [n, P] and y [n], or [n, k] for k versions of the targets, such as several shares
    of wrong ones; `test` is X [m, P] and y [m]. Targets are -1 or 1. Raises ValueError for widths
    outside of 1 to P, and as `fit` does.
    """
    (X, y), (X_test, y_test) = train, test
    rows = []
    truth = y_test if y.ndim == 1 else y_test[:, None]
    for p in widths:
        if not 1 <= whole_number("A width", p, at_least=1) <= X.shape[1]:
            raise ValueError(f"A width of {p}: expected one of 1 to {X.shape[1]} features.")
        b = fit(X[:, :p], y)
        answers = X_test[:, :p] @ b
        row = (
            (X[:, :p] @ b - y).square().mean(0),
            (answers - truth).square().mean(0),
            ((answers > 0) != (truth > 0)).double().mean(0),
            b.norm(dim=0),
        )
        rows.append(row)
    return Curve(*map(torch.stack, zip(*rows, strict=True)))


def median(curves: Sequence[Curve]) -> Curve:
    """Of each measure the median over draws: at p = n their mean is that of the worst draw."""
    return Curve(*(torch.stack(one).quantile(0.5, dim=0) for one in zip(*curves, strict=True)))


# Networks


def with_noise(dataset: Dataset, share: float, *, generator: torch.Generator) -> Dataset:
    """The data set with a `share` of its training labels wrong, once and for all.

    Each of these becomes one of the other classes, uniformly; test and validation stay clean.
    Raises ValueError as `data.flip_labels` does.
    """
    images, labels = dataset.train
    options = {"num_classes": len(dataset.classes), "keep_true": False, "generator": generator}
    return replace(dataset, train=Split(images, flip_labels(labels, share, **options)))


class Epochs(NamedTuple):
    """What `train` measures, a number for each of the epochs `at` which it does."""

    at: list[int]
    train_error: list[float]  # by the labels that are trained on; its 0.1 is the paper's threshold
    validation_error: list[float]  # none without validation images
    test_error: list[float]


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    at: Sequence[int] | None = None,
    lr: float = 1e-3,
    batch_size: int = 128,
    precision: str = "float32",
    generator: torch.Generator | None = None,
) -> Epochs:
    """Adam at one learning rate, with nothing that keeps a network from fitting (appendix B).

    No weight decay, augmentation, smoothing or schedule, each of which can move, flatten or hide
    the peak. `dataset` has its wrong labels already: they are the same in every epoch. After the
    epochs `at` (by default after each) errors are measured, in evaluation mode, on all of `train`,
    `validation` and `test`. Trains in place, on the model's device; `generator` decides the order
    of the images. Raises ValueError for numbers of epochs that are not whole, and `at` outside of
    1 to `epochs`.
    """
    epochs = whole_number("epochs", epochs, at_least=1)
    at = {whole_number("at", e, at_least=1) for e in (range(1, epochs + 1) if at is None else at)}
    if at and max(at) > epochs:
        raise ValueError(f"at has {max(at)}: expected epochs of 1 to {epochs}, which are trained.")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=0.0)
    batches = Batches(
        dataset.train,
        batch_size,
        mean=dataset.mean,
        std=dataset.std,
        generator=generator,
        device=device_of(model),
    )
    found = Epochs([], [], [], [])
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in batches:
            optimizer.zero_grad()
            with forward_in(precision, model):
                loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        if epoch in at:
            found.at.append(epoch)
            found.train_error.append(1 - accuracy(model, dataset, dataset.train))
            found.test_error.append(1 - accuracy(model, dataset, dataset.test))
            if dataset.validation is not None:
                found.validation_error.append(1 - accuracy(model, dataset, dataset.validation))
    return found
