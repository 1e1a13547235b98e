"""Folders that a user names: in the shell's sense, wherever Jupyter starts a kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mini import data, files
from mini.course import notebook
from tests.data.sample_data import complains, left_in, make_folder, scratch

SETTINGS = ("MINI_DATA", "MINI_CACHE", "MINI_RESULTS")


def of(setting: str) -> Path:
    """The folder that the course uses for a setting."""
    if setting == "MINI_DATA":
        return Path(data.named())
    return files.cache_folder() if setting == "MINI_CACHE" else notebook.results_folder("quick")


def meant(setting: str, value: str, **environment: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        for name, content in {setting: value, **environment}.items():
            patch.setenv(name, content)
        return of(setting)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_folder_means_what_the_shell_means(setting):
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        (root / "top" / "notebooks").mkdir(parents=True)
        for folder in ("x", "top/x", "top/notebooks/x"):
            (root / folder).mkdir()
        patch.delenv("JPY_PARENT_PID", raising=False)
        patch.setenv("PWD", str(root / "top"))
        assert meant(setting, "~/x", HOME=str(root)) == root / "x"
        # A command in the top folder; PWD may be another's, as of a program that changed folders.
        patch.chdir(root / "top")
        assert meant(setting, "x", PWD=str(root)) == root / "top" / "x"
        assert meant(setting, "./x/", PWD=str(root)) == root / "top" / "x"
        # A kernel that Jupyter started, in the notebook's folder.
        patch.chdir(root / "top" / "notebooks")
        assert meant(setting, "x", JPY_PARENT_PID="1") == root / "top" / "x"
        assert meant(setting, str(root / "x"), JPY_PARENT_PID="1") == root / "x"
        patch.setenv("PWD", str(root / "gone"))
        assert meant(setting, "x", JPY_PARENT_PID="1") == root / "top" / "notebooks" / "x"


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_home_that_is_not_there_gets_one_sentence(setting):
    check_no_home(setting)


def check_no_home(setting: str = "MINI_RESULTS") -> None:
    with complains(f"{setting}='~nobody-of-this-name/x'", "home folder", "write the path out"):
        meant(setting, "~nobody-of-this-name/x")

    def lost(_: Path) -> None:
        raise RuntimeError("Could not determine home directory.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "expanduser", lost)  # no HOME, and nobody in the list of users
        with complains(f"{setting}='~/x'", "home folder"):
            meant(setting, "~/x")
        with complains("home folder"):
            data.load("~/x")


IN_A_KERNEL = """
from mini import data, files
from mini.course import notebook
print(files.cache_folder(), notebook.results_folder("quick"), data.named(), sep="\\n")
"""


def test_what_a_kernel_s_workers_make_of_it():
    """Workers inherit the kernel's folder and its environment."""
    with scratch() as root:
        top = root / "top"
        make_folder(top / "pets")
        (top / "notebooks").mkdir()
        settings = {"MINI_CACHE": "cache", "MINI_RESULTS": "here", "MINI_DATA": "pets"}
        shell = {"PWD": str(top), "JPY_PARENT_PID": "1", "PYTHONPATH": str(files.ROOT)}
        shown = subprocess.run(
            [sys.executable, "-c", IN_A_KERNEL],
            cwd=top / "notebooks",
            env=os.environ | settings | shell,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert shown.split() == [str(top / name) for name in ("cache", "here", "pets")]


def test_a_name_that_is_no_data_set_is_said_with_the_folder_that_was_looked_for():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_given_in", lambda: root)
        with complains("'petz'", f"no folder {root / 'petz'}:", "cifar10"):
            meant("MINI_DATA", "petz")
        assert meant("MINI_DATA", "cifar10") == Path("cifar10")


def test_whether_a_folder_can_be_written_is_tried_without_a_trace():
    with scratch() as root:
        files.require_writable(root / "a" / "b")
        assert left_in(root) == []
        (root / "file").touch()
        with complains(f"{root / 'file' / 'a'} cannot be written", "MINI_RESULTS"):
            files.require_writable(root / "file" / "a")
