"""The surroundings in which notebooks are executed and tested: alike on every machine."""

import atexit
import contextlib
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

from mini.files import absolute

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "results"

PINNED = {"MINI_DEVICE": "cpu"}
FOLDERS = ("MINI_CACHE", "MINI_RESULTS")
UNSET = ("MINI_DATA", "MINI_MIRROR", "MINI_SEEDS", "PYTHONWARNINGS")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook's cells; ValueError, naming the file, if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat's own of several kinds
        why = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise ValueError(
            f"The notebook {path} cannot be read ({why}): take it back from version control."
        ) from None


def prepare_kernels() -> None:
    """Set what every run without a browser needs, and leave the course's own settings alone.

    Folders are relative to where the command was given, which kernels would not know. Raises
    ValueError for a `~` without a home folder.
    """
    for name in FOLDERS:
        if os.environ.get(name):
            os.environ[name] = str(absolute(os.environ[name], name))
    if os.environ.get("MINI_DATA"):
        from mini import data

        with contextlib.suppress(ValueError):  # what is no data set, the notebook says
            os.environ["MINI_DATA"] = data.named()
    # The kernel called python3 is this interpreter, whatever else is installed under that name.
    own = Path(sys.prefix) / "share" / "jupyter"
    if (own / "kernels" / "python3").is_dir():
        places = [str(own), *filter(None, [os.environ.get("JUPYTER_PATH")])]
        os.environ["JUPYTER_PATH"] = os.pathsep.join(places)
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
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(PINNED, MINI_RESULTS=str(results), MINI_SCALE=scale)
    prepare_kernels()
    os.environ["OMP_NUM_THREADS"] = os.environ.get("MINI_THREADS") or "1"
    guard = ROOT / "tools" / "offline"
    paths = [str(guard), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    runpy.run_path(str(guard / "sitecustomize.py"))
