"""Every arm with every seed: one process a call, one thread a process, and nothing done twice."""

import hashlib
import inspect
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import joblib
import numpy as np
import torch
from tqdm import tqdm

from mini.files import write_atomically

Results = dict[str, dict[str, np.ndarray]]


def run_all(
    function: Callable[..., dict],
    arms: dict[str, dict],
    seeds: Sequence[int],
    *,
    workers: int,
    kept: Path | None = None,
    fingerprint: str = "",
) -> tuple[Results, float]:
    """Call `function(seed, **arms[arm])` for every arm and seed, `workers` at a time.

    Returns `results[arm][measure][seed]` and the seconds that earlier runs had spent on what was
    found in the folder `kept`, where each result is stored under `fingerprint` and its options.
    The file that MINI_PROGRESS names, if any, says how far it is: "calls done, calls in all".
    """
    calls = [
        joblib.delayed(_call)(function, seed, arm, options, kept, fingerprint)
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
    results = {
        arm: {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for arm, rows in done.items()
    }
    return results, saved


def sources(function: Callable, found: dict[str, str] | None = None) -> dict[str, str]:
    """The source of `function` and of the functions beside it that it calls, by name."""
    found = {} if found is None else found
    try:
        found[function.__qualname__] = inspect.getsource(function)
        used = inspect.getclosurevars(function)
    except (OSError, TypeError):
        raise ValueError(
            f"The source of {function!r} cannot be read: define it with def in a cell or file."
        ) from None
    for other in [*used.globals.values(), *used.nonlocals.values()]:
        is_beside = inspect.isfunction(other) and other.__module__ == function.__module__
        if is_beside and other.__qualname__ not in found:
            sources(other, found)
    return found


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
    kept: Path | None,
    fingerprint: str,
) -> tuple[str, float, dict[str, np.ndarray]]:
    """One call of an experiment: `(arm, seconds spent in an earlier run, its result)`."""
    if kept:
        key = hashlib.sha256(f"{fingerprint}{options!r}".encode()).hexdigest()[:12]
        kept = kept / f"{arm.replace('/', '-')}-{seed}-{key}.npz"
        if kept.exists():
            with np.load(kept, allow_pickle=False) as stored:
                row = dict(stored)
            return arm, float(row.pop("seconds spent")), row
    start = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        row = {key: np.asarray(value) for key, value in function(seed, **options).items()}
    finally:
        torch.set_num_threads(threads)
    if kept:
        spent = {"seconds spent": time.perf_counter() - start}
        write_atomically(kept, lambda file: np.savez(file, **spent, **row))
    return arm, 0.0, row
