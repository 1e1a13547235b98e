"""Write the scoreboard into the README, between its two markers: `python tools/scoreboard.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

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


def main() -> None:
    text = filled(README.read_text(encoding="utf-8"), scoreboard.table(scoreboard.records()))
    write_atomically(README, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
