"""Every cell of `mini.darts.cells` trained from scratch: the table to look a search's pick up in.

    python tools/cell_table.py  # that of the quick run; --help says how to make another

The idea of tabular benchmarks (Ying et al. 2019, NAS-Bench-101; Dong & Yang 2020, NAS-Bench-201):
training all cells once turns "how good is this pick?" into a look-up. Validation accuracies stand
beside the test accuracies, so that random search can pick by them, as the paper's does. Cells that
compute the same function are trained once.
"""

import hashlib
import json
import platform
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from mini import training
from mini.course.experiment import run_all
from mini.course.notebook import processor
from mini.course.records import parse
from mini.darts import cells
from mini.darts.cells import Cell
from mini.data import Dataset, content_digest
from mini.files import ROOT, write_atomically

SETTINGS = {"channels": 16, "epochs": 6, "lr": 1e-2, "batch_size": 64}
SEEDS = 3


def train_cell(seed: int, cell: Cell, data: Dataset, device: str = "cpu") -> dict[str, float]:
    """Train the network with `cell` on `data.train`.

    Returns its `accuracy` on test and on `validation` images, and its number of `parameters`.
    """
    torch.manual_seed(seed)
    model = cells.build(cell, SETTINGS["channels"], num_classes=len(data.classes)).to(device)
    training.fit(
        model,
        data,
        epochs=SETTINGS["epochs"],
        lr=SETTINGS["lr"],
        batch_size=SETTINGS["batch_size"],
        generator=torch.Generator().manual_seed(seed),
        progress=False,
    )
    return {
        "accuracy": training.accuracy(model, data),
        "validation": training.accuracy(model, data, data.validation),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


class Table(NamedTuple):
    """Accuracies of all 64 cells, one for each seed: `table.test[cell]` [seeds]."""

    test: dict[Cell, np.ndarray]
    validation: dict[Cell, np.ndarray]


def path_of(data: Dataset) -> Path:
    """Where the table of this data set, with so many training images, is kept.

    Another data set of the same name and size has a file of its own, with its digest in the name.
    """
    path = ROOT / "results" / "06_darts" / f"cells-{data.name}-{len(data.train.labels)}.json"
    digest = digest_of(data)
    if not path.exists() or parse(path).get("data") in (None, digest):
        return path
    return path.with_stem(f"{path.stem}-{digest[:8]}")


def digest_of(data: Dataset) -> str:
    """A SHA-256 of training, validation and test images and labels."""
    parts = (content_digest(part) for part in (data, replace(data, test=data.validation)))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def table(data: Dataset, *, workers: int = 1, device: str = "cpu") -> Table:
    """Test and validation accuracies of all 64 cells, for each seed.

    Read from results/, or, where they are not there for just these images and labels and these
    settings, trained and stored: about ten minutes on two cores, resumed where an earlier run was
    stopped. Raises ValueError for a table that is damaged, and for data without validation images.
    """
    if data.validation is None:
        raise ValueError(
            f"{data.title} has no validation images here, by which random search picks a cell: "
            "load it with n_validation."
        )
    path = path_of(data)
    record = parse(path) if path.exists() else {}
    if any(record.get(key) != value for key, value in _made_from(data).items()):
        record = make(data, workers=workers, device=device)
        write_atomically(path, lambda file: file.write((json.dumps(record, indent=1)).encode()))
    rows = {tuple(row["cell"].split("-")): row for row in record["cells"]}
    return Table(
        *(
            {cell: np.asarray(rows[cells.canonical(cell)][key]) for cell in cells.all_cells()}
            for key in ("accuracy", "validation")
        )
    )


def _made_from(data: Dataset) -> dict:
    """What of a record says that it is the table of this data, made with these settings."""
    parts = {part: getattr(data, part) for part in ("train", "test", "validation")}
    sizes = {f"n_{part}": len(split.labels) for part, split in parts.items()}
    return sizes | {"data": digest_of(data), "settings": SETTINGS}


def make(data: Dataset, *, workers: int, device: str = "cpu") -> dict:
    """Train one cell for each function with every seed; the record that `table` stores."""
    start = perf_counter()
    different = sorted({cells.canonical(cell) for cell in cells.all_cells()})
    common = {"data": data, "device": device}
    arms = {cells.title(cell): {"cell": cell} for cell in different}
    results, saved = run_all(
        partial(train_cell, **common),
        arms,
        range(SEEDS),
        workers=workers,
        kept=ROOT / "build" / "progress" / "06_darts" / path_of(data).stem,
        fingerprint=repr((_made_from(data), device)),
    )
    rows = [
        {
            "cell": cells.title(cell),
            "same_as": [
                cells.title(other)
                for other in cells.all_cells()
                if cells.canonical(other) == cell != other
            ],
            "parameters": int(results[cells.title(cell)]["parameters"][0]),
            "accuracy": results[cells.title(cell)]["accuracy"].round(4).tolist(),
            "validation": results[cells.title(cell)]["validation"].round(4).tolist(),
        }
        for cell in different
    ]
    return {
        "dataset": data.name,
        "dataset_title": data.title,
        **_made_from(data),
        "seconds": round(perf_counter() - start + saved, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": workers, "device": str(device)},
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "cells": rows,
    }
