"""Open decks in a browser that may not ask the network for anything; measure, picture, print.

`python tools/browser.py` says which browser that is; it fails, with advice, where there is none.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.vendor import MissingPartError

WIDTH, HEIGHT = 1280, 720
LENGTH = range(12, 21)  # slides of a notebook's talk
NOTES = 4  # slides with notes for the speaker, at least
MAX_BYTES = 6_000_000
SECONDS = 60
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
# A browser for a slide show needs no servers of its maker's, and no sandbox where root runs it.
SWITCHES = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
)
ADVICE = (
    "There is no browser here for PDFs and checks: install Chromium (Debian, Ubuntu: "
    "apt install chromium; elsewhere: .venv/bin/python -m playwright install chromium), "
    "or name one in MINI_BROWSER."
)
INSPECT = (Path(__file__).resolve().parent / "deck" / "inspect.js").read_text(encoding="utf-8")


@dataclass
class Report:
    """What was found in one deck: a sentence for each finding, which begins with its slide."""

    slides: int = 0
    notes: int = 0
    heights: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def executable() -> str | None:
    """A Chromium on this machine: `MINI_BROWSER`, Playwright's own, or an installed one."""
    from playwright.sync_api import sync_playwright

    if named := os.environ.get("MINI_BROWSER"):
        return shutil.which(named)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    application = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    found = (shutil.which(name) for name in NAMES)
    return next(filter(None, found), str(application) if application.exists() else None)


@contextlib.contextmanager
def opened() -> Iterator:
    """A running browser, without a window; MissingPartError where there is none."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise MissingPartError("Playwright is missing: run `make setup`.") from None
    path = executable()
    if path is None:
        raise MissingPartError(ADVICE)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=[*SWITCHES, *(["--no-sandbox"] if root else [])]
            )
        except Error as problem:
            raise MissingPartError(f"{path} does not start: {problem}".splitlines()[0]) from None
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(
    browser, path: Path, findings: list[str], query: str = "", within: Path | None = None
) -> Iterator:
    """`path` in a new page without a network; what it asks for or throws goes into `findings`.

    A page may load itself and, where a folder is given as `within`, the files in there.
    """
    own = path.resolve().as_uri()
    folder = within.resolve().as_uri() + "/" if within else None
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, offline=True, device_scale_factor=1
    )

    def decide(route) -> None:
        address = route.request.url
        bare = address.split("?")[0].split("#")[0]
        if bare == own or (folder and bare.startswith(folder)):
            route.continue_()
        else:
            findings.append(f"asks for {address[:100]}")
            route.abort()

    def listen(message) -> None:
        # What was refused above is named there already.
        if message.type == "error" and "net::ERR" not in message.text:
            findings.append(f"an error in the console: {message.text[:120]}")

    try:
        context.route(lambda address: not address.startswith(("data:", "blob:")), decide)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("pageerror", lambda error: findings.append(f"a script error: {str(error)[:120]}"))
        page.on("console", listen)
        page.goto(own + query)
        yield page
    finally:
        context.close()


def _ready(page, findings: list[str]) -> bool:
    """Wait until the show has started; a finding where it does not."""
    from playwright.sync_api import TimeoutError as Late

    try:
        page.wait_for_function(
            "window.Reveal && Reveal.isReady() && document.fonts.status === 'loaded'",
            timeout=SECONDS * 1000 / 2,
        )
    except Late:
        findings.append("does not start")
        return False
    return True


def inspect(
    browser, path: Path, pictures: Path | None = None, claim: Callable[[Path], Path] = Path
) -> Report:
    """Go through a deck slide by slide, everything shown; a PNG of each where a folder is given.

    `claim` is asked for each picture's path before it is written.
    """
    report = Report()
    if path.stat().st_size > MAX_BYTES:
        report.findings.append(f"the file has {path.stat().st_size / 1e6:.1f} MB, at most 6 fit")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    with page_of(browser, path, report.findings) as page:
        if not _ready(page, report.findings):
            return report
        page.evaluate("Reveal.configure({ fragments: false, controls: false })")
        places = page.evaluate(
            "Reveal.getSlides().map((s) => Reveal.getIndices(s)).map((i) => [i.h, i.v || 0])"
        )
        for number, (h, v) in enumerate(places, start=1):
            page.evaluate(f"Reveal.slide({h}, {v})")
            page.evaluate(
                "Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))"
                if number == 1
                else "new Promise(requestAnimationFrame)"
            )
            found = page.evaluate(INSPECT)
            report.slides += 1
            report.notes += bool(found["notes"])
            report.heights.append(found["height"])
            label = (
                f"slide {number} ({found['heading']})" if found["heading"] else f"slide {number}"
            )
            report.findings += [f"{label}: {text}" for text in dict.fromkeys(found["findings"])]
            if pictures is not None:
                page.screenshot(path=claim(pictures / f"{number:02}.png"))
    return report


def length(report: Report, name: str) -> list[str]:
    """Findings where the deck of a numbered notebook is no talk: 12 to 20 slides, 4 with notes."""
    findings = []
    if not name.startswith("00"):
        if report.slides not in LENGTH:
            expected = f"a talk has {LENGTH.start} to {LENGTH.stop - 1}"
            findings.append(f"{report.slides} slides; {expected}")
        if report.notes < NOTES:
            findings.append(f"{report.notes} slides have notes; a talk has at least {NOTES}")
    return findings


def print_pdf(browser, path: Path, target: Path) -> int:
    """Print a deck to `target`, one page a slide; returns the number of pages."""
    findings: list[str] = []
    with page_of(browser, path, findings, "?print-pdf") as page:
        if not _ready(page, findings):
            raise MissingPartError(f"{path.name}: {'; '.join(findings)}.")
        page.wait_for_selector(".pdf-page")
        pages = page.locator(".pdf-page").count()
        page.pdf(path=target, prefer_css_page_size=True, print_background=True)
    return pages


if __name__ == "__main__":
    found = executable()
    print(found or ADVICE, file=sys.stdout if found else sys.stderr)
    sys.exit(0 if found else 1)
