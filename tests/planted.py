"""Realistic bugs, planted into a module in memory: whatever nothing catches is a missing check."""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


class PlantError(Exception):
    """The harness could not do its work; never to be counted as a bug that was caught."""


@dataclass(frozen=True)
class Bug:
    """A change to one module, why it is realistic, and the check that must notice it.

    `old` occurs exactly once in the source of `module` and becomes `new`. `caught_by` runs in this
    process (worker processes import the sound module) and raises where it finds something wrong.
    """

    module: str
    old: str
    new: str
    why: str
    caught_by: Callable[[], None]


def mutated_source(bug: Bug) -> str:
    """The source of the bug's module with the bug in it; PlantError unless `old` is there once."""
    path = importlib.import_module(bug.module).__file__
    source = Path(path).read_text(encoding="utf-8")
    count = source.count(bug.old)
    if count != 1:
        raise PlantError(f"{bug.module} holds {bug.old!r} {count} times, expected exactly once")
    if bug.old == bug.new:
        raise PlantError(f"the bug in {bug.module} changes nothing: {bug.old!r}")
    return source.replace(bug.old, bug.new)


def _borrowers(module: ModuleType) -> list[ModuleType]:
    """The loaded modules that may have imported names from `module`: ours, and the tests'."""
    own = (str(ROOT / "mini"), str(ROOT / "tests"), str(Path(module.__file__).parent))
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return [
        other
        for other in modules
        if other is not module and (getattr(other, "__file__", None) or "").startswith(own)
    ]


@contextlib.contextmanager
def executed(name: str, source: str) -> Iterator[ModuleType]:
    """Let `source` stand in for the module called `name`; afterwards all is as it was.

    The source runs in the module's own namespace. Names that other modules took from it with
    `from ... import ...` are rebound too, else they would go on calling the sound functions.
    """
    module = importlib.import_module(name)
    namespace = vars(module)
    before = dict(namespace)
    rebound: list[tuple[ModuleType, str, object]] = []
    try:
        try:
            exec(compile(source, module.__file__, "exec"), namespace)
        except Exception as problem:
            raise PlantError(f"{name} cannot be loaded with this bug: {problem!r}") from problem
        replaced = {
            id(value): namespace[key]
            for key, value in before.items()
            if getattr(value, "__module__", None) == name and namespace.get(key) is not value
        }
        for other in _borrowers(module):
            for key, value in list(vars(other).items()):
                if id(value) in replaced:
                    rebound.append((other, key, value))
                    setattr(other, key, replaced[id(value)])
        yield module
    finally:
        for other, key, value in rebound:
            setattr(other, key, value)
        namespace.clear()
        namespace.update(before)


@contextlib.contextmanager
def planted(bug: Bug) -> Iterator[ModuleType]:
    """The module with the bug in it, for the length of a `with` block."""
    with executed(bug.module, mutated_source(bug)) as module:
        yield module


def check_sound(bug: Bug) -> None:
    """Run the check on the sound module, reloaded just as it is for a planted bug.

    The reload makes it a control: what fails from being reloaded alone would catch every bug.
    """
    source = Path(importlib.import_module(bug.module).__file__).read_text(encoding="utf-8")
    with executed(bug.module, source):
        bug.caught_by()


def is_caught(bug: Bug) -> bool:
    """Whether the check fails once the bug is planted; any exception of the check counts."""
    with planted(bug):
        try:
            bug.caught_by()
        except pytest.skip.Exception as skipped:
            raise PlantError(f"the check for {bug.why!r} skipped itself: {skipped}") from None
        except (Exception, pytest.fail.Exception):
            return True
    return False


def defaults(function: Callable) -> dict[str, object]:
    """What each argument of `function` is by default: numbers that papers give, and tests too."""
    parameters = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not inspect.Parameter.empty}
