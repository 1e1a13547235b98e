"""mixup, CutMix and Manifold Mixup: train between the examples, in the input or a hidden layer.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412, section 2.
Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899, section 3. Verma et al., "Manifold Mixup", ICML
2019, arXiv:1806.05236, section 2. Read downwards: the mix, what is drawn, mixup, its loss, cutting
instead of mixing, the same in a hidden layer; last what one looks at in a trained network (mixup,
figure 2; Manifold Mixup, section 3.2). Differences from the authors' code: lambda and the
permutation come from one generator, so that a seed decides both (that of mixup draws lambda from an
unseeded one); the loss is cross-entropy throughout, as in the papers (the code of Manifold Mixup
takes binary cross-entropy on the softmax, which is about K times smaller).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import scipy
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, pad

from mini.data.batches import whole_labels


def mix(values: Tensor, lam: float, order: Tensor) -> Tensor:
    """Mix_lambda(a, b) = lambda a + (1 - lambda) b: each row `[B, ...]` with row `order[i]`."""
    return lam * values + (1 - lam) * values[order]


def draw(
    batch_size: int, alpha: float, *, generator: torch.Generator | None = None
) -> tuple[float, Tensor]:
    """One lambda ~ Beta(alpha, alpha) for the batch, and partners: a permutation, int64 `[B]`.

    `alpha` = 0 gives lambda = 1, which is no mixing at all. A row may be its own partner. Raises
    ValueError for an alpha that is negative or not finite.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha={alpha}: expected a finite number >= 0; 0 switches mixing off.")
    device = "cpu" if generator is None else generator.device
    uniform = torch.rand((), dtype=torch.float64, generator=generator, device=device).item()
    # The inverse of the distribution function turns a uniform number into a Beta one.
    lam = float(scipy.special.betaincinv(alpha, alpha, uniform)) if alpha else 1.0
    return lam, torch.randperm(batch_size, generator=generator, device=device)


def partners_of_the_same_label(
    labels: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """A random permutation, int64 `[B]`, that takes each row to one of its label (`labels`: `[B]`).

    All such permutations are equally likely; a row may be its own partner.
    """
    labels = whole_labels(labels)
    order = torch.empty_like(labels)
    device = "cpu" if generator is None else generator.device
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffle = torch.randperm(len(members), generator=generator, device=device)
        order[members] = members[shuffle.to(members.device)]
    return order


def mixup(
    images: Tensor, targets: Tensor, alpha: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, float]:
    """Mix a batch with a shuffled copy of itself: `(images, targets, lambda)` (section 2, eq. 1).

    `images` is float `[B, ...]`, `targets` dense `[B, K]`, such as one-hot rows; both keep their
    shape and are left as they were. One lambda, one permutation, for images and targets alike.
    Raises ValueError for whole numbers, shapes that do not fit, or an alpha out of range.
    """
    _check(images, targets)
    lam, order = draw(len(images), alpha, generator=generator)
    order = order.to(images.device)
    return mix(images, lam, order), mix(targets, lam, order), lam


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_k t_k log softmax(logits)_k, in nats; both are `[B, K]`.

    It is linear in the targets, so that mixing targets and mixing losses are the same. A logit of
    -inf costs nothing where its target is 0. Raises ValueError for unequal shapes, such as integer
    labels `[B]`.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits {list(logits.shape)} and targets {list(targets.shape)} differ in shape: pass "
            "one row of K target probabilities per row of logits."
        )
    log_p = log_softmax(logits, dim=1)
    log_p = log_p.masked_fill((targets == 0) & log_p.isinf(), 0)  # 0 log 0 is 0
    return -(targets * log_p).sum(dim=1).mean()


def box(lam: float, height: int, width: int, middle: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns to paste, 1 - `lam` of the area around `middle` (CutMix, eq. 2).

    `middle` is (row, column), in 0 .. height - 1 and 0 .. width - 1; what would lie beyond the
    image is cut off, and half the box's sides are rounded down to whole pixels, so that the area
    can be less. Raises ValueError for a `lam` outside of 0 to 1, or a middle outside of the image.
    """
    inside = all(0 <= at < length for at, length in zip(middle, (height, width), strict=True))
    if not (0 <= lam <= 1 and inside):
        raise ValueError(
            f"lam={lam}, middle={tuple(middle)} of {height} x {width} pixels: expected a share in "
            "[0, 1], and a pixel of the image."
        )
    side = math.sqrt(1 - lam)  # of the image's
    return tuple(
        slice(max(at - int(side * length / 2), 0), min(at + int(side * length / 2), length))
        for at, length in zip(middle, (height, width), strict=True)
    )


def paste(images: Tensor, order: Tensor, rows: slice, columns: slice) -> tuple[Tensor, float]:
    """Each image `[B, C, H, W]` with `rows` and `columns` of image `order[i]`: `(images, lambda)`.

    lambda is the share of the pixels that an image keeps.
    """
    pasted = images.clone()
    pasted[..., rows, columns] = images[order][..., rows, columns]
    height, width = images.shape[-2:]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, 1 - area / (height * width)


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, float]:
    """Paste a box of a shuffled copy into a batch: `(images, targets, lambda)` (CutMix, eq. 1, 2).

    Shapes and errors are those of `mixup`, but that images are `[B, C, H, W]`. One box for all: its
    area is 1 - lambda of the image, lambda ~ Beta(alpha, alpha), its middle anywhere. The targets
    are mixed by the share of pixels that is left, which is lambda or, at the edges, more.
    """
    _check(images, targets)
    if images.ndim != 4:
        raise ValueError(
            f"The images are {list(images.shape)}: a box is cut out of [B, C, H, W]; for other "
            "shapes there is mixup."
        )
    lam, order = draw(len(images), alpha, generator=generator)
    device, order = order.device, order.to(images.device)
    sizes = images.shape[-2:]
    middle = [int(torch.randint(n, (), generator=generator, device=device)) for n in sizes]
    pasted, lam = paste(images, order, *box(lam, *sizes, middle))
    return pasted, mix(targets, lam, order), lam


def manifold_mixup(
    stages: Sequence[Callable[[Tensor], Tensor]],
    images: Tensor,
    targets: Tensor,
    alpha: float,
    *,
    layers: Sequence[int],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Mix the states before one random stage: `(logits, targets)` (section 2, eq. 1).

    The network is stages[-1](... stages[0](images)). Layer k of `layers` (the set S) means after k
    stages: 0 mixes the images themselves, len(stages) - 1 what the last stage sees. One k, one
    lambda, one permutation a batch. `layers=[0]` is mixup. Raises ValueError as `mixup` does, and
    for layers that are none of 0 .. len(stages) - 1, or no layer at all.
    """
    _check(images, targets)
    layers = sorted(set(layers))
    if not layers or not set(layers) <= set(range(len(stages))):
        raise ValueError(
            f"layers={layers}: expected one or more of 0 to {len(stages) - 1}, the number of "
            "stages that come before the mix; for no mixing pass alpha=0."
        )
    lam, order = draw(len(images), alpha, generator=generator)
    device, order = order.device, order.to(images.device)
    k = layers[torch.randint(len(layers), (), generator=generator, device=device)]
    h = images
    for depth, stage in enumerate(stages):
        if depth == k:
            h, targets = mix(h, lam, order), mix(targets, lam, order)
        h = stage(h)
    return h, targets


class Between(NamedTuple):
    """What `between` finds at a point of each of P segments, each float `[P]`."""

    misses: Tensor  # 1 where the prediction is neither of the two labels, else 0
    model_gradient: Tensor  # Frobenius norm of the Jacobian of the logits, by the pixels
    loss_gradient: Tensor  # Euclidean norm of the gradient of the loss, by the pixels


def between(
    model: nn.Module, images: Tensor, labels: Tensor, partners: Tensor, lam: float
) -> Between:
    """Misses and input gradients at lambda x_i + (1 - lambda) x_j, j = partners[i], each `[P]`.

    For the P pairs whose labels (int64 `[B]`) differ (mixup, figure 2). The loss is cross-entropy
    with the mixed label. A row must not change another's logits: the model should be in evaluation
    mode.
    """
    labels = whole_labels(labels)
    pairs = labels != labels[partners]
    y_i, y_j = labels[pairs], labels[partners][pairs]
    x = mix(images, lam, partners)[pairs].requires_grad_()
    logits = model(x)
    targets = mix(one_hot(labels, logits.shape[1]).to(logits), lam, partners)[pairs]
    loss = soft_cross_entropy(logits, targets) * len(x)  # a sum: each image its own gradient

    def squared(scalar: Tensor) -> Tensor:
        """Squared norm of its gradient by the pixels of each image, `[P]`."""
        (gradient,) = torch.autograd.grad(scalar, x, retain_graph=True)
        return gradient.flatten(1).square().sum(dim=1)

    predicted = logits.argmax(dim=1)
    misses = (predicted != y_i) & (predicted != y_j)
    jacobian = sum(squared(logit) for logit in logits.sum(dim=0))
    return Between(misses.float(), jacobian.sqrt(), squared(loss).sqrt())


def singular_values(hidden: Tensor, labels: Tensor, *, centred: bool = False) -> Tensor:
    """Of each class's hidden states, rows = samples, in falling order: `[K, D]` (section 3.2).

    `hidden` is `[N, D]`, `labels` int64 `[N]`; `centred` takes each class's mean away first. A
    class of n < D samples spans n directions at most: its other values are 0.
    """
    labels, rows = whole_labels(labels), []
    for label in labels.unique():
        states = hidden[labels == label]
        if centred:
            states = states - states.mean(dim=0)
        values = torch.linalg.svdvals(states)
        rows.append(pad(values, (0, states.shape[1] - len(values))))
    return torch.stack(rows)


def _check(images: Tensor, targets: Tensor) -> None:
    if not images.is_floating_point():
        raise ValueError(
            f"The images are {images.dtype}, which cannot hold a mix: pass floating-point ones, "
            "such as images.float() / 255."
        )
    if targets.ndim != 2 or not targets.is_floating_point():
        raise ValueError(
            f"The targets are {targets.dtype} {list(targets.shape)}: pass probabilities [B, K], "
            "such as one_hot(labels, K).float()."
        )
    if len(images) != len(targets) or len(images) == 0:
        raise ValueError(
            f"{len(images)} images and {len(targets)} targets: pass one row of targets an image."
        )
