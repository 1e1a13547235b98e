"""Strict test run of the notebooks: `pytest --nbval`, here or in the root.

It runs at the scale `check`, one fresh seed against recorded ones, and at
`quick` where MINI_SCALE says so. No other setting gets through.

What nbval 0.11 lacks is added over its RunningKernel: cells run with history
on (else a trailing `;` is ignored, nbval issue 194), a dead kernel is noticed
at once, and a notebook whose cell raised is not run any further. A cell whose
output merely differs stops nothing, so that every difference is shown.
"""

import math
import os
import time
from collections import defaultdict
from queue import Empty

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from tools.environment import ROOT, pin

SCALE = "quick" if os.environ.get("MINI_SCALE") == "quick" else "check"
pin(results=ROOT / "build" / "test" / "results", scale=SCALE)

_get_message = RunningKernel.get_message


def _execute_with_history(self, cell_input, allow_stdin=None):
    return self.kc.execute(
        cell_input,
        store_history=True,
        allow_stdin=allow_stdin,
        stop_on_error=False,
    )


def _get_message_while_alive(self, stream, timeout=None):
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            return _get_message(self, stream, timeout=min(1.0, left))
        except Empty:
            if not self.is_alive():
                pytest.fail("the kernel died (out of memory, or killed)", False)
            if left <= 1.0:
                raise


RunningKernel.execute_cell_input = _execute_with_history
RunningKernel.get_message = _get_message_while_alive


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember the cell that broke its notebook."""
    report = yield
    if (
        isinstance(item, IPyNbCell)
        and report.failed
        and str(call.excinfo.value) != "Cell outputs differ"
    ):
        item.parent.broken_by = item.name
    return report


def pytest_runtest_setup(item):
    """Skip the cells after the one that broke the notebook."""
    if broken_by := getattr(item.parent, "broken_by", None):
        pytest.skip(f"{broken_by} failed")


def pytest_terminal_summary(terminalreporter):
    """Print the time of each notebook, slowest first."""
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            notebook, _, cell = getattr(report, "nodeid", "").partition("::")
            if notebook.endswith(".ipynb") and cell:
                seconds[notebook] += getattr(report, "duration", 0.0)
    if seconds:
        terminalreporter.section("slowest notebooks")
        for notebook in sorted(seconds, key=seconds.get, reverse=True):
            line = f"{seconds[notebook]:7.1f} s  {notebook}"
            terminalreporter.write_line(line)
