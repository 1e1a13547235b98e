"""The strict run of notebooks catches what it must, quickly, and nothing more."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import torch
from nbformat import v4

from tests.notebooks.sample_notebook import code, notebook_of, sample, stream

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTILE = {
    "MINI_DATA": "cifar10",
    "MINI_SCALE": "full",
    "MINI_SEEDS": "99",
    "MINI_DEVICE": "cuda",
    "OMP_NUM_THREADS": "64",
    "TQDM_DISABLE": "0",
    "MPLBACKEND": "Agg",
}
PINNED = [None, "check", None, "cpu", "1", "1", "module://matplotlib_inline.backend_inline"]
REFUSED = """\
import socket, subprocess, sys, urllib.request
try:
    urllib.request.urlopen("http://example.org", timeout=5)
except OSError as problem:
    print(problem)
try:
    socket.socket().connect(("192.0.2.1", 80))
except OSError as problem:
    print(problem)
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
lookup = "import socket; socket.getaddrinfo('example.org', 80)"
child = [sys.executable, "-c", lookup]
done = subprocess.run(child, capture_output=True, text=True)
print(done.stderr.splitlines()[-1])
"""
REFUSALS = """\
<urlopen error tests run offline: no look-up of example.org>
tests run offline: no connection to 192.0.2.1
socket.gaierror: tests run offline: no look-up of example.org
"""


def result(text):
    """What a cell's last expression displays."""
    return v4.new_output("execute_result", data={"text/plain": text})


def stub(source, message="not yet"):
    """A cell with an announced error."""
    error = v4.new_output("error", ename="AssertionError", evalue=message, traceback=[])
    return code(source, error, tags=("raises-exception",))


def die(signal):
    """A cell that ends its kernel."""
    return code(f"import os, signal\nos.kill(os.getpid(), signal.{signal})")


def differing(source, *outputs):
    """A cell whose stored outputs are not what it gives, and a sound one after it."""
    return [code(source, *outputs), code("print(1)", stream("1\n"))]


DIFFERS = {"failed": 1, "passed": 1}
CASES = {
    "good": (sample().cells, {"passed": 13}),
    "semicolon": ([code("1;"), code("[2];")], {"passed": 2}),
    "offline": ([code(REFUSED, stream(REFUSALS))], {"passed": 1}),
    "pinned": (
        [
            code(
                f"import os\nprint([os.environ.get(n) for n in {[*HOSTILE]}])",
                stream(f"{PINNED}\n"),
            )
        ],
        {"passed": 1},
    ),
    "interpreter": (
        [code(f"import sys\nprint(sys.prefix == {sys.prefix!r})", stream("True\n"))],
        {"passed": 1},
    ),
    "wrong_print": (differing("print(0.25)", stream("0.26\n")), DIFFERS),
    "wrong_result": (differing("0.25", result("0.26")), DIFFERS),
    "new_result": (differing("0.25"), DIFFERS),
    "lost_result": (differing("0.25;", result("0.25")), DIFFERS),
    "warning": (differing("import warnings; warnings.warn('look')"), DIFFERS),
    "address": (differing("object()", result("<object object at 0x7f00>")), DIFFERS),
    "error": (
        [code("x = 1"), code("1 / 0"), code("print(x)", stream("2\n")), code("y")],
        {"passed": 1, "failed": 1, "skipped": 2},
    ),
    "stub": ([stub("assert False, 'not yet'"), code("1", result("1"))], {"passed": 2}),
    "other_stub": ([stub("assert False, 'other'"), code("1", result("1"))], DIFFERS),
    "passing_stub": ([stub("assert True, 'not yet'"), code("1", result("1"))], DIFFERS),
    "killed": (
        [code("1", result("1")), die("SIGKILL"), code("2", result("2"))],
        {"passed": 1, "failed": 1, "skipped": 1},
    ),
    "crashed": ([die("SIGSEGV"), code("2", result("2"))], {"failed": 1, "skipped": 1}),
}


class StrictRun(NamedTuple):
    """What came of all cases: counts per notebook, the printed output, status and seconds."""

    counts: dict[str, Counter]
    output: str
    status: int
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """All cases in one run, as `pytest --nbval notebooks` does it, from a hostile environment."""
    folder = tmp_path_factory.mktemp("strict")
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder)
    for name, (cells, _) in CASES.items():
        nbformat.write(notebook_of(*cells), folder / f"{name}.ipynb")
    other = folder / "jupyter" / "kernels" / "python3" / "kernel.json"  # of this name, not ours
    other.parent.mkdir(parents=True)
    ends_at_once = {"argv": [sys.executable, "-c", ""], "display_name": "", "language": "python"}
    other.write_text(json.dumps(ends_at_once))
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--nbval"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--junitxml={report}", folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | HOSTILE | {"JUPYTER_PATH": str(folder / "jupyter")},
    )
    counts, seconds = {name: Counter() for name in CASES}, Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        verdict = next((kinds[part.tag] for part in case if part.tag in kinds), "passed")
        name = re.search(r"(\w+)(\.ipynb)?$", case.get("classname"))[1]
        name = re.search(rf"({'|'.join(sorted(CASES, key=len, reverse=True))})", name)[1]
        counts[name][verdict] += 1
        seconds[name] += float(case.get("time"))
    return StrictRun(counts, done.stdout + done.stderr, done.returncode, seconds)


@pytest.mark.parametrize("name", CASES)
def test_case(strict, name):
    assert strict.counts[name] == CASES[name][1], strict.output


def test_failures_are_explained(strict):
    assert strict.status == 1
    assert "ZeroDivisionError" in strict.output
    assert "Cell 1 failed" in strict.output
    assert strict.output.count("the kernel died") >= 2


def test_dead_kernel_is_noticed_at_once(strict):
    assert strict.seconds["killed"] + strict.seconds["crashed"] < 30


def test_time_of_every_notebook_is_printed(strict):
    table = strict.output.partition("slowest notebooks")[2]
    times = [float(t) for t in re.findall(r"^ +(\d+\.\d) s  .*\.ipynb$", table, re.MULTILINE)]
    assert len(times) == len(CASES)
    assert times == sorted(times, reverse=True)


def test_unit_tests_have_one_thread_and_no_network():
    assert torch.get_num_threads() == 1
    start = time.monotonic()
    with pytest.raises(ConnectionRefusedError, match="offline"):
        socket.socket().connect(("192.0.2.1", 80))
    with pytest.raises(socket.gaierror, match="offline"):
        socket.getaddrinfo("example.org", 80)
    assert time.monotonic() - start < 1
