"""A SAM step on the course's CNN, ours beside pytorch-optimizer's and the base step.

Each step is forward, cross-entropy, backward and SGD with momentum on the same batch; SAM does the
first three twice, so that 2 is the limit. The three take turns, and ratios are taken round by
round, so that a slow moment of the machine slows all alike.
"""

from collections.abc import Callable

import pytorch_optimizer
import torch
from torch.nn.functional import cross_entropy
from turns import Benchmark

from mini import sam
from mini.training.models import SmallResNet

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


def main() -> None:
    bench = Benchmark(__file__, __doc__, "pytorch-optimizer", rounds=45)
    for name, (width, batch) in SIZES.items():
        whos = ("ours", "pytorch-optimizer", "SGD")
        steps = {who: stepper(who, width, batch, bench.device) for who in whos}
        ratio = 1 / bench.compare(f"SAM step, {name}", steps)["SGD"]
        verdict = "met" if ratio <= LIMIT else "MISSED"
        print(f"  ours is {ratio:.3f} times SGD, limit {LIMIT}: {verdict}")
    bench.finish()


if __name__ == "__main__":
    main()
