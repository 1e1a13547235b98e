"""A folder of images as a data set: train/<class>/ and test/<class>/ with 32x32 PNG or JPEG files.

The decoded images are cached under a fingerprint of all names, sizes and times of change.
"""

import contextlib
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mini import files
from mini.data import pool

SUFFIXES = (".png", ".jpg", ".jpeg")
SIZE = 32
IMAGES_A_TASK = 250


def load(folder: Path) -> files.Arrays:
    """`train_images` (uint8 [N, 3, 32, 32]), `train_labels` (int64 [N]), `test_...`, `classes`.

    Raises ValueError, naming the file or folder, for anything that is missing, empty, unreadable
    or of another size, and if the cache folder cannot be written.
    """
    parts = {part: _list_images(folder, part) for part in ("train", "test")}
    classes = list(parts["train"])
    if odd := sorted(set(classes) ^ set(parts["test"])):
        raise ValueError(
            f"train/ and test/ in {folder} must have the same classes, but these are only in one "
            f"of them: {', '.join(odd)}."
        )
    stem = f"{re.sub(r'[^A-Za-z0-9-]', '_', folder.name)}-{_short_hash(str(folder.resolve()))}"
    path = files.cache_folder() / f"{stem}-{_fingerprint(parts)}.npz"
    arrays = pool.shared(path, lambda: _decode_all(parts, classes))
    for old in path.parent.glob(f"{stem}-*.npz"):
        if old != path:
            with contextlib.suppress(OSError):
                old.unlink()
    return arrays


def _list_images(folder: Path, part: str) -> dict[str, list[os.DirEntry]]:
    """The image files of each class, classes and files sorted by name, hidden ones left out."""
    layout = f"put the images at {folder / part}/<class>/*.png or .jpg"
    if not (folder / part).is_dir():
        raise ValueError(f"The folder {folder} has no {part}/ in it: {layout}.")
    images = {}
    for class_folder in _visible(folder / part):
        if class_folder.is_dir():
            entries = _visible(class_folder.path)
            found = [e for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file()]
            if not found:
                raise ValueError(f"The class {class_folder.path} has no image in it: {layout}.")
            images[class_folder.name] = found
    if not images:
        raise ValueError(f"The folder {folder / part} has no class folder in it: {layout}.")
    return images


def _visible(folder: str | Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _fingerprint(parts: dict[str, dict[str, list[os.DirEntry]]]) -> str:
    facts = []
    for part, classes in parts.items():
        for label, entries in classes.items():
            stats = ((entry.name, entry.stat()) for entry in entries)
            facts += [(part, label, name, s.st_size, s.st_mtime_ns) for name, s in stats]
    return _short_hash(repr(facts))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _decode_all(parts: dict[str, dict[str, list[os.DirEntry]]], classes: list[str]) -> files.Arrays:
    arrays = {"classes": np.array(classes)}
    for part, entries in parts.items():
        paths = [entry.path for label in classes for entry in entries[label]]
        counts = [len(entries[label]) for label in classes]
        arrays[f"{part}_images"] = _decode(paths, part)
        arrays[f"{part}_labels"] = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return arrays


def _decode(paths: list[str], part: str) -> np.ndarray:
    images = np.empty((len(paths), 3, SIZE, SIZE), dtype=np.uint8)

    def decode_some(start: int) -> int:
        some = paths[start : start + IMAGES_A_TASK]
        for i, path in enumerate(some, start):
            images[i] = read_image(path).transpose(2, 0, 1)
        return len(some)

    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        tqdm(total=len(paths), desc=f"reading {part} images", unit=" images") as bar,
    ):
        for n in threads.map(decode_some, range(0, len(paths), IMAGES_A_TASK)):
            bar.update(n)
    return images


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 [32, 32, 3]; raises ValueError, naming the file, if it is not one."""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            if size == (SIZE, SIZE) and not mode.startswith(("I", "F")):
                if "transparency" in image.info:  # a palette's must not pass through RGB directly
                    image = image.convert("RGBA")
                return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ValueError(
            f"The image {path} cannot be read ({error}): replace it or remove it."
        ) from None
    if size != (SIZE, SIZE):
        raise ValueError(
            f"The image {path} is {size[0]}x{size[1]} pixels, not {SIZE}x{SIZE}: resize it, "
            f"for instance with PIL.Image.open(path).resize(({SIZE}, {SIZE})).save(path)."
        )
    raise ValueError(f"The image {path} has more than 8 bits a channel: save it with 8.")
