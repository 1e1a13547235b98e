"""Notebooks as they are committed: nothing in them that changes from one run to the next."""

import re

from nbformat import NotebookNode
from nbstripout import strip_output

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
VOLATILE_KEYS = [
    "metadata.language_info.version",
    "metadata.signature",
    "metadata.widgets",
    "cell.metadata.ExecuteTime",
    "cell.metadata.collapsed",
    "cell.metadata.editable",
    "cell.metadata.execution",
    "cell.metadata.jupyter.outputs_hidden",
    "cell.metadata.scrolled",
    "cell.metadata.trusted",
]

RUNNING_TIME = re.compile(r"(Running time: about )(\?|\d+)( s on two cores)")
FOR_THE_SPEAKER = "*For the speaker:*"  # begins each cell with the slide mark `notes`
TOLERANCE = 10  # seconds between the title and the measured run, rounded to 5 s


def normalise(node: NotebookNode) -> NotebookNode:
    """Strip what changes between runs from `node` in place; outputs, counts and ids stay."""
    strip_output(node, keep_output=True, keep_count=True, keep_id=True, extra_keys=VOLATILE_KEYS)
    node.metadata["kernelspec"] = NotebookNode(KERNELSPEC)
    for cell in node.cells:
        # JupyterLab leaves empty shells behind once a slide mark or a fold is taken back.
        if not cell.metadata.get("slideshow", {}).get("slide_type", ""):
            cell.metadata.pop("slideshow", None)
        if "jupyter" in cell.metadata and not cell.metadata["jupyter"]:
            del cell.metadata["jupyter"]
    return node


def stated_seconds(node: NotebookNode) -> int | None:
    """The running time in the title cell in seconds; None where it is missing or still a `?`."""
    found = RUNNING_TIME.search(node.cells[0].source) if node.cells else None
    return int(found[2]) if found and found[2] != "?" else None


def rounded(seconds: float) -> int:
    """Seconds to the nearest 5 s, at least 5."""
    return max(5, 5 * round(seconds / 5))


def agrees(stated: int | None, seconds: float) -> bool:
    """Whether a stated running time is close enough to a measured one to be left as it is."""
    return stated is not None and abs(stated - rounded(seconds)) <= TOLERANCE


def moved(before: float | None, now: float) -> bool:
    """Whether a running time has changed by more than a machine's mood: 15 s and 25 %."""
    return before is None or abs(now - before) > max(15.0, 0.25 * before)


def state_seconds(node: NotebookNode, seconds: float) -> None:
    """Write the measured running time into the title cell, where it has a place for it."""
    if node.cells:
        title = node.cells[0]
        title.source = RUNNING_TIME.sub(rf"\g<1>{rounded(seconds)}\g<3>", title.source, count=1)
