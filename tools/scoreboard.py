"""Write the scoreboard into the README, and the pictures it shows: `python tools/scoreboard.py`.

The table goes between two markers; the pictures are those of the cells tagged `readme`.
"""

import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nbformat

from mini import scoreboard
from mini.files import write_atomically

BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
README = scoreboard.ROOT / "README.md"


def filled(text: str, table: str) -> str:
    """`text` with `table` between the markers; ValueError unless both are there, once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"The README must hold {BEGIN} and after it {END}, once each.")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def pictures(notebook: Path) -> list[bytes]:
    """The PNG outputs of the cells of `notebook` that are tagged `readme`."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [o for c in cells if "readme" in c.metadata.get("tags", []) for o in c.outputs]
    data = [o.get("data", {}) for o in outputs]  # what is printed has none
    return [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]


def main() -> None:
    text = filled(README.read_text(encoding="utf-8"), scoreboard.table(scoreboard.records()))
    write_atomically(README, lambda file: file.write(text.encode()))
    for notebook in sorted((scoreboard.ROOT / "notebooks").glob("*.ipynb")):
        for number, picture in enumerate(pictures(notebook), start=1):
            path = scoreboard.ROOT / "results" / f"{notebook.stem}-{number}.png"
            write_atomically(path, lambda file, picture=picture: file.write(picture))


if __name__ == "__main__":
    main()
