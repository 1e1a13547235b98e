"""Every notebook is a talk that fits its slides and asks the network for nothing.

Decks are opened in a real browser without a network. Where there is none, the tests that need it
are skipped by name; the others (addresses in the file, sizes, vendored parts) run all the same.
"""

import base64
import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from mini.course import records, scoreboard
from tests.notebooks import anatomy
from tests.notebooks.sample_notebook import code, markdown, notebook_of, stream
from tools import browser, slides, vendor, website
from tools.environment import NOTEBOOKS
from tools.normalise import FOR_THE_SPEAKER

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def chromium(parts):
    """A running browser; the tests that ask for it are skipped where there is none."""
    try:
        session = browser.opened()
        running = session.__enter__()
    except vendor.MissingPartError as problem:
        pytest.skip(str(problem))
    yield running
    session.__exit__(None, None, None)


@pytest.fixture(scope="module")
def parts():
    """reveal.js and MathJax, fetched at set-up; what needs them is skipped where that failed."""
    try:
        for package, (_, members) in vendor.ARCHIVES.items():
            for member in members:
                assert vendor.read(Path(member).name), package
    except vendor.MissingPartError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def decks(parts, tmp_path_factory):
    """The decks of all notebooks by name, and the seconds it took to build them."""
    folder = tmp_path_factory.mktemp("decks")
    started = time.perf_counter()
    built = slides.build(PATHS, folder)
    return {path.stem: path for path in built}, time.perf_counter() - started


# The committed notebooks.


@each_notebook
def test_the_talk_fits(path, decks, chromium):
    report = browser.inspect(chromium, decks[0][path.stem])
    findings = report.findings + browser.length(report, path.stem)
    assert not findings, "\n".join(findings)


@each_notebook
def test_the_deck_is_one_small_file(path, decks):
    deck = decks[0][path.stem]
    assert deck.stat().st_size <= browser.MAX_BYTES
    assert outside(deck.read_text(encoding="utf-8")) == []


def test_all_decks_take_less_than_a_minute(decks):
    assert decks[1] < 60


def test_the_index_lists_every_deck(decks):
    folder = next(iter(decks[0].values())).parent
    text = (folder / "index.html").read_text(encoding="utf-8")
    for name in decks[0]:
        assert f'href="{name}.html"' in text
    assert outside(text) == []


# A deck of our own, and the same deck spoilt in one place.


def picture(width: int, height: int) -> nbformat.NotebookNode:
    """A displayed PNG of this size."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "#1f5fa8").save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Figure>"}
    return v4.new_output("display_data", data=data)


def display(kind: str, text: str) -> nbformat.NotebookNode:
    """A displayed output of one MIME type."""
    return v4.new_output("display_data", data={kind: text, "text/plain": "<Thing>"})


def marked(cell: nbformat.NotebookNode, mark: str) -> nbformat.NotebookNode:
    """The cell with this slide mark."""
    cell.metadata["slideshow"] = {"slide_type": mark}
    return cell


TABLE = (
    "| | claim | paper | here | verdict |\n|-|:-|:-|:-|:-|\n"
    "| C1 | it holds | table 1 | +0.2 [+0.1, +0.3], n = 3<br>(accuracy; claimed: above 0) |"
    " **contradicted** |\n"
)


def talk(*more: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A sound little talk, with these cells at its end."""
    return notebook_of(
        markdown("# 01 · A talk\nA. Author, arXiv:2010.11929", "slide"),
        marked(code("import this_is_skipped"), "skip"),
        markdown("## The idea\n\nInline $x^2$ and displayed:\n\n$$\\frac{a}{b} = c$$", "slide"),
        marked(code("print(1)", stream("α → 1\n")), "-"),
        markdown(f"{FOR_THE_SPEAKER}\nSay this aloud.", "notes"),
        markdown("A last word.", "fragment"),
        markdown("## A figure\n\nLook at its right end.", "subslide"),
        marked(code("secret_of_the_plot()", picture(1100, 440), tags=("hide-input",)), "-"),
        markdown("## Claims", "slide"),
        marked(code("table()", display("text/markdown", TABLE)), "-"),
        *more,
    )


def write(node: nbformat.NotebookNode, folder: Path) -> Path:
    """The deck of this notebook, in a file."""
    path = folder / "01_talk.html"
    path.write_text(slides.deck(node), encoding="utf-8")
    return path


def test_a_sound_deck_has_no_findings(tmp_path, chromium):
    path = write(talk(), tmp_path)
    report = browser.inspect(chromium, path, pictures=tmp_path / "pictures")
    assert (report.slides, report.notes, report.findings) == (4, 1, [])
    drawn = sorted((tmp_path / "pictures").glob("*.png"))
    assert [Image.open(file).size for file in drawn] == [(1280, 720)] * 4
    assert browser.length(report, "01_talk") == [
        "4 slides; a talk has 12 to 20",
        "1 slides have notes; a talk has at least 4",
    ]
    assert browser.length(report, "00_start_here") == []


def test_what_a_deck_shows_and_what_it_leaves_out(parts):
    text = slides.deck(talk())
    assert "<title>01 · A talk</title>" in text
    assert "secret_of_the_plot" not in text
    assert "this_is_skipped" not in text
    assert "Say this aloud." in text
    assert "For the speaker" not in text
    assert '<strong class="contradicted">' in text
    assert "+0.2\xa0[+0.1,\xa0+0.3],\xa0n\xa0=\xa03" in text
    assert "claimed: above 0" not in text
    assert outside(text) == []


def test_the_scoreboard_fits_all_notebooks(tmp_path, chromium):
    runs = [
        json.loads(path.read_text()) | {"notebook": f"{number:02}_x"}
        for number in range(1, 18)
        for path in records.RESULTS.glob("04_manifold_mixup/*-full.json")
    ]
    runs += [run | {"dataset": "digits"} for run in runs]
    cells = (
        markdown("## The scoreboard\n\nRead from `results/`, one line for each paper.", "slide"),
        marked(code("1", display("text/markdown", scoreboard.table(runs))), "-"),
    )
    cells[1].metadata["tags"] = ["hide-input"]
    path = write(talk(*cells), tmp_path)
    assert browser.inspect(chromium, path).findings == []


FULL = "\n\n".join(f"Line {number}." for number in range(9))

SPOILT = [
    ("a tall figure", marked(code("plot()", picture(1100, 700)), "subslide"), "too tall"),
    ("a long code line", marked(code("x = '" + 140 * "y" + "'"), "subslide"), "wide"),
    ("a long printed line", marked(code("x", stream(140 * "y")), "subslide"), "wide"),
    ("a second slide's worth of text", markdown(f"{FULL}\n\n{FULL}", "subslide"), "too tall"),
    ("a wide table", markdown("|" + 16 * "wwwwwwww|" + "\n|" + 16 * "-|", "slide"), "too wide"),
    ("an outside image", markdown("![](https://example.org/x.png)", "slide"), "asks for https"),
    ("an image beside the notebook", markdown("![](x.png)", "slide"), "asks for file"),
    ("a broken picture", markdown("![](data:image/png;base64,AAAA)", "slide"), "broken picture"),
    (
        "a picture of nothing",
        marked(code("1", display("image/png", "AAAA")), "slide"),
        "broken picture",
    ),
    ("a formula cut short", markdown("See $\\frac{1}$ here", "slide"), "formula with an error"),
    ("a formula without its end", markdown("See $\\frac{1}{2$ here", "slide"), "not set"),
    ("an unknown command", markdown("See $\\nosuch{1}$ here", "slide"), "formula with an error"),
    ("an open formula", markdown("See $\\alpha here", "slide"), "not set"),
    (
        "a script that throws",
        marked(code("1", display("text/html", "<p>1</p><script>throw 1</script>")), "slide"),
        "a script error",
    ),
    (
        "a script that calls home",
        marked(
            code("1", display("text/html", "<p>1</p><script>fetch('https://a.org/data')</script>")),
            "slide",
        ),
        "asks for https://a.org/data",
    ),
    (
        "a style sheet that calls home",
        marked(
            code(
                "1",
                display("text/html", "<style>@import 'https://a.org/a.css'</style><p>1</p>"),
            ),
            "slide",
        ),
        "asks for https://a.org/a.css",
    ),
    (
        "an object instead of its picture",
        marked(code("1", stream("<Line2D at 0x7f20ac542c50>")), "slide"),
        "an object where",
    ),
    ("nothing on it", markdown("<!-- to do -->", "slide"), "nothing on it"),
    ("hidden code", marked(code("x = 1", tags=("hide-input",)), "slide"), "nothing on it"),
    ("only a heading", markdown("## Later", "slide"), "nothing on it but a heading"),
    (
        "small print",
        marked(code("1", display("text/html", "<p style='font-size:12px'>x</p>")), "slide"),
        "only 12 pixels",
    ),
    (
        "a box that scrolls",
        marked(
            code("1", display("text/html", "<pre style='overflow:hidden'>" + 140 * "y" + "</pre>")),
            "slide",
        ),
        "clipped: ",
    ),
]


# What a page asks for, and what its scripts throw, belongs to the deck and not to one slide.
OF_THE_DECK = ("asks for", "a script error")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory, chromium):
    """The findings of a deck that ends in all the spoilt slides, which starts with four sound ones.

    The last two cells are two slides of one heading each, had the second one its mark.
    """
    merged = [markdown(FULL, "slide"), markdown(FULL)]
    node = talk(*(cell for _, cell, _ in SPOILT), *merged)
    return browser.inspect(chromium, write(node, tmp_path_factory.mktemp("spoilt"))).findings


@pytest.mark.parametrize("number", range(len(SPOILT)), ids=[row[0] for row in SPOILT])
def test_a_spoilt_slide_is_found(number, spoilt):
    _, _, finding = SPOILT[number]
    label = "" if finding.startswith(OF_THE_DECK) else rf"slide {5 + number}( \(.*?\))?: .*"
    found = [text for text in spoilt if re.match(label + re.escape(finding), text)]
    assert found, spoilt


def test_sound_slides_beside_spoilt_ones_are_not_found(spoilt):
    assert not [text for text in spoilt if re.match(r"slide [1-4]\b", text)]


def test_an_unmarked_cell_that_merges_two_slides_is_found(spoilt):
    """The deck's test sees it where the two do not fit, the notebook's check in any case."""
    last = f"slide {5 + len(SPOILT)}"
    assert [text for text in spoilt if text.startswith(f"{last}: too tall")], spoilt
    assert not [text for text in spoilt if text.startswith(f"slide {6 + len(SPOILT)}")]
    merged = talk(markdown(FULL, "slide"), markdown(FULL))
    assert anatomy.check_slides(merged) == [
        f"cell {len(merged.cells)}: no slide mark; '-' joins it to the slide before"
    ]


def test_a_part_of_the_deck_that_is_missing_is_found(tmp_path, chromium):
    path = write(talk(), tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("Reveal.initialize", "Show.start"))
    findings: list[str] = []
    with browser.page_of(chromium, path, findings) as page:
        page.wait_for_timeout(500)
    assert any("a script error" in text for text in findings), findings


def test_the_hand_out_has_a_page_for_each_slide(tmp_path, chromium):
    target = tmp_path / "01_talk.pdf"
    assert browser.print_pdf(chromium, write(talk(), tmp_path), target) == 4
    assert len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) == 4


def test_the_speaker_view_shows_the_notes(tmp_path, chromium):
    findings: list[str] = []
    with browser.page_of(chromium, write(talk(), tmp_path), findings) as page:
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        page.evaluate("Reveal.slide(1, 0, 0)")
        with page.expect_popup() as opening:
            page.keyboard.press("s")
        view = opening.value
        view.set_default_timeout(browser.SECONDS * 1000)
        notes = view.locator(".speaker-controls-notes")
        notes.get_by_text("Say this aloud.").wait_for()
        # Both previews are the deck itself, loaded from the disk.
        assert len(view.frames) == 3
    assert findings == []


# What needs no browser.


class Addresses(HTMLParser):
    """Collects what a page loads when it is opened, and what it links to."""

    LOADS = (("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"))

    def __init__(self):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in self.LOADS or name in ("srcset", "poster", "data-src"):
                self.loads.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)


def outside(text: str) -> list[str]:
    """What a page loads that does not stand in it."""
    page = Addresses()
    page.feed(text)
    return [address for address in page.loads if not address.startswith("data:")]


def test_outside_addresses_are_seen():
    text = '<img src="x.png"><script src="https://a.org"></script><a href="https://b.org">b</a>'
    assert outside(text + '<img src="data:,">') == ["x.png", "https://a.org"]


def test_a_script_cannot_end_its_own_element():
    text = slides.inline('a = "</script><!-- </SCRIPT>"')
    assert "</script" not in text.lower()
    assert "<!--" not in text


def test_the_typefaces_hold_what_the_deck_needs():
    from fontTools.ttLib import TTFont

    sheet = slides.fonts("α → 1")
    fonts = [base64.b64decode(part) for part in re.findall(r"base64,([^)]+)\)", sheet)]
    assert len(fonts) == len(slides.FONTS)
    for font in fonts:
        known = TTFont(io.BytesIO(font)).getBestCmap()
        assert {ord("a"), ord("~"), ord("α"), ord("→")} <= set(known)
        assert ord("β") not in known


def test_notebooks_are_chosen_by_name_or_path(tmp_path):
    path = tmp_path / "99_mine.ipynb"
    path.write_text("{}")
    assert slides.chosen([]) == PATHS
    assert slides.chosen([PATHS[0].stem, str(path)]) == [PATHS[0], path]
    with pytest.raises(ValueError, match="no notebook '98_none'; there are: 00_start_here"):
        slides.chosen(["98_none"])


@pytest.fixture
def empty_shelf(tmp_path, monkeypatch):
    """Nothing was fetched yet, and npm is out of reach."""
    monkeypatch.setattr(vendor, "FOLDER", tmp_path)

    def unreachable(package):
        raise ValueError("npm could not fetch it (ENOTFOUND)")

    monkeypatch.setattr(vendor, "_download", unreachable)
    return tmp_path


def test_a_part_that_cannot_be_had_is_named_with_the_way_out(empty_shelf, capsys):
    problems = vendor.fetch()
    assert len(problems) == len(vendor.ARCHIVES)
    for package, sentence in zip(vendor.ARCHIVES, problems, strict=True):
        assert package in sentence
        assert "ENOTFOUND" in sentence
        assert f"npm pack {package}" in sentence
    assert slides.main(["build", PATHS[0].stem, "--out", str(empty_shelf)]) == 2
    told = capsys.readouterr().err
    assert "make slides" in told
    assert "Traceback" not in told


def test_an_archive_that_is_not_the_one_expected_is_refused(empty_shelf):
    (empty_shelf / "mathjax-3.2.2.tgz").write_bytes(b"something else")
    assert any("checksum" in sentence for sentence in vendor.fetch())
    with pytest.raises(vendor.MissingPartError, match="mathjax"):
        vendor.read("tex-svg-full.js")


def test_no_browser_is_said_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MINI_BROWSER", str(tmp_path / "none"))
    assert slides.main(["pdf", PATHS[0].stem, "--out", str(tmp_path)]) == 2
    assert "install Chromium" in capsys.readouterr().err


# The course as pages.


@pytest.fixture(scope="module")
def site(tmp_path_factory, decks):
    folder = tmp_path_factory.mktemp("site") / "site"
    return folder, website.build(folder, decks=next(iter(decks[0].values())).parent)


def test_every_link_of_the_site_leads_somewhere(site):
    folder, pages = site
    known = {}
    for page in pages:
        known[page.resolve()] = found = Addresses()
        found.feed(page.read_text(encoding="utf-8"))
    for page, found in known.items():
        for address in found.loads + found.links:
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme in ("https", "data"), f"{page}: {address}"
                assert address in found.links or parts.scheme == "data", f"{page}: {address}"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_relative_to(folder.resolve()), f"{page}: {address}"
            assert target.exists(), f"{page}: {address}"
            if parts.fragment and target in known:
                assert unquote(parts.fragment) in known[target].anchors, f"{page}: {address}"


def test_the_site_holds_every_notebook_and_its_deck(site):
    folder, pages = site
    names = {page.relative_to(folder).as_posix() for page in pages}
    expected = {f"{part}/{path.stem}.html" for path in PATHS for part in ("notebooks", "slides")}
    assert expected | {"index.html", "scoreboard.html", "slides/index.html"} == names


def test_the_site_opens_from_the_disk_and_asks_for_nothing_outside(site, chromium):
    folder, pages = site
    for path in pages:
        if path.parent.name == "slides" and path.stem != "index":
            continue  # the decks were looked through above
        findings: list[str] = []
        with browser.page_of(chromium, path, findings, within=folder) as page:
            page.wait_for_function("!window.MathJax || MathJax.startup.promise")
            page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
            broken = "[...document.images].filter((i) => !i.naturalWidth).length"
            assert page.evaluate(broken) == 0, path
            assert page.locator("[data-mml-node='merror']").count() == 0, path
            assert page.evaluate("document.body.innerText.trim().length") > 50, path
        assert findings == [], path
