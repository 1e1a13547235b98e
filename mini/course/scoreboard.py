"""What the records in `results/` say: what every paper came to, and how fast we are."""

import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mini.course import claims, records
from mini.course.claims import Judgement

GROUPS = {"digits": "digits", "cifar": "CIFAR"}  # of the data sets a paper is shown on
COLUMNS = ("paper's claims", "explanations", "controls", "seeds")
COUNTED = ("reproduced", "inconclusive", "contradicted")
EXPLANATION = "What-did-not-reproduce,-and-why"  # the anchor that Jupyter gives the heading
NONE = "–"
NEEDED = ("notebook", "dataset", "scale", "seeds", "claims")


def group_of(dataset: str) -> str:
    """The column group of a data set: CIFAR in any form, or digits and all the others."""
    return "cifar" if dataset.startswith("cifar") else "digits"


def strongest(folder: Path = records.RESULTS) -> list[dict]:
    """Of every notebook's records in `folder` the strongest one of each group, in order.

    A full run is stronger than a quick one, CIFAR itself than its lossy copy, and more seeds than
    fewer. A full run whose seeds are not all made yet is none.
    """
    found: dict[tuple[str, str], tuple] = {}
    for path in records.paths(folder):
        named = records.NAME.fullmatch(path.name)
        if named["scale"] == "full" and named["seeds"]:
            continue
        run = records.parse(path, NEEDED)
        is_copy = run["dataset"].endswith("jpeg")
        strength = (run["scale"] == "full", not is_copy, len(run["seeds"]))
        key = (run["notebook"], group_of(run["dataset"]))
        if key not in found or strength > found[key][0]:
            found[key] = (strength, run)
    return [run for _, (_, run) in sorted(found.items(), key=lambda pair: pair[0])]


def table(runs: Sequence[dict]) -> str:
    """An HTML table, one row a paper, a group of columns for each of the two kinds of data.

    A cell counts verdicts, reproduced / inconclusive / contradicted, of families: the paper's
    claims apart from explanations and controls. What did not hold leads to the section of the
    notebook that says why.
    """
    wide = len(COLUMNS)
    lines = [
        '<table class="scoreboard">',
        "<thead>",
        '<tr><th rowspan="2">paper</th><th rowspan="2">exact</th>',
    ]
    lines += [f'<th colspan="{wide}">{title}</th>' for title in GROUPS.values()]
    lines += ["</tr>", "<tr>", *[f"<th>{name}</th>" for _ in GROUPS for name in COLUMNS], "</tr>"]
    lines += ["</thead>", "<tbody>"]
    for name in sorted({run["notebook"] for run in runs}):
        mine = {group_of(run["dataset"]): run for run in runs if run["notebook"] == name}
        first = next(iter(mine.values()))
        page = f"notebooks/{name}.ipynb"
        paper = html.escape(f"{name[:2]} {first['paper']}")
        cells = [f'<a href="{page}">{paper}</a>', _exact(first)]
        for group in GROUPS:
            cells += _cells(mine[group], page) if group in mine else [NONE] * wide
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def caption(runs: Sequence[dict]) -> str:
    """One sentence: how many verdicts "reproduced" the chance of the seeds would give."""
    judged = [judgement for run in runs for judgement in _judgements(run)]
    verdicts = [j for j in judged if j.claim.kind != "exact" and j.verdict != "void"]
    false = claims.expected_false(judged)
    return (
        f"{len(verdicts)} verdicts stand behind this table. If every effect lay just on the edge "
        f"of its claim, with normal noise, at most {false:.1f} of them would be expected to "
        "say *reproduced* by the chance of the seeds alone; the draw of the data comes on top."
    )


def _judgements(run: dict) -> list[Judgement]:
    return [Judgement.from_dict(row) for row in run["claims"]]


def _exact(run: dict) -> str:
    return str(sum(j.verdict == "exact" for j in _judgements(run)) or NONE)


def _cells(run: dict, page: str) -> list[str]:
    """What one run came to: families by role, then its seeds."""
    headlines = claims.headlines(_judgements(run))
    cells = []
    for role in claims.ROLES:
        counts = Counter(j.verdict for j in headlines if j.claim.role == role)
        text = " / ".join(str(counts[verdict]) for verdict in COUNTED)
        if counts["void"]:
            text += f", {counts['void']} void"
        if counts.total() > counts["reproduced"]:
            text = f'<a href="{page}#{EXPLANATION}">{text}</a>'
        cells.append(text if counts else NONE)
    copy = ", copy" if run["dataset"].endswith("jpeg") else ""
    quick = ", quick" if group_of(run["dataset"]) == "cifar" and run["scale"] != "full" else ""
    return [*cells, f"{len(run['seeds'])}{copy}{quick}"]


def benchmarks(folder: Path = records.RESULTS / "benchmarks") -> list[dict]:
    """Every recorded benchmark in `folder` that compares with peers."""
    found = [records.parse(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if "rows" in record]


def speed_table(measured: list[dict]) -> str:
    """A Markdown table of benchmarks, ours beside each peer, and below it where they were run."""
    lines = ["| what | ours | peer | theirs | ratio |", "|:-|-:|:-|-:|-:|"]
    for record in measured:
        for row in record["rows"]:
            digits = ",.0f" if row["unit"] == "images/s" else ",.1f"
            amounts = (f"{row[who]:{digits}} {row['unit']}" for who in ("ours", "theirs"))
            ours, theirs = amounts
            cells = [row["what"], ours, row["peer"], theirs, f"{row['times']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    surroundings = Counter(
        f"{record['date']}, {record['machine']['processor']}, {record['machine']['device']}, "
        f"{record['threads']} thread(s)"
        for record in measured
    )
    versions = {name: number for record in measured for name, number in record["versions"].items()}
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join([*lines, "", f"Measured {'; '.join(surroundings)}; {shown}."])
