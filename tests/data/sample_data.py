"""Data sets to try things on: folders, archives in the official format, a server, damage."""

import contextlib
import functools
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from mini import data
from mini.data import archives, pool

KILLS = int(os.environ.get("MINI_KILLS", "2"))  # how often a test of random kills kills

few = settings(max_examples=25)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own for a test, with the cache in it and no setting of the caller."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder).resolve()
        patch.setenv("MINI_CACHE", str(root / "cache"))
        patch.delenv("MINI_DATA", raising=False)
        yield root


def forget_images() -> None:
    """As if the process had just begun: what `load` has read is read from the disk again."""
    pool._kept.clear()


@contextlib.contextmanager
def complains(*parts: str) -> Iterator[None]:
    """Expects a ValueError of one sentence with all `parts` in it and no other traceback."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the text is checked below
        yield
    error, text = caught.value, str(caught.value)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert "\n" not in text
    assert text.endswith((".", "?"))
    for part in parts:
        assert part in text


def numbered_split(n: int, classes: int = 3) -> data.Split:
    """Image i is i everywhere (modulo 256 and above), so that it can be told after augmentation."""
    numbers = torch.arange(n)
    images = torch.stack([numbers % 256, numbers // 256, numbers * 0], 1).to(torch.uint8)
    return data.Split(images[:, :, None, None].repeat(1, 1, 32, 32), numbers * 7919 % classes)


def numbers_of(images: torch.Tensor) -> list[int]:
    assert images.flatten(2).float().std(2).max() == 0  # one colour each
    return (images[:, 0, 0, 0] + 256 * images[:, 1, 0, 0].int()).tolist()


# CIFAR: archives in the official format, a few images large.

LABEL_KEYS = {"cifar10": "labels", "cifar100": "fine_labels"}


@contextlib.contextmanager
def official(name: str, archive: Path, images_a_file: int = 20) -> Iterator[dict]:
    """Write an archive in CIFAR's format and have torchvision take its checksums for the real ones.

    Gives the arrays that are in it: {"train": (images, labels), "test": (images, labels)}.
    """
    source, count = archives.SOURCES[name], int(name.removeprefix("cifar"))
    random, md5 = np.random.RandomState(0), {}
    stored: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:

        def add(filename: str, content: dict) -> None:
            blob = pickle.dumps(content, protocol=2)
            md5[filename] = hashlib.md5(blob).hexdigest()
            info = tarfile.TarInfo(f"{source.base_folder}/{filename}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))

        for part, filenames in (("train", source.train_list), ("test", source.test_list)):
            found = []
            for filename, _ in filenames:
                pixels = random.randint(0, 256, (images_a_file, 3072)).astype(np.uint8)
                labels = random.randint(0, count, images_a_file)
                add(filename, {"data": pixels, LABEL_KEYS[name]: labels.tolist()})
                found.append((pixels.reshape(-1, 3, 32, 32), labels))
            stored[part] = tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))
        names = [f"class {i}" for i in range(count)]
        add(source.meta["filename"], {source.meta["key"]: names})
    with pytest.MonkeyPatch.context() as patch:
        for which in ("train_list", "test_list"):
            patched = [[filename, md5[filename]] for filename, _ in getattr(source, which)]
            patch.setattr(source, which, patched)
        patch.setattr(source, "meta", source.meta | {"md5": md5[source.meta["filename"]]})
        patch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield stored


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        content = content[: len(content) // 2]
    elif kind == "a byte changed":
        content[len(content) // 2] ^= 1
    elif kind == "empty":
        content = b""
    path.write_bytes(content)


@contextlib.contextmanager
def served(folder: Path, seconds: float = 0) -> Iterator[str]:
    """The address of a server, on this machine, of the files in a folder: `seconds` for each."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:
            pieces = 50 if seconds else 1
            size = os.fstat(source.fileno()).st_size // pieces + 1
            with contextlib.suppress(ConnectionError):  # the other end was killed
                while piece := source.read(size):
                    outputfile.write(piece)
                    time.sleep(seconds / pieces)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# Folders of images.


def make_folder(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), n: int = 3) -> Path:
    """A folder with `n` images (of noise, PNG) of each class in train/ and test/."""
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for label in classes:
            (folder / part / label).mkdir(parents=True)
            for i in range(n):
                pixels = random.randint(0, 256, (32, 32, 3)).astype(np.uint8)
                # Uncompressed, so that all files have the same size.
                path = folder / part / label / f"{i:03d}.png"
                Image.fromarray(pixels).save(path, compress_level=0)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1)
