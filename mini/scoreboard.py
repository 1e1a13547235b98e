"""The scoreboard: what every recorded run found, from the JSON files in `results/`."""

import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = ("exact", "reproduced", "inconclusive", "contradicted")


def records(folder: Path = ROOT / "results") -> list[dict]:
    """Every notebook's run in `folder`, by notebook, data set and scale.

    Runs with another number of seeds than the scale's are left out: they serve to test the gates.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.json"))
    return [json.loads(path.read_text()) for path in paths if not path.stem.endswith("seeds")]


def table(runs: list[dict]) -> str:
    """A Markdown table of `runs`, one a row: the verdicts' counts, and what they cost."""
    lines = [
        f"| notebook | data | scale | {' | '.join(VERDICTS)} | seeds | minutes | on |",
        "|:-|:-|:-|" + "-:|" * len(VERDICTS) + "-:|-:|:-|",
    ]
    for run in runs:
        counts = Counter(claim["verdict"] for claim in run["claims"])
        link = f"[{run['notebook']}](notebooks/{run['notebook']}.ipynb)"
        machine = run["machine"]
        where = f"{machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
        cells = [link, run["dataset_title"], run["scale"]]
        cells += [str(counts[verdict] or "–") for verdict in VERDICTS]
        cells += [str(len(run["seeds"])), f"{run['seconds'] / 60:.1f}", where]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
