"""DINO: a student learns from its own moving average, on crops of unlabelled images.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
arXiv:2104.14294. Read downwards, the file follows section 3: head, loss with centring and
sharpening (eq. 1-4), moving average. Views lie in `mini.dino.crops`, the sum over pairs of views in
`mini.dino.pairs`, k-NN evaluation in `mini.training.probes`. Differences from the authors' code:
the last layer's weights are normalised where they are used, which is weight norm with its gain
frozen at 1; hues are not turned, and nothing is blurred or solarised.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, normalize

from mini.dino.pairs import PairCrossEntropy


class DINOHead(nn.Module):
    """`[B, dim] -> logits [B, out_dim]`: an MLP, a unit vector, its cosine with each prototype.

    Three linear layers with GELU between, the last to `bottleneck` numbers, which are scaled to
    length 1 and compared with `out_dim` prototypes of length 1 (section 3.1, appendix C): every
    logit lies in [-1, 1]. No batch norm, so a ViT has none anywhere.
    """

    def __init__(self, dim: int, out_dim: int, *, hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        # Only directions count for the logits; the length says how fast an optimiser turns them.
        self.prototypes = nn.Linear(bottleneck, out_dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        z = normalize(self.mlp(features), dim=-1)
        return linear(z, normalize(self.prototypes.weight, dim=-1))


class DINONetwork(nn.Module):
    """g = head o backbone: a list of views `[B, 3, S, S]` -> a list of logits `[B, K]`, in order.

    `backbone` gives features `[B, dim]`: a ViT whose head is `nn.Identity()`, say. Views of one
    size that follow each other go through it together.
    """

    def __init__(self, backbone: nn.Module, head: DINOHead):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        groups: list[list[Tensor]] = []
        for view in views:
            if not groups or groups[-1][0].shape != view.shape:
                groups.append([])
            groups[-1].append(view)
        features = torch.cat([self.backbone(torch.cat(group)) for group in groups])
        return list(self.head(features).chunk(len(views)))  # V times [B, K]


class DINOLoss(nn.Module):
    """Cross-entropy between what a teacher and a student say of different views (eq. 1-4).

        P_t = softmax((g_t - c) / tau_t),  P_s = softmax(g_s / tau_s),  H(a, b) = -sum a log b
        loss = mean over images, teacher views u and student views v != u of H(P_t(u), P_s(v))
        c <- m c + (1 - m) mean over images and teacher views of g_t, after the loss

    `center` is the buffer c, `[out_dim]`, zero at first; `center_momentum` 1 leaves it there,
    which is no centring. Temperatures may be changed between calls. Raises ValueError for a
    temperature that is not positive or a momentum outside [0, 1].
    """

    def __init__(
        self,
        out_dim: int,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
    ):
        super().__init__()
        if min(student_temperature, teacher_temperature) <= 0 or not 0 <= center_momentum <= 1:
            raise ValueError(
                "Expected temperatures above 0 and center_momentum in [0, 1], not "
                f"{student_temperature=}, {teacher_temperature=}, {center_momentum=}."
            )
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(out_dim))

    @torch.no_grad()
    def targets(self, teacher_logits: Sequence[Tensor]) -> list[Tensor]:
        """P_t of each view, `[B, K]`: centred, sharpened, without a gradient (eq. 1)."""
        return [((g - self.center) / self.teacher_temperature).softmax(-1) for g in teacher_logits]

    def forward(self, student_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]) -> Tensor:
        """The loss of all views `[B, K]`, the teacher's first, then an update of the centre.

        Logits in half precision, as autocast gives them, are taken as float32. A batch in which the
        teacher has a logit that is not finite leaves the centre alone; the loss itself tells of it.

        Raises ValueError for shapes that differ, no pair of different views, or another K.
        """
        shapes = {tuple(g.shape) for g in [*student_logits, *teacher_logits]}
        pairs = len(teacher_logits) * (len(student_logits) - 1)  # U (V - 1), with v != u
        if len(shapes) != 1 or {len(self.center)} != {shape[-1] for shape in shapes}:
            raise ValueError(
                f"Expected logits [B, {len(self.center)}] of every view, not {sorted(shapes)}."
            )
        if pairs < 1 or len(teacher_logits) > len(student_logits):
            raise ValueError(
                f"{len(student_logits)} student and {len(teacher_logits)} teacher views: expected "
                "the teacher's views among at least two of the student's."
            )
        student_logits, teacher_logits = self._wide(student_logits), self._wide(teacher_logits)
        P_t = self.targets(teacher_logits)
        total = PairCrossEntropy.apply(self.student_temperature, P_t, *student_logits)
        self._update_center(teacher_logits)
        return total / (pairs * len(P_t[0]))

    @torch.no_grad()
    def _update_center(self, teacher_logits: Sequence[Tensor]) -> None:
        mean = sum(g.mean(dim=0) for g in teacher_logits) / len(teacher_logits)  # of raw outputs
        mean = mean.to(self.center)
        # On the device: to ask here whether it is finite would wait for it in every step.
        mean = torch.where(mean.isfinite().all(), mean, self.center)
        self.center.lerp_(mean, 1 - self.center_momentum)

    def _wide(self, logits: Sequence[Tensor]) -> list[Tensor]:
        return [g.to(torch.promote_types(g.dtype, self.center.dtype)) for g in logits]


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy of the student as it is now, whose parameters ask for no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """theta_t <- m theta_t + (1 - m) theta_s, for every parameter, after the optimiser's step.

    As in the authors' code buffers are left alone: batch norm's statistics are the teacher's own.
    Raises ValueError for a momentum outside [0, 1], a teacher that shares the student's tensors, or
    one whose parameters have other shapes, which `lerp_` would stretch.
    """
    theirs, ours = list(teacher.parameters()), list(student.parameters())
    if not 0 <= momentum <= 1:
        raise ValueError(f"{momentum=}: expected a number in [0, 1].")
    if [p.shape for p in theirs] != [p.shape for p in ours]:
        raise ValueError("Teacher and student differ in shape: make the teacher with make_teacher.")
    addresses = ({p.data_ptr() for p in own if p.numel()} for own in (theirs, ours))
    if set.intersection(*addresses):  # what is empty has no address
        raise ValueError("Teacher and student share parameters: make the teacher a deep copy.")
    for theta_t, theta_s in zip(theirs, ours, strict=True):
        theta_t.lerp_(theta_s, 1 - momentum)


def cosine(step: int, *, start: float, end: float, steps: int) -> float:
    """From `start` at step 0 towards `end`, which step `steps` would reach: half a cosine."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))


def target_statistics(
    loss: DINOLoss, student_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]
) -> dict[str, float]:
    """What figure 7 shows, in nats, for the two global views and the loss's centre as it is.

    `entropy` h(P_t), `kl` KL(P_t || P_s) with the views crossed (their sum is the cross-entropy,
    eq. 5), `outputs` exp(H(mean P_t)), the number of outputs in use, between 1 and K, and
    `information` H(mean P_t) - h(P_t), what an answer tells about which of the 2 B views was seen:
    their mutual information, between 0 and ln(2 B).
    """
    with torch.no_grad():
        student_logits, teacher_logits = map(loss._wide, (student_logits, teacher_logits))
        P_t = torch.stack(loss.targets(teacher_logits[:2]))  # [2, B, K]
        g = torch.stack([student_logits[1], student_logits[0]])
        log_P_s = log_softmax(g / loss.student_temperature, dim=-1)
        entropy = -torch.xlogy(P_t, P_t).sum(-1).mean()
        mean = P_t.mean(dim=(0, 1))
        entropy_of_mean = -torch.xlogy(mean, mean).sum()
        return {
            "entropy": float(entropy),
            "kl": float(-(P_t * log_P_s).sum(-1).mean() - entropy),
            "outputs": float(torch.exp(entropy_of_mean)),
            "information": float(entropy_of_mean - entropy),
        }
