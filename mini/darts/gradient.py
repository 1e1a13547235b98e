"""DARTS: architecture search by gradient (Liu, Simonyan & Yang, ICLR 2019, arXiv 1806.09055).

Each edge of a cell holds a mixture of all operations; the mixture's logits alpha follow the
validation loss, the shared weights w the training loss; at the end the strongest operations stay.
The loop is in `mini.darts.search`. What differs from the paper: the space (`mini.darts.cells`).
What differs from the authors' code: alphas start at zero, as the paper says, not at noise; weights
are not perturbed in place, so that nothing has to be put back.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mini.darts import cells
from mini.darts.cells import OPERATIONS, Cell

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]  # of weights and alphas
ORDERS = ("first", "second", "exact")


class MixedOp(nn.Module):
    """All candidates at once: the sum of w_o o(x) over the operations o (equation 2)."""

    def __init__(self, operations: Iterable[nn.Module]):
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`x` [B, C, H, W] and `weights` [O], the softmax of an edge's alphas -> [B, C, H, W].

        What is zero for certain is not computed. Raises ValueError unless there is one weight for
        each operation.
        """
        if weights.shape != (len(self.operations),):
            raise ValueError(
                f"{tuple(weights.shape)} weights for {len(self.operations)} operations: give a "
                "vector with one for each."
            )
        terms = [
            w * o(x)
            for w, o in zip(weights, self.operations, strict=True)
            if not isinstance(o, cells.Zero) and (weights.requires_grad or w != 0)
        ]
        return sum(terms[1:], terms[0]) if terms else torch.zeros_like(x)


class SuperNet(cells.CellNet):
    """All cells of a space in one network, with the logits `alphas` [E, O] of their mixtures.

    The alphas start at zero, where every mixture is the plain mean, and belong to all cells.
    """

    def __init__(
        self,
        channels: int,
        operations: Sequence[str] = OPERATIONS,
        *,
        nodes: int = 3,
        depth: int = 2,
        num_classes: int = 10,
    ):
        edges = len(cells.edges(nodes))

        def mixed() -> MixedOp:
            return MixedOp(cells.operation(name, channels, searching=True) for name in operations)

        shape = {"depth": depth, "num_classes": num_classes}
        super().__init__(lambda: [mixed() for _ in range(edges)], channels, searching=True, **shape)
        self.operations = tuple(operations)
        self.alphas = nn.Parameter(torch.zeros(edges, len(operations)))

    def forward(self, images: Tensor, weights: Tensor | None = None) -> Tensor:
        """Logits [B, K], mixed by softmax(alphas), or by `weights` [E, O] in its place."""
        return super().forward(images, *(mixture(self.alphas) if weights is None else weights))

    def weights(self) -> dict[str, Tensor]:
        """All parameters but the alphas, by name."""
        return {name: p for name, p in self.named_parameters() if name != "alphas"}


def mixture(alphas: Tensor) -> Tensor:
    """Each edge's weights, the softmax over its operations: [E, O] -> [E, O] (equation 2)."""
    return alphas.softmax(dim=-1)


def one_hot(cell: Cell, operations: Sequence[str] = OPERATIONS) -> Tensor:
    """The mixture [E, O] that is this one cell."""
    return torch.eye(len(operations))[[operations.index(name) for name in cell]]


def hypergradient(
    train_loss: Loss,
    val_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    lr: float,
    *,
    order: str = "second",
    epsilon: float = 0.01,
    drift: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The gradient of L_val(w', alpha) in each alpha, w' = w - lr grad_w L_train(w, alpha) (eq. 6).

    `order` is "first" (w' = w: one gradient), "exact" (through the graph of the step) or "second":
    the finite difference of equation 8, four gradients, with weights perturbed by `epsilon` in all.
    `drift` is what momentum and weight decay add to the gradient in that step. Weights and alphas
    are left as they are. Raises ValueError for another order, for lr < 0, epsilon <= 0, and where a
    loss depends on neither weights nor alphas.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r}: expected one of {', '.join(ORDERS)}.")
    if lr < 0 or epsilon <= 0:
        raise ValueError(f"Expected lr >= 0 and epsilon > 0, not {lr=}, {epsilon=}.")
    w = [p.detach().requires_grad_() for p in weights]
    a = [p.detach().requires_grad_() for p in alphas]
    if order == "first":
        return _gradient(val_loss(w, a), a)

    slope = _gradient(train_loss(w, a), w, create_graph=order == "exact")
    if drift is not None:
        slope = [g + d for g, d in zip(slope, drift, strict=True)]
    ahead = [p - lr * g for p, g in zip(w, slope, strict=True)]  # w'
    if order == "exact":
        return _gradient(val_loss(ahead, a), a)

    ahead = [p.detach().requires_grad_() for p in ahead]
    both = _gradient(val_loss(ahead, a), [*a, *ahead])
    direct, v = both[: len(a)], both[len(a) :]
    norm = math.sqrt(sum(float((g * g).sum()) for g in v))
    if norm == 0:
        return direct
    eps = epsilon / norm
    del slope, ahead, both
    plus, minus = (
        _gradient(train_loss([p.detach() + s * eps * g for p, g in zip(w, v, strict=True)], a), a)
        for s in (1, -1)
    )
    product = [(p - m) / (2 * eps) for p, m in zip(plus, minus, strict=True)]  # equation 8
    return [d - lr * h for d, h in zip(direct, product, strict=True)]  # equation 7


def _gradient(loss: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """The gradient in each input, zero where the loss does not depend on it."""
    found = [None]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, inputs, create_graph=create_graph, allow_unused=True)
    if all(g is None for g in found):
        raise ValueError(
            "A loss depends on none of the weights or alphas it was given: compute it from its "
            "arguments, not from the network's own parameters."
        )
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, inputs, strict=True)]


def discretise(alphas: Tensor, operations: Sequence[str] = OPERATIONS, *, keep: int = 2) -> Cell:
    """The cell that `alphas` [E, O] stand for (section 2.4): one operation an edge.

    On each edge the strongest operation other than none stays; into each node, the `keep` edges
    whose operation is strongest, by softmax weight; other edges become none. Raises ValueError
    unless there is a logit for each operation, and one more operation than none, and for logits
    that are not a number, of which the first operation would be the strongest.
    """
    if alphas.ndim != 2 or alphas.shape[1] != len(operations) or set(operations) <= {"none"}:
        raise ValueError(
            f"alphas of shape {tuple(alphas.shape)} for the operations {', '.join(operations)}: "
            "expected one row an edge, one column an operation, and another operation than none."
        )
    weights = mixture(alphas.detach()).clone()
    if weights.isnan().any():
        raise ValueError("Some alphas have no softmax (NaN or +inf): look at the search's losses.")
    weights[:, [name == "none" for name in operations]] = -1
    strength, best = weights.max(dim=1)
    chosen = ["none"] * len(alphas)
    edges = cells.edges(cells.nodes_of(len(alphas)))
    for node in {j for _, j in edges}:
        into = [e for e, (_, j) in enumerate(edges) if j == node]
        for e in sorted(into, key=lambda e: -strength[e])[:keep]:
            chosen[e] = operations[best[e]]
    return tuple(chosen)


def leave_one_out(
    score: Callable[[Tensor], float], weights: Tensor, operations: Sequence[str] = OPERATIONS
) -> Cell:
    """The cell of the operations that the super-network misses most (Wang et al. 2021, DARTS-PT).

    `score(weights)` tells how good the super-network is with the mixture `weights` [E, O], larger
    being better. On each edge the operation stays, other than none, without which the score is
    lowest. As in DARTS-PT the other weights are not scaled up; unlike there, edges do not wait for
    each other and nothing is trained in between. Raises ValueError for a score that is NaN.
    """
    chosen = []
    for e in range(len(weights)):
        without = {}
        for o, name in enumerate(operations):
            if name != "none":
                rest = weights.detach().clone()
                rest[e, o] = 0
                without[name] = found = score(rest)
                if any(map(math.isnan, found if isinstance(found, tuple) else (found,))):
                    raise ValueError(f"Without {name} on edge {e} the score is no number: mend it.")
        chosen.append(min(without, key=without.get))
    return tuple(chosen)
