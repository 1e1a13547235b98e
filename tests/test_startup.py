"""A reader sees the first figure soon: what takes a second to load is loaded where it is used.

Told by the names of modules, never by a clock. torch and matplotlib are needed at once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

from tools.environment import NOTEBOOKS, ROOT

# After torch and matplotlib, each brings half a second to two seconds more: torch's compiler, with
# sympy, which torchvision loads; scipy.stats, which scikit-learn loads.
HEAVY = {
    *("torch._dynamo", "torch._inductor", "sympy", "torchvision", "torchmetrics"),
    *("scipy.stats", "sklearn", "pandas"),
}
NOT_AT_ONCE = {"mini.data.archives"}  # unpacks CIFAR, with torchvision, and is loaded only for that

LOAD = """\
import json, sys
import matplotlib.pyplot, torch

new = {}
for name, source in json.load(sys.stdin).items():
    before = set(sys.modules)
    exec(compile(source, name, "exec"), {"__name__": "__main__"})
    new[name] = sorted(set(sys.modules) - before)
print("", json.dumps(new), sep="\\n")
"""


def heavy(sources: dict[str, str]) -> dict[str, set[str]]:
    """The heavy modules that each of `sources`, run one after the other, is the first to load."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 0, done.stderr
    new = json.loads(done.stdout.splitlines()[-1])
    return {name: HEAVY & set(modules) for name, modules in new.items()}


def first_cell(path: Path) -> str:
    """The source of a notebook's first code cell."""
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def test_first_cells_load_nothing_heavy():
    found = heavy({path.stem: first_cell(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))})
    assert found
    assert not any(found.values()), found


def test_modules_load_nothing_heavy():
    paths = [path.relative_to(ROOT) for path in (ROOT / "mini").rglob("*.py")]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    assert names >= NOT_AT_ONCE
    found = heavy({name: f"import {name}" for name in sorted(names - NOT_AT_ONCE)})
    assert found
    assert not any(found.values()), found


def test_what_is_heavy_is_seen():
    found = heavy(
        {
            "later": "import scipy\n\n\ndef pdf():\n    from scipy.stats import beta",
            "lazily": "import scipy\n\nscipy.stats.beta",
            "at once": "from sklearn.datasets import load_digits",
        }
    )
    assert found == {"later": set(), "lazily": {"scipy.stats"}, "at once": {"sklearn"}}
