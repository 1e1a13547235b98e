"""Every arm with every seed: one process a call, one thread a process, and nothing done twice."""

import functools
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mini.course.keys import digest
from mini.files import write_atomically

Row = dict  # of one arm and seed: measure -> number or array, or, passed on only, a dict of tensors
SEPARATOR = "//"  # between a measure and an entry of it, in a file
NOT_KEPT = "_not kept"  # in a row that was read from a record


class Results(dict):
    """What an experiment found: `results[arm][measure]` is an array with one entry for each seed.

    `rows[arm][i]` is what the call with the i-th of `seeds` returned, also what is only passed on.
    """

    def __init__(self, rows: dict[str, list[Row]], seeds: Sequence[int]):
        self.rows, self.seeds = rows, tuple(seeds)
        self.fingerprint = ""  # of the code, settings and options that made them
        super().__init__({arm: _stacked(found) for arm, found in rows.items()})

    def counts_as(self) -> object:
        """What of it moves the numbers of a function that uses it; see `mini.course.keys`."""
        return self.rows, self.seeds

    def given(self, seed: int) -> dict[str, Row]:
        """What every arm found with `seed`, for a later stage; ValueError if it was not run."""
        if seed not in self.seeds:
            raise ValueError(f"No earlier stage was run with seed {seed}, only with {self.seeds}.")
        place = self.seeds.index(seed)
        return {arm: rows[place] for arm, rows in self.rows.items()}


def _stacked(rows: list[Row]) -> dict[str, np.ndarray]:
    """The measures of all seeds side by side, without those that are only passed on.

    What a record did not keep of some seeds is there for the first one only. Raises ValueError for
    a measure that some seeds did not return.
    """
    stacked = {}
    for key in dict.fromkeys(key for row in rows for key in row if not key.startswith("_")):
        without = [row for row in rows if key not in row]
        if any(key not in row.get(NOT_KEPT, ()) for row in without):
            raise ValueError(f"Some seeds did not return the measure {key!r}: return it with each.")
        stacked[key] = np.stack([row[key] for row in (rows[:1] if without else rows)])
    return stacked


def run_all(
    function: Callable[..., dict],
    arms: dict[str, dict],
    seeds: Sequence[int],
    *,
    workers: int,
    kept: Path | None = None,
    fingerprint: str = "",
    given: Results | None = None,
) -> tuple[Results, float]:
    """Call `function(seed, **arms[arm])` for every arm and seed, `workers` at a time.

    With `given`, an earlier stage, the call also gets `given={arm: row}`: what that stage found
    with the same seed. Returns the results and the seconds that earlier runs had spent on what was
    found in the folder `kept`, where each result is stored under `fingerprint` and its options.
    The file that MINI_PROGRESS names, if any, says how far it is: "calls done, calls in all".
    """
    if given is not None and not isinstance(given, Results):
        raise ValueError("given= is not what an experiment returned: pass its results as they are.")
    if not arms:
        raise ValueError("There is no arm to run: name at least one.")
    if kept and isinstance(function, functools.partial):  # what is bound to it is an option too
        fingerprint += digest(function)
    calls = [
        joblib.delayed(_call)(
            function,
            seed,
            arm,
            options,
            kept and _place(kept, fingerprint, arm, seed, options),
            given and given.given(seed),
        )
        for seed in seeds
        for arm, options in arms.items()
    ]
    parallel = joblib.Parallel(
        min(workers, len(calls)),
        return_as="generator",
        initializer=_die_with,
        initargs=(os.getpid(),),
    )
    done, saved = {arm: [] for arm in arms}, 0.0
    with warnings.catch_warnings():
        # joblib replaces a worker whose memory has grown; no call is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        bar = tqdm(parallel(calls), total=len(calls), unit="run")
        for count, (arm, seconds, row) in enumerate(bar, start=1):
            done[arm].append(row)
            saved += seconds / workers
            if os.environ.get("MINI_PROGRESS"):
                Path(os.environ["MINI_PROGRESS"]).write_text(f"{count} {len(calls)}")
    return Results(done, seeds), saved


def options_text(options: dict) -> str:
    """An arm's options as a record keeps them: equal for equal options, and for no others.

    As Python writes them where that says all, else as a digest, in the order of their names. It
    changes with the code of `mini` that is handed over in them, too.
    """
    ordered = dict(sorted(options.items()))
    return repr(options) if _is_written_out(options) else digest(ordered)


def _is_written_out(value: object) -> bool:
    if type(value) is dict:
        return all(map(_is_written_out, [*value.keys(), *value.values()]))
    if type(value) in (tuple, list):
        return all(map(_is_written_out, value))
    return type(value) in (type(None), bool, int, float, str)


def _die_with(parent: int) -> None:
    """Let a worker process end when its kernel does.

    A worker whose kernel is killed while a call is on its way waits for the rest of it for ever.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getpid() != parent:  # a single worker runs in the kernel itself
        threading.Thread(target=watch, daemon=True).start()


def _call(
    function: Callable[..., dict],
    seed: int,
    arm: str,
    options: dict,
    path: Path | None,
    given: dict[str, Row] | None,
) -> tuple[str, float, Row]:
    """One call of an experiment: `(arm, seconds spent in an earlier run, its result)`.

    `path` is where its result is kept, if it is; what is damaged there is made again.
    """
    if path and (found := _read(path)):
        return arm, *found
    start = time.perf_counter()
    threads = torch.get_num_threads()
    stage = {} if given is None else {"given": given}
    for name, row in (given or {}).items():
        if NOT_KEPT in row:
            raise ValueError(
                f"Seed {seed} of {name!r} comes from a record, which does not keep what is passed "
                f"on ({', '.join(row[NOT_KEPT])}), and {arm!r} needs it: take that record out of "
                "results/ to run the seed again."
            )
    try:
        torch.set_num_threads(1)
        flat = _flattened(function(seed, **stage, **options))
    finally:
        torch.set_num_threads(threads)
    if path:
        _write(path, flat, time.perf_counter() - start)
    return arm, 0.0, _unflattened(flat)


def keep(
    place: tuple[Path, str, str, int, dict], row: Row, lost: Sequence[str], seconds: float
) -> None:
    """Put the result of a call, which took `seconds`, where `run_all` looks for it.

    `place` is the folder, the fingerprint, the arm, the seed and the options; `lost` names what the
    call also passed on, and what is not in `row`.
    """
    path = _place(*place)
    if _read(path) is None:
        _write(path, _flattened(row | ({NOT_KEPT: list(lost)} if lost else {})), seconds)


def _place(kept: Path, fingerprint: str, arm: str, seed: int, options: dict) -> Path:
    text = f"{fingerprint}{options_text(dict(sorted(options.items())))}"
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    return kept / f"{arm.replace('/', '-')}-{seed}-{key}.npz"


def _read(path: Path) -> tuple[float, Row] | None:
    """The seconds that a kept result took, and the result; None if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            flat = dict(stored)
        return float(flat.pop("seconds spent")), _unflattened(flat)
    except Exception:  # damaged bytes raise almost any
        return None


def _write(path: Path, flat: dict[str, np.ndarray], seconds: float) -> None:
    spent = {"seconds spent": seconds}
    write_atomically(path, lambda file: np.savez(file, **spent, **flat))


def _flattened(row: Mapping[str, object]) -> dict[str, np.ndarray]:
    """What a call returned as arrays by name; a dict, such as a network's weights, entry by entry.

    Raises ValueError for a dict that is not passed on only, or what is no array of numbers or text.
    """
    if not isinstance(row, Mapping):
        raise ValueError(
            f"An experiment's function returned {type(row).__name__}: return a dict of measures."
        )
    flat = {}
    for key, value in row.items():
        if SEPARATOR in key:
            raise ValueError(f"The measure {key!r} has {SEPARATOR} in its name: leave it out.")
        if isinstance(value, Mapping):
            if not key.startswith("_"):
                raise ValueError(
                    f"The measure {key!r} is a dict: return its entries as measures, or call it "
                    f"'_{key}' if it is only to be passed on to a later stage."
                )
            flat |= {f"{key}{SEPARATOR}{name}": _array(key, entry) for name, entry in value.items()}
        else:
            flat[key] = _array(key, value)
    return flat


def _array(key: str, value: object) -> np.ndarray:
    array = value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "biufU":
        raise ValueError(
            f"The measure {key!r} is of type {array.dtype}: return numbers, arrays or text."
        )
    return array


def _unflattened(flat: dict[str, np.ndarray]) -> Row:
    """The inverse of `_flattened`; what is only passed on comes back as tensors."""
    row: Row = {}
    for name, array in flat.items():
        key, is_entry, entry = name.partition(SEPARATOR)
        value = (
            torch.from_numpy(array) if key.startswith("_") and array.dtype.kind != "U" else array
        )
        if is_entry:
            row.setdefault(key, {})[entry] = value
        else:
            row[name] = value
    return row
