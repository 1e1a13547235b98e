"""Files that are either whole or absent, whatever is killed and however many processes write.

A file is written under a temporary name in its own folder and renamed when it is complete. What a
killed process leaves under a temporary name is never read, and the next `cached` call removes it.
"""

import contextlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

Arrays = dict[str, np.ndarray]

ROOT = Path(__file__).resolve().parent.parent  # of the course

HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "unknown"
SECONDS_A_DAY = 86_400
DATASET = {"train_images", "train_labels", "test_images", "test_labels", "classes"}


def cache_folder() -> Path:
    """`MINI_CACHE`, or `data/` beside the package; it need not exist yet."""
    return user_folder("MINI_CACHE") or ROOT / "data"


def user_folder(setting: str) -> Path | None:
    """The folder that an environment variable names, as an absolute path; None if it names none.

    A `~` is the home folder, and a relative path is relative to where the command was given, as in
    the user's shell, also where Jupyter has started a kernel in another folder. Raises ValueError
    for a `~` without a home folder.
    """
    value = os.environ.get(setting)
    return absolute(value, setting) if value else None


def absolute(value: str | Path, what: str) -> Path:
    """A path that somebody gave for `what`, as `user_folder` understands it."""
    try:
        return _given_in() / Path(value).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{what}={str(value)!r}: there is no such home folder here: write the path out."
        ) from None


def _given_in() -> Path:
    """The folder in which the command was given that has led to this process."""
    shell = os.environ.get("PWD")
    # Jupyter gives every kernel, and so all that a kernel starts, this variable; it starts them in
    # the notebook's folder, but leaves alone where the shell says that it is.
    if "JPY_PARENT_PID" in os.environ and shell and Path(shell).is_dir():
        return Path(shell).absolute()
    return Path.cwd()


def require_writable(folder: Path) -> None:
    """Raises ValueError, naming the folder, if nothing could be written there; leaves no trace."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    trial = _temporary(nearest / "folder")
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise _unwritable(folder, error) from None


def write_atomically(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write(file)` fill a new file, then rename it to `path`: readers see all or nothing.

    The folder is created where needed, and the temporary file is removed on any failure.
    Raises ValueError, naming the folder, when it cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder inside `parent`, removed in any case. Raises as `write_atomically` does."""
    folder = _temporary(parent / "folder")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(parent, error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cached(path: Path, build: Callable[[], Arrays], is_valid: Callable[[Arrays], bool]) -> Arrays:
    """The arrays stored at `path` (.npz), or, if it is missing or damaged, `build()`, then stored.

    Raises ValueError when they must be stored and the folder cannot be written.
    """
    remove_stale(path.parent)
    with contextlib.suppress(Exception):  # damaged bytes raise almost any, and the cure is one
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        if is_valid(arrays):
            return arrays
    require_writable(path.parent)  # not after minutes of work
    arrays = build()
    write_atomically(path, lambda file: np.savez(file, **arrays))
    return arrays


def is_dataset(arrays: Arrays) -> bool:
    """Are these a data set's images, labels and classes, of the right shapes and types?"""
    if set(arrays) != DATASET:
        return False
    pairs = [(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")]
    return all(
        images.dtype == np.uint8
        and images.shape == (len(labels), 3, 32, 32)
        and labels.dtype == np.int64
        and labels.shape == (len(labels),)
        for images, labels in pairs
    )


def remove_stale(folder: Path) -> None:
    """Remove what runs that no longer live left in `folder` under a temporary name."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError, ValueError):  # gone already, or not named by us
            *_, host, pid, _token, _tmp = path.name.split(".")
            pid = int(pid)
            is_old = time.time() - path.stat().st_mtime > SECONDS_A_DAY
            if is_old or (host == HOST and not _is_running(pid)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.{uuid.uuid4().hex}.tmp")


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # on Windows, os.kill(pid, 0) would interrupt the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unwritable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"The folder {folder} cannot be written ({error.strerror or error}): make room there or "
        "make it writable, or choose another, by MINI_CACHE for data and MINI_RESULTS for verdicts."
    )
