"""Handwritten digits on photographs, or plain: the data sets that need no download.

The recipe is MNIST-M's (Ganin & Lempitsky 2015, "Unsupervised Domain Adaptation by
Backpropagation", section 4.1): every channel is |photo - digit|, so that no one colour or
brightness is that of every stroke. Here the digits are scikit-learn's 1,797 (8x8, from the
UCI optical recognition set), enlarged and jittered, and the photographs its two samples. Plain
digits are the same strokes, white, on black instead of a photograph.

Train, test and validation share neither a digit nor a pixel of a photograph. The same seed gives
the same bytes everywhere: the random streams are numpy's frozen `RandomState`, the arithmetic is
float64, and the strokes are rounded once.
"""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import grid_sample

CLASSES = tuple("0123456789")
SIZE = 32  # pixels, height and width of an image
PHOTOS = ("china.jpg", "flower.jpg")  # 427 x 640 pixels each
MAX_DEGREES, MAX_SHIFT = 15.0, 3.0  # shift in pixels
MIN_SCALE, MAX_SCALE = 0.75, 1.05  # 1: the digit's 8x8 frame fills the image
CHUNK = 100  # images rendered at once: what is in between fits into a processor's cache


class Part(NamedTuple):
    digits: slice  # of each class's digits (174 to 183), shuffled once for all seeds
    columns: tuple[int, int]  # of each photograph: the first, and the one after the last


PARTS = {  # a part's place here names its random stream: new ones go to the end
    "train": Part(slice(60, None), (0, 400)),
    "test": Part(slice(0, 60), (400, 640)),
    # What `train` is divided into when validation images are asked for:
    "rest": Part(slice(90, None), (0, 300)),
    "validation": Part(slice(60, 90), (300, 400)),
}


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


def make(
    n: int, part: str, *, seed: int = 0, photographs: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """`n` images (uint8 [n, 3, 32, 32]) and labels (int64 [n]) of `part`, one of `PARTS`.

    Each block of ten holds every class once, in random order. Fewer images with the same seed
    are the first of more. Without `photographs` the same digits, in the same poses, are white on
    black. `seed` is 0 to 2**32 - 1.
    """
    recipe = draw(n, part, seed=seed)
    images = np.empty((n, 3, SIZE, SIZE), dtype=np.uint8)
    for start in range(0, n, CHUNK):
        some = slice(start, start + CHUNK)
        images[some] = render(Recipe(*(field[some] for field in recipe)), photographs=photographs)
    return images, recipe.labels


@functools.cache
def digit_pools(part: str) -> tuple[np.ndarray, ...]:
    """For each class, the indices (into scikit-learn's 1,797) of the digits of `part`."""
    _, labels = _scikit_learn_digits()
    random = np.random.RandomState(0)  # one split for all seeds
    shuffled = [random.permutation(np.flatnonzero(labels == label)) for label in range(10)]
    return tuple(pool[PARTS[part].digits] for pool in shuffled)


def draw(n: int, part: str, *, seed: int) -> Recipe:
    """Draw what `n` images are made of: one row of random numbers per image, in order."""
    random = np.random.RandomState([seed, list(PARTS).index(part)])
    pools = [random.permutation(pool) for pool in digit_pools(part)]
    blocks = -(-n // 10)
    u = random.random_sample((blocks, 10, 8))  # [blocks, image in block, quantity]
    labels = u[:, :, 0].argsort(axis=1).reshape(-1)[:n]  # a random order of 0..9 in each block
    u = u.reshape(-1, 8)[:n]
    block = np.arange(n) // 10
    first, end = PARTS[part].columns
    return Recipe(
        labels=labels.astype(np.int64),
        # Each class walks through its shuffled pool, so all digits are used equally often.
        digits=np.array([pools[c][b % len(pools[c])] for c, b in zip(labels, block, strict=True)]),
        degrees=MAX_DEGREES * (2 * u[:, 1] - 1),
        scales=MIN_SCALE + (MAX_SCALE - MIN_SCALE) * u[:, 2],
        shifts_y=MAX_SHIFT * (2 * u[:, 3] - 1),
        shifts_x=MAX_SHIFT * (2 * u[:, 4] - 1),
        photos=(u[:, 5] * len(PHOTOS)).astype(np.int64),
        tops=(u[:, 6] * (_photographs().shape[2] - SIZE + 1)).astype(np.int64),
        lefts=first + (u[:, 7] * (end - first - SIZE + 1)).astype(np.int64),
    )


def render(recipe: Recipe, *, photographs: bool = True) -> np.ndarray:
    """The images of a recipe, uint8 [n, 3, 32, 32]; without `photographs`, white on black."""
    strokes = _strokes(recipe)[:, None]  # [n, 1, 32, 32]
    if not photographs:
        return strokes.repeat(3, axis=1)
    views = np.lib.stride_tricks.sliding_window_view(_photographs(), (SIZE, SIZE), axis=(2, 3))
    crops = views[recipe.photos, :, recipe.tops, recipe.lefts]  # [n, 3, 32, 32]
    return np.maximum(crops, strokes) - np.minimum(crops, strokes)  # |photo - digit| in uint8


def _strokes(recipe: Recipe) -> np.ndarray:
    """The enlarged, rotated, scaled and shifted digits, uint8 [n, 32, 32], 255 on the stroke."""
    radians = np.deg2rad(recipe.degrees)
    # Sine and cosine differ in the last bit between processors; a rounded one does not.
    cos, sin = (f(radians).round(9)[:, None, None] for f in (np.cos, np.sin))
    centred = np.arange(SIZE) + 0.5 - SIZE / 2
    y = centred[:, None] - recipe.shifts_y[:, None, None]  # [n, 32, 1]
    x = centred - recipe.shifts_x[:, None, None]  # [n, 1, 32]
    half = SIZE / 2 * recipe.scales[:, None, None]  # of the digit's frame, in pixels
    # Where each pixel lies in the digit, (x, y), -1 to 1 from one edge of its frame to the other.
    where = np.stack([cos / half * x + sin / half * y, cos / half * y - sin / half * x], axis=-1)
    digits = torch.from_numpy(_digits_8x8()[recipe.digits])[:, None]  # [n, 1, 8, 8]
    # Bilinear, fading to black outside the frame; five times as fast as scipy's map_coordinates.
    strokes = grid_sample(digits, torch.from_numpy(where), align_corners=False)
    return strokes[:, 0].round().byte().numpy()


def sources() -> dict[str, np.ndarray]:
    """All that the images are made from: the digits, their labels, and the photographs."""
    images, labels = _scikit_learn_digits()
    return {"images": images, "labels": labels, "photographs": _photographs()}


@functools.cache
def _digits_8x8() -> np.ndarray:
    """Float64 [1797, 8, 8] in 0..255; whole numbers, or flat areas of 127.5 would round by luck."""
    return (_scikit_learn_digits()[0] * (255 / 16)).round()


@functools.cache
def _photographs() -> np.ndarray:
    """Uint8 [2, 3, 427, 640]."""
    photos = [np.asarray(Image.open(_scikit_learn_file("images", name))) for name in PHOTOS]
    return np.ascontiguousarray(np.stack(photos).transpose(0, 3, 1, 2))


@functools.cache
def _scikit_learn_digits() -> tuple[np.ndarray, np.ndarray]:
    """What its `load_digits` gives: images, float64 [1797, 8, 8] in 0..16, and labels [1797]."""
    table = np.loadtxt(_scikit_learn_file("data", "digits.csv.gz"), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _scikit_learn_file(folder: str, name: str) -> Path:
    """A file of scikit-learn's, found without importing it: that would take longer than the rest.

    Raises ValueError, naming the file, if it is not there.
    """
    package = importlib.util.find_spec("sklearn")
    path = Path(package.origin if package else "sklearn/__init__.py").parent
    path = path / "datasets" / folder / name
    if not path.is_file():
        raise ValueError(
            f"The digits are made from {path}, which is missing: install scikit-learn."
        )
    return path
