"""Make talks of the notebooks: `python tools/slides.py JOB [NOTEBOOK ...]`, for all by default.

build   one self-contained HTML file for each notebook, in build/slides/, and an index of them
pdf     the same as PDF hand-outs (needs a browser, as the next does)
check   look for slides that do not fit, and write a picture of every slide

A NOTEBOOK is a name such as 01_vit, or the path of any notebook. Nothing is executed: decks show
the stored outputs. Nothing in a deck asks the network for anything.
"""

import argparse
import base64
import copy
import functools
import html
import io
import logging
import mimetypes
import re
import sys
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
from fontTools import subset
from nbconvert.exporters import SlidesExporter
from nbformat import NotebookNode
from traitlets.config import Config

from mini.files import absolute
from tools import vendor
from tools.environment import NOTEBOOKS, ROOT, read_notebook
from tools.normalise import FOR_THE_SPEAKER
from tools.output import Output

DECKS = ROOT / "build" / "slides"
ASSETS = Path(__file__).resolve().parent / "deck"

# The typeface of the figures, which matplotlib ships: slides break their lines alike everywhere.
FONTS = {
    ("Deck Sans", "normal"): "DejaVuSans.ttf",
    ("Deck Sans", "bold"): "DejaVuSans-Bold.ttf",
    ("Deck Mono", "normal"): "DejaVuSansMono.ttf",
    ("Deck Mono", "bold"): "DejaVuSansMono-Bold.ttf",
}
BASIC = frozenset(map(chr, range(0x20, 0x7F)))


@functools.lru_cache(maxsize=64)
def _woff(name: str, characters: frozenset[str]) -> str:
    """A matplotlib font reduced to these characters, as WOFF in base64."""
    options = subset.Options(flavor="woff", layout_features=[], hinting=False, name_IDs=[])
    options.notdef_outline = True
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    font = subset.load_font(str(path), options)
    reducer = subset.Subsetter(options)
    reducer.populate(unicodes=[ord(character) for character in characters])
    reducer.subset(font)
    file = io.BytesIO()
    subset.save_font(font, file, options)
    return base64.b64encode(file.getvalue()).decode()


def fonts(text: str) -> str:
    """The style sheet that carries the typefaces, as far as `text` needs them."""
    characters = BASIC | {character for character in text if ord(character) > 0x7E}
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; '
        f"src: url(data:font/woff;base64,{_woff(name, frozenset(characters))}); }}"
        for (family, weight), name in FONTS.items()
    )


def inline(script: str) -> str:
    """`script` as it may stand between <script> and </script>: its strings must not end it."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", r"<\!--")


def title(node: NotebookNode) -> str:
    """The first heading of a notebook, as plain text."""
    for cell in node.cells:
        if cell.cell_type == "markdown" and (found := re.match(r"#\s+(.+)", cell.source)):
            return re.sub(r"[*`$]", "", found[1])
    return "Untitled"


def brief(node: NotebookNode) -> NotebookNode:
    """The notebook with its tables cut down to what can be read from a chair.

    Of a table of claims the second line of the column "here", which says what was measured, stays
    in the notebook. Notes no longer say that they are for the speaker: a deck shows them to nobody
    else.
    """
    node = copy.deepcopy(node)
    for cell in node.cells:
        if cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
            cell.source = cell.source.removeprefix(FOR_THE_SPEAKER).lstrip()
        for output in cell.get("outputs", []):
            table = output.get("data", {}).get("text/markdown", "")
            if "| verdict |" in table:
                table = re.sub(r"<br>\([^|\n]*\)(?= \|)", "", table)
                # An interval is read as one word.
                table = re.sub(
                    r"[+-]\d[^|\n]*n = \d+", lambda found: found[0].replace(" ", "\xa0"), table
                )
                output.data["text/markdown"] = table
    return node


def coloured(body: str) -> str:
    """The verdicts of an HTML text in the colours that the figures give them."""
    return re.sub(
        r"<strong>((contradicted|inconclusive)\b)",
        lambda found: f'<strong class="{found[2].lower()}">{found[1]}',
        body,
        flags=re.IGNORECASE,
    )


def asset(name: str) -> str:
    """One of the files in tools/deck/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def embedded(body: str, folder: Path) -> str:
    """`body` with the pictures in it that lie beside the notebook, in `folder`, inside itself.

    Raises FileNotFoundError for one that is not there.
    """

    def inside(found: re.Match) -> str:
        address = urlsplit(html.unescape(found[2]))
        if address.scheme or address.netloc or not address.path:
            return found[0]
        path = folder / unquote(address.path)
        kind = mimetypes.guess_type(path.name)[0] or "image/png"
        return f"{found[1]}data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"

    # What stands in a script is no picture.
    parts = re.split(r"(<script\b.*?</script>)", body, flags=re.DOTALL | re.IGNORECASE)
    parts[::2] = [re.sub(r"""(<img\b[^>]*?\ssrc=")([^"]*)""", inside, p) for p in parts[::2]]
    return "".join(parts)


def deck(node: NotebookNode, folder: Path | None = None) -> str:
    """The notebook as a talk in one HTML file; MissingPartError where a part of it is not here.

    Pictures beside the notebook, which lies in `folder`, are put into the file.
    The tag `hide-input` leaves a cell's code out, `hide-output` what it printed or showed.
    """
    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(ASSETS.parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        config=Config(
            {
                "TagRemovePreprocessor": {
                    "enabled": True,
                    "remove_input_tags": {"hide-input"},
                    "remove_all_outputs_tags": {"hide-output"},
                },
                "CSSHTMLHeaderPreprocessor": {"enabled": False},
            }
        ),
    )
    node = brief(node)
    text = "".join(str(cell) for cell in node.cells)
    scripts = [
        asset("mathjax.js"),
        vendor.read("tex-svg-full.js"),
        vendor.read("reveal.js"),
        vendor.read("notes.js"),
        asset("start.js"),
    ]
    parts = {
        "title": title(node),
        "reveal_css": vendor.read("reveal.css"),
        "fonts": fonts(html.unescape(text)),
        "theme": asset("theme.css"),
        "scripts": [inline(script) for script in scripts],
    }
    body, _ = exporter.from_notebook_node(node, resources={"deck": parts})
    body = coloured(body if folder is None else embedded(body, folder))
    # Links between notebooks become links between decks.
    return re.sub(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html"', body)


def chosen(names: list[str]) -> list[Path]:
    """The notebooks named (`01_vit`, or any path), or all; ValueError says which are known."""
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    paths = []
    for name in names or known:
        path = known.get(name.removesuffix(".ipynb"), Path(name))
        if not (path.suffix == ".ipynb" and path.is_file()):
            there = ", ".join(known) or "none yet"
            raise ValueError(f"There is no notebook {name!r}; there are: {there}, or give a path.")
        paths.append(path)
    return paths


def build(paths: list[Path], folder: Path = DECKS) -> list[Path]:
    """Write the decks of these notebooks into `folder`, print what each took; returns the files."""
    decks, ours = [], Output(folder, DECKS)
    for path in paths:
        started = time.perf_counter()
        try:
            content = deck(read_notebook(path), path.parent).encode()
        except FileNotFoundError as problem:
            raise ValueError(
                f"The notebook {path} shows the picture {problem.filename}, which is not there."
            ) from None
        target = ours.write(f"{path.stem}.html", content)
        seconds = time.perf_counter() - started
        print(f"{shown(target)}  {len(content) / 1e6:.1f} MB, {seconds:.1f} s", flush=True)
        decks.append(target)
    index(folder)
    return decks


def index(folder: Path) -> None:
    """Write the page that lists the decks of `folder`, with their hand-outs where there are."""
    rows, ours = [], Output(folder, DECKS)
    for path in sorted(folder.glob("*.html")):
        if path.stem != "index" and path.name in ours.names:
            name = re.search("<title>(.*?)</title>", path.read_text(encoding="utf-8"))[1]
            row = f'<li><a href="{quote(path.name)}">{name}</a>'
            if path.with_suffix(".pdf").exists():
                row += f' <a class="pdf" href="{quote(path.stem)}.pdf">PDF</a>'
            rows.append(f"{row}</li>")
    page = asset("decks.html").replace("<!-- decks -->", "\n".join(rows))
    ours.write("index.html", page.encode())


def shown(path: Path) -> Path:
    """`path` as people write it, from the top of the repository."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def check(paths: list[Path], folder: Path = DECKS) -> int:
    """Print what is wrong with each deck, write pictures of its slides; returns the findings."""
    from tools import browser

    total = 0
    with browser.opened() as session:
        for path, page in zip(paths, build(paths, folder), strict=True):
            pictures, ours = folder / path.stem, Output(folder, DECKS)
            ours.clear(f"{path.stem}/")
            report = browser.inspect(session, page, pictures=pictures, claim=ours.claim)
            findings = report.findings + browser.length(report, path.stem)
            counts = f"{report.slides} slides, {report.notes} with notes"
            print(f"{path.stem}: {counts}; {shown(pictures)}/")
            for finding in findings:
                print(f"  {finding}")
            total += len(findings)
    print("No findings." if not total else f"{total} findings.")
    return total


def pdf(paths: list[Path], folder: Path = DECKS) -> None:
    """Write a PDF hand-out beside each deck, one page a slide."""
    from tools import browser

    with browser.opened() as session:
        for page in build(paths, folder):
            target = Output(folder, DECKS).claim(page.with_suffix(".pdf"))
            pages = browser.print_pdf(session, page, target)
            print(f"{shown(target)}  {pages} pages, {target.stat().st_size / 1e6:.1f} MB")
    index(folder)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; 0 if all went well, 1 for findings, 2 for a missing part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=("build", "pdf", "check"))
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK")
    parser.add_argument("--out", type=Path, default=DECKS, help="folder (default: build/slides)")
    options = parser.parse_intermixed_args(arguments)
    try:
        options.out = absolute(options.out, "--out")
        paths = chosen(options.notebooks)
        vendor.require()
        if options.job == "check":
            return 1 if check(paths, options.out) else 0
        if options.job == "pdf":
            pdf(paths, options.out)
        else:
            build(paths, options.out)
    except (ValueError, vendor.MissingPartError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
