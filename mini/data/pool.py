"""The decoded images of an archive or a folder, kept from one `load` of a process to the next."""

from collections.abc import Callable
from pathlib import Path

from mini import files

_kept: dict[Path, tuple[object, files.Arrays]] = {}  # of one data set, the last


def shared(path: Path, build: Callable[[], files.Arrays]) -> files.Arrays:
    """`files.cached` of a data set, read once a process while the file stays what it was.

    The arrays are shared by all callers and read-only. Raises ValueError as `files.cached` does.
    """
    stamp = _stamp(path)
    if stamp is None or _kept.get(path, (None,))[0] != stamp:
        _kept.clear()  # first, so that two data sets are never in memory at once
        arrays = files.cached(path, build, files.is_dataset)
        for array in arrays.values():
            array.flags.writeable = False
        _kept[path] = _stamp(path), arrays
    return _kept[path][1]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the file is written or replaced; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
