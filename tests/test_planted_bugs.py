"""Every planted bug of the tables `tests/*/bugs.py` is caught; and so is a lenient harness."""

import importlib
import re
from pathlib import Path

import pytest

from tests.planted import Bug, PlantError, check_sound, is_caught, planted

TABLES = {
    path.parent.name: importlib.import_module(f"tests.{path.parent.name}.bugs").BUGS
    for path in sorted(Path(__file__).parent.glob("*/bugs.py"))
}


def _label(table: str, bug: Bug) -> str:
    words = re.findall(r"\w+", bug.why.lower())
    return f"{table}-{'-'.join(words[:8])}"


ALL = [pytest.param(bug, id=_label(table, bug)) for table, bugs in TABLES.items() for bug in bugs]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_holds_at_least_five_bugs(table):
    assert len(TABLES[table]) >= 5


@pytest.mark.parametrize("bug", ALL)
def test_bug_is_caught(bug, tmp_path, monkeypatch):
    check_sound(bug)
    # A bug in the data must not end up in the cache on disk.
    monkeypatch.setenv("MINI_CACHE", str(tmp_path))
    assert is_caught(bug), f"nothing notices: {bug.why}"


# The harness itself, on a module made for it.

SOURCE = """
from dataclasses import dataclass

FACTOR = 2


@dataclass
class Pair:
    left: int
    right: int

    def total(self):
        return self.left + self.right


def double(x):
    return FACTOR * x


def same():
    return 1


def same_again():
    return 1
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """A small module `sound_module`, and `borrower_module`, which has imported its names."""
    (tmp_path / "sound_module.py").write_text(SOURCE)
    (tmp_path / "borrower_module.py").write_text("from sound_module import Pair, double\n")
    monkeypatch.syspath_prepend(tmp_path)
    sound = importlib.import_module("sound_module")
    borrower = importlib.import_module("borrower_module")
    yield sound, borrower
    for name in ("sound_module", "borrower_module"):
        monkeypatch.delitem(importlib.sys.modules, name)


def _bug(old: str, new: str, check=lambda: None) -> Bug:
    return Bug("sound_module", old, new, "made up for this test", check)


def test_bug_is_planted_in_borrowed_names_too_and_taken_back(double):
    sound, borrower = double
    before = dict(vars(sound))
    with planted(_bug("FACTOR = 2", "FACTOR = 3; EXTRA = 1")) as module:
        assert module is sound
        assert sound.double(1) == borrower.double(1) == 3
    assert sound.double(1) == borrower.double(1) == 2
    assert vars(sound) == before
    with planted(_bug("self.left + self.right", "self.left - self.right")):
        assert borrower.Pair(3, 1).total() == sound.Pair(3, 1).total() == 2
    assert borrower.Pair(3, 1).total() == 4
    assert borrower.Pair is sound.Pair


def test_caught_and_uncaught(double):
    sound, _ = double

    def good_check():
        assert sound.double(2) == 4

    bug = _bug("FACTOR * x", "FACTOR + x + 1", good_check)
    check_sound(bug)
    assert is_caught(bug)
    assert not is_caught(_bug("FACTOR * x", "FACTOR + x", good_check))
    assert not is_caught(_bug("FACTOR * x", "0"))
    assert sound.double(5) == 10


def test_uncaught_bug_fails_the_test(double, tmp_path, monkeypatch):
    bug = _bug("FACTOR * x", "0")
    with pytest.raises(AssertionError, match="nothing notices: made up"):
        test_bug_is_caught(bug, tmp_path, monkeypatch)


def test_check_that_fails_on_the_sound_module_fails_the_test(double, tmp_path, monkeypatch):
    def broken_check():
        raise RuntimeError("always")

    with pytest.raises(RuntimeError, match="always"):
        test_bug_is_caught(_bug("FACTOR * x", "0", broken_check), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return 1", "return 2", "2 times"),
        ("no such line", "", "0 times"),
        ("FACTOR * x", "FACTOR * x", "changes nothing"),
        ("FACTOR * x", "FACTOR * (", "cannot be loaded"),
        ("FACTOR = 2", "assert False", "cannot be loaded"),
    ],
)
def test_harness_problem_is_no_catch(double, old, new, message):
    sound, borrower = double
    with pytest.raises(PlantError, match=message):
        is_caught(_bug(old, new))
    assert sound.double(1) == borrower.double(1) == 2


def test_check_that_skips_is_no_catch_but_a_failed_expectation_is(double):
    def skipping():
        pytest.skip("not today")

    def expecting():
        with pytest.raises(ValueError, match="never"):
            importlib.import_module("sound_module").double(1)

    with pytest.raises(PlantError, match="skipped itself"):
        is_caught(_bug("FACTOR * x", "0", skipping))
    assert is_caught(_bug("FACTOR * x", "0", expecting))
