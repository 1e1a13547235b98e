"""The code of `mini` that a kept result depends on: which of its modules, and what these do.

    counted({"mini.training.probes"}, set(), ROOT)  # it, its package, and what both import

Files are read, and nothing is imported: what else is loaded, and in which order, moves nothing. An
`import` counts wherever it stands, also in a function, and also where it is never reached.
"""

import ast
import functools
import itertools
from contextlib import suppress
from pathlib import Path

UNTOLD = "what nothing is known of"  # stands among the names
# Where one of these is met, nobody can tell what is imported: all of `mini` counts.
ANYTHING = {"import_module", "__import__", "exec", UNTOLD}
WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def counted(met: set[str], names: set[str], root: Path) -> dict[str, str]:
    """By the names of all modules of `mini` in the folder `root` that are reached: what they do.

    `met` holds dotted names, of modules or of what is in them; what is no file is passed over.
    `names` are attributes that are read beside them: a submodule of a package in `met` is reached
    by its name. `mini.course` changes no number: it does not count, nor does what it alone imports.

    Not seen are a submodule that is taken by a computed name (`getattr(package, name)`) and is
    imported nowhere else, what text that is given to `eval` or to another process imports, and
    what is put into a module from outside. A docstring does not count, even if it is read.
    """
    files = _files(root)
    found: dict[str, str] = {}
    to_read = _reached(met, names, files)
    while to_read:
        name = to_read.pop()
        text = files[name].read_text("utf-8")
        found[name] = _behaviour(text)
        package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
        to_read |= _reached(*mentioned(text, package), files) - found.keys()
    return dict(sorted(found.items()))


@functools.cache
def mentioned(source: str, package: str = "") -> tuple[set[str], set[str]]:
    """What a source imports of `mini`, in dotted names, and the attributes that it reads.

    `package` is where a relative import begins; without one, it is none of `mini`. What cannot be
    parsed, such as a lambda in the middle of a call, imports nothing.
    """
    named, names = set(), set()
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names |= {node.id} & ANYTHING
        elif isinstance(node, ast.Import):
            for alias in node.names:  # without `as`, the package at its head is what gets a name
                named |= {alias.name} if alias.asname else _and_above(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            named |= {f"{base}.{alias.name}" for alias in node.names}
            names |= {alias.name for alias in node.names} & ANYTHING
            if is_of_mini(base) and node.names[0].name == "*":
                names.add(UNTOLD)
    return set(filter(is_of_mini, named)), names


def is_of_mini(name: str) -> bool:
    return name.partition(".")[0] == "mini"


def _files(root: Path) -> dict[str, Path]:
    """The modules of `mini` by their dotted names, without `mini.course`."""
    files: dict[str, Path] = {}
    for path in sorted((root / "mini").rglob("*.py")):  # a package before a file of its name
        parts = path.relative_to(root).with_suffix("").parts
        if parts[1] != "course":
            files.setdefault(".".join(parts).removesuffix(".__init__"), path)
    return files


def _reached(named: set[str], names: set[str], files: dict[str, Path]) -> set[str]:
    """The modules among `files` that are named, those that attributes take from them, and the
    packages above, which are imported first."""
    if names & ANYTHING:
        return set(files)
    named = set(named)
    parts = [(name, *name.rpartition(".")[::2]) for name in files]
    while more := {n for n, above, last in parts if above in named and last in names} - named:
        named |= more
    return {above for name in named for above in _and_above(name)} & files.keys()


def _and_above(name: str) -> set[str]:
    return set(itertools.accumulate(name.split("."), "{}.{}".format))


def _parsed(source: str) -> ast.Module:
    for text in (source, f"if True:\n{source}"):  # a method's text may keep it from moving left
        with suppress(SyntaxError, ValueError):
            return ast.parse(text)
    return ast.Module([], [])


@functools.cache
def _behaviour(text: str) -> str:
    """The syntax tree without docstrings, comments and layout; of what has none, the text."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, WITH_DOCSTRINGS) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)
