"""A folder of images as a data set: train/<class>/ and test/<class>/ with 32x32 image files.

PNG, JPEG, WebP, BMP, GIF, TIFF and PPM are read; what else lies there, folders in a class among it,
is left out with a warning. Names that differ in their Unicode form alone are one name. The decoded
images are cached under a fingerprint of all names, sizes and times of change.
"""

import contextlib
import hashlib
import os
import re
import unicodedata
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mini import files
from mini.data import pool

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".pbm")
SIZE = 32
IMAGES_A_TASK = 250
SHOWN = 5  # of what is left out


def load(folder: Path) -> files.Arrays:
    """`train_images` (uint8 [N, 3, 32, 32]), `train_labels` (int64 [N]), `test_...`, `classes`.

    Raises ValueError, naming the file or folder, for anything that is missing, empty, unreadable
    or of another size, and if the cache folder cannot be written.
    """
    parts, left_out = _list_parts(folder)
    if left_out:
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        warnings.warn(
            f"In {folder} these are left out, as only files of images directly in a class are read "
            f"({', '.join(SUFFIXES)}): {', '.join(left_out[:SHOWN])}{more}.",
            stacklevel=2,
        )
    classes = list(parts["train"])
    stem = f"{re.sub(r'[^A-Za-z0-9-]', '_', folder.name)}-{_short_hash(str(folder.resolve()))}"
    path = files.cache_folder() / f"{stem}-{_fingerprint(parts)}.npz"
    arrays = pool.shared(path, lambda: _decode_all(parts, classes))
    for old in path.parent.glob(f"{stem}-*.npz"):
        if old != path:
            with contextlib.suppress(OSError):
                old.unlink()
    return arrays


def state(folder: Path) -> str:
    """Changes with the name, size and time of change of every image in `folder`; ValueError as
    `load` raises it."""
    return _fingerprint(_list_parts(folder)[0])


def _list_parts(folder: Path) -> tuple[dict[str, dict[str, list[os.DirEntry]]], list[str]]:
    """The image files of each part and class, and what else is there."""
    left_out: list[str] = []
    try:
        parts = {part: _list_images(folder, part, left_out) for part in ("train", "test")}
    except OSError as error:
        raise ValueError(
            f"The folder {error.filename} cannot be read ({error.strerror}): make it readable."
        ) from None
    if odd := sorted(set(parts["train"]) ^ set(parts["test"])):
        raise ValueError(
            f"train/ and test/ in {folder} must have the same classes, but these are only in one "
            f"of them: {', '.join(odd)}."
        )
    return parts, left_out


def _list_images(folder: Path, part: str, left_out: list[str]) -> dict[str, list[os.DirEntry]]:
    """The image files of each class, classes and files sorted by name, hidden ones left out."""
    layout = f"put the images at {folder / part}/<class>/*.png or .jpg"
    if not (folder / part).is_dir():
        raise ValueError(f"The folder {folder} has no {part}/ in it: {layout}.")
    images = {}
    for class_folder in _visible(folder / part):
        if not _is(class_folder.is_dir):
            left_out.append(f"{part}/{class_folder.name}{_what(class_folder)}")
            continue
        label = _composed(class_folder.name)
        if label in images:
            raise ValueError(
                f"Two folders in {folder / part} are called {label}, in two Unicode forms: put "
                "their images into one."
            )
        images[label] = []
        for entry in _visible(class_folder.path):
            if entry.name.lower().endswith(SUFFIXES) and _is(entry.is_file):
                images[label].append(entry)
            else:
                left_out.append(f"{part}/{class_folder.name}/{entry.name}{_what(entry)}")
        if not images[label]:
            raise ValueError(f"The class {class_folder.path} has no image in it: {layout}.")
    if not images:
        raise ValueError(f"The folder {folder / part} has no class folder in it: {layout}.")
    return images


def _is(what: Callable[[], bool]) -> bool:
    """False also for a link that leads nowhere, or to itself."""
    try:
        return what()
    except OSError:
        return False


def _what(entry: os.DirEntry) -> str:
    if _is(entry.is_dir):
        return "/ (a folder)"
    return "" if _is(entry.is_file) else " (a link to nothing)" if entry.is_symlink() else ""


def _composed(name: str) -> str:
    """A name in the form that Linux and Windows write; macOS takes its accents apart."""
    return unicodedata.normalize("NFC", name)


def _visible(folder: str | Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        shown = (e for e in entries if not e.name.startswith("."))
        return sorted(shown, key=lambda e: (_composed(e.name), e.name))


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
            size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"it has {frames} pictures in it")
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
            f"The image {path} is {size[0]}x{size[1]} pixels, not {SIZE}x{SIZE}: make a folder of "
            "resized copies, for instance with PIL.ImageOps.fit(PIL.ImageOps.exif_transpose("
            f"PIL.Image.open(path)), ({SIZE}, {SIZE})).save(copy), which leaves the originals."
        )
    raise ValueError(f"The image {path} has more than 8 bits a channel: save it with 8.")
