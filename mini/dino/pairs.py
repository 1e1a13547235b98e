"""The sum over pairs of different views in DINO (Caron et al. 2021, eq. 3), by sums over views."""

import torch
from torch import Tensor


class PairCrossEntropy(torch.autograd.Function):
    """Sum over images, u and v != u of H(P_t(u), softmax(g_s(v) / tau_s)), with its gradient.

    H is linear in P_t, so the teacher's views are summed first: student view v has the one target
    T_v = sum over u != v of P_t(u), whose entries add up to M_v, the number of these u. What v adds
    is M_v log sum exp(z) - T_v . z with z = g_s(v) / tau_s, and its gradient (M_v P_s - T_v) /
    tau_s (eq. 2) comes from the same exponentials. In-place: memory is what a large K costs.
    So the logits are not kept, and a second derivative raises ValueError: it would come out 0.
    """

    @staticmethod
    def forward(ctx, tau_s: float, P_t: list[Tensor], *student_logits: Tensor) -> Tensor:
        everything, total, differences = sum(P_t[1:], P_t[0]), 0.0, []  # [B, K]
        for v, g in enumerate(student_logits):
            T, M = (everything - P_t[v], len(P_t) - 1) if v < len(P_t) else (everything, len(P_t))
            z = (g - g.amax(dim=-1, keepdim=True)).div_(tau_s)  # at most 0, and there exactly
            total = total - torch.vdot(T.flatten(), z.flatten())
            normaliser = z.exp_().sum(dim=-1, keepdim=True)  # [B, 1]
            total = total + M * normaliser.log().sum()
            differences.append(torch.addcmul(T, z, M / normaliser, value=-1, out=z))  # T - M P_s
        ctx.tau_s = tau_s
        ctx.save_for_backward(*differences)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        if torch.is_grad_enabled():  # create_graph=True
            raise ValueError(
                "DINOLoss gives no second derivative: for its Hessian add up the cross-entropies "
                "of all pairs of different views, -(P_t * log_softmax(g_s / tau_s)).sum()."
            )
        return (None, None, *(x * (gradient / -ctx.tau_s) for x in ctx.saved_tensors))
