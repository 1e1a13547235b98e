"""The distillation loss, forward and backward: ours, timm's task, and torch's losses composed.

1,024 rows of 1,000 classes at T = 2, with whole labels and weight 5. timm's task is given networks
that answer at once, and images that need no other statistics: what is timed is its loss. Like
ours it takes the logarithm of the teacher's probabilities; the composed one the probabilities.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.task import DistillationTeacher, LogitDistillationTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from turns import Benchmark

from mini import distillation

BATCH, K = 1024, 1000
TEMPERATURE, WEIGHT = 2.0, 5.0


class Answers(nn.Module):
    """A network for timm's task, which answers with logits that are given."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits, self.num_classes, self.in_chans = logits, K, 3
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

    def forward(self, _: Tensor) -> Tensor:
        return self.logits


def composed(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """As one writes it down with torch alone."""
    log_q = log_softmax(student / TEMPERATURE, dim=1)
    p = softmax(teacher / TEMPERATURE, dim=1)
    soft = TEMPERATURE**2 * kl_div(log_q, p, reduction="batchmean")
    return cross_entropy(student, labels) + WEIGHT * soft


def rivals(student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same loss from three sources."""
    task = LogitDistillationTask(
        Answers(student),
        DistillationTeacher(Answers(teacher), device=student.device),
        nn.CrossEntropyLoss(),
        distill_loss_weight=WEIGHT,
        temperature=TEMPERATURE,
        device=student.device,
        verbose=False,
    )
    image = torch.zeros(1, 3, 1, 1, device=student.device)
    ours = partial(distillation.distillation_loss, temperature=TEMPERATURE, weight=WEIGHT)
    return {
        "ours": partial(ours, student, teacher, labels),
        "timm": lambda: task(image, labels)["loss"],
        "torch's losses composed": partial(composed, student, teacher, labels),
    }


def main() -> None:
    bench = Benchmark(__file__, __doc__, "timm", rounds=15)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(2, BATCH, K, generator=generator)).to(bench.device)
    labels = torch.randint(K, (BATCH,), generator=generator).to(bench.device)
    student.requires_grad_()

    def step(loss: Callable[[], Tensor]) -> Tensor:
        student.grad = None
        value = loss()
        value.backward()
        return value.detach()

    losses = rivals(student, teacher, labels)
    results = {}
    for who, loss in losses.items():
        value = step(loss)
        results[who] = torch.cat([value[None], student.grad.flatten()])
    for who, found in results.items():
        torch.testing.assert_close(found, results["ours"], rtol=1e-4, atol=1e-8, msg=who)
    steps = {who: partial(step, loss) for who, loss in losses.items()}
    bench.compare(f"distillation loss, batch {BATCH:,}, K {K:,}, T {TEMPERATURE:g}", steps)
    bench.finish()


if __name__ == "__main__":
    main()
