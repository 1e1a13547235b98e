"""Execute notebooks without a browser.

python tools/execute.py run [NAME ...]      into build/run/, with the reader's own settings
python tools/execute.py commit [NAME ...]   in place, from `quick` on `digits`, normalised
python tools/execute.py reproduce [NAME ...]   at full scale, what is finished skipped
"""

import argparse
import asyncio
import atexit
import contextlib
import logging
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# jsonschema does without it; its grammar takes a second or more to build at every start.
sys.modules["rfc3987_syntax"] = None
# When a kernel dies, what was on its way to it ends in a traceback here; we say it in a sentence.
logging.getLogger("tornado.general").setLevel(logging.CRITICAL)

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from mini.course import records
from mini.course.claims import EVIDENCE, VERDICTS, Judgement, safe
from mini.files import require_writable, user_folder, write_atomically
from tools.environment import NOTEBOOKS, RESULTS, ROOT, pin, prepare_kernels, read_notebook
from tools.normalise import agrees, moved, normalise, state_seconds, stated_seconds
from tools.progress import progress
from tools.reproduced import remember, unfinished

# What a second run on the same machine may change without having found anything new.
PASSING_KEYS = ("seconds", "date", "machine", "sittings", "versions")


@dataclass
class Outcome:
    """One executed notebook: its seconds, its JSON if it wrote one, and its error if it failed."""

    name: str
    node: NotebookNode
    seconds: float
    error: str | None = None
    result_path: Path | None = None
    result: dict = field(default_factory=dict)


def chosen(names: list[str]) -> list[Path]:
    """The notebooks called `names`, or all; ValueError names those that exist."""
    paths = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    wanted = [Path(name).name.removesuffix(".ipynb") for name in names] or list(paths)
    for name in wanted:
        if name not in paths:
            known = ", ".join(paths) or "none yet"
            raise ValueError(f"There is no notebook called {name!r}; there are: {known}.")
    return [paths[name] for name in wanted]


def write_notebook(node: NotebookNode, path: Path) -> None:
    """Write `node` so that the file is either the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(node, version=4).rstrip("\n") + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def execute(path: Path, label: str) -> Outcome:
    """Run every cell of one notebook in a fresh kernel, in the notebook's own folder."""
    try:
        node = read_notebook(path)
    except ValueError as problem:
        print(f"{label}: FAILED", flush=True)
        return Outcome(path.stem, nbformat.v4.new_notebook(), 0.0, str(problem))
    at = {"cell": 0}

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        if cell_index == 0:
            # nbclient would answer Ctrl-C with its own tracebacks; let Python stop this script.
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        at["cell"] = cell_index

    client = NotebookClient(
        node,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        # What the kernel logs would stand between the lines of progress.
        extra_arguments=["--log-level=50"],
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=on_cell_start,
    )
    started, error = time.time(), None
    with progress(label, at, len(node.cells)):
        try:
            client.execute()
        except CellExecutionError as failure:
            error = f"{failure.ename}: {failure.evalue}"
        except (DeadKernelError, CellTimeoutError):
            error = "the kernel died (out of memory, or stopped from outside)"
        except RuntimeError as failure:
            error = f"the kernel did not start ({failure})"
            # nbclient would clean up, at the end, what it has cleaned up already, and fail.
            atexit.unregister(client._cleanup_kernel)
    seconds = time.time() - started
    if error is not None:
        lines = node.cells[at["cell"]].source.strip().splitlines() or [""]
        error = f"cell {at['cell'] + 1} ({lines[0]}): {error}"
    outcome = Outcome(path.stem, node, seconds, error)
    try:
        outcome.result_path, outcome.result = newest_result(path.stem, since=started)
    except ValueError as problem:
        outcome.error = error = error or str(problem)
    state = "FAILED" if error else "done"
    print(f"{label}: {state} in {seconds:.0f} s", flush=True)
    return outcome


def newest_result(name: str, since: float) -> tuple[Path | None, dict]:
    """The JSON that the run of notebook `name` wrote after `since` (seconds since the epoch)."""
    own = user_folder("MINI_RESULTS")
    folders = [own] if own else [ROOT / "build" / "results", RESULTS]
    written = [
        path
        for folder in folders
        for path in folder.glob(f"{name}/*.json")
        # A second of leeway: some file systems store whole seconds.
        if path.stat().st_mtime >= since - 1
    ]
    if not written:
        return None, {}
    path = max(written, key=lambda path: path.stat().st_mtime)
    return path, records.parse(path)


def table(outcomes: list[Outcome]) -> str:
    """Time and verdict counts, one line a notebook."""
    width = max(len("notebook"), *(len(outcome.name) for outcome in outcomes))
    lines = [f"{'notebook':{width}}  {'seconds':>7}  " + "  ".join(VERDICTS)]
    for outcome in outcomes:
        counts = Counter(claim["verdict"] for claim in outcome.result.get("claims", []))
        cells = "  ".join(f"{counts[name] if counts else '-':>{len(name)}}" for name in VERDICTS)
        state = "  FAILED" if outcome.error else ""
        lines.append(f"{outcome.name:{width}}  {outcome.seconds:7.0f}  {cells}{state}")
    return "\n".join(lines)


def same_measures(one: Path, other: Path) -> bool:
    """Whether two records have the same measures beside them, or none."""
    contents = [
        path.with_suffix(".npz").read_bytes() if path.with_suffix(".npz").exists() else None
        for path in (one, other)
    ]
    return contents[0] == contents[1]


def adopt(outcome: Outcome) -> None:
    """Put a successful run in the place of the committed notebook and its committed JSON.

    What has not changed is left alone, running times included as long as they are close, so that
    a second run gives no diff.
    """
    seconds = outcome.seconds
    if outcome.result_path is not None:
        committed = RESULTS / outcome.name / outcome.result_path.name
        before = {}
        with contextlib.suppress(ValueError):  # what is damaged is replaced
            before = records.parse(committed) if committed.exists() else {}
        seconds = outcome.result["seconds"]
        found = {key: outcome.result[key] for key in outcome.result if key not in PASSING_KEYS}
        found_before = {key: before[key] for key in before if key not in PASSING_KEYS}
        is_whole = same_measures(outcome.result_path, committed)
        if found != found_before or not is_whole or moved(before.get("seconds"), seconds):
            records.copy(outcome.result_path, committed)
        else:
            seconds = before["seconds"]
        stale = not agrees(stated_seconds(outcome.node), seconds)
    else:
        stale = moved(stated_seconds(outcome.node), seconds)
    if stale:
        state_seconds(outcome.node, seconds)
    write_notebook(normalise(outcome.node), NOTEBOOKS / f"{outcome.name}.ipynb")


def main(arguments: list[str] | None = None) -> int:
    """Execute the notebooks named on the command line; 0 if all went well, else 1 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=("run", "commit", "reproduce"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    build = ROOT / "build" / options.job
    try:
        paths = chosen(options.names)
        require_writable(build)  # not after hours
        if options.job == "commit":
            require_writable(NOTEBOOKS)
            require_writable(RESULTS)
            pin(results=build / "results")
            # The opening notebook shows the others' results, so it comes last.
            paths.sort(key=lambda path: (path.stem.startswith("00"), path.stem))
        else:
            prepare_kernels()
        if options.job == "reproduce":
            os.environ["MINI_SCALE"] = "full"
            paths = unfinished([path for path in paths if not path.stem.startswith("00")])
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2

    outcomes = []
    for number, path in enumerate(paths, start=1):
        outcome = execute(path, f"[{number}/{len(paths)}] {path.stem}")
        outcomes.append(outcome)
        if outcome.node.cells:  # else it could not be read
            write_notebook(outcome.node, build / path.name)
        if outcome.error is None and options.job == "commit":
            adopt(outcome)
        if outcome.error is None and options.job == "reproduce":
            remember(path, outcome.result_path)
    failed = [outcome for outcome in outcomes if outcome.error]
    if outcomes:
        print(f"\n{table(outcomes)}")
    for outcome in outcomes:
        if len(outcome.result.get("seeds", [])) >= EVIDENCE:
            judged = [Judgement.from_dict(claim) for claim in outcome.result["claims"]]
            print(f"{outcome.name}: safe to gate: {', '.join(safe(judged)) or 'none'}")
    for outcome in failed:
        if not outcome.node.cells:
            print(f"\n{outcome.error}")
            continue
        where = (build / outcome.name).relative_to(ROOT)
        print(f"\n{outcome.name} failed in {outcome.error}\n  as far as it got: {where}.ipynb")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
