"""Knowledge distillation: train a small network on what a large one thinks of every class.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531.
Ridnik et al., "Solving ImageNet" (USI), 2022, arXiv:2204.03475. Read downwards: the soft loss and
its factor T^2 (Hinton, section 2), the loss with labels, who is asked and on which images, then
what takes the teacher's place in controls, and the shift that a class left out needs (section 3).
Differences from the authors' code: a teacher is a frozen copy in evaluation mode; images that are
normalised for the student are brought to the teacher's statistics by the right formula (USI's code
subtracts the means undivided, which is right for a teacher with a deviation of 1 alone).
"""

import copy
import math
from collections.abc import Iterable

import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot

from mini.data.batches import whole_labels
from mini.training import precision as precisions
from mini.training.metrics import one_label_a_row

Statistics = tuple[Tensor, Tensor]  # mean and standard deviation of each channel, [C] each


def soft_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T^2 KL(p || q), p and q the softmax of teacher's and student's logits / T (section 2).

    Both are `[B, K]`; the mean over the batch of the sum over classes, in nats. Its gradient by the
    student's logits is T (q - p) / B; the teacher gets none. Logits are finite. Raises ValueError
    for shapes that differ, or a temperature that is not finite and above 0.
    """
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
        raise ValueError(
            f"The student's logits are {list(student_logits.shape)}, the teacher's "
            f"{list(teacher_logits.shape)}: both have to be [B, K], of the same classes."
        )
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature={temperature}: expected a finite number above 0; 1 changes nothing."
        )
    log_q = log_softmax(student_logits / temperature, dim=1)
    log_p = log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    weight: float = 5.0,
) -> Tensor:
    """Cross-entropy with the labels plus `weight` times `soft_loss` (Hinton, section 2).

    Logits are `[B, K]`; labels int64 `[B]`, or probabilities `[B, K]`, such as mixed ones. At T = 1
    and weight 5 it is USI's loss: 6 times the cross-entropy with the label (y + 5 p) / 6, but for a
    constant. Raises ValueError as `soft_loss` does, for a negative weight, and for labels that are
    neither.
    """
    if not weight >= 0:
        raise ValueError(f"weight={weight}: expected a number >= 0; 0 leaves the teacher out.")
    if not labels.is_floating_point():
        labels = whole_labels(labels)
    elif labels.shape != student_logits.shape:
        raise ValueError(
            f"Labels {list(labels.shape)} for logits {list(student_logits.shape)}: give whole "
            "numbers [B], or one row of K probabilities an image."
        )
    soft = soft_loss(student_logits, teacher_logits, temperature=temperature)
    return cross_entropy(student_logits, labels) + weight * soft


class Teacher:
    """`teacher(images [B, C, H, W]) -> logits [B, K]` of one network, or of several together.

    It keeps frozen copies in evaluation mode: batch norm uses what it has seen, nothing is dropped,
    and what happens to the networks later changes no answer. Of several, the softmax of the answer
    is the mean of their softmaxes (Hinton, section 1: an arithmetic mean). Where the images are
    normalised by other statistics than the networks know, give both: `given` and `wanted`.
    `precision` is what the networks compute in; the answer is float32, or more where they are.
    Raises ValueError without a network, or with one of `given` and `wanted` alone; when called,
    RuntimeError if a network was put into training mode.
    """

    def __init__(
        self,
        *networks: nn.Module,
        given: Statistics | None = None,
        wanted: Statistics | None = None,
        precision: str = "float32",
    ):
        if not networks or (given is None) != (wanted is None):
            raise ValueError("A teacher needs a network, and of given and wanted both or neither.")
        self.networks = [copy.deepcopy(network).requires_grad_(False) for network in networks]
        for network in self.networks:
            network.eval()
        self.given, self.wanted, self.precision = given, wanted, precision

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if any(module.training for network in self.networks for module in network.modules()):
            raise RuntimeError("The teacher is in training mode: call eval() on its networks.")
        if self.given:
            images = renormalise(images, self.given, self.wanted)
        with precisions.autocast(self.precision, images.device):
            answers = [network(images) for network in self.networks]
        answers = [a.float() if a.dtype is torch.bfloat16 else a for a in answers]
        if len(answers) == 1:
            return answers[0]
        return torch.stack(answers).log_softmax(dim=2).logsumexp(dim=0)  # of the sum: a shift


def renormalise(images: Tensor, given: Statistics, wanted: Statistics) -> Tensor:
    """(x s + m - m') / s': images `[B, C, H, W]`, normalised by `given` (m, s), as by `wanted`.

    Both are a mean and a standard deviation of each channel, `[C]`.
    """
    (m, s), (to_m, to_s) = ([v.to(images).view(-1, 1, 1) for v in pair] for pair in (given, wanted))
    return (images * s + m - to_m) / to_s


# What takes the teacher's place


def shuffle_wrong(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Each row `[K]` of the logits with all but its largest in random order.

    The answer and how sure it is stay, and how the rest is shared out, but not to whom. Of several
    largest, the first counts.
    """
    device = logits.device if generator is None else generator.device
    top = logits.argmax(dim=1, keepdim=True)
    keys = torch.rand(logits.shape, generator=generator, device=device).to(logits.device)
    order = keys.scatter(1, top, 2.0).argsort(dim=1)[:, :-1]  # [B, K - 1], without the largest
    places = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    rest = places[places != top].view(order.shape)
    return logits.scatter(1, rest, logits.gather(1, order))


def entropy(p: Tensor) -> Tensor:
    """Of each row of `p`, probabilities `[..., K]`, in nats: `[...]`."""
    return torch.special.entr(p).sum(dim=-1)


def smoothing_of_entropy(nats: float, num_classes: int) -> float:
    """The share e in [0, 1] for which (1 - e) one-hot + e / K has an entropy of `nats`.

    Label smoothing (Szegedy et al. 2016) that is as unsure as a teacher. Raises ValueError unless
    0 <= nats <= ln K.
    """
    label = one_hot(torch.tensor(0), num_classes).double()
    ends = [float(entropy(smoothed(label, e))) - nats for e in (0.0, 1.0)]
    if not ends[0] <= 0 <= ends[1] + 1e-12:
        most = math.log(num_classes)
        raise ValueError(f"nats={nats}: the entropy of {num_classes} classes is 0 to {most:.4f}.")
    if ends[1] <= 0:
        return 1.0
    return float(brentq(lambda e: float(entropy(smoothed(label, e))) - nats, 0.0, 1.0, xtol=1e-14))


def smoothed(targets: Tensor, share: float) -> Tensor:
    """(1 - share) targets + share / K: label smoothing of probabilities `[..., K]`."""
    return (1 - share) * targets + share / targets.shape[-1]


# A class left out


def shift_class(logits: Tensor, k: int, by: float) -> Tensor:
    """The logits `[B, K]` with the bias of class `k`, 0 .. K-1, raised by `by` (section 3)."""
    if not 0 <= k < logits.shape[1]:
        raise ValueError(f"k={k}: expected one of the classes 0 to {logits.shape[1] - 1}.")
    return logits + by * one_hot(torch.tensor(k), logits.shape[1]).to(logits)


def best_shift(logits: Tensor, labels: Tensor, k: int, candidates: Iterable[float]) -> float:
    """Of `candidates` the `shift_class` of class `k` with which most rows are right.

    Logits are `[B, K]`, labels int64 `[B]`: of images that are not tested on. Of equals, the
    smallest in size. Raises ValueError without candidates, or labels that do not fit.
    """
    labels = one_label_a_row(logits, labels)
    right = {
        by: int((shift_class(logits, k, by).argmax(dim=1) == labels).sum())
        for by in sorted(map(float, candidates), key=abs)
    }
    if not right:
        raise ValueError("There is no shift to choose: give candidates, such as range(10).")
    return max(right, key=right.get)
