"""What `make reproduce` has finished, so that it does nothing twice."""

import hashlib
import os
from pathlib import Path

import nbformat

from mini.files import write_atomically
from tools.environment import ROOT

FINISHED = ROOT / "build" / "reproduced"


def fingerprint(path: Path) -> str:
    """Changes with a notebook's code, with `mini`, and with the reader's settings."""
    cells = nbformat.read(path, as_version=4).cells
    parts = [cell.source for cell in cells if cell.cell_type == "code"]
    parts += [source.read_text("utf-8") for source in sorted((ROOT / "mini").rglob("*.py"))]
    parts += [f"{name}={os.environ.get(name)}" for name in ("MINI_DATA", "MINI_SEEDS")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def unfinished(paths: list[Path]) -> list[Path]:
    """Those of `paths` that were not reproduced yet, or have changed since, or lost their JSON."""
    left = []
    for path in paths:
        note = FINISHED / fingerprint(path)
        if note.exists() and (ROOT / note.read_text()).exists():
            print(f"{path.stem}: finished before, see {note.read_text()}")
        else:
            left.append(path)
    return left


def remember(path: Path, record: Path | None) -> None:
    """Note that this notebook is reproduced, so that the next call skips it."""
    if record is not None:
        FINISHED.mkdir(parents=True, exist_ok=True)
        result = os.path.relpath(record, ROOT)
        write_atomically(FINISHED / fingerprint(path), lambda file: file.write(result.encode()))
