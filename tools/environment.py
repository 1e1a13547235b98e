"""The surroundings in which notebooks are executed and tested: alike on every machine."""

import atexit
import os
import runpy
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "results"

PINNED = {"MINI_DEVICE": "cpu"}
UNSET = ("MINI_DATA", "MINI_SEEDS", "PYTHONWARNINGS")


def prepare_kernels() -> None:
    """Set what every run without a browser needs, and leave the course's own settings alone."""
    # Kernels choose the inline backend only where no other is asked for.
    os.environ.pop("MPLBACKEND", None)
    # tqdm writes to stderr, where nobody sees it during the run and every diff shows it after.
    os.environ["TQDM_DISABLE"] = "1"
    # The reader's own IPython start-up files and history stay out of the run.
    folder = tempfile.mkdtemp(prefix="ipython-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["IPYTHONDIR"] = folder


def pin(results: Path, scale: str = "quick") -> None:
    """Fix everything a stored output depends on, whatever the caller's environment holds.

    `results` is the folder for the records of the runs. MINI_THREADS is the number of threads of
    each process, 1 by default: two cores are kept busy by two processes of one thread.
    From here on this process and all its children refuse connections that leave the machine.
    """
    prepare_kernels()
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(PINNED, MINI_RESULTS=str(results), MINI_SCALE=scale)
    os.environ["OMP_NUM_THREADS"] = os.environ.get("MINI_THREADS") or "1"
    guard = ROOT / "tools" / "offline"
    paths = [str(guard), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    runpy.run_path(str(guard / "sitecustomize.py"))
