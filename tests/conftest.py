"""Unit tests run with the course's settings at their defaults, one thread, and no network."""

import os

import pytest
from hypothesis import Phase, settings

from tools.environment import ROOT, pin

pin(results=ROOT / "build" / "test" / "results")

# An example that fails is not made smaller: a planted bug is caught as well by the first one, in a
# tenth of the time. To have one that is easy to read, add --hypothesis-profile=default.
PHASES = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
settings.register_profile("course", deadline=None, phases=PHASES)
settings.load_profile("course")


@pytest.fixture(autouse=True)
def environment_as_it_was():
    """A test that leaves a setting behind, such as a scale, would change those after it."""
    before = dict(os.environ)
    yield
    own = {"PYTEST_CURRENT_TEST"}  # pytest's: the test, and whether it begins or ends
    left = sorted(dict(os.environ.items() ^ before.items()).keys() - own)
    for name in left:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    assert not left, f"left in the environment: {', '.join(left)}"
