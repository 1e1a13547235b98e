"""What the JSON files in `results/` say: what every run found, and how fast we are."""

import json
from collections import Counter
from pathlib import Path

from mini.files import ROOT

VERDICTS = ("exact", "reproduced", "inconclusive", "contradicted")
UNHELD = ("inconclusive", "contradicted")
EXPLANATION = "What-did-not-reproduce,-and-why"  # the anchor that Jupyter gives the heading


def records(folder: Path = ROOT / "results") -> list[dict]:
    """Every notebook's run in `folder`, by notebook, data set and scale.

    Runs with another number of seeds than the scale's are left out: they serve to test the gates.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*/*-*.json"))
    return [
        json.loads(path.read_text()) for path in paths if path.stem.endswith(("-quick", "-full"))
    ]


def table(runs: list[dict]) -> str:
    """A Markdown table of `runs`, one a row: the verdicts' counts, and what they cost.

    Counts of claims that did not hold lead to the section of the notebook that says why.
    """
    lines = [
        f"| paper | data | scale | {' | '.join(VERDICTS)} | seeds | minutes | on |",
        "|:-|:-|:-|" + "-:|" * len(VERDICTS) + "-:|-:|:-|",
    ]
    for run in runs:
        page = f"notebooks/{run['notebook']}.ipynb"
        counts = Counter(claim["verdict"] for claim in run["claims"])
        shown = {verdict: str(counts[verdict] or "–") for verdict in VERDICTS}
        for verdict in set(UNHELD) & set(counts):
            shown[verdict] = f"[{counts[verdict]}]({page}#{EXPLANATION})"
        machine = run["machine"]
        where = f"{machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
        link = f"[{run['notebook'][:2]} {run['paper']}]({page})"
        cells = [link, run["dataset_title"], run["scale"], *shown.values()]
        cells += [str(len(run["seeds"])), f"{run['seconds'] / 60:.1f}", where]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def benchmarks(folder: Path = ROOT / "results" / "benchmarks") -> list[dict]:
    """Every recorded benchmark in `folder` that compares with peers."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if "rows" in record]


def speed_table(records: list[dict]) -> str:
    """A Markdown table of benchmarks, ours beside each peer, and below it where they were run."""
    lines = ["| what | ours | peer | theirs | ratio |", "|:-|-:|:-|-:|-:|"]
    for record in records:
        for row in record["rows"]:
            digits = ",.0f" if row["unit"] == "images/s" else ",.1f"
            amounts = (f"{row[who]:{digits}} {row['unit']}" for who in ("ours", "theirs"))
            ours, theirs = amounts
            cells = [row["what"], ours, row["peer"], theirs, f"{row['times']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    surroundings = Counter(
        f"{record['date']}, {record['machine']['processor']}, {record['machine']['device']}, "
        f"{record['threads']} thread(s)"
        for record in records
    )
    versions = {name: number for record in records for name, number in record["versions"].items()}
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join([*lines, "", f"Measured {'; '.join(surroundings)}; {shown}."])
