"""`make`: what the Makefile hands on to the course."""

import os
import subprocess
from pathlib import Path

import pytest

from mini.data.sets import NAMES

ROOT = Path(__file__).resolve().parent.parent.parent
SHOW = """#!/bin/sh
printf '%s\n' "$MINI_DATA" "$MINI_CACHE" "$MINI_RESULTS"
"""


@pytest.fixture
def top(tmp_path):
    """A folder with the Makefile and, in the place of Python, a script that prints settings."""
    top = tmp_path / "top"
    python = top / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(SHOW)
    python.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (top / name).write_bytes((ROOT / name).read_bytes())
    (top / ".venv" / ".set-up").touch()
    return top


def shown(top: Path, command: str, folder: Path, **settings: str) -> list[str]:
    """What a shell in `folder` gets from a command."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["sh", "-c", f"cd '{folder}' && {command}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/home/of-nobody"} | settings,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("make")]


def test_relative_folders_are_the_shell_s_also_with_c(top):
    here = top.parent / "here with spaces"
    settings = {"MINI_DATA": "./x", "MINI_CACHE": "a b/c", "MINI_RESULTS": "../r"}
    expected = [f"{here}/./x", f"{here}/a b/c", f"{here}/../r"]
    for flags in ("", "-s ", "--no-print-directory "):
        assert shown(top, f"make {flags}-C ../top run", here, **settings) == expected
    given = "MINI_DATA=./x MINI_CACHE='a b/c' MINI_RESULTS=../r"
    assert shown(top, f"make -C ../top run {given}", here) == expected
    assert shown(top, "make run", top, **settings) == list(settings.values())  # Python's to read


@pytest.mark.parametrize("value", [*NAMES, "/x/y", "~/x", "C:/x", ""])
def test_names_and_whole_paths_are_handed_on_as_they_are(value, top):
    settings = {"MINI_DATA": value}
    if value not in NAMES:
        settings |= {"MINI_CACHE": value, "MINI_RESULTS": value}
    found = shown(top, "make -C ../top run", top.parent / "here", **settings)
    assert found == [settings.get(name, "") for name in ("MINI_DATA", "MINI_CACHE", "MINI_RESULTS")]
