"""A step of the DARTS search by order of its gradient: passes, seconds and memory, in one run.

A step moves the alphas once and the weights once. `fixed` moves the weights alone: one forward and
one backward pass, the unit. `exact` differentiates through the unrolled step, as a library for
higher-order gradients would; `second` is the paper's finite difference in its place. The rivals
take turns, ratios are taken round by round, and each one's memory is the growth of the peak of a
process of its own.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from mini import darts, notebook, search

RULES = ("fixed", "first", "second", "exact")
PEAK_BYTES = 1 if platform.system() == "Darwin" else 1024  # the unit of ru_maxrss


def stepper(rule: str, batch: int, channels: int) -> Iterator[int]:
    """A search whose every `next` is one step."""
    torch.manual_seed(0)
    net = darts.SuperNet(channels)
    batches = [(torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,)))]
    return search.search(net, batches, batches, rule=rule, steps=10**6, lr=0.1, alpha_lr=0.01)


def passes(rule: str) -> int:
    """How many losses a step computes; each is one forward pass, and one backward pass."""
    plain, count = search.cross_entropy, 0

    def counting(*given):
        nonlocal count
        count += 1
        return plain(*given)

    search.cross_entropy = counting
    try:
        next(stepper(rule, 2, 4))
    finally:
        search.cross_entropy = plain
    return count


def peak(rule: str, batch: int, channels: int) -> int:
    """Bytes by which three steps raise the peak of this process, which should be a fresh one."""
    next(stepper(rule, 2, channels))  # libraries load what they need
    steps = stepper(rule, batch, channels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        next(steps)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * PEAK_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory-batch", type=int, default=512)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--peak-of", choices=RULES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of:
        print(peak(options.peak_of, options.memory_batch, options.channels))
        return

    print(
        f"{notebook.processor()}, cpu, 1 thread, Python {platform.python_version()}, "
        f"torch {torch.__version__}; {options.channels} channels; medians of {options.rounds} "
        f"rounds at batch {options.batch}; memory at batch {options.memory_batch}"
    )
    steps = {rule: stepper(rule, options.batch, options.channels) for rule in RULES}
    rounds = []
    for turn in range(-1, options.rounds):  # one round to warm up
        seconds = {}
        for rule in RULES:
            start = time.perf_counter()
            for _ in range(3):
                next(steps[rule])
            seconds[rule] = (time.perf_counter() - start) / 3
        if turn >= 0:
            rounds.append(seconds)
    counts = {rule: passes(rule) for rule in RULES}
    command = [sys.executable, __file__, "--memory-batch", str(options.memory_batch)]
    command += ["--channels", str(options.channels), "--peak-of"]
    peaks = {
        rule: statistics.median(int(subprocess.check_output([*command, rule])) for _ in range(3))
        for rule in RULES
    }
    print("rule     passes   ms a step   times first   MB at peak   times first")
    for rule in RULES:
        milliseconds = 1000 * statistics.median(turn[rule] for turn in rounds)
        ratio = statistics.median(turn[rule] / turn["first"] for turn in rounds)
        memory = peaks[rule] / peaks["first"]
        print(
            f"{rule:8} {counts[rule]:6} {milliseconds:11.1f} {ratio:13.2f} "
            f"{peaks[rule] / 1e6:12.0f} {memory:13.2f}"
        )
    print(
        f"second order takes {counts['second']} passes, {counts['second'] - 1} of them for the "
        f"alphas; first order takes {counts['first']}, {counts['first'] - 1} of them for the alphas"
    )


if __name__ == "__main__":
    main()
