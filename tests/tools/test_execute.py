"""Executing notebooks: progress, verdicts and failures in words, and no diff the second time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import anatomy
from tests.notebooks.sample_notebook import code, markdown, notebook_of, sample
from tools import execute
from tools.normalise import agrees, moved, normalise, stated_seconds

ROOT = Path(__file__).resolve().parent.parent.parent


class Course:
    """A course of generated notebooks, executed by a copy of the script."""

    def __init__(self, root: Path):
        self.root, self.notebooks, self.results = root, root / "notebooks", root / "results"
        self.notebooks.mkdir()
        for folder in ("tools", "mini"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, root / folder, ignore=ignored)

    def add(self, name, node):
        for cell in node.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(node, self.notebooks / f"{name}.ipynb")

    def read(self, path):
        return nbformat.read(self.root / path, as_version=4)

    def execute(self, *arguments, cwd=None, **settings):
        return subprocess.run(
            [sys.executable, self.root / "tools" / "execute.py", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"MINI_RESULTS": str(self.root / "build" / "results")} | settings,
        )

    def snapshot(self):
        folders = (self.notebooks, self.results)
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def course(tmp_path):
    return Course(tmp_path)


def _sample(stated="60"):
    node = sample()
    node.cells[0].source = node.cells[0].source.replace("about 60 s", f"about {stated} s")
    return node


BROKEN = notebook_of(markdown("# Broken"), code("x = 1"), code("# first line\n1 / 0"), code("2"))


def test_run_reports_progress_verdicts_and_leaves_the_notebooks_alone(course):
    course.add("01_sample", _sample())
    before = course.snapshot()
    done = course.execute("run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[1/1] 01_sample: started"
    assert lines[1].startswith("[1/1] 01_sample: done in ")
    assert lines[-2].split() == [
        *("notebook", "seconds"),
        *("exact", "reproduced", "inconclusive", "contradicted", "void"),
    ]
    assert lines[-1].split()[0] == "01_sample"
    assert lines[-1].split()[2:] == ["1", "1", "0", "0", "0"]
    assert course.snapshot() == before
    assert anatomy.check_executed(course.read("build/run/01_sample.ipynb")) == []


def test_failing_notebook_is_named_and_the_others_still_run(course):
    course.add("01_sample", _sample())
    course.add("02_broken", BROKEN)
    course.add("03_dies", notebook_of(code("import os; os.abort()")))
    done = course.execute("run")
    assert done.returncode == 1
    assert "02_broken failed in cell 3 (# first line): ZeroDivisionError" in done.stdout
    assert "03_dies failed in cell 1 (import os; os.abort()): the kernel died" in done.stdout
    assert "01_sample: done" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_kernel_that_does_not_start_is_told_in_a_sentence(course):
    course.add("01_sample", notebook_of(code("1")))
    (course.root / "in the way").mkdir()
    (course.root / "in the way" / "ipykernel_launcher.py").touch()  # ends at once
    done = course.execute("run", PYTHONPATH=str(course.root / "in the way"))
    assert done.returncode == 1
    assert "01_sample failed in cell 1 (1): the kernel did not start (" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_another_kernel_of_the_same_name_is_not_taken(course):
    course.add("01_sample", notebook_of(code("import sys; print(sys.prefix)")))
    kernel = course.root / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    ends_at_once = {"argv": [sys.executable, "-c", ""], "display_name": "", "language": "python"}
    kernel.write_text(json.dumps(ends_at_once))
    done = course.execute("run", JUPYTER_PATH=str(course.root))
    assert done.returncode == 0, done.stdout
    assert course.read("build/run/01_sample.ipynb").cells[0].outputs[0].text == f"{sys.prefix}\n"


def test_folders_of_a_command_are_relative_to_where_it_was_given(course):
    shown = "import os; print([os.environ[f'MINI_{n}'] for n in ('DATA', 'CACHE', 'RESULTS')])"
    course.add("01_sample", notebook_of(code(shown)))
    (course.root / "pets").mkdir()
    names = {"MINI_DATA": "pets/", "MINI_CACHE": "cache", "MINI_RESULTS": "~/here"}
    done = course.execute("run", cwd=course.root, HOME=str(course.root), **names)
    assert done.returncode == 0, done.stdout
    paths = [str(course.root.resolve() / name) for name in ("pets", "cache", "here")]
    assert course.read("build/run/01_sample.ipynb").cells[0].outputs[0].text == f"{paths}\n"
    done = course.execute("run", MINI_RESULTS="~nobody-of-this-name/x")
    assert done.returncode == 2
    assert done.stderr.startswith("MINI_RESULTS='~nobody-of-this-name/x': there is no such home")
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_written_is_said_before_the_run(course):
    course.add("01_sample", notebook_of(code("1")))
    (course.root / "build").write_text("a file")
    done = course.execute("run", MINI_RESULTS=str(course.root / "here"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{course.root / 'build' / 'run'} cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broken_notebook_is_named_and_the_others_still_run(course):
    course.add("01_sample", notebook_of(code("1")))
    (course.notebooks / "02_broken.ipynb").write_text("<<<<<<< HEAD")
    done = course.execute("run")
    assert done.returncode == 1
    assert "[1/2] 01_sample: done" in done.stdout
    path = course.notebooks / "02_broken.ipynb"
    assert f"\nThe notebook {path} cannot be read (" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_failing_notebook_is_not_committed(course):
    course.add("02_broken", BROKEN)
    before = course.snapshot()
    assert course.execute("commit").returncode == 1
    assert course.snapshot() == before


def test_notebooks_are_chosen_by_name(course, monkeypatch):
    monkeypatch.setattr(execute, "NOTEBOOKS", course.notebooks)
    course.add("01_sample", notebook_of(code("1")))
    course.add("02_other", notebook_of(code("1")))
    first, second = sorted(course.notebooks.glob("*.ipynb"))
    for name in ("01_sample", "01_sample.ipynb", "notebooks/01_sample.ipynb"):
        assert execute.chosen([name]) == [first]
    assert execute.chosen(["02_other", "01_sample"]) == [second, first]
    assert execute.chosen([]) == [first, second]


def test_unknown_name_is_one_sentence(course):
    course.add("01_sample", notebook_of(code("1")))
    course.add("02_other", notebook_of(code("1")))
    done = course.execute("run", "nonsense")
    assert done.returncode == 2
    assert done.stderr == (
        "There is no notebook called 'nonsense'; there are: 01_sample, 02_other.\n"
    )


def test_committed_notebooks_are_clean_and_do_not_change_when_executed_again(course):
    node = _sample("?")
    node.metadata["widgets"] = {}
    node.cells[1].metadata.update({"scrolled": True, "slideshow": {"slide_type": ""}})
    course.add("01_sample", node)
    course.add("00_start_here", notebook_of(markdown("# Start\n\n" + time_line("?")), code("3")))
    done = course.execute("commit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("[1/2] 01_sample")

    first = course.snapshot()
    assert set(first) == {
        *("notebooks/00_start_here.ipynb", "notebooks/01_sample.ipynb"),
        "results/01_sample/digits-quick.json",
    }
    committed = course.read("notebooks/01_sample.ipynb")
    result = json.loads((course.results / "01_sample" / "digits-quick.json").read_text())
    for check in anatomy.EVERY_NOTEBOOK + anatomy.NUMBERED_NOTEBOOK:
        # The empty mark is gone, and nothing has taken its place.
        expected = check is anatomy.check_slides
        assert [finding[:21] for finding in check(committed)] == [
            "cell 2: no slide mark"
        ] * expected
    assert anatomy.check_running_time(committed, result) == []
    assert stated_seconds(committed) == 60
    assert "metadata" in committed.cells[1]
    assert not committed.cells[1].metadata
    assert [cell.id for cell in committed.cells] == [cell.id for cell in node.cells]
    assert stated_seconds(course.read("notebooks/00_start_here.ipynb")) == 5

    assert course.execute("commit").returncode == 0
    assert course.snapshot() == first


def time_line(seconds):
    return f"Running time: about {seconds} s on two cores"


@pytest.mark.parametrize(
    ("change", "adopted", "stated"),
    [
        ({}, False, 60),
        ({"date": "another", "versions": {"torch": "3"}, "seconds": 75.0}, False, 60),
        ({"seconds": 77.0}, True, 75),
        ({"seconds": 40.0}, True, 40),
        ({"claims": [{"id": "E1", "verdict": "contradicted"}]}, True, 60),
    ],
)
def test_new_findings_and_a_moved_running_time_are_adopted(
    tmp_path, monkeypatch, change, adopted, stated
):
    monkeypatch.setattr(execute, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(execute, "RESULTS", tmp_path / "results")
    result = {"seconds": 61.2, "date": "", "claims": []}
    committed_path, new = (
        tmp_path / folder / "01_sample" / "digits-quick.json" for folder in ("results", "build")
    )
    for path, content in ((committed_path, result), (new, result | change)):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    execute.adopt(execute.Outcome("01_sample", _sample(), 70.0, None, new, result | change))
    assert json.loads(committed_path.read_text()) == (result | change if adopted else result)
    committed = nbformat.read(tmp_path / "notebooks" / "01_sample.ipynb", as_version=4)
    assert stated_seconds(committed) == stated


def test_running_time_rules():
    assert agrees(60, 72.4)
    assert not agrees(60, 72.6)
    assert not agrees(None, 60)
    assert moved(None, 1)
    assert not moved(60, 74.9)
    assert moved(60, 75.1)
    assert not moved(100, 124)


def test_normalising_keeps_outputs_counts_ids_and_folds():
    node, again = sample(), sample()
    assert normalise(normalise(node)).cells == again.cells
