"""Of `mini`, what a kept result depends on: what is used, what that imports, and what they do."""

import dataclasses
import functools
import json
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import mini.data
from mini import mixup, training
from mini.course import keys, notebook
from mini.course.experiment import options_text
from mini.course.keys import digest
from mini.data import Split
from mini.training import models

# Files of the names of real modules, which hold other code. `sam` is used by nobody.
TREE = {
    "__init__": "",
    "attention": "RATE = 1",
    "course/__init__": "from mini import sam",
    "course/keys": "RATE = 1",
    "course/notebook": "from mini import sam\n",
    "data/__init__": "from mini.data.batches import Split\nRATE = 1",
    "data/batches": "def f():\n    if False:\n        from mini import files",
    "data/operations": "RATE = 1",
    "files": "RATE = 1",
    "mixup": "from mini.data import Split",
    "sam": "RATE = 1",
    "training/__init__": "from mini.training.loop import fit",
    "training/loop": "from mini.course import keys\nfrom . import metrics\nfrom .. import vit",
    "training/metrics": "def f(x):\n    '''One.'''\n    return x + 1  # more",
    "training/models": "import mini.data.batches as b",
    "training/probes": "from mini import training\nf = training.models.SmallResNet",
    "vit": "import mini.attention",
}
DATA = {"__init__", "data/__init__", "data/batches", "files"}
LOOP = {
    "__init__", "training/__init__", "training/loop", "training/metrics", "vit", "attention",
}  # fmt: skip
NETWORK = LOOP | DATA | {"training/models"}
EVERYTHING = {name for name in TREE if not name.startswith("course")}


def key(
    root: Path, value: object, changes: dict[str, str] | None = None, of: Callable = digest
) -> str:
    """What `of` makes of `value` where the files of `mini` are those of TREE, but the changes."""
    for name, text in (TREE | (changes or {})).items():
        path = root / "mini" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "ROOT", root)
        return of(value)


def of_module(seed):
    return training.fit(seed)


def of_a_submodule(seed):
    return training.probes.knn_accuracy(seed)


def of_the_top(seed):
    return mini.data.operations.rotate(seed)


def inside(seed):
    def inner():
        from mini.training import models as networks

        return networks

    return inner()


def indented() -> Callable:
    def measure(seed):
        text = """
at the margin, which keeps the function where it is"""
        from mini.data import operations

        return text, operations

    return measure


LAMBDAS = {
    "of a line that alone is no Python": lambda seed: training.probes,
}


def by_name(seed):
    import importlib

    return importlib.import_module(f"mini.{seed}")


def closed_over(value: object) -> Callable:
    def measure(seed):
        return value

    return measure


def borrowed() -> Callable:
    """A function of a library that goes by a name of mini, as a wrapper that it made does."""
    function = types.FunctionType(json.dumps.__code__, vars(json))
    function.__module__ = "mini.sam"
    return function


def wrapped_by_mini() -> Callable:
    """A function of a module of mini that goes by the name of ours, which it wraps."""
    function = types.FunctionType(of_module.__code__, {"__name__": "mini.sam"})
    return functools.update_wrapper(function, closed_over(1))


class Derived(models.SmallResNet):
    pass


class Locked:
    held = (threading.Lock(), training.fit)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Its methods are made, and one is wrapped: they have no source, and import nothing."""

    left: int
    right: list = dataclasses.field(default_factory=list)
    fit: Callable = training.fit


class Marked(np.ndarray):
    __module__ = "mini.sam"


def run_of(config: object) -> notebook.Run:
    config = types.SimpleNamespace(mixed=config)
    where = ("digits", torch.device("cpu"), ())
    return notebook.Run("90_test", "A paper", "quick", "quick", [0], config, *where)


USES = {
    "nothing": (closed_over(1), set()),
    "a module": (of_module, LOOP),
    "an attribute of a module": (of_a_submodule, NETWORK | {"training/probes"}),
    "an attribute of mini": (of_the_top, DATA | {"data/operations"}),
    "an import in a function": (inside, NETWORK),
    "an import beside a text at the margin": (indented(), DATA | {"data/operations"}),
    "an import by a name that is computed": (by_name, EVERYTHING),
    "a lambda in a dict": (closed_over(LAMBDAS), NETWORK | {"training/probes"}),
    "a function": (closed_over(training.fit), LOOP),
    "a partial": (functools.partial(training.fit, 1), LOOP),
    "a class": (closed_over(models.SmallResNet), NETWORK),
    "a class of ours that inherits": (closed_over(Derived), NETWORK),
    "a class that nothing can be told of": (closed_over(Locked), EVERYTHING),
    "a dataclass of ours": (closed_over(Pair(1)), LOOP),
    "an instance": (closed_over(models.SmallResNet(2, 2)), NETWORK),
    "a method": (closed_over(models.SmallResNet(2, 2).forward), NETWORK),
    "a tuple of a kind of its own": (closed_over({"a": [Split([], [])]}), DATA),
    "an array of a kind of its own": (closed_over(np.arange(3).view(Marked)), {"__init__", "sam"}),
    "a function in a setting of a run": (closed_over(run_of(mixup.mixup)), DATA | {"mixup"}),
    "a wrapper of a library": (closed_over(borrowed()), {"__init__", "sam"}),
    "a wrapper of mini": (closed_over(wrapped_by_mini()), {"__init__", "sam"}),
    "the machinery of the course": (closed_over(notebook.seeded), {"__init__"}),
}  # fmt: skip


def check_use(tmp_path: Path, use: str) -> None:
    value, reached = USES[use]
    same = key(tmp_path, value)
    assert key(tmp_path, value) == same
    assert {name for name in TREE if key(tmp_path, value, {name: "RATE = 7"}) != same} == reached


@pytest.mark.parametrize("use", USES)
def test_modules_count_that_are_used_and_what_they_import(tmp_path, use):
    check_use(tmp_path, use)


def test_what_is_handed_over_as_an_option_counts(tmp_path):
    same = key(tmp_path, {"f": training.fit}, of=options_text)
    for name in TREE:
        other = key(tmp_path, {"f": training.fit}, {name: "RATE = 7"}, of=options_text)
        assert (other != same) == (name in LOOP)


SAME = (
    'def f(x):\n    """Two lines,\n    and a change."""\n    return x + 1',
    "'''Of the module.'''\n# A comment.\n\n\ndef f( x ):\n  return (x\n    + 1)\n",
)
OTHER = (
    "def f(x):\n    '''One.'''\n    return x + 2  # more",
    "def f(x):\n    return 'One.'",
    "def f(x):\n    x = 'One.'\n    return x + 1",
    "def f(x, y=1):\n    '''One.'''\n    return x + 1  # more",
    "def f(x):\n    '''One.'''\n    return x + (",  # no Python at all
    "def f(x):\n    '''Two.'''\n    return x + (",
    "class f:\n    '''One.'''",
)


def test_of_a_module_counts_what_it_does(tmp_path):
    same = key(tmp_path, of_module)
    assert {key(tmp_path, of_module, {"training/metrics": text}) for text in SAME} == {same}
    others = {key(tmp_path, of_module, {"training/metrics": text}) for text in OTHER}
    assert len(others - {same}) == len(OTHER)
    one, two = (f"class A:\n    '''{n}.'''\n    async def f():\n        '''{n}.'''" for n in "12")
    assert key(tmp_path, of_module, {"vit": one}) == key(tmp_path, of_module, {"vit": two})


IMPORTS = {
    "import mini.sam": True,
    "import os, mini.sam as s": True,
    "from mini import files, sam": True,
    "from mini.sam import RATE as r": True,
    "from . import sam": True,
    "from .sam import RATE": True,
    "class A:\n    def f(self):\n        from .sam import RATE": True,
    "try:\n    from mini import sam\nexcept ImportError:\n    pass": True,
    "import mini\nmini.sam": True,
    "from mini.training import *": True,  # which may be anything
    "from importlib import import_module as get\nget('mini.' + 'sam')": True,
    "__import__('mini.sam')": True,
    "from sam import RATE\nimport sam": False,
    "from minimal import sam\nfrom mini.files import sam": False,
    "from mini.files import ROOT\nROOT.sam": False,
    "from .. import sam": False,
    "import importlib.util\n'mini.sam'": False,
}


@pytest.mark.parametrize(("text", "is_imported"), IMPORTS.items())
def test_an_import_of_any_form_is_followed(tmp_path, text, is_imported):
    """In a module that is two imports away."""
    same = key(tmp_path, of_module, {"vit": text})
    assert (key(tmp_path, of_module, {"vit": text, "sam": "RATE = 7"}) != same) == is_imported


def test_relative_imports_climb_as_many_packages_as_they_have_dots(tmp_path):
    for text, name in (
        ("from ... import sam", "sam"),
        ("from .. import probes", "training/probes"),
    ):
        files = {"training/deep/__init__": "from .one import f", "training/deep/one": text}
        files |= {"training/metrics": "from mini.training import deep"}
        same = key(tmp_path, of_module, files)
        assert key(tmp_path, of_module, files | {name: "RATE = 7"}) != same


CELL = """
from mini import training
def measure(seed): return training.fit, training.probes
"""
PROGRAM = """
{before}
from mini.course.keys import digest
exec(compile(open({path!r}).read(), {path!r}, "exec"))
print(digest(measure))
"""


def test_what_else_is_loaded_and_in_which_order_moves_nothing(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text(CELL)
    orders = ("", "import mini.training.probes, mini.sam", "from mini import vit, data, training")
    programs = [PROGRAM.format(before=before, path=str(path)) for before in orders]
    found = [subprocess.check_output([sys.executable, "-c", p], text=True) for p in programs]
    assert len(set(found)) == 1
