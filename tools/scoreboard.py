"""Write the README's tables and pictures: `python tools/scoreboard.py`.

The tables go between markers; the pictures are those of the cells tagged `readme`.
"""

import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nbformat

from mini.course import scoreboard
from mini.files import ROOT, write_atomically

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
README = ROOT / "README.md"


def filled(text: str, name: str, table: str) -> str:
    """`text` with `table` between the markers of `name`.

    Raises ValueError unless both markers are there, once, in order.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"The README must hold {begin} and after it {end}, once each.")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def brought_up_to_date(text: str) -> str:
    """The README `text` with its tables as `results/` has them."""
    runs = scoreboard.strongest()
    shown = f"{scoreboard.table(runs)}\n\n{scoreboard.caption(runs)}"
    text = filled(text, "scoreboard", shown)
    return filled(text, "benchmarks", scoreboard.speed_table(scoreboard.benchmarks()))


def pictures(notebook: Path) -> list[bytes]:
    """The PNG outputs of the cells of `notebook` that are tagged `readme`."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [o for c in cells if "readme" in c.metadata.get("tags", []) for o in c.outputs]
    data = [o.get("data", {}) for o in outputs]  # what is printed has none
    return [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]


def main() -> None:
    text = brought_up_to_date(README.read_text(encoding="utf-8"))
    write_atomically(README, lambda file: file.write(text.encode()))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, picture in enumerate(pictures(notebook), start=1):
            path = ROOT / "results" / notebook.stem / f"figure-{number}.png"
            write_atomically(path, lambda file, picture=picture: file.write(picture))


if __name__ == "__main__":
    main()
