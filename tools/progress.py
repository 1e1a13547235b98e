"""Say how far an executed notebook is: one line on a terminal, kept up to date."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm


@contextlib.contextmanager
def progress(label: str, at: dict[str, int], cells: int) -> Iterator[None]:
    """Say that a notebook has started; on a terminal, keep one line on how far it is."""
    if not sys.stdout.isatty():
        print(f"{label}: started", flush=True)
        yield
        return
    with tempfile.TemporaryDirectory() as folder, tqdm(bar_format="{desc}", disable=False) as line:
        runs = Path(folder) / "runs"  # written by the kernel, see mini.course.experiment
        os.environ["MINI_PROGRESS"] = str(runs)
        stop = threading.Event()

        def refresh() -> None:
            while not stop.wait(0.5):
                done = runs.read_text().split() if runs.exists() else []
                shown = f", {' of '.join(done)} runs of its experiment" if done else ""
                clock = tqdm.format_interval(line.format_dict["elapsed"])
                line.set_description_str(
                    f"{label}: cell {at['cell'] + 1} of {cells}{shown}, {clock}"
                )

        watch = threading.Thread(target=refresh, daemon=True)
        watch.start()
        try:
            yield
        finally:
            stop.set()
            watch.join()
            del os.environ["MINI_PROGRESS"]
