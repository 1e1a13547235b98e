"""A step of the DARTS search by order of its gradient: passes, seconds and memory, in one run.

A step moves the alphas once and the weights once. Ours is the paper's second order, by a finite
difference; "exact" differentiates through the unrolled step instead, as a library for higher-order
gradients would. "weights alone" is one forward and one backward pass, the unit. Each one's memory
is the growth of the peak of a process of its own.
"""

import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from turns import Benchmark

from mini import darts
from mini.darts import search

RULES = {"ours": "second", "exact": "exact", "first order": "first", "weights alone": "fixed"}
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
    if sys.argv[1:2] == ["--peak-of"]:  # a process of its own for each
        print(peak(sys.argv[2], *map(int, sys.argv[3:])))
        return
    bench = Benchmark(__file__, __doc__, rounds=9, batch=32, memory_batch=512, channels=16)
    batch, memory_batch, channels = (
        getattr(bench.chosen, option) for option in ("batch", "memory_batch", "channels")
    )
    steppers = {name: stepper(rule, batch, channels) for name, rule in RULES.items()}
    steps = {name: partial(next, taken) for name, taken in steppers.items()}
    what = f"DARTS step, {channels} channels"
    bench.compare(f"{what}, batch {batch}", steps)
    command = [sys.executable, __file__, "--peak-of"]
    sizes = [str(memory_batch), str(channels)]
    memory = {}
    for name, rule in RULES.items():
        peaks = [int(subprocess.check_output([*command, rule, *sizes])) for _ in range(3)]
        memory[name] = statistics.median(peaks) / 2**20
    if not all(memory.values()):
        sys.exit(f"--memory-batch {memory_batch} raises no peak of memory: give a larger one.")
    ratios = {name: held / memory["ours"] for name, held in memory.items()}
    bench.add(f"{what}, batch {memory_batch}: memory", "MiB", memory, ratios)
    counts = {name: passes(rule) for name, rule in RULES.items()}
    print("\nforward and backward passes a step:", counts)
    bench.finish()


if __name__ == "__main__":
    main()
