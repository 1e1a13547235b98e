"""What benchmarks share: options, rivals that take turns in one run, and the record they leave.

Ratios are taken round by round, so that a slow moment of the machine slows all alike.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from mini.course import notebook
from mini.files import ROOT, write_atomically

RESULTS = ROOT / "results" / "benchmarks"
# What is shown, from the seconds that one unit of work takes.
UNITS = {"ms": lambda seconds: 1000 * seconds, "images/s": lambda seconds: 1 / seconds}


class Benchmark:
    """One script: its options in `chosen`, its `device`, and the `rows` it found.

    `sizes` are whole numbers that the command line may change; `packages` those whose versions
    matter. `--record` writes the rows into results/benchmarks/, which fill the README's table.
    """

    def __init__(self, script: str, doc: str, *packages: str, rounds: int, **sizes: int):
        self.name, self.rows = Path(script).stem, []
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        for option, default in ({"rounds": rounds, "threads": 1} | sizes).items():
            parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=default)
        parser.add_argument("--record", action="store_true", help="write the JSON into results/")
        self.chosen, self.device = parser.parse_args(), notebook.device()
        torch.set_num_threads(self.chosen.threads)
        self.versions = {"python": platform.python_version()}
        self.versions |= {name: version(name) for name in ("torch", *packages)}
        shown = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        print(
            f"{notebook.processor()}, {self.device}, {self.chosen.threads} thread(s), {shown}; "
            f"medians of {self.chosen.rounds} rounds"
        )

    def take(
        self, steps: dict[str, Callable[[], object]], base: str, work: dict[str, int] | None = None
    ) -> dict[str, tuple[float, float]]:
        """For each rival its median seconds a unit, and the median of their ratio to `base`'s.

        A call of a rival does `work` units (default 1). A turn lasts about 0.3 s of base's calls.
        """
        work = dict.fromkeys(steps, 1) | (work or {})
        seconds = partial(seconds_a_call, device=self.device)
        repeats = max(1, int(0.3 / seconds(steps[base], 1)))
        for step in steps.values():
            seconds(step, 2)
        turns = [
            {who: seconds(step, repeats) / work[who] for who, step in steps.items()}
            for _ in range(self.chosen.rounds)
        ]
        return {
            who: (
                statistics.median(turn[who] for turn in turns),
                statistics.median(turn[who] / turn[base] for turn in turns),
            )
            for who in steps
        }

    def compare(
        self,
        what: str,
        steps: dict[str, Callable[[], object]],
        *,
        unit: str = "ms",
        work: dict[str, int] | None = None,
    ) -> dict[str, float]:
        """Time `steps` and keep a row for each rival of "ours"; returns their times as ratios."""
        found = self.take(steps, "ours", work)
        shown = {who: UNITS[unit](seconds) for who, (seconds, _) in found.items()}
        ratios = {who: ratio for who, (_, ratio) in found.items()}
        self.add(what, unit, shown, ratios)
        return ratios

    def compare_images(
        self, what: str, runs: dict[str, tuple[Callable[[int], object], int]]
    ) -> dict[str, float]:
        """As `compare`, in images/s, of rivals that are called with their number of images."""
        steps = {who: partial(run, n) for who, (run, n) in runs.items()}
        work = {who: n for who, (_, n) in runs.items()}
        return self.compare(what, steps, unit="images/s", work=work)

    def add(
        self, what: str, unit: str, amounts: dict[str, float], ratios: dict[str, float]
    ) -> None:
        """Print and keep amounts and ratios to "ours", above 1 where ours is the better one."""
        print(f"\n{what}")
        for who, amount in amounts.items():
            print(f"  {who:28} {amount:10,.1f} {unit}, {ratios[who]:6.2f} times ours")
        self.rows += [
            {"what": what, "unit": unit, "ours": amounts["ours"], "peer": who}
            | {"theirs": amounts[who], "times": ratios[who]}
            for who in amounts
            if who != "ours"
        ]

    def finish(self) -> None:
        """Write the rows, if asked to."""
        if not self.chosen.record:
            return
        content = {
            "benchmark": self.name,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {
                "processor": notebook.processor(),
                "cores": os.cpu_count(),
                "device": str(self.device),
            },
            "threads": self.chosen.threads,
            "rounds": self.chosen.rounds,
            "versions": self.versions,
            "rows": self.rows,
        }
        path = RESULTS / f"{self.name}.json"
        write_atomically(path, lambda file: file.write(json.dumps(content, indent=1).encode()))
        print(f"\n{path.name} written to results/benchmarks/")


def seconds_a_call(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean time of `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats
