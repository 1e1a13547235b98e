"""AutoAugment: the augmentation is a policy, which is searched; RandAugment: it need not be.

Cubuk, Zoph, Mane, Vasudevan, Le, "AutoAugment: Learning Augmentation Strategies from Data", CVPR
2019, arXiv 1805.09501. Cubuk, Zoph, Shlens, Le, "RandAugment: Practical automated data augmentation
with a reduced search space", CVPR workshops 2020, arXiv 1909.13719. Müller and Hutter,
"TrivialAugment", ICCV 2021, arXiv 2103.10158.

Read downwards: the space, the policy that was found for CIFAR-10, what is drawn for each image, how
it is carried out, RandAugment and TrivialAugment, the search. Strengths are those of torchvision at
32x32, but for one: solarize at level 0 leaves white alone. Images are uint8 batches
(`mini.data.operations`), each with operations and directions of its own. Flip and crop are the
caller's, before or, as in the released code, after; normalising comes after.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mini.data import operations as pixels
from mini.data.batches import numpy_generator, whole_number

# The space (AutoAugment, section 3).


class Range(NamedTuple):
    """What an operation's strength runs through, from level 0, which changes nothing, to the top.

    In degrees, slopes, bits, grey levels, factors; shifts and cutout in shares of the image's side.
    """

    still: float
    top: float
    signed: bool = False  # whether a direction is drawn: up or down from `still`


OPERATIONS: dict[str, Range | None] = {  # the paper's order; None: there is nothing to grade
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 150 / 331, signed=True),
    "translate_y": Range(0, 150 / 331, signed=True),
    "rotate": Range(0, 30, signed=True),
    "autocontrast": None,
    "invert": None,
    "equalize": None,
    "solarize": Range(256, 0),
    "posterize": Range(8, 4),
    "contrast": Range(1, 1.9, signed=True),
    "color": Range(1, 1.9, signed=True),
    "brightness": Range(1, 1.9, signed=True),
    "sharpness": Range(1, 1.9, signed=True),
    "cutout": Range(0, 60 / 331),
}
NAMES = tuple(OPERATIONS)
TYPES = (*NAMES, "sample_pairing")  # the 16th is in the space, but is not to be had here
PROBABILITIES, LEVELS = 11, 10  # 0, 0.1 .. 1, and 0 .. 9
SIZES = (len(TYPES), PROBABILITIES, LEVELS)  # how many values each token of an operation has


def space_size(subpolicies: int = 5) -> int:
    """How many policies of so many sub-policies there are: 1760^10, 2.9e32, for five."""
    return math.prod(SIZES) ** (2 * subpolicies)


class Operation(NamedTuple):
    name: str  # one of TYPES
    probability: float  # 0 to 1
    level: int  # the strength, 0 to 9; where there is nothing to grade it does nothing


Policy = tuple[tuple[Operation, Operation], ...]  # sub-policies, of which each image gets one

# The policy that was found on reduced CIFAR-10; torchvision's table is the same.
CIFAR10_POLICY: Policy = (
    (Operation("invert", 0.1, 7), Operation("contrast", 0.2, 6)),
    (Operation("rotate", 0.7, 2), Operation("translate_x", 0.3, 9)),
    (Operation("sharpness", 0.8, 1), Operation("sharpness", 0.9, 3)),
    (Operation("shear_y", 0.5, 8), Operation("translate_y", 0.7, 9)),
    (Operation("autocontrast", 0.5, 8), Operation("equalize", 0.9, 2)),
    (Operation("shear_y", 0.2, 7), Operation("posterize", 0.3, 7)),
    (Operation("color", 0.4, 3), Operation("brightness", 0.6, 7)),
    (Operation("sharpness", 0.3, 9), Operation("brightness", 0.7, 9)),
    (Operation("equalize", 0.6, 5), Operation("equalize", 0.5, 1)),
    (Operation("contrast", 0.6, 7), Operation("sharpness", 0.6, 5)),
    (Operation("color", 0.7, 7), Operation("translate_x", 0.5, 8)),
    (Operation("equalize", 0.3, 7), Operation("autocontrast", 0.4, 8)),
    (Operation("translate_y", 0.4, 3), Operation("sharpness", 0.2, 6)),
    (Operation("brightness", 0.9, 6), Operation("color", 0.2, 8)),
    (Operation("solarize", 0.5, 2), Operation("invert", 0.0, 3)),
    (Operation("equalize", 0.2, 0), Operation("autocontrast", 0.6, 0)),
    (Operation("equalize", 0.2, 8), Operation("equalize", 0.6, 4)),
    (Operation("color", 0.9, 9), Operation("equalize", 0.6, 6)),
    (Operation("autocontrast", 0.8, 4), Operation("solarize", 0.2, 8)),
    (Operation("brightness", 0.1, 3), Operation("color", 0.7, 0)),
    (Operation("solarize", 0.4, 5), Operation("autocontrast", 0.9, 3)),
    (Operation("translate_y", 0.9, 9), Operation("translate_y", 0.7, 9)),
    (Operation("autocontrast", 0.9, 2), Operation("solarize", 0.8, 3)),
    (Operation("equalize", 0.8, 8), Operation("invert", 0.1, 3)),
    (Operation("translate_y", 0.7, 9), Operation("autocontrast", 0.9, 1)),
)


def checked(policy: Policy) -> Policy:
    """`policy`; raises ValueError unless it is one or more pairs of operations of the space."""
    if not policy or any(len(pair) != 2 for pair in policy):
        raise ValueError("A policy is one or more sub-policies of two operations each: give pairs.")
    for name, probability, level in (operation for pair in policy for operation in pair):
        if name not in TYPES:
            raise ValueError(f"There is no operation {name!r}: give one of {', '.join(TYPES)}.")
        if not 0 <= probability <= 1:
            raise ValueError(f"The probability of {name} is {probability}: give 0 to 1.")
        if whole_number(f"The level of {name}", level, at_least=0) >= LEVELS:
            raise ValueError(f"The level of {name} is {level}: give 0 to {LEVELS - 1}.")
    return policy


# What is drawn, and how it is carried out.


def strengths(
    name: str,
    share: np.ndarray,
    sign: np.ndarray,
    size: tuple[int, int],
    ranges: Mapping[str, Range | None] = OPERATIONS,
) -> np.ndarray:
    """What `share` [N] of the range of operation `name` is in its unit, in direction `sign` [N].

    `sign` is -1 or 1, `size` the images' height and width in pixels. At `share` 0 a graded
    operation changes nothing; above 1 factors and thresholds end at 0 and bits at 1. Shifts and
    cutout are cut off to whole pixels, bits are rounded.
    """
    if (limits := ranges[name]) is None:
        return np.zeros(len(share))
    if name == "solarize":  # values from 255 (1 - share) up, which would be white at share 0
        threshold = np.ceil(np.round(255 * (1 - share), 6)).clip(min=0)
        return np.where(share > 0, threshold, limits.still)
    change = share * (limits.top - limits.still)
    strength = limits.still + (sign * change if limits.signed else change)
    if name == "posterize":
        return np.round(strength).clip(min=1)
    if name in ("translate_x", "translate_y", "cutout"):
        side = {"translate_x": size[1], "translate_y": size[0]}.get(name, min(size))
        return np.trunc(np.round(strength * side, 6))
    is_factor = limits.still == 1
    return strength.clip(min=0) if is_factor else strength


class Recipe(NamedTuple):
    """What was drawn for N images: D operations each, one after the other."""

    operations: np.ndarray  # [D, N], number in OPERATIONS; -1: none
    strengths: np.ndarray  # [D, N], in the unit of `mini.data.operations`
    centres: np.ndarray  # [D, N, 2], row and column of the middle of a cutout


def operate(images: Tensor, recipe: Recipe, *, interpolation: str = "nearest") -> Tensor:
    """Carry out `recipe` on `images`, uint8 [N, 3, H, W], as is the result.

    Rotated and sheared pixels are the "nearest" ones or "bilinear". Raises ValueError for other
    images, another number of them, or another interpolation.
    """
    _size(images)
    pixels.is_nearest(interpolation)
    if len(images) != recipe.operations.shape[1]:
        raise ValueError(
            f"The recipe is for {recipe.operations.shape[1]} images, and there are {len(images)}: "
            "draw one for as many."
        )
    for operations, *rest in zip(*recipe, strict=True):
        strength, centres = (torch.from_numpy(part) for part in rest)
        run = partial(_run, strength=strength, centres=centres, interpolation=interpolation)
        images = pixels.each(images, operations, run)
    return images


def draw(
    n: int,
    policy: Policy,
    size: tuple[int, int],
    *,
    generator: torch.Generator | None = None,
) -> Recipe:
    """A sub-policy for each of `n` images, and which of its two operations happen, and how."""
    random = numpy_generator(generator)
    names, probability, level = (
        np.array([[operation[field] for operation in pair] for pair in checked(policy)])
        for field in range(len(Operation._fields))
    )
    if "sample_pairing" in names:
        raise ValueError("sample_pairing needs a second image: give a policy without it.")
    numbers = np.vectorize(NAMES.index)(names)  # [sub-policies, 2]
    chosen = random.integers(len(policy), size=n)
    happens = random.random((2, n)) < probability[chosen].T
    operations = np.where(happens, numbers[chosen].T, -1)
    return _recipe(operations, level[chosen].T / (LEVELS - 1), size, random)


def apply(
    images: Tensor,
    policy: Policy,
    *,
    interpolation: str = "nearest",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each image after a sub-policy of its own, all equally likely (AutoAugment, section 3).

    Its two operations happen one after the other, each with its probability, in a random direction
    where it has one. `images` and the result are uint8 [N, 3, H, W]. Raises ValueError for other
    images, or what is no policy.
    """
    recipe = draw(len(images), policy, _size(images), generator=generator)
    return operate(images, recipe, interpolation=interpolation)


# Without a search.

# RandAugment, section 3; -1 is the identity.
RANDOM = np.array([-1, *(i for i, name in enumerate(NAMES) if name not in ("invert", "cutout"))])
BINS = 31  # strengths of TrivialAugment
WIDE = OPERATIONS | {  # torchvision's; a shift by the whole side is its 32 pixels
    **dict.fromkeys(("shear_x", "shear_y"), Range(0, 0.99, signed=True)),
    **dict.fromkeys(("translate_x", "translate_y"), Range(0, 1, signed=True)),
    "rotate": Range(0, 135, signed=True),
    "posterize": Range(8, 2),
    **dict.fromkeys(("contrast", "color", "brightness", "sharpness"), Range(1, 1.99, signed=True)),
}


def draw_random(
    images: int,
    n: int,
    m: float,
    size: tuple[int, int],
    *,
    generator: torch.Generator | None = None,
) -> Recipe:
    """`n` of RandAugment's 14 operations for each of `images` images, at strength `m`."""
    n = whole_number("n", n, at_least=0)
    if not 0 <= m <= 30:
        raise ValueError(f"m is {m}: give 0 to 30; 10 is the top of AutoAugment's ranges.")
    random = numpy_generator(generator)
    operations = random.choice(RANDOM, (n, images))
    return _recipe(operations, np.full((n, images), m / 10), size, random)


def rand_augment(
    images: Tensor,
    n: int,
    m: float,
    *,
    interpolation: str = "nearest",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each image after `n` operations, drawn evenly and with replacement from 14, at strength `m`.

    RandAugment, section 3. `m` is the paper's, in which 10 is the top of AutoAugment's ranges: it
    turns by 3 m degrees, shears by 0.03 m, shifts by 0.0453 m of the side (1.45 m pixels of 32, cut
    off), blends by 1 - 0.09 m or 1 + 0.09 m, keeps 8 - 0.4 m bits, rounded, and inverts from
    255 - 25.5 m up. So m = 9 is 27 degrees, as in timm; the m of torchvision, where 9 is 9 degrees,
    is three times as large. The paper tries up to 30: beyond 10, geometry goes on, and factors and
    thresholds end at 0 and bits at 1. `images` and the result are uint8 [N, 3, H, W]. Raises
    ValueError for other images or values.
    """
    recipe = draw_random(len(images), n, m, _size(images), generator=generator)
    return operate(images, recipe, interpolation=interpolation)


def draw_trivial(
    images: int, size: tuple[int, int], *, generator: torch.Generator | None = None
) -> Recipe:
    """One of the 14 operations for each of `images` images, at one of 31 strengths."""
    random = numpy_generator(generator)
    operations = random.choice(RANDOM, (1, images))
    share = random.integers(BINS, size=(1, images)) / (BINS - 1)
    return _recipe(operations, share, size, random, WIDE)


def trivial_augment(
    images: Tensor, *, interpolation: str = "nearest", generator: torch.Generator | None = None
) -> Tensor:
    """Each image after one operation of 14 at one of 31 strengths, all equally likely.

    TrivialAugment (Wide): up to 135 degrees, a slope of 0.99, the whole side, factors 0.01 to 1.99,
    2 bits. `images` and the result are uint8 [N, 3, H, W]. Raises ValueError for other images.
    """
    recipe = draw_trivial(len(images), _size(images), generator=generator)
    return operate(images, recipe, interpolation=interpolation)


def _size(images: Tensor) -> tuple[int, int]:
    """Height and width; raises ValueError unless `images` are uint8 [N, 3, H, W]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"The images are {images.dtype} {list(images.shape)}: give uint8 ones [N, 3, H, W], "
            "0 to 255, and normalise them later."
        )
    return tuple(images.shape[2:])


def _recipe(
    operations: np.ndarray,
    share: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
    ranges: Mapping[str, Range | None] = OPERATIONS,
) -> Recipe:
    """The recipe of `operations` [D, N] at `share` [D, N] of `ranges`, in random directions."""
    sign, strength = random.choice([-1, 1], operations.shape), np.zeros(operations.shape)
    for number, name in enumerate(NAMES):
        here = operations == number
        strength[here] = strengths(name, share[here], sign[here], size, ranges)
    return Recipe(operations, strength, random.integers(size, size=(*operations.shape, 2)))


def _run(
    number: int,
    images: Tensor,
    rows: np.ndarray,
    *,
    strength: Tensor,
    centres: Tensor,
    interpolation: str,
) -> Tensor:
    """Operation `number` on uint8 [n, 3, H, W], which are `rows` [n] of those in the recipe."""
    name = NAMES[number]
    operation, strength = getattr(pixels, name), strength[rows]
    if OPERATIONS[name] is None:
        return operation(images)
    if name in ("rotate", "shear_x", "shear_y"):
        return operation(images, strength, interpolation)
    strength = strength.float().to(images.device)
    if name == "cutout":
        return operation(images, strength.int(), centres[rows].to(images.device))
    return operation(images, strength)


# The search (AutoAugment, section 3).


def encode(policy: Policy) -> Tensor:
    """The policy as tokens, int64 [6 S] for S sub-policies: type, probability in tenths, level.

    Five sub-policies are the 30 tokens of the paper's controller. Raises ValueError for what is no
    policy, or a probability between two tenths.
    """
    tokens = []
    for name, probability, level in (one for pair in checked(policy) for one in pair):
        tenths = round((PROBABILITIES - 1) * probability)
        if abs((PROBABILITIES - 1) * probability - tenths) > 1e-9:
            raise ValueError(f"The probability of {name} is {probability}: give whole tenths.")
        tokens += [TYPES.index(name), tenths, level]
    return torch.tensor(tokens)


def decode(tokens: Tensor | Sequence[int]) -> Policy:
    """The policy of `tokens` [6 S], as `encode` gives them; raises ValueError for others."""
    tokens = [int(token) for token in tokens]
    whole = len(tokens) > 0 and len(tokens) % (2 * len(SIZES)) == 0
    if not whole or not all(0 <= t < SIZES[i % 3] for i, t in enumerate(tokens)):
        raise ValueError(
            f"{len(tokens)} tokens {tokens} are no policy: give six for each sub-policy, twice "
            f"a type, a probability and a level, below {', '.join(map(str, SIZES))}."
        )
    triples = [tokens[i : i + 3] for i in range(0, len(tokens), 3)]
    operations = [Operation(TYPES[t], p / (PROBABILITIES - 1), level) for t, p, level in triples]
    return tuple(zip(operations[::2], operations[1::2], strict=True))


def random_policy(generator: torch.Generator | None, subpolicies: int = 5) -> Policy:
    """A policy drawn evenly from the space, without the type that is not to be had."""
    subpolicies = whole_number("subpolicies", subpolicies, at_least=1)
    sizes = (len(NAMES), *SIZES[1:]) * (2 * subpolicies)
    return decode(numpy_generator(generator).integers(sizes))


class Controller:
    """A softmax of its own for each token, learned by REINFORCE (Williams 1992) less a baseline.

    The paper has an LSTM, whose tokens depend on each other, and PPO; its baseline, too, is the
    moving average of rewards, by `decay` 0.95. `sizes` say how many values each token has.
    """

    def __init__(self, sizes: Sequence[int], *, lr: float, decay: float = 0.95):
        self.logits = [torch.zeros(size, dtype=torch.float64) for size in sizes]
        self.lr, self.decay, self.baseline = lr, decay, None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One value for each token, int64 [T]."""
        drawn = [logits.softmax(0).multinomial(1, generator=generator) for logits in self.logits]
        return torch.cat(drawn)

    def gradient(self, tokens: Tensor, reward: float) -> list[Tensor]:
        """Of E[reward] by the logits, estimated from one sample: (reward - b) grad log p(tokens).

        Its mean over samples is exact for every baseline b that does not depend on them.
        """
        advantage = reward - (reward if self.baseline is None else self.baseline)
        pairs = zip(tokens, self.logits, strict=True)
        return [advantage * (one_hot(t, len(row)) - row.softmax(0)) for t, row in pairs]

    def update(self, tokens: Tensor, reward: float) -> None:
        """Climb by one sample; the first reward is only the first baseline."""
        for logits, slope in zip(self.logits, self.gradient(tokens, reward), strict=True):
            logits += self.lr * slope
        before = reward if self.baseline is None else self.baseline
        self.baseline = self.decay * before + (1 - self.decay) * reward
