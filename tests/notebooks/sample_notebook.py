"""A tiny notebook with everything that a course notebook has, for tests of the machinery."""

import base64
import struct

from nbformat import NotebookNode, v4

START = """\
from types import SimpleNamespace

notebook = SimpleNamespace(start=print)
run = notebook.start("sample")
"""
RESULT = """\
import json, os, pathlib

folder = pathlib.Path(os.environ["MINI_RESULTS"]) / "01_sample"
folder.mkdir(parents=True, exist_ok=True)
claims = [
    {"id": "E1", "verdict": "exact"},
    {"id": "C1", "verdict": "reproduced"},
]
date = os.urandom(4).hex()
text = json.dumps({"seconds": 61.2, "date": date, "claims": claims})
(folder / "digits-quick.json").write_text(text);
"""
CHECK = """\
def check_{0}(answer):
    assert answer == {0}, "not yet"
"""
ERROR = {"ename": "AssertionError", "evalue": "not yet", "traceback": ["AssertionError: not yet"]}


def markdown(source: str, mark: str | None = None) -> NotebookNode:
    """A Markdown cell, with a slide mark if one is given."""
    cell = v4.new_markdown_cell(source)
    if mark:
        cell.metadata["slideshow"] = {"slide_type": mark}
    return cell


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    """A code cell with its stored outputs; its count is set when the notebook is put together."""
    cell = v4.new_code_cell(source, outputs=list(outputs))
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def stream(text: str, name: str = "stdout") -> NotebookNode:
    """What a cell printed."""
    return v4.new_output("stream", name=name, text=text)


def picture(width: int) -> NotebookNode:
    """A displayed PNG, of which only the header is real."""
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, 1)
    data = {"image/png": base64.b64encode(header).decode(), "text/plain": "<Figure>"}
    return v4.new_output("display_data", data=data)


def notebook_of(*cells: NotebookNode) -> NotebookNode:
    """A notebook of these cells, counted from 1 as if executed."""
    node = v4.new_notebook(cells=list(cells))
    node.metadata["kernelspec"] = {"display_name": "Python 3", "name": "python3"}
    count = 0
    for number, cell in enumerate(node.cells):
        # Ids at random would differ between two notebooks made alike.
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return node


def sample() -> NotebookNode:
    """A notebook that passes every check and runs in a second."""
    cells = [
        markdown(
            "# Sample\nA. Author, arXiv:2010.11929\n\nRunning time: about 60 s on two cores",
            "slide",
        ),
        code(START, stream("sample\n")),
        markdown("## The idea", "slide"),
        code("1 + 1", v4.new_output("execute_result", data={"text/plain": "2"})),
        markdown("### A further heading"),
        markdown("## By hand = by mini", "slide"),
        code("print('equal')\n'hidden';", stream("equal\n")),
        markdown("## Exact claims", "subslide"),
        markdown("## Experiment", "slide"),
        markdown("## Figures", "slide"),
        markdown("## Claims", "slide"),
        code(RESULT),
        markdown("## What did not reproduce, and why", "slide"),
        markdown("## Exercises", "slide"),
    ]
    for number in (1, 2, 3):
        cells += [
            markdown(f"### Exercise {number}"),
            code(CHECK.format(number)),
            code(
                f"check_{number}(None)", v4.new_output("error", **ERROR), tags=("raises-exception",)
            ),
            code(f"check_{number}({number})", tags=("solution",)),
        ]
        cells[-1].metadata["jupyter"] = {"source_hidden": True}
    cells.append(markdown("## References", "skip"))
    for cell in cells:
        cell.metadata.setdefault("slideshow", {"slide_type": "-"})
    return notebook_of(*cells)
