"""Sharpness-aware minimisation: take the gradient from the worst place nearby, the step from here.

Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
Generalization", ICLR 2021, arXiv:2010.01412. Read downwards: the climb (eq. 2), the two passes of
algorithm 1, batch norm between them, and the sharpness itself (figure 3). The adaptive form is
ASAM's (Kwon et al. 2021, arXiv:2102.11600). Unlike in the authors' JAX code, weight decay does not
bend the climb; as there, batch norm's running statistics come from the first pass alone.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils import get_total_norm

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
ETA = 0.01  # the adaptive form's T = |w| + ETA (ASAM, section 3)


def dual_norm_step(
    g: Tensor | Sequence[Tensor], rho: float = 1.0, p: float = 2.0
) -> Tensor | list[Tensor]:
    """The e with ||e||_p <= rho and the largest inner product with the gradient `g` (eq. 2).

    `g` is a tensor, or one vector in parts of any shape; e is like it. With 1/p + 1/q = 1,
    e = rho sign(g) |g|^(q-1) / (||g||_q^q)^(1/p): for p = 2 rho g / ||g||, for infinity
    rho sign(g), and for 1 all of rho on the largest |g|, shared among equals. It does not depend
    on the length of `g`, and is zero for `g` = 0. Raises ValueError unless 1 <= p <= infinity.
    """
    if not p >= 1:
        raise ValueError(f"p={p!r} gives no norm: choose p >= 1, or math.inf.")
    if isinstance(g, Tensor):
        return dual_norm_step([g], rho, p)[0]
    if p == 2 and 1e-15 < (length := get_total_norm(g)) < 1e15:  # the usual case, in fewer passes
        return [part * (rho / length) for part in g]
    q = 1 / (1 - 1 / p) if p > 1 else math.inf
    largest = get_total_norm(g, math.inf).clamp(min=torch.finfo(g[0].dtype).tiny)
    u = [part / largest for part in g]  # at most 1, so that no power over- or underflows
    total = sum(part.abs().pow(q).sum() for part in u).clamp(min=1)
    return [rho * part.sign() * part.abs().pow(q - 1) / total.pow(1 / p) for part in u]


@contextmanager
def frozen_batch_norm(model: nn.Module | None = None) -> Iterator[None]:
    """Inside, batch norm in training mode leaves its running statistics and its counter alone.

    It still normalises by the batch. Without a model this holds for every layer called inside; what
    `torch.compile` made runs uncompiled then, as compiled code would not notice.
    """
    frozen: list[_BatchNorm] = []
    kept: list[tuple[Tensor, Tensor]] = []

    def freeze(module: nn.Module, *_: object) -> None:
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.track_running_stats = False
            frozen.append(module)
        elif isinstance(module, torch.jit.ScriptModule):  # its code looks at no attribute
            for name, buffer in module.named_buffers():
                if name.rpartition(".")[2] in STATISTICS:
                    kept.append((buffer, buffer.clone()))

    hook = register_module_forward_pre_hook(freeze) if model is None else None
    try:
        for module in model.modules() if model is not None else ():
            freeze(module)
        with torch.compiler.set_stance("force_eager") if hook else nullcontext():
            yield
    finally:
        if hook:
            hook.remove()
        for module in frozen:
            module.track_running_stats = True
        with torch.no_grad():
            for buffer, before in reversed(kept):  # the first copy is the oldest
                buffer.copy_(before)


class SAM(torch.optim.Optimizer):
    """Algorithm 1 around any optimizer: `SAM(model.parameters(), torch.optim.SGD, lr=0.1)`.

    `rho` >= 0 is the radius of the ball, `p` >= 1 its norm; `adaptive` measures it in units of
    T = |w| + 0.01 (ASAM; its rho is about ten times larger). Groups may have their own `rho` and
    `adaptive`; the norm is one over all. `inner_steps` > 1 aims again from the perturbed point
    (table 11). All else goes to the base optimizer, which shares groups and state with this one.

    Raises ValueError for a rho, p or inner_steps out of range, or a base that is built already.
    """

    def __init__(
        self,
        params: Iterable,
        base_optimizer: Callable[..., torch.optim.Optimizer],
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        p: float = 2.0,
        inner_steps: int = 1,
        **base_kwargs: object,
    ):
        if not callable(base_optimizer):
            raise ValueError("base_optimizer is one already: give its class and its options.")
        if not p >= 1 or inner_steps < 1:
            raise ValueError(f"Expected p >= 1 and inner_steps >= 1, not {p=}, {inner_steps=}.")
        super().__init__(params, {"rho": rho, "adaptive": adaptive})
        for group in self.param_groups:
            if not 0 <= group["rho"] < math.inf:
                raise ValueError(f"rho={group['rho']!r} is no radius: choose a number >= 0.")
        self.p, self.inner_steps = p, inner_steps
        self.base = base_optimizer(self.param_groups, **base_kwargs)
        self.param_groups, self.state = self.base.param_groups, self.base.state
        self.defaults = self.base.defaults | self.defaults

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what `state_dict` gave, into the base optimizer too.

        It may be that of a base optimizer alone: `rho` and `adaptive` then stay as they are.
        """
        own = [{name: group[name] for name in ("rho", "adaptive")} for group in self.param_groups]
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state
        for group, options in zip(self.param_groups, own, strict=True):
            for name, value in options.items():
                group.setdefault(name, value)

    def __getstate__(self) -> dict:
        """For `copy.deepcopy` and `pickle`: what torch keeps of an optimizer, and all of SAM's."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        own.pop("step", None)  # a scheduler puts one of its own in the method's place
        return super().__getstate__() | own

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """What a `GradScaler` asks before a step."""
        raise ValueError(
            "A GradScaler would scale the gradients of SAM's two passes and take its scale from "
            "neither: train in bfloat16, which needs no scaling, or call optimizer.step(closure)."
        )

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Tensor] | Sequence[Callable[[], Tensor]] | None = None
    ) -> Tensor:
        """One step; returns the loss at the unperturbed weights.

        `closure` computes loss and gradients; it is called twice, at w and at w + e, and gradients
        are cleared before each call. Scaling or clipping them in the closure acts on the second
        call alone, as e ignores the length of its gradient. Several closures are m-sharpness (see
        `in_parts`): each is one part of the batch and climbs for itself, and the borrowed gradients
        are averaged.
        """
        closures = [closure] if callable(closure) else list(closure or ())
        if not closures:
            raise ValueError("SAM needs two gradients: call step(closure), see mini.training.fit.")
        weights = [w for group in self.param_groups for w in group["params"]]
        losses, borrowed = [], []
        for part in closures:
            losses.append(self._two_passes(torch.enable_grad()(part), weights))
            borrowed.append([w.grad for w in weights])
        if len(closures) > 1:
            for w, gradients in zip(weights, zip(*borrowed, strict=True), strict=True):
                seen = [g for g in gradients if g is not None]
                w.grad = sum(seen) / len(closures) if seen else None
        self.base.step()
        return sum(losses) / len(losses)

    def _two_passes(self, closure: Callable[[], Tensor], weights: list[Tensor]) -> Tensor:
        """Leaves the gradient at w + e in the weights w, and returns the loss at w."""
        self.zero_grad()
        loss = closure()
        old = [w.clone() for w in weights]
        for _ in range(self.inner_steps):
            self._climb()
            self.zero_grad()
            try:
                with frozen_batch_norm():
                    closure()
            finally:  # w + e - e is not w: the old weights are kept, not computed
                for w, before in zip(weights, old, strict=True):
                    w.copy_(before)
        return loss

    def _climb(self) -> None:
        """Move every weight that has a gradient to w + e."""
        pairs = [(w, group) for group in self.param_groups for w in group["params"]]
        moving = [(w, group) for w, group in pairs if w.grad is not None]
        if not moving:
            return
        T = [w.abs() + ETA if group["adaptive"] else None for w, group in moving]
        g = [w.grad if t is None else t * w.grad for t, (w, _) in zip(T, moving, strict=True)]
        e = self.direction(g)  # one vector in parts: one norm over everything
        for t, part, (w, group) in zip(T, e, moving, strict=True):
            w.add_(part if t is None else t * part, alpha=group["rho"])

    def direction(self, g: list[Tensor]) -> list[Tensor]:
        """The climb for radius 1, in parts like the gradient `g`: override it for a control."""
        return dual_norm_step(g, 1.0, self.p)


def in_parts(
    closure: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, m: int
) -> list[Callable[[], Tensor]]:
    """What `SAM.step` takes for m-sharpness: one closure for each `m` examples of the batch.

    `closure(images, labels)` computes loss and gradients of what it is given. The last part may be
    smaller, and counts as much as the others. With m >= N there is one: plain SAM (section 4.1).
    Raises ValueError unless m >= 1.
    """
    if m < 1:
        raise ValueError(f"m={m!r} examples climb together: choose 1 or more.")
    parts = zip(images.split(m), labels.split(m), strict=True)
    return [partial(closure, *part) for part in parts]


def top_eigenvalues(
    loss: Tensor,
    params: Iterable[Tensor],
    *,
    k: int = 1,
    adaptive: bool = False,
    tolerance: float = 1e-6,
    generator: Generator | None = None,
) -> Tensor:
    """The `k` largest eigenvalues `[k]` of the Hessian of `loss` in `params`, largest first.

    Lanczos iterations by ARPACK, as in the paper's figure 3, from a random start: each needs one
    Hessian-vector product, and they go on until the estimated error is below `tolerance` times the
    eigenvalue. `adaptive` scales the Hessian on both sides by T = |w| + 0.01, as ASAM does the
    ball. Raises ValueError for what has no second derivative, and RuntimeError where an eigenvalue
    has not converged.
    """
    params = [w for w in params if w.requires_grad]
    n = sum(w.numel() for w in params)
    if loss.ndim or not 1 <= k <= n or not loss.requires_grad:
        expected = "Expected a scalar loss of params that require a gradient, and 1 <= k <= "
        raise ValueError(f"{expected}their number, not shape {tuple(loss.shape)}, {k=}, {n} of it.")

    def differentiate(value: Tensor, *v: Tensor) -> tuple[Tensor, ...]:
        try:
            return torch.autograd.grad(
                value, params, *v, create_graph=not v, retain_graph=True, materialize_grads=True
            )
        except RuntimeError as problem:
            if not re.search("derivative|differentiate|double backward", str(problem)):
                raise
            raise ValueError(
                "A part of the loss has no second derivative in torch: compute the loss without "
                "torch.compile, and attention inside of "
                "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)."
            ) from None

    gradient = torch.cat([g.flatten() for g in differentiate(loss)])
    if not gradient.requires_grad:  # a linear loss
        return torch.zeros(k, dtype=torch.float64)
    T = torch.cat([w.detach().abs().flatten() + ETA for w in params]) if adaptive else 1.0

    def times_hessian(v: np.ndarray) -> np.ndarray:
        along = torch.as_tensor(v.ravel()).to(gradient) * T
        product = torch.cat([h.flatten() for h in differentiate(gradient, along)]) * T
        return product.double().cpu().numpy()

    if n <= max(20, 2 * k):  # ARPACK wants more room
        H = np.stack([times_hessian(e) for e in np.eye(n)])
        found = np.linalg.eigvalsh((H + H.T) / 2)
    else:
        start = torch.randn(n, generator=generator, dtype=torch.float64).numpy()
        operator = LinearOperator((n, n), times_hessian, dtype=np.float64)
        options = {"which": "LA", "v0": start, "tol": tolerance, "return_eigenvectors": False}
        try:
            found = eigsh(operator, k, **options)
        except ArpackNoConvergence as problem:
            raise RuntimeError(
                f"{len(problem.eigenvalues)} of {k} eigenvalues have converged to {tolerance=}: "
                "allow for a larger one, or compute the loss in float64."
            ) from None
    return torch.as_tensor(np.sort(found)[::-1][:k].copy())
