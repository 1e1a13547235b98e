"""A SAM step on the course's CNN, ours beside pytorch-optimizer's, as multiples of the base step.

Each step is forward, cross-entropy, backward and SGD with momentum on the same batch; SAM does the
first three twice, so that 2 is the limit. The three take turns, and ratios are taken round by
round, so that a slow moment of the machine slows all alike.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import pytorch_optimizer
import torch
from torch.nn.functional import cross_entropy

from mini import notebook, sam
from mini.models import SmallResNet

SIZES = {"width 16, batch 128": (16, 128), "width 32, batch 128": (32, 128)}
LIMIT = 2.05
OPTIONS = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def stepper(who: str, width: int, batch: int, device: torch.device) -> Callable[[], object]:
    """A function that takes one training step, by SGD alone, our SAM, or theirs."""
    torch.manual_seed(0)
    model = SmallResNet(width).to(device)
    images = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch,), device=device)
    if who == "SGD":
        optimizer = torch.optim.SGD(model.parameters(), **OPTIONS)
    else:
        kind = {"ours": sam.SAM, "pytorch-optimizer": pytorch_optimizer.SAM}[who]
        optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.05, **OPTIONS)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    def theirs() -> None:  # which wants the first gradient from outside
        closure()
        optimizer.step(closure)

    return theirs if who == "pytorch-optimizer" else lambda: optimizer.step(closure)


def seconds(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean time of `repeats` steps."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = notebook.device()
    print(
        f"{notebook.processor()}, {device}, {options.threads} thread(s), "
        f"Python {platform.python_version()}, torch {torch.__version__}, pytorch-optimizer "
        f"{version('pytorch-optimizer')}; "
        f"medians of {options.rounds} rounds"
    )
    for name, (width, batch) in SIZES.items():
        whos = ("SGD", "ours", "pytorch-optimizer")
        steps = {who: stepper(who, width, batch, device) for who in whos}
        repeats = max(1, int(0.3 / seconds(steps["SGD"], 3, device)))  # about 0.3 s a turn
        for step in steps.values():
            seconds(step, 2, device)
        rounds = [
            {who: seconds(step, repeats, device) for who, step in steps.items()}
            for _ in range(options.rounds)
        ]
        print(f"\n{name}")
        for who in whos:
            median = statistics.median(turn[who] for turn in rounds)
            ratio = statistics.median(turn[who] / turn["SGD"] for turn in rounds)
            verdict = f", limit {LIMIT}: {'met' if ratio <= LIMIT else 'MISSED'}"
            print(
                f"  {who:18} {1000 * median:7.2f} ms a step, {ratio:5.3f} times SGD"
                f"{verdict if who == 'ours' else ''}"
            )


if __name__ == "__main__":
    main()
