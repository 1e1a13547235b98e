"""The key of a kept result: it changes with all that could move a number, and with nothing else."""

import functools
import itertools
import linecache
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from mini.course.experiment import options_text, run_all
from mini.course.keys import digest
from tests.data.sample_data import complains

SOURCE = """
import functools
import numpy as np
import torch
from functools import partial

{constant}


def deeper(x):
    return {body}


def wrap(f):
    @functools.wraps(f)
    def wrapped(*args):
        return {outer} * f(*args)
    return wrapped


class Base:
    def rate(self):
        return {method}


class Net(Base):
    width = {attribute}

{text}
"""
SOUND = {
    "constant": "RATE = None",
    "body": "x + 1",
    "outer": "1",
    "method": "1",
    "attribute": "1",
    "text": "def measure(seed):\n    return deeper(seed)",
}
numbered = itertools.count()


def key(tmp_path: Path, **parts: str) -> str:
    """Of the function `measure` in a file that is made of these parts."""
    path = tmp_path / f"beside{next(numbered)}.py"  # another place each time, which moves nothing
    path.write_text(SOURCE.format(**SOUND | parts))
    linecache.checkcache()
    module = types.ModuleType("beside")
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    return digest(module.measure)


USES = {
    "a call": "def measure(seed):\n    return deeper(seed)",
    "a lambda": "def measure(seed):\n    return (lambda x: deeper(x))(seed)",
    "a comprehension": "def measure(seed):\n    return [deeper(x) for x in range(seed)]",
    "a generator": "def measure(seed):\n    return sum(deeper(x) for x in range(seed))",
    "an inner function": (
        "def measure(seed):\n    def inner():\n        return deeper(seed)\n    return inner()"
    ),
    "an inner class": (
        "def measure(seed):\n    class Inner:\n        y = deeper(1)\n    return Inner.y"
    ),
    "a partial": "one = partial(deeper, 1)\n\n\ndef measure(seed):\n    return one()",
    "a dict": "ALL = {'one': deeper}\n\n\ndef measure(seed):\n    return ALL['one'](seed)",
    "a dict of lambdas": (
        "ALL = {'one': lambda x: deeper(x)}\n\n\ndef measure(seed):\n    return ALL['one'](seed)"
    ),
    "a tuple": "ALL = (1, [deeper])\n\n\ndef measure(seed):\n    return ALL[1][0](seed)",
    "a cache": (
        "@functools.cache\ndef held(x):\n    return deeper(x)\n\n\n"
        "def measure(seed):\n    return held(seed)"
    ),
    "a decorator of torch": (
        "@torch.no_grad()\ndef held(x):\n    return deeper(x)\n\n\n"
        "def measure(seed):\n    return held(seed)"
    ),
    "a default": "def measure(seed, f=deeper):\n    return f(seed)",
    "a closure": (
        "def make():\n    inner = deeper\n    def measure(seed):\n        return inner(seed)\n"
        "    return measure\n\n\nmeasure = make()"
    ),
    "a method": (
        "class Other:\n    def run(self, x):\n        return deeper(x)\n\n\n"
        "def measure(seed):\n    return Other().run(seed)"
    ),
    "a property": (
        "class Other:\n    @property\n    def run(self):\n        return deeper(1)\n\n\n"
        "def measure(seed):\n    return Other().run"
    ),
    "an object": (
        "class Other:\n    pass\n\n\nother = Other()\nother.run = deeper\n\n\n"
        "def measure(seed):\n    return other.run(seed)"
    ),
    "a partial for the whole": (
        "def both(seed, f):\n    return f(seed)\n\n\nmeasure = partial(both, f=deeper)"
    ),
}


@pytest.mark.parametrize("text", USES.values(), ids=USES)
def test_a_helper_counts_wherever_it_is_used(tmp_path, text):
    check_helper(tmp_path, text)


def check_helper(tmp_path: Path, text: str) -> None:
    same = key(tmp_path, text=text)
    assert key(tmp_path, text=text) == same
    assert key(tmp_path, text=text, body="x + 2") != same


DECORATED = "@wrap\ndef held(x):\n    return x\n\n\ndef measure(seed):\n    return held(seed)"
SILENT = (
    "def note(f):\n    f.rate = {0}\n    return f\n\n\n@note\ndef measure(seed):\n    return seed"
)
OF_NET = "def measure(seed):\n    return Net().rate()"


def test_decorators_classes_and_their_bases_count(tmp_path):
    for text, change in (
        (DECORATED, {"outer": "2"}),
        (OF_NET, {"attribute": "2"}),
        (OF_NET, {"method": "2"}),
    ):
        same = key(tmp_path, text=text)
        assert key(tmp_path, text=text) == same
        assert key(tmp_path, text=text, **change) != same
    # A decorator that gives back the function itself is nowhere but in its source.
    assert key(tmp_path, text=SILENT.format(1)) != key(tmp_path, text=SILENT.format(2))


CONSTANTS = [
    ("1", "2"),
    ("1", "1.0"),
    ("1", "True"),
    ("0.1", "0.1000000000000001"),
    ("(1, 2)", "[1, 2]"),
    ("{'a': 1}", "{'a': 2}"),
    ("{'a': {'b': [1]}}", "{'a': {'b': [2]}}"),
    ("{1, 2}", "{1, 3}"),
    ("None", "'None'"),
    ("b'a'", "'a'"),
    ("range(3)", "range(4)"),
    ("slice(0, 3)", "slice(0, 4)"),
    ("np.arange(5000)", "np.arange(5000) + (np.arange(5000) == 2500)"),
    ("np.zeros(4)", "np.zeros((2, 2))"),
    ("np.zeros(4, 'float32')", "np.zeros(4, 'int32')"),
    ("np.float64(1)", "np.float32(1)"),
    ("np.array(['a', None], dtype=object)", "np.array(['b', None], dtype=object)"),
    ("torch.arange(5000)", "torch.arange(5000) + (torch.arange(5000) == 2500)"),
    ("torch.ones(3).bfloat16()", "torch.zeros(3).bfloat16()"),
    ("torch.ones(())", "torch.zeros(())"),
    ("torch.float32", "torch.float64"),
    ("torch.Generator().manual_seed(1)", "torch.Generator().manual_seed(2)"),
    ("np.random.RandomState(1)", "np.random.RandomState(2)"),
    ("torch.nn.Linear(2, 1).requires_grad_(False)", "torch.nn.Linear(2, 2)"),
    ("torch.nn.Dropout(0.1)", "torch.nn.Dropout(0.2)"),
    ("torch.nn.functional.relu", "torch.nn.functional.gelu"),
    ("np.add", "np.multiply"),
    ("torch.nn.ReLU", "torch.nn.GELU"),
    ("functools.partial(torch.add, 1)", "functools.partial(torch.add, 2)"),
    ("[1].append", "[2].append"),
]
READS = "def measure(seed):\n    return [RATE for _ in range(seed)]"


@pytest.mark.parametrize(("one", "other"), CONSTANTS)
def test_a_constant_of_any_kind_counts(tmp_path, one, other):
    seeded = "torch.manual_seed(0)\nRATE = "
    same = key(tmp_path, text=READS, constant=seeded + one)
    assert key(tmp_path, text=READS, constant=seeded + one) == same
    assert key(tmp_path, text=READS, constant=seeded + other) != same


def test_what_is_not_used_does_not_count(tmp_path):
    same = key(tmp_path)
    assert key(tmp_path, constant="RATE = 7") == same
    assert key(tmp_path, method="7", attribute="8", outer="9") == same
    # An attribute, or a variable of its own, of the same name is another thing.
    for text in (
        "def measure(seed):\n    return seed.RATE",
        "def measure(seed):\n    RATE = 1\n    return RATE",
        "def measure(RATE):\n    return RATE",
    ):
        assert key(tmp_path, text=text) == key(tmp_path, text=text, constant="RATE = 7")


def test_equal_values_share_a_key_wherever_they_are():
    array = np.arange(12.0).reshape(3, 4)
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array[:, :])
    assert digest([array, array]) == digest([array, array.copy()])
    assert list({8, 0}) != list({0, 8})  # CPython puts what collides in the order of its coming
    assert digest({8, 0}) == digest({0, 8})
    assert digest(torch.ones(3, 2).T) == digest(torch.ones(2, 3))
    assert digest(torch.device("cpu")) == digest(torch.device("cuda"))
    assert digest(functools.partial(max, a=1, b=2)) == digest(functools.partial(max, b=2, a=1))


def test_what_refers_to_itself_has_a_key():
    one, other = [1], [2]
    one.append(one)
    other.append(other)
    assert digest(one) != digest(other)


PROGRAM = """
import scipy.stats
from mini.course.keys import digest
names = {"a", "b", "c", "d"}
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n > 0 and even(n - 1)
def measure(seed): return names, even(seed), scipy.stats.beta
print(digest(names), digest({"x": frozenset(names)}), digest([scipy.stats.beta]))
"""


def test_another_process_gives_the_same_keys():
    """Hashes of text, addresses, and the streams of library objects are different there."""
    command = [sys.executable, "-c", PROGRAM]
    first, second = (subprocess.check_output(command, text=True) for _ in range(2))
    assert first == second


def test_what_nothing_can_be_told_of_is_refused(tmp_path):
    constant = "import threading\nRATE = {'a': threading.Lock()}"
    with complains("'RATE', which an experiment uses", "lock", "inside"):
        key(tmp_path, text=READS, constant=constant)


def test_large_arrays_as_options_are_told_apart():
    one = np.arange(5000)
    other = one + (one == 2500)
    assert repr(one) == repr(other)
    assert options_text({"weights": one}) != options_text({"weights": other})
    assert options_text({"weights": one}) == options_text({"weights": one.copy()})
    assert options_text({"width": 2, "of": ("a",)}) == "{'width': 2, 'of': ('a',)}"


def test_kept_results_of_large_options_of_bound_data_and_of_another_order(tmp_path):
    """What `run_all` takes for the same call: not another array, or other data in a partial."""
    calls = []

    def measure(seed: int, data: torch.Tensor, **options) -> dict:
        calls.append(seed)
        return {"value": float(data.sum())}

    def made(data: torch.Tensor, **options) -> int:
        calls.clear()
        whole = functools.partial(measure, data=data)
        run_all(whole, {"arm": options}, [0], workers=1, kept=tmp_path, fingerprint="same")
        calls_made = len(calls)
        calls.clear()
        return calls_made

    data, one = torch.zeros(3000), np.arange(5000)
    other = one + (one == 2500)
    assert [made(data, a=one, b=2), made(data, a=other, b=2)] == [1, 1]
    assert made(data.clone(), b=2, a=one) == 0
    assert made(data + (torch.arange(3000) == 1500), a=one, b=2) == 1
