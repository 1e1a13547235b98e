"""The DINO loss of 2 + 8 views, forward and backward: ours, lightly's, and a loop over pairs.

The loop is equation 3 as it is written, and as the authors' code has it. The three take turns, and
the ratio is taken round by round, so that a slow moment of the machine slows all alike. Peak
memory is what a call allocates beyond its inputs (torch's profiler on a CPU).
"""

from collections.abc import Callable
from functools import partial

import torch
from lightly.loss import DINOLoss as LightlyLoss
from torch import Tensor
from torch.nn.functional import log_softmax, softmax
from turns import Benchmark

from mini import dino

LOCAL, BATCH, OUT = 8, 64, 4096
TAU_S, TAU_T = 0.1, 0.04


class LoopLoss:
    """Every pair of a teacher's and another student's view by itself."""

    def __init__(self, device: torch.device):
        self.center = torch.zeros(OUT, device=device)

    def __call__(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        student = [g / TAU_S for g in student]
        targets = [softmax((g - self.center) / TAU_T, dim=-1) for g in teacher]
        total, terms = 0.0, 0
        for u, target in enumerate(targets):
            for v, g in enumerate(student):
                if u != v:
                    total = total - (target * log_softmax(g, dim=-1)).sum(dim=-1).mean()
                    terms += 1
        self.center = 0.9 * self.center + 0.1 * torch.cat(teacher).mean(dim=0)
        return total / terms


def rivals(device: torch.device) -> dict[str, Callable[[list[Tensor], list[Tensor]], Tensor]]:
    """The same loss from three sources, called with (student, teacher)."""
    lightly = LightlyLoss(OUT, student_temp=TAU_S, teacher_temp=TAU_T).to(device)
    return {
        "ours": dino.DINOLoss(OUT).to(device),
        "lightly": lambda student, teacher: lightly(teacher, student, teacher_temp=TAU_T),
        "a loop over pairs": LoopLoss(device),
    }


def peak(step: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call of `step` holds at most, beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        step()
    held = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    bench = Benchmark(__file__, __doc__, "lightly", rounds=15)
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.rand(4 + LOCAL, BATCH, OUT, generator=generator).to(bench.device) - 1
    teacher, student = list(logits[:2]), [g.clone().requires_grad_() for g in logits[2:]]
    losses = rivals(bench.device)

    def step(loss: Callable) -> Tensor:
        for g in student:
            g.grad = None
        value = loss(student, teacher)
        value.backward()
        return value.detach()

    results = {}
    for who, loss in losses.items():  # three calls, so that the centre takes part
        values = torch.stack([step(loss) for _ in range(3)])
        results[who] = torch.cat([values, *(g.grad.flatten() for g in student)])
    for who, found in results.items():
        torch.testing.assert_close(found, results["ours"], rtol=1e-4, atol=1e-8, msg=who)
    steps = {who: partial(step, loss) for who, loss in losses.items()}
    what = f"DINO loss, 2 + {LOCAL} views, batch {BATCH}, K {OUT:,}"
    bench.compare(what, steps)
    memory = {who: peak(run, bench.device) / 2**20 for who, run in steps.items()}
    ratios = {who: held / memory["ours"] for who, held in memory.items()}
    bench.add(f"{what}: memory", "MiB", memory, ratios)
    bench.finish()


if __name__ == "__main__":
    main()
