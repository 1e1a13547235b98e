"""Handwritten digits on photographs: the data set that needs no download.

The recipe is MNIST-M's (Ganin & Lempitsky 2015, "Unsupervised Domain Adaptation by
Backpropagation", section 4.1): every channel is |photo - digit|, so that neither colour nor
brightness tells stroke from background. Here the digits are scikit-learn's 1,797 (8x8, from the
UCI optical recognition set), enlarged and jittered, and the photographs its two samples.

Train and test share neither a digit nor a pixel of a photograph. The same seed gives the same
bytes everywhere: the random streams are numpy's frozen `RandomState`, the arithmetic is float64,
and the strokes are rounded once.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits, load_sample_image

CLASSES = tuple("0123456789")
SIZE = 32  # pixels, height and width of an image
TEST_DIGITS_PER_CLASS = 60  # of about 180; the rest are train digits
COLUMNS = {"train": (0, 400), "test": (400, 640)}  # of each photograph, 427 x 640
PHOTOS = ("china.jpg", "flower.jpg")
MAX_DEGREES, MAX_SHIFT = 15.0, 3.0  # shift in pixels
MIN_SCALE, MAX_SCALE = 0.75, 1.05  # 1: the digit's 8x8 frame fills the image


class Recipe(NamedTuple):
    """What each of `n` images is made of; every field has shape [n]."""

    labels: np.ndarray  # int64, 0..9
    digits: np.ndarray  # which of scikit-learn's 1,797 digits
    degrees: np.ndarray
    scales: np.ndarray
    shifts_y: np.ndarray
    shifts_x: np.ndarray
    photos: np.ndarray  # which of PHOTOS
    tops: np.ndarray  # the crop's upper left corner in the photograph
    lefts: np.ndarray


def make(n: int, part: str, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`n` images (uint8 [n, 3, 32, 32]) and labels (int64 [n]) of `part`, "train" or "test".

    Each block of ten holds every class once, in random order. Fewer images with the same seed
    are the first of more. `seed` is 0 to 2**32 - 1.
    """
    recipe = draw(n, part, seed=seed)
    chunks = [render(Recipe(*(field[i : i + 500] for field in recipe))) for i in range(0, n, 500)]
    return np.concatenate(chunks), recipe.labels


@functools.cache
def digit_pools(part: str) -> tuple[np.ndarray, ...]:
    """For each class, the indices (into scikit-learn's 1,797) of the digits of `part`."""
    labels = load_digits().target
    random = np.random.RandomState(0)  # one split for all seeds
    shuffled = [random.permutation(np.flatnonzero(labels == label)) for label in range(10)]
    split = TEST_DIGITS_PER_CLASS
    return tuple(pool[:split] if part == "test" else pool[split:] for pool in shuffled)


def draw(n: int, part: str, *, seed: int) -> Recipe:
    """Draw what `n` images are made of: one row of random numbers per image, in order."""
    random = np.random.RandomState([seed, list(COLUMNS).index(part)])
    pools = [random.permutation(pool) for pool in digit_pools(part)]
    blocks = -(-n // 10)
    u = random.random_sample((blocks, 10, 8))  # [blocks, image in block, quantity]
    labels = u[:, :, 0].argsort(axis=1).reshape(-1)[:n]  # a random order of 0..9 in each block
    u = u.reshape(-1, 8)[:n]
    block = np.arange(n) // 10
    first, end = COLUMNS[part]
    return Recipe(
        labels=labels.astype(np.int64),
        # Each class walks through its shuffled pool, so all digits are used equally often.
        digits=np.array([pools[c][b % len(pools[c])] for c, b in zip(labels, block, strict=True)]),
        degrees=MAX_DEGREES * (2 * u[:, 1] - 1),
        scales=MIN_SCALE + (MAX_SCALE - MIN_SCALE) * u[:, 2],
        shifts_y=MAX_SHIFT * (2 * u[:, 3] - 1),
        shifts_x=MAX_SHIFT * (2 * u[:, 4] - 1),
        photos=(u[:, 5] * len(PHOTOS)).astype(np.int64),
        tops=(u[:, 6] * (_photographs().shape[1] - SIZE + 1)).astype(np.int64),
        lefts=first + (u[:, 7] * (end - first - SIZE + 1)).astype(np.int64),
    )


def render(recipe: Recipe) -> np.ndarray:
    """The images of a recipe, uint8 [n, 3, 32, 32]."""
    strokes = _strokes(recipe)[:, None].astype(np.int16)  # [n, 1, 32, 32]
    window = np.arange(SIZE)
    crops = _photographs()[
        recipe.photos[:, None, None],
        recipe.tops[:, None, None] + window[:, None],
        recipe.lefts[:, None, None] + window,
    ].transpose(0, 3, 1, 2)  # [n, 3, 32, 32]
    return np.abs(crops - strokes).astype(np.uint8)


def _strokes(recipe: Recipe) -> np.ndarray:
    """The enlarged, rotated, scaled and shifted digits, uint8 [n, 32, 32], 255 on the stroke."""
    radians = np.deg2rad(recipe.degrees)
    # Sine and cosine differ in the last bit between processors; a rounded one does not.
    cos, sin = (f(radians).round(9)[:, None, None] for f in (np.cos, np.sin))
    digits_8x8 = _digits_8x8()
    old_size = digits_8x8.shape[1]
    centred = np.arange(SIZE) + 0.5 - SIZE / 2
    y = centred[:, None] - recipe.shifts_y[:, None, None]  # [n, 32, 1]
    x = centred - recipe.shifts_x[:, None, None]  # [n, 1, 32]
    zoom = (SIZE / old_size) * recipe.scales[:, None, None]
    middle = (old_size - 1) / 2
    old_y = (cos * y - sin * x) / zoom + middle  # [n, 32, 32]
    old_x = (sin * y + cos * x) / zoom + middle
    # All digits stand in one column, each in a black frame: coordinates clipped to the frame fade
    # to black, and two-dimensional interpolation is 2.5 times as fast as three-dimensional.
    framed = np.pad(digits_8x8[recipe.digits], [(0, 0), (1, 1), (1, 1)])  # [n, 10, 10]
    start = old_size + 2
    old_y = np.clip(old_y + 1, 0, old_size + 1) + start * np.arange(len(y))[:, None, None]
    old_x = np.clip(old_x + 1, 0, old_size + 1)
    column = framed.reshape(-1, start)  # [n * 10, 10]
    strokes = map_coordinates(column, [old_y, old_x], order=1, mode="nearest")
    return strokes.round().astype(np.uint8)


@functools.cache
def _digits_8x8() -> np.ndarray:
    """Float64 [1797, 8, 8] in 0..255; whole numbers, or flat areas of 127.5 would round by luck."""
    return (load_digits().images * (255 / 16)).round()


@functools.cache
def _photographs() -> np.ndarray:
    return np.stack([load_sample_image(name) for name in PHOTOS]).astype(np.int16)
