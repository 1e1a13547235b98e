"""Make the course a folder of static pages: `python tools/website.py`, into build/site/.

Notebooks as pages, their decks, the scoreboard with every judged claim, and the README in front.
Nothing is executed; the pages open from the disk and ask the network for nothing.
"""

import argparse
import html
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbconvert.exporters import HTMLExporter
from nbconvert.filters import markdown2html

from mini.course import claims, scoreboard
from mini.files import absolute
from tools import slides, vendor
from tools.environment import RESULTS, ROOT, read_notebook
from tools.output import NAMES, Output

SITE = ROOT / "build" / "site"
ASSETS = Path(__file__).resolve().parent / "website"


def frame(title: str, up: str, extra: str = "") -> tuple[str, str]:
    """What stands before and after the body of a page; `up` leads to the site's top folder."""
    head = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{up}assets/style.css">
<title>{html.escape(title)}</title>
</head>
<body>
<nav><a href="{up}index.html">The course</a> <a href="{up}scoreboard.html">Scoreboard</a> \
<a href="{up}slides/index.html">Slides</a> {extra}</nav>
"""
    scripts = "".join(
        f'<script src="{up}assets/{name}"></script>\n' for name in ("mathjax.js", "tex-svg-full.js")
    )
    return head, f"{scripts}</body>\n</html>\n"


def relinked(body: str) -> str:
    """`body` with links to notebooks leading to their pages; links to what the site lacks go."""
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    body = re.sub(r'href="([^":]*?)(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1\2.html\3"', body)

    def unlinked(found: re.Match) -> str:
        there = re.match(r"#|https?:|mailto:|data:|(\.\./)*(notebooks/|results/)|\d\d_", found[1])
        return found[0] if there else found[2]

    return re.sub(r'<a href="([^"]*)">(.*?)</a>', unlinked, body, flags=re.DOTALL)


def notebook_page(path: Path) -> str:
    """One notebook as a page."""
    node = read_notebook(path)
    deck = f'<a href="../slides/{path.stem}.html">This notebook as slides</a>'
    head, foot = frame(slides.title(node), "../", deck)
    exporter = HTMLExporter(
        template_name="website",
        extra_template_basedirs=[str(ASSETS.parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(node)
    return head + slides.coloured(relinked(slides.embedded(body, path.parent))) + foot


def text_page(title: str, markdown: str) -> str:
    """A page of Markdown, in the site's top folder."""
    head, foot = frame(title, "")
    return head + slides.coloured(relinked(markdown2html(markdown))) + foot


def scoreboard_text() -> str:
    """The scoreboard, and below it every recorded run's claims, as Markdown."""
    runs = scoreboard.strongest()
    parts = ["# Scoreboard", scoreboard.table(runs), scoreboard.caption(runs)]
    for run in runs:
        parts.append(
            f"## {run['notebook'][:2]} {run['paper']}: {run['dataset_title']}, {run['scale']}\n\n"
            f"{len(run['seeds'])} seeds, {run['seconds'] / 60:.1f} minutes, {run['date']}"
        )
        parts.append(claims.table([claims.Judgement.from_dict(row) for row in run["claims"]]))
    return "\n\n".join(parts)


def contents(paths: list[Path]) -> str:
    """The course's table of contents, as Markdown."""
    lines = ["| notebook | slides |", "|:-|:-|"]
    for path in paths:
        title = slides.title(read_notebook(path))
        lines.append(f"| [{title}](notebooks/{path.stem}.ipynb) | SLIDES-{path.stem} |")
    return "\n".join(lines)


def build(folder: Path = SITE, decks: Path | None = None) -> list[Path]:
    """Write the whole site into `folder`, in place of an earlier site; returns its pages.

    Raises ValueError for a folder that holds anything else.
    The slides are built anew unless a folder with all `decks` is given.
    """
    paths = slides.chosen([])
    ours, shown = Output(folder, SITE), Output(folder / "slides", SITE / "slides")
    ours.clear()
    shown.clear()
    pages: dict[str, str] = {f"notebooks/{path.stem}.html": notebook_page(path) for path in paths}
    title, _, text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n")
    first = text_page(title.lstrip("# "), f"{title}\n\n{contents(paths)}\n{text}")
    pages["index.html"] = re.sub(r"SLIDES-(\w+)", r'<a href="slides/\1.html">slides</a>', first)
    pages["scoreboard.html"] = text_page("Scoreboard", scoreboard_text())
    for name, page in pages.items():
        ours.write(name, page.encode())
    assets = {
        "style.css": (ASSETS / "style.css").read_text(encoding="utf-8"),
        "mathjax.js": slides.asset("mathjax.js"),
        "tex-svg-full.js": vendor.read("tex-svg-full.js"),
    }
    for name, content in assets.items():
        ours.write(f"assets/{name}", content.encode())
    ours.copy(RESULTS, "results")
    if decks is None:
        slides.build(paths, folder / "slides")
    else:
        for path in sorted(decks.glob("*")):
            if path.is_file() and path.name != NAMES:
                shown.write(path.name, path.read_bytes())
    return [*(folder / name for name in pages), *sorted((folder / "slides").glob("*.html"))]


def main(arguments: list[str] | None = None) -> int:
    """Build the site; 0 if all went well, 2 where a part is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SITE, help="folder (default: build/site)")
    options = parser.parse_args(arguments)
    try:
        vendor.require()
        options.out = absolute(options.out, "--out")
        pages = build(options.out)
    except (ValueError, vendor.MissingPartError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{len(pages)} pages; open {slides.shown(options.out / 'index.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
