"""The records of runs in `results/`, a folder a notebook: written once, read by everything else.

A record is two files: `<data>-<scale>.json` holds claims, numbers, machine and versions,
`<data>-<scale>.npz` every measure of every arm and seed.

    found = records.load("02_dino", "cifar10-jpeg", "full")
    found["both"]["knn"]                                   # in the shape of an experiment's results
"""

import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from mini.course.claims import Judgement, table
from mini.files import ROOT, write_atomically

RESULTS = ROOT / "results"
NAME = re.compile(r"(?P<dataset>.+)-(?P<scale>quick|full)(-(?P<seeds>\d+)seeds)?\.json")
LARGE = 1000  # numbers: larger arrays are kept for the first seed only, in half precision
MAX_BYTES = 1_000_000
FORM = {  # of what a record may hold, as far as somebody reads it
    **dict.fromkeys(("notebook", "paper", "dataset", "dataset_title", "scale", "date"), str),
    **dict.fromkeys(("precision", "measures"), str),
    **dict.fromkeys(("seeds", "claims", "sittings", "left_out", "dropped"), list),
    **dict.fromkeys(("config", "machine", "versions", "experiments", "fingerprints"), dict),
    **dict.fromkeys(("passed_on", "options", "returned", "gates"), dict),
    "seconds": (int, float),
    "images": int,
}

Measures = dict[str, dict[str, np.ndarray]]  # [arm][measure], one entry for each seed


def paths(folder: Path = RESULTS) -> list[Path]:
    """The JSON of every run in `folder`/<notebook>/, by notebook, data set and scale."""
    found = folder.glob("[0-9][0-9]_*/*.json")
    return sorted(path for path in found if NAME.fullmatch(path.name))


def read(
    name: str, dataset: str, scale: str, *, folder: Path = RESULTS, needs: Collection[str] = ()
) -> dict:
    """The JSON of a run of notebook `name`; `scale` is "quick" or "full", or "quick-20seeds".

    Raises ValueError if there is none, or it is not readable, or lacks a field of `needs`.
    """
    path = folder / name / f"{dataset}-{scale}.json"
    if not path.exists():
        raise ValueError(
            f"No run of {name} on {dataset} at scale {scale} is recorded: {path.name} is not in "
            f"{path.parent}."
        )
    return parse(path, needs)


def parse(path: Path, needs: Collection[str] = ()) -> dict:
    """The content of a record's JSON, of which `needs` names fields that must be there.

    Raises ValueError, naming the file, if it is not readable, as with marks of a conflict in it, or
    of another form.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check_form(record, needs)
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"The record {path} cannot be read ({what}): take it back from version control, or "
            "run the notebook again."
        ) from None
    return record


def _check_form(record: object, needs: Collection[str]) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}, not an object")
    for name in FORM.keys() & record.keys():
        if not isinstance(record[name], FORM[name]):
            raise ValueError(f"{name!r} is a {type(record[name]).__name__}")
    for name in needs:
        if name not in record:
            raise ValueError(f"{name!r} is missing")
    for row in record["claims"] if "claims" in needs else ():
        Judgement.from_dict(row)


def load(
    name: str, dataset: str, scale: str, experiment: str | None = None, *, folder: Path = RESULTS
) -> Measures:
    """What an experiment of a recorded run found, `[arm][measure]`, the seeds in front.

    Large arrays have one seed only. `experiment` is the name of its function, and may be left out
    where there is one. Raises ValueError if the run is not recorded, is older than its measures,
    or has another experiment.
    """
    record = read(name, dataset, scale, folder=folder)
    path = folder / name / f"{dataset}-{scale}.npz"
    if not record.get("experiments"):
        raise ValueError(
            f"The run of {name} on {dataset} at scale {scale} of {record.get('date')} kept no "
            "measures, only its verdicts: run it again to draw from it."
        )
    known = record["experiments"]
    if experiment is None and len(known) == 1:
        (experiment,) = known
    if experiment not in known:
        raise ValueError(f"experiment={experiment!r}: expected one of {', '.join(known)}.")
    if not path.exists() or _digest(path.read_bytes()) != record.get("measures"):
        raise ValueError(
            f"{path} is missing or not of the same run as {path.stem}.json: take both back from "
            "version control, or run the notebook again."
        )
    found: Measures = {arm: {} for arm in known[experiment]}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            owner, arm, measure = map(unquote, key.split("/"))
            if owner == experiment:
                array = stored[key]
                is_half = array.dtype == np.float16
                found[arm][measure] = array.astype(np.float32) if is_half else array
    return found


def save(path: Path, record: dict, experiments: Mapping[str, Measures]) -> dict:
    """Write `record` to `path`, and beside it, as .npz, what the `experiments` found.

    Scalars and curves are kept for every seed, arrays of more than 1,000 numbers for the first one
    in float16, text as it is. What would make the file larger than a megabyte is left out, the
    largest first, and named in the record, which is returned as it was written.
    """
    arrays = {
        "/".join(quote(part, safe=" ") for part in (name, arm, measure)): _compact(values)
        for name, arms in experiments.items()
        for arm, measures in arms.items()
        for measure, values in measures.items()
    }
    left_out = [
        " / ".join(map(unquote, key.split("/"))) for key, a in arrays.items() if a.dtype == object
    ]
    arrays = {key: array for key, array in arrays.items() if array.dtype != object}
    while len(content := _npz(arrays)) > MAX_BYTES:
        largest = max(arrays, key=lambda key: arrays[key].nbytes)
        del arrays[largest]
        left_out.append(" / ".join(map(unquote, largest.split("/"))))
    record = record | {
        "experiments": {name: list(arms) for name, arms in experiments.items()},
        "measures": _digest(content),
        "left_out": left_out,
    }
    # A reader between the two finds the old verdicts with measures that are not theirs, and is
    # told so by the digest.
    write_atomically(path.with_suffix(".npz"), lambda file: file.write(content))
    write_atomically(path, lambda file: file.write(json.dumps(record, indent=1).encode()))
    return record


def copy(source: Path, target: Path) -> None:
    """Copy a record, both of its files."""
    for suffix in (".npz", ".json"):
        content = source.with_suffix(suffix)
        if content.exists():
            data = content.read_bytes()
            write_atomically(target.with_suffix(suffix), lambda file, data=data: file.write(data))


def verdicts(record: dict) -> str:
    """What a recorded run said, as Markdown: its claims but the exact ones, machine and date."""
    judged = [Judgement.from_dict(row) for row in record["claims"]]
    return (
        f"{record['dataset_title']}, {len(record['seeds'])} seeds, {record['seconds'] / 60:.0f}"
        f" minutes on {record['machine']['cores']} cores ({record['machine']['device']}),"
        f" {record['date']}\n\n" + table([j for j in judged if j.claim.kind != "exact"])
    )


def _compact(values: np.ndarray) -> np.ndarray:
    """A measure `[seeds, ...]` as it is kept."""
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind in "UO" or values[0].size <= LARGE:
        return (
            values.astype(np.float32) if values.dtype == np.float64 and values.ndim > 1 else values
        )
    first = values[:1]
    if first.dtype.kind != "f":
        return first
    # Half precision ends at 65,504.
    return first.astype(np.float16 if np.abs(first).max() < 6e4 else np.float32)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
