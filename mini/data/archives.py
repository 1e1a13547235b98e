"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) through torchvision's download and checks, cached.

An archive that somebody put into the cache folder by hand is used instead of the download.
"""

import http.client
import socket
import zipfile
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity, extract_archive

from mini import files
from mini.data import pool

SOURCES = {"cifar10": CIFAR10, "cifar100": CIFAR100}
CONNECT_SECONDS = 30


def load(name: str) -> files.Arrays:
    """`train_images` (uint8 [N, 3, 32, 32]), `train_labels` (int64 [N]), `test_...`, `classes`.

    Raises ValueError when the download fails, the archive is damaged, the cache folder cannot be
    written, or somebody else's file stands where the images would be kept.
    """
    folder = files.cache_folder()
    return pool.shared(folder / f"{name}.npz", lambda: _unpack(name, folder))


def _unpack(name: str, folder: Path) -> files.Arrays:
    source = SOURCES[name]
    archive = folder / source.filename
    _require_own(folder / f"{name}.npz")
    with files.temporary_folder(folder) as temporary:
        if not archive.exists():
            _download(name, archive, temporary)
            return _read(source, temporary)
        if not check_integrity(str(archive), source.tgz_md5):
            raise ValueError(
                f"The archive {archive} is damaged or incomplete (its MD5 is not "
                f"{source.tgz_md5}): delete it, and download {source.url} again."
            )
        try:
            extract_archive(str(archive), str(temporary))
            return _read(source, temporary)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"The archive {archive} cannot be unpacked in {folder} ({error}): is the disk full?"
            ) from None


def _require_own(path: Path) -> None:
    """Raises ValueError for a file that is no cache of this course, which would be replaced.

    A damaged one is told by the names of the arrays in it, or, cut short, by the first.
    """
    names = {f"{key}.npy" for key in files.DATASET}
    try:
        with zipfile.ZipFile(path) as stored:
            is_own = set(stored.namelist()) == names
    except FileNotFoundError:
        return
    except (zipfile.BadZipFile, OSError):
        start = path.read_bytes()[:64] if path.is_file() else b"?"
        is_own = not start or any(start[30:].startswith(n.encode()) for n in names)  # a zip's entry
    if not is_own:
        raise ValueError(
            f"The file {path} is in the way and none of the course's: move it elsewhere, or choose "
            "another folder by MINI_CACHE."
        )


def _download(name: str, archive: Path, temporary: Path) -> None:
    source = SOURCES[name]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)  # torchvision sets none and could hang
    try:
        source(root=temporary, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ValueError(
            f"The download of {name} from {source.url} failed ({error}): put that file at "
            f"{archive}, or set MINI_DATA=digits, which needs no download, or MINI_DATA to a "
            "folder of images."
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _read(source: type[CIFAR10], root: Path) -> files.Arrays:
    arrays = {}
    for part in ("train", "test"):
        dataset = source(root=root, train=part == "train")
        arrays[f"{part}_images"] = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
        arrays[f"{part}_labels"] = np.array(dataset.targets, dtype=np.int64)
    return arrays | {"classes": np.array(dataset.classes)}
