"""What `make reproduce` has finished, so that it does nothing twice."""

import hashlib
import json
import os
from pathlib import Path

from mini import data
from mini.data import folders
from mini.files import write_atomically
from tools.environment import ROOT, read_notebook

FINISHED = ROOT / "build" / "reproduced"


def fingerprint(path: Path) -> str:
    """Changes with a notebook's code, with `mini`, and with the reader's data and settings."""
    cells = read_notebook(path).cells
    parts = [cell.source for cell in cells if cell.cell_type == "code"]
    parts += [source.read_text("utf-8") for source in sorted((ROOT / "mini").rglob("*.py"))]
    # Where none is named, the data are the notebook's own, which its code tells.
    source = data.named() if os.environ.get("MINI_DATA") else "its own"
    parts += [source, os.environ.get("MINI_SEEDS") or "", str(data.may_mirror(source))]
    if os.environ.get("MINI_DATA") and Path(source).is_dir():
        parts.append(folders.state(Path(source)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def unfinished(paths: list[Path]) -> list[Path]:
    """Those of `paths` that were not reproduced yet, have changed since, or lost their record."""
    left = []
    for path in paths:
        note = _noted(FINISHED / fingerprint(path))
        if note and _digest(ROOT / note["record"]) == note["digest"]:
            print(f"{path.stem}: finished before, see {note['record']}")
        else:
            left.append(path)
    return left


def remember(path: Path, record: Path | None) -> None:
    """Note that this notebook is reproduced, so that the next call skips it."""
    if record is not None:
        note = {"record": os.path.relpath(record, ROOT), "digest": _digest(record)}
        content = json.dumps(note).encode()
        write_atomically(FINISHED / fingerprint(path), lambda file: file.write(content))


def _noted(path: Path) -> dict | None:
    """What `remember` wrote; None if it is not there, damaged, or without a digest, as once."""
    try:
        note = json.loads(path.read_text("utf-8"))
        return note if {"record", "digest"} <= note.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _digest(record: Path) -> str:
    """Of both files of a record; empty if its JSON is not there."""
    if not record.is_file():
        return ""
    both = [path for path in (record, record.with_suffix(".npz")) if path.is_file()]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in both)).hexdigest()
