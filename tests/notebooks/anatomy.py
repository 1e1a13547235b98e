"""What a committed notebook must look like: checks that take a notebook and return findings.

A finding is one sentence that begins with the cell it is about; an empty list means all is well.
"""

import ast
import base64
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.normalise import FOR_THE_SPEAKER, RUNNING_TIME, agrees, rounded, stated_seconds

HEADINGS = (
    "## The idea",
    "## By hand = by mini",
    "## Exact claims",
    "## Experiment",
    "## Figures",
    "## Claims",
    "## What did not reproduce, and why",
    "## Exercises",
    "## References",
)
MAX_LINES, MAX_COLUMNS = 25, 80
MAX_BYTES, MAX_IMAGE_WIDTH, MAX_SECONDS = 2_000_000, 1280, 120
MIN_EXERCISES = 3
# nbval-skip is missing on purpose: a cell that no run executes is a cell that nothing checks.
NBVAL_TAGS = {
    "nbval-ignore-output",
    "nbval-check-output",
    "nbval-raises-exception",
    "raises-exception",
}
SLIDE_TYPES = {"slide", "subslide", "fragment", "notes", "skip"}

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINE_PATH = re.compile(
    r"(?<![\w.])(~|/home|/root|/Users|/tmp|/var/folders|/private|[A-Za-z]:\\{1,2}Users)[/\\]"
    rf"|{re.escape(str(ROOT))}(?!\w)"
)
ARXIV_ID = re.compile(r"arxiv(?::\s*|\.org/abs/)\d{4}\.\d{4,5}", re.IGNORECASE)
UNFILLED = re.compile(r"<<.*?>>|\b(TODO|TOWRITE|FIXME)\b", re.DOTALL)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _label(index: int) -> str:
    return f"cell {index + 1}"


def _code_cells(node: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    for index, cell in enumerate(node.cells):
        if cell.cell_type == "code":
            yield _label(index), cell


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _headings(cell: NotebookNode) -> list[str]:
    if cell.cell_type != "markdown":
        return []
    lines = FENCE.sub("", cell.source).splitlines()
    return [line.strip() for line in lines if re.match(r"#{1,6} ", line)]


def check_format(node: NotebookNode) -> list[str]:
    """Valid against the notebook format's own schema, and for a Python 3 kernel."""
    findings = []
    try:
        nbformat.validate(node)
    except nbformat.ValidationError as problem:
        findings.append(f"notebook: not a valid notebook: {str(problem).splitlines()[0]}")
    if node.metadata.get("kernelspec", {}).get("name") != "python3":
        findings.append("notebook: its kernel is not python3")
    return findings


def check_executed(node: NotebookNode) -> list[str]:
    """Every code cell was executed, once, from top to bottom."""
    findings = []
    for count, (label, cell) in enumerate(_code_cells(node), start=1):
        if not cell.source.strip():
            findings.append(f"{label}: empty")
        if cell.execution_count != count:
            found = f"its count is {cell.execution_count}, expected {count}"
            findings.append(f"{label}: {found}; `make notebooks NB=<name>` executes it")
    return findings


def check_errors(node: NotebookNode) -> list[str]:
    """No error is stored but where one is announced by a tag, and there is one there."""
    findings = []
    for label, cell in _code_cells(node):
        has_error = any(output.output_type == "error" for output in cell.outputs)
        announced = {"raises-exception", "nbval-raises-exception"} & set(_tags(cell))
        if has_error and not announced:
            findings.append(f"{label}: holds an error without the tag raises-exception")
        if announced and not has_error:
            findings.append(f"{label}: tagged raises-exception but raised nothing")
    return findings


def check_size_of_cells(node: NotebookNode) -> list[str]:
    """At most 25 lines of at most 80 columns; tables, links and displayed formulas may be wider."""
    findings = []
    for index, cell in enumerate(node.cells):
        lines = cell.source.splitlines()
        if len(lines) > MAX_LINES:
            findings.append(f"{_label(index)}: {len(lines)} lines, more than {MAX_LINES}")
        for number, line in enumerate(lines, start=1):
            unbreakable = cell.cell_type == "markdown" and (
                line.lstrip().startswith(("|", "$$")) or "://" in line
            )
            if len(line) > MAX_COLUMNS and not unbreakable:
                findings.append(f"{_label(index)}: line {number} has {len(line)} columns")
    return findings


def check_tags(node: NotebookNode) -> list[str]:
    """What looks like a tag for the test runner is one; a misspelt one would do nothing."""
    findings = []
    for index, cell in enumerate(node.cells):
        wrong = [
            tag
            for tag in _tags(cell)
            if re.search("nbval|rais|exception", tag, re.IGNORECASE) and tag not in NBVAL_TAGS
        ]
        findings += [f"{_label(index)}: {tag!r} is no tag of the test run" for tag in wrong]
        if cell.cell_type == "code" and re.search(r"#\s*(NB|PYTEST_)VAL", cell.source):
            findings.append(f"{_label(index)}: a comment for the test runner; use a tag")
    return findings


def _texts(output: NotebookNode) -> Iterator[tuple[str, str]]:
    """The readable parts of an output: `(MIME type, text)`."""
    if output.output_type == "stream":
        yield "text/plain", output.text
    elif output.output_type == "error":
        yield "text/plain", "\n".join([output.evalue, *output.traceback])
    else:
        for kind, text in output.data.items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                yield kind, text if isinstance(text, str) else str(text)


def check_outputs(node: NotebookNode) -> list[str]:
    """Nothing on stderr, no SVG, and no path of the machine that ran it."""
    findings = []
    for label, cell in _code_cells(node):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                findings.append(f"{label}: wrote to stderr: {output.text[:60]!r}")
            for kind, text in _texts(output):
                if kind == "image/svg+xml" or (kind == "text/html" and "<svg" in text):
                    findings.append(f"{label}: an SVG picture, which changes from run to run")
                elif found := MACHINE_PATH.search(ANSI.sub("", text)):
                    findings.append(f"{label}: a path of this machine ({found[0]}) in its output")
    return findings


def check_images(node: NotebookNode) -> list[str]:
    """No picture is displayed wider than a slide."""
    findings = []
    for label, cell in _code_cells(node):
        for output in cell.outputs:
            png = output.get("data", {}).get("image/png")
            if png is not None:
                # A PNG's width stands in bytes 16 to 20, before anything that varies.
                pixels = struct.unpack(">I", base64.b64decode(png)[16:20])[0]
                width = output.metadata.get("image/png", {}).get("width", pixels)
                if width > MAX_IMAGE_WIDTH:
                    findings.append(f"{label}: a picture {width} pixels wide")
    return findings


def check_size(node: NotebookNode) -> list[str]:
    """Small enough for a repository."""
    size = len(nbformat.writes(node, version=4).encode())
    return [f"notebook: {size / 1e6:.1f} MB"] if size > MAX_BYTES else []


def check_slides(node: NotebookNode) -> list[str]:
    """Each cell is marked; one with a heading of level 1 or 2 starts a slide, or is left out.

    A cell without a mark would join the slide before it, and nobody would have meant it. A note for
    the speaker says that it is one: in JupyterLab, marks do not show.
    """
    findings = []
    for index, cell in enumerate(node.cells):
        mark = cell.metadata.get("slideshow", {}).get("slide_type")
        if mark is None:
            findings.append(f"{_label(index)}: no slide mark; '-' joins it to the slide before")
        elif mark not in SLIDE_TYPES | {"-"}:
            findings.append(f"{_label(index)}: unknown slide mark {mark!r}")
        is_note = cell.cell_type == "markdown" and cell.source.startswith(FOR_THE_SPEAKER)
        if mark == "notes" and not is_note:
            findings.append(f"{_label(index)}: a note that does not begin {FOR_THE_SPEAKER}")
        if is_note and mark != "notes":
            findings.append(f"{_label(index)}: for the speaker, but without the mark notes")
        starts = any(re.match(r"##? ", heading) for heading in _headings(cell))
        if (index == 0 or starts) and mark not in {"slide", "subslide", "skip"}:
            findings.append(f"{_label(index)}: a heading without a mark slide, subslide or skip")
    return findings


def check_running_time(node: NotebookNode, result: dict | None) -> list[str]:
    """The title states the running time, and it is that of the committed run, if there is one."""
    if not node.cells or not RUNNING_TIME.search(node.cells[0].source):
        return ["cell 1: no line `Running time: about 70 s on two cores`"]
    stated = stated_seconds(node)
    if stated is None:
        return ["cell 1: its running time is not filled in; `make notebooks` does that"]
    findings = []
    if result and not agrees(stated, result["seconds"]):
        findings.append(f"cell 1: states {stated} s, measured {rounded(result['seconds'])} s")
    if max(stated, result["seconds"] if result else 0) > MAX_SECONDS:
        findings.append(f"cell 1: takes more than {MAX_SECONDS} s")
    return findings


def check_anatomy(node: NotebookNode) -> list[str]:
    """A numbered notebook's parts: title, start, the headings in their order."""
    findings = []
    title = node.cells[0] if node.cells else nbformat.v4.new_markdown_cell()
    if title.cell_type != "markdown" or not title.source.startswith("# "):
        findings.append("cell 1: no title")
    if not ARXIV_ID.search(title.source):
        findings.append("cell 1: no arXiv id, such as arXiv:2010.11929")
    starts = ["notebook.start(" in cell.source for _, cell in _code_cells(node)]
    if not starts or not starts[0] or sum(starts) != 1:
        findings.append("notebook: its first code cell, and no other, calls notebook.start(")
    headings = [heading for cell in node.cells for heading in _headings(cell)]
    found = [heading for heading in headings if heading in HEADINGS]
    findings += [f"notebook: no heading {name!r}" for name in HEADINGS if name not in found]
    if not findings and found != list(HEADINGS):
        findings.append(f"notebook: headings out of order or repeated: {', '.join(found)}")
    for index, cell in enumerate(node.cells):
        if cell.cell_type == "markdown" and UNFILLED.search(cell.source):
            findings.append(f"{_label(index)}: a place for a number that nobody filled in")
    return findings


def _checks_called(cell: NotebookNode) -> set[str]:
    """The names of the functions called in a cell that begin with `check`."""
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        return set()
    calls = [part.func for part in ast.walk(tree) if isinstance(part, ast.Call)]
    names = {function.id for function in calls if isinstance(function, ast.Name)}
    return {name for name in names if name.startswith("check")}


def check_exercises(node: NotebookNode) -> list[str]:
    """At least three exercises: a stub that fails `check...`, then a folded solution that passes.

    The stub raises an AssertionError (tag raises-exception); the solution (tag solution, source
    hidden) calls the same check function. Both are run, so both are known to do what they should.
    """
    findings, section, pairs, stub = [], "", 0, None
    for index, cell in enumerate(node.cells):
        section = next(
            (name for name in reversed(_headings(cell)) if name.startswith("## ")), section
        )
        if section != "## Exercises" or cell.cell_type != "code":
            continue
        label = _label(index)
        if "raises-exception" in _tags(cell):
            if stub is not None:
                findings.append(f"{label}: a second stub before the first one's solution")
            stub = cell
            names = [output.ename for output in cell.outputs if output.output_type == "error"]
            if names != ["AssertionError"]:
                findings.append(f"{label}: the stub ends in {names}, expected an AssertionError")
        elif "solution" in _tags(cell):
            if cell.metadata.get("jupyter", {}).get("source_hidden") is not True:
                findings.append(f"{label}: the solution is not folded (jupyter.source_hidden)")
            if stub is None:
                findings.append(f"{label}: a solution without a stub before it")
            elif not _checks_called(stub) & _checks_called(cell):
                findings.append(f"{label}: stub and solution call no common function check...")
            else:
                pairs += 1
            stub = None
    if stub is not None:
        findings.append("notebook: the last stub has no solution")
    if pairs < MIN_EXERCISES:
        findings.append(f"notebook: {pairs} complete exercises, expected {MIN_EXERCISES} or more")
    return findings


EVERY_NOTEBOOK = (
    check_format,
    check_executed,
    check_errors,
    check_size_of_cells,
    check_tags,
    check_outputs,
    check_images,
    check_size,
    check_slides,
)
NUMBERED_NOTEBOOK = (check_anatomy, check_exercises)
