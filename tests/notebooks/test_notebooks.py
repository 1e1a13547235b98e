"""Every committed notebook is executed, well-formed and clean; and each check can fail."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tests.notebooks import anatomy
from tests.notebooks.sample_notebook import code, markdown, picture, sample, stream
from tools.normalise import FOR_THE_SPEAKER

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBERED = [path for path in PATHS if not path.stem.startswith("00")]
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
each_numbered_notebook = pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)


def _name(check) -> str:
    return check.__name__.removeprefix("check_")


def expect_nothing(findings: list[str]) -> None:
    assert not findings, "\n".join(findings)


def test_there_are_notebooks():
    assert NUMBERED


@each_notebook
@pytest.mark.parametrize("check", anatomy.EVERY_NOTEBOOK, ids=_name)
def test_notebook(path, check):
    expect_nothing(check(nbformat.read(path, as_version=4)))


@each_numbered_notebook
@pytest.mark.parametrize("check", anatomy.NUMBERED_NOTEBOOK, ids=_name)
def test_numbered_notebook(path, check):
    expect_nothing(check(nbformat.read(path, as_version=4)))


@each_notebook
def test_running_time(path):
    found = list((ROOT / "results" / path.stem).glob("*digits-quick.json"))  # plain ones, or not
    result = json.loads(found[0].read_text(encoding="utf-8")) if found else None
    command = f"`make notebooks NB={path.stem}`"
    assert result or path not in NUMBERED, f"its record on digits is missing; {command} writes it"
    expect_nothing(anatomy.check_running_time(nbformat.read(path, as_version=4), result))


def test_the_opening_notebook_lists_the_others():
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells)
    missing = [path.name for path in NUMBERED if f"]({path.name}) |" not in text]
    assert not missing, f"00_start_here.ipynb has no row for {', '.join(missing)}: add it by hand"


# The checks themselves, on a good notebook and on the same notebook spoilt in one place.


@pytest.mark.parametrize("check", anatomy.EVERY_NOTEBOOK + anatomy.NUMBERED_NOTEBOOK, ids=_name)
def test_check_accepts_the_sample(check):
    assert check(sample()) == []


def _add(*cells):
    """A change that appends cells, counted on, so that nothing else is wrong."""

    def change(node):
        for cell in cells:
            if cell.cell_type == "code":
                counts = [c.execution_count for c in node.cells if c.cell_type == "code"]
                cell.execution_count = counts[-1] + 1
            node.cells.append(cell)

    return change


def _edit(index, **fields):
    return lambda node: node.cells[index].update(fields)


def _replace(old, new):
    def change(node):
        for cell in node.cells:
            cell.source = cell.source.replace(old, new)

    return change


def _retag(old, new):
    def change(node):
        for cell in node.cells:
            tags = cell.metadata.get("tags", [])
            cell.metadata["tags"] = [new if tag == old else tag for tag in tags]

    return change


def _swap(old, new):
    def change(node):
        sources = {cell.source: cell for cell in node.cells}
        sources[old].source, sources[new].source = new, old

    return change


def _unfold(node):
    for cell in node.cells:
        cell.metadata.pop("jupyter", None)


def _mark(index, mark):
    return lambda node: node.cells[index].metadata.update(slideshow={"slide_type": mark})


def _display(kind, text):
    return code("show()", v4.new_output("display_data", data={kind: text}))


def _narrowed(output):
    output.metadata["image/png"] = {"width": 640}
    return output


ERROR = v4.new_output("error", ename="ValueError", evalue="", traceback=[])
PLACES = [
    "/home/ada/course",
    "/tmp/ipykernel_12/34.py",
    "/".join(["", "root", "course"]),
    "/Users/ada/x",
    "C:\\Users\\ada",
    "~/course/mini/vit.py",
    f"{ROOT}/mini/vit.py",
    str(ROOT),
]

SPOILT = [
    ("format", lambda node: node.update(cells=[{"cell_type": "poem", "id": "a"}]), "not a valid"),
    ("format", lambda node: node.metadata.kernelspec.update(name="mine"), "not python3"),
    ("executed", _edit(3, execution_count=None), "cell 4: its count is None, expected 2"),
    ("executed", _edit(3, execution_count=7), "cell 4: its count is 7"),
    ("executed", _add(code("  ")), "empty"),
    ("errors", _add(code("x", ERROR)), "without the tag"),
    ("errors", _add(code("x", tags=("raises-exception",))), "raised nothing"),
    ("size_of_cells", _add(code("\n".join("x" * 26))), "26 lines"),
    ("size_of_cells", _add(markdown("\n".join("x" * 26))), "26 lines"),
    ("size_of_cells", _add(code("x" * 81)), "line 1 has 81 columns"),
    ("size_of_cells", _add(markdown("x " * 41)), "line 1 has 82 columns"),
    ("tags", _retag("raises-exception", "raise-exception"), "'raise-exception'"),
    ("tags", _add(code("1", tags=("NBVAL_IGNORE_OUTPUT",))), "NBVAL_IGNORE_OUTPUT"),
    ("tags", _add(code("1", tags=("nbval-ignore",))), "nbval-ignore"),
    ("tags", _add(code("1", tags=("nbval-skip",))), "nbval-skip"),
    ("tags", _add(code("# NBVAL_SKIP")), "a comment"),
    ("outputs", _add(code("1", stream("Warning", "stderr"))), "stderr"),
    ("outputs", _add(_display("image/svg+xml", "<svg/>")), "SVG"),
    ("outputs", _add(_display("text/html", "<p><svg/></p>")), "SVG"),
    *[("outputs", _add(code("1", stream(f"see {place}\n"))), "a path") for place in PLACES],
    ("outputs", _add(_display("text/html", "<a href='/home/ada/x'>")), "a path"),
    ("images", _add(code("1", picture(1281))), "1281 pixels"),
    ("size", _add(code("1", stream("x" * 2_000_001))), "2.0 MB"),
    ("slides", _edit(0, metadata={}), "cell 1: a heading without a mark"),
    ("slides", _edit(3, metadata={}), "cell 4: no slide mark"),
    ("slides", _mark(2, "-"), "cell 3: a heading without a mark"),
    ("slides", _mark(2, "fragment"), "cell 3: a heading without a mark"),
    ("slides", _mark(3, "slides"), "unknown slide mark"),
    ("slides", _mark(3, "notes"), "cell 4: a note that does not begin"),
    ("slides", _add(markdown("Say this aloud.", "notes")), "a note that does not begin"),
    ("slides", _add(markdown(f"{FOR_THE_SPEAKER}\nSay it.", "-")), "without the mark notes"),
    ("anatomy", _replace("# Sample", "Sample"), "no title"),
    ("anatomy", _replace("arXiv:2010.11929", "arXiv"), "no arXiv id"),
    ("anatomy", _replace("notebook.start(", "begin("), "notebook.start("),
    ("anatomy", _add(code("notebook.start()")), "and no other"),
    ("anatomy", _replace("## Exact claims", "## Claims made"), "no heading '## Exact claims'"),
    ("anatomy", _replace("## The idea", "```\n## The idea\n```"), "no heading '## The idea'"),
    ("anatomy", _swap("## Figures", "## Claims"), "out of order"),
    ("anatomy", _add(markdown("## Figures")), "repeated"),
    ("anatomy", _add(markdown("It has <<accuracy,\n2>>.")), "that nobody filled in"),
    ("exercises", lambda node: node.cells.pop(-2), "the last stub has no solution"),
    ("exercises", lambda node: node.cells.pop(-3), "a solution without a stub"),
    ("exercises", lambda node: node.cells.__delitem__(slice(-5, -1)), "2 complete exercises"),
    ("exercises", _retag("solution", "answer"), "a second stub"),
    ("exercises", _retag("raises-exception", "stub"), "a solution without a stub"),
    ("exercises", _replace("check_2(2)", "print(2)"), "no common function"),
    ("exercises", _unfold, "not folded"),
    ("exercises", lambda node: node.cells[-3].outputs[0].update(ename="NameError"), "NameError"),
]


@pytest.mark.parametrize(("check", "spoil", "finding"), SPOILT)
def test_check_finds(check, spoil, finding):
    node = sample()
    spoil(node)
    findings = getattr(anatomy, f"check_{check}")(node)
    assert any(finding in text for text in findings), findings


@pytest.mark.parametrize(
    ("check", "allowed"),
    [
        ("outputs", code("1", stream("1/home, and/or, a/tmp b, ~5 %\n"))),
        ("images", code("1", picture(1280))),
        ("images", code("1", _narrowed(picture(2000)))),
        ("size_of_cells", markdown("| " + "x" * 100)),
        ("size_of_cells", markdown("- [paper](https://arxiv.org/abs/2010.11929) " + "x" * 60)),
        ("tags", code("1", tags=("nbval-ignore-output", "solution"))),
        ("slides", markdown(f"{FOR_THE_SPEAKER}\nSay this aloud.", "notes")),
    ],
)
def test_check_lets_pass(check, allowed):
    node = sample()
    _add(allowed)(node)
    assert getattr(anatomy, f"check_{check}")(node) == []


@pytest.mark.parametrize(
    ("stated", "measured", "finding"),
    [
        ("60 s", 61.2, None),
        ("60 s", 72.4, None),
        ("60 s", 72.6, "measured 75 s"),
        ("60 s", 47.0, "measured 45 s"),
        ("60 s", None, None),
        ("? s", 60.0, "not filled in"),
        ("120 s", 121.0, "more than 120 s"),
        ("a minute", 60.0, "no line"),
    ],
)
def test_running_time_check(stated, measured, finding):
    node = sample()
    node.cells[0].source = node.cells[0].source.replace("60 s", stated)
    result = None if measured is None else {"seconds": measured}
    findings = anatomy.check_running_time(node, result)
    assert findings == [] if finding is None else finding in findings[0]
