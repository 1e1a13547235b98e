"""AugMix: a few short random chains of mild operations, mixed with each other and with the image.

Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan, "AugMix: A Simple Data Processing Method to
Improve Robustness and Uncertainty", ICLR 2020, arXiv 1912.02781; algorithm 1 and section 3.

The authors' code goes through Pillow image by image. Here a whole batch of tensors is augmented at
once, every image with its own chains, depths and levels (the operations:
`mini.augmix.operations`). The code gives the original the share 1 - m, the paper m; as Beta(alpha,
alpha) is symmetric, the views are the same. Flip and crop come before, normalising after, as part
of the model.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from mini.augmix.operations import OPERATIONS, operate
from mini.data.batches import numpy_generator, unit_images, whole_number


class Recipe(NamedTuple):
    """What was drawn for B images with k chains each; chain i of image b is number b * k + i."""

    weights: np.ndarray  # [B, k], the paper's w: each row sums to 1
    m: np.ndarray  # [B], the share of the original image
    depths: np.ndarray  # [B*k], how many operations each chain has
    operations: np.ndarray  # [D, B*k], number in OPERATIONS, step by step
    levels: np.ndarray  # [D, B*k], 0.1 to severity; the sign is the direction


def augmix(
    images: Tensor,
    *,
    width: int = 3,
    depth: int | None = None,
    alpha: float = 1.0,
    severity: float = 3,
    without: Collection[str] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """One AugMix view of each image: `m x + (1 - m) sum_i w_i chain_i(x)` (algorithm 1).

    `images` are float [B, 3, H, W] in [0, 1]; so is the result. Each image has `width` chains of
    `depth` operations (default: 1, 2 or 3, drawn for each chain), its own weights
    w ~ Dirichlet(alpha, ..., alpha) and m ~ Beta(alpha, alpha). `severity`, 0.1 to 10, is the
    largest level of an operation, and not the severity of a corruption; of OPERATIONS, those whose
    names are in `without` are left out. Raises ValueError for other images or values.
    """
    unit_images(images)
    return mix(images, draw(len(images), width, depth, alpha, severity, generator, without))


def draw(
    n: int,
    width: int = 3,
    depth: int | None = None,
    alpha: float = 1.0,
    severity: float = 3,
    generator: torch.Generator | None = None,
    without: Collection[str] = (),
) -> Recipe:
    """All that is random about the views of `n` images; arguments as those of `augmix`."""
    width = whole_number("width", width, at_least=1)
    if depth is not None:
        depth = whole_number("depth", depth, at_least=1)
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha is {alpha}: give a number above 0; the paper takes 1.")
    if not 0.1 <= severity <= 10:
        raise ValueError(f"severity is {severity}: give 0.1 to 10; the paper takes 3 for CIFAR.")
    if isinstance(without, str) or (unknown := set(without) - set(OPERATIONS)):
        what = without if isinstance(without, str) else ", ".join(sorted(unknown))
        raise ValueError(f"without={what!r}: give a list of names of {', '.join(OPERATIONS)}.")
    if not (kept := [i for i, name in enumerate(OPERATIONS) if name not in without]):
        raise ValueError("without= leaves no operation: leave out fewer.")
    random = numpy_generator(generator)
    depths = random.integers(1, 4, n * width) if depth is None else np.full(n * width, depth)
    steps = (depths.max(initial=1), n * width)
    return Recipe(
        weights=random.dirichlet([alpha] * width, n),
        m=random.beta(alpha, alpha, n),
        depths=depths,
        operations=np.array(kept)[random.integers(len(kept), size=steps)],
        levels=random.uniform(0.1, severity, steps) * random.choice([-1, 1], steps),
    )


def mix(images: Tensor, recipe: Recipe) -> Tensor:
    """The views of `images`, float [B, 3, H, W] in [0, 1], that `recipe` prescribes."""
    w, m = (torch.from_numpy(part).to(images) for part in (recipe.weights, recipe.m))
    chains = (255 * images).round().byte().repeat_interleave(w.shape[1], dim=0)  # [B*k, 3, H, W]
    for step, (operations, levels) in enumerate(zip(recipe.operations, recipe.levels, strict=True)):
        chains = operate(chains, np.where(recipe.depths > step, operations, -1), levels)
    chains = chains.view(*w.shape, images.shape[1:].numel()).to(images)  # [B, k, 3*H*W]
    x_aug = ((w / 255)[:, None] @ chains).view_as(images)
    return torch.lerp(x_aug, images, m.view(-1, 1, 1, 1))  # m x + (1 - m) x_aug


# The objective.


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of the predictions `softmax(logits)`, each [B, K]; a scalar.

    JS(p_1, ..., p_n) = 1/n sum_i KL(p_i || M) with M their mean, in nats, from 0 to ln n (section
    3); a logit of -inf is a probability of 0, and 0 log 0 is 0. Raises ValueError for fewer than
    two tensors, or different shapes.
    """
    shapes = {tuple(one.shape) for one in logits}
    if len(logits) < 2 or len(shapes) > 1 or logits[0].ndim != 2:
        raise ValueError(
            f"Got logits of the shapes {[list(one.shape) for one in logits]}: give at least two "
            "tensors, all [B, K]."
        )
    log_p = log_softmax(torch.stack(logits), dim=2)  # [n, B, K]
    log_p = log_p.clamp(min=torch.finfo(log_p.dtype).min)  # 0 times the lowest number is 0
    log_m = log_p.logsumexp(dim=0) - math.log(len(logits))
    return (log_p.exp() * (log_p - log_m)).sum(dim=2).mean()


def objective(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: float = 12.0,
    views: int = 2,
    **options,
) -> Tensor:
    """Cross-entropy of the clean images plus `weight` times the divergence of all (section 3).

    `images` are [B, 3, H, W] in [0, 1]: the model normalises them itself. All 1 + `views` versions
    go through it as one batch; `options` are those of `augmix`.
    """
    versions = [images, *(augmix(images, **options) for _ in range(views))]
    logits = model(torch.cat(versions)).chunk(1 + views)
    return cross_entropy(logits[0], labels) + weight * jensen_shannon(*logits)
