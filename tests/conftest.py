"""Unit tests run with the course's settings at their defaults, one thread, and no network."""

from tools.environment import ROOT, pin

pin(results=ROOT / "build" / "test" / "results")
