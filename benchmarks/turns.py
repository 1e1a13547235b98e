"""What benchmarks share: options, a heading, and rivals that take turns in one run.

Ratios are taken round by round, so that a slow moment of the machine slows all alike.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

from mini import notebook


def options(doc: str, *, rounds: int) -> tuple[argparse.Namespace, torch.device]:
    """`--rounds` and `--threads` from the command line, set; and the device to run on."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    return chosen, notebook.device()


def heading(chosen: argparse.Namespace, device: torch.device, *packages: str) -> None:
    """Print the machine, the versions of torch and of `packages`, and what is shown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    print(
        f"{notebook.processor()}, {device}, {chosen.threads} thread(s), "
        f"Python {platform.python_version()}, {versions}; medians of {chosen.rounds} rounds"
    )


def seconds(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean time of `repeats` steps."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def take(
    steps: dict[str, Callable[[], object]], base: str, rounds: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """For each rival its median seconds a step, and the median of its ratio to `base`.

    Each turn lasts about 0.3 s of `base`'s steps.
    """
    repeats = max(1, int(0.3 / seconds(steps[base], 3, device)))
    for step in steps.values():
        seconds(step, 2, device)
    turns = [
        {who: seconds(step, repeats, device) for who, step in steps.items()} for _ in range(rounds)
    ]
    return {
        who: (
            statistics.median(turn[who] for turn in turns),
            statistics.median(turn[who] / turn[base] for turn in turns),
        )
        for who in steps
    }
