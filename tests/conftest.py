"""Unit tests run with the course's settings at their defaults, one thread, and no network."""

from hypothesis import Phase, settings

from tools.environment import ROOT, pin

pin(results=ROOT / "build" / "test" / "results")

# An example that fails is not made smaller: a planted bug is caught as well by the first one, in a
# tenth of the time. To have one that is easy to read, add --hypothesis-profile=default.
PHASES = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
settings.register_profile("course", deadline=None, phases=PHASES)
settings.load_profile("course")
