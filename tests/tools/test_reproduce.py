"""`make reproduce`: everything at full scale, in pieces that survive a kill, and nothing twice."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch

from mini.course.notebook import seeded
from tests.data.sample_data import KILLS, make_folder
from tests.notebooks.sample_notebook import code, notebook_of
from tools import reproduced

ROOT = Path(__file__).resolve().parent.parent.parent
START = """\
import time
import torch
from mini.course import notebook
from mini.course.claims import Claim

settings = {"seeds": 4, "n_train": 100, "n_test": 50}
run = notebook.start("01_sample", paper="Sample", quick=settings, full=settings)
run.announce(Claim("C1", "more is more", "table 1", "value"))
"""
TRAIN = """\
def train_one(seed, shift):
    time.sleep(0.2)
    generator = notebook.seeded(seed)
    return {"value": torch.rand((), generator=generator) + shift}


results = run.experiment(train_one, {"less": {"shift": 0}, "more": {"shift": 1}})
run.judge("C1", results["more"]["value"])
run.finish()
"""


@pytest.fixture
def course(tmp_path):
    for folder in ("tools", "mini"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "notebooks").mkdir()
    write(tmp_path, START, TRAIN)
    return tmp_path


def write(course, *cells):
    node = notebook_of(*(code(cell) for cell in cells))
    nbformat.write(node, course / "notebooks" / "01_sample.ipynb")


def start(course):
    settings = {"MINI_DATA": "digits", "PYTHONPATH": str(course), "MINI_CACHE": str(course)}
    environment = {k: v for k, v in os.environ.items() if k not in ("MINI_RESULTS", "MINI_SEEDS")}
    return subprocess.Popen(
        [sys.executable, course / "tools" / "execute.py", "reproduce"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | settings,
        start_new_session=True,
    )


def reproduce(course):
    process = start(course)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def kill(process, whom):
    """Kill a run and all that is of it, or its kernel alone, or one of the kernel's workers."""
    if whom == "all":
        os.killpg(process.pid, signal.SIGKILL)
        return
    mark = {"kernel": "ipykernel_launcher", "worker": "popen_loky"}[whom]
    with contextlib.suppress(psutil.NoSuchProcess):  # something has ended meanwhile
        children = psutil.Process(process.pid).children(recursive=True)
        for child in [c for c in children if any(mark in part for part in c.cmdline())][:1]:
            child.kill()


def check_whole(course):
    """Every file under its final name can be read to the end."""
    for path in course.rglob("*.json"):
        json.loads(path.read_text())
    for path in course.rglob("*.npz"):
        with np.load(path) as stored:
            names = {name for name, values in stored.items() if np.isfinite(values).all()}
        if path.is_relative_to(course / "results"):
            assert names == {"train_one/less/value", "train_one/more/value"}
        else:
            assert names == {"value", "seconds spent"}


def forget(course):
    for folder in (course / "results", course / "build"):
        shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_run_resumes_finds_the_same_and_is_then_skipped(course):
    """Killed at random moments, MINI_KILLS times: everything, the kernel, or a worker."""
    moments = random.Random(0)
    for count in range(KILLS):
        process, whom = start(course), ("all", "kernel", "worker")[count % 3]
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may end before
            process.wait(moments.uniform(2, 9))
        kill(process, whom)
        # This waits for the kernel and the workers too: they hold the output open.
        output, _ = process.communicate(timeout=60)
        check_whole(course)
        if "[1/1] 01_sample: done" in output or "finished before" in output:
            forget(course)
        elif whom != "all":
            assert process.returncode == 1, output
            assert "01_sample failed in cell" in output
    assert "[1/1] 01_sample: done" in reproduce(course)
    (path,) = (course / "results").rglob("*.json")
    (claim,) = json.loads(path.read_text())["claims"]
    assert path == course / "results" / "01_sample" / "digits-full.json"
    expected = [1 + torch.rand((), generator=seeded(seed)).item() for seed in range(4)]
    assert claim["values"] == pytest.approx(expected)

    again = reproduce(course)
    assert "01_sample: finished before, see results/01_sample/digits-full.json" in again
    assert "started" not in again


def test_what_changed_or_lost_its_record_is_run_again(course, monkeypatch):
    monkeypatch.setattr(reproduced, "ROOT", course)
    monkeypatch.setattr(reproduced, "FINISHED", course / "build" / "reproduced")
    record = course / "results" / "01_sample" / "digits-full.json"
    record.parent.mkdir(parents=True)
    record.touch()
    paths = [course / "notebooks" / "01_sample.ipynb"]
    assert reproduced.unfinished(paths) == paths
    reproduced.remember(paths[0], record)
    assert reproduced.unfinished(paths) == []

    with monkeypatch.context() as other:
        other.setenv("MINI_DATA", "cifar10")
        assert reproduced.unfinished(paths) == paths
        other.setenv("MINI_DATA", "digits")  # without a name a full run has other data
        assert reproduced.unfinished(paths) == paths
        other.setenv("MINI_DATA", "")
        assert reproduced.unfinished(paths) == []
    record.unlink()
    assert reproduced.unfinished(paths) == paths
    record.touch()
    assert reproduced.unfinished(paths) == []
    # The record of another run, of the same name.
    record.write_text('{"seeds": [0]}')
    assert reproduced.unfinished(paths) == paths
    record.write_text("")
    record.with_suffix(".npz").write_bytes(b"other measures")
    assert reproduced.unfinished(paths) == paths
    record.with_suffix(".npz").unlink()
    assert reproduced.unfinished(paths) == []
    (note,) = reproduced.FINISHED.iterdir()
    for content in ("", "[]", "{}", "results/01_sample/digits-full.json"):  # the last: as once
        note.write_text(content)
        assert reproduced.unfinished(paths) == paths
    reproduced.remember(paths[0], record)
    write(course, START, "changed = True", TRAIN)
    assert reproduced.unfinished(paths) == paths


def test_what_a_folder_holds_counts_and_how_it_is_written_does_not(course, monkeypatch):
    monkeypatch.setattr(reproduced, "ROOT", course)
    path, pets = course / "notebooks" / "01_sample.ipynb", make_folder(course / "pets")

    def key(name) -> str:
        monkeypatch.setenv("MINI_DATA", str(name))
        return reproduced.fingerprint(path)

    before = key(pets)
    monkeypatch.chdir(course)
    assert key(f"{pets}/") == key("pets") == key("./pets//") == before
    (pets / "test" / "cat" / "000.png").rename(pets / "test" / "dog" / "003.png")
    assert key(pets) != before
