"""The search loop of DARTS and its rivals: one super-network, several ways to move its alphas.

    for step in search(net, halves[0], halves[1], rule="second", steps=300, ...):
        ...  # the super-network after `step` steps, to be measured

The recipe is the paper's (appendix A.1.1), shortened: SGD with momentum and a cosine for the
weights, Adam for the alphas, one step of each in turn. What differs from the authors' code: the
gradient is not clipped, which their unrolled step leaves out as well.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mini.darts.gradient import ORDERS, Loss, SuperNet, hypergradient, mixture, one_hot
from mini.training import schedule

RULES = (*ORDERS, "joint", "fixed", "sampled")
Batch = tuple[Tensor, Tensor]  # images and labels


def loss_on(net: nn.Module, images: Tensor, labels: Tensor) -> Loss:
    """Cross-entropy of `net` on one batch as a function of (weights, [alphas]).

    The network is not touched: batch norms that keep statistics get copies of them.
    """
    names = [name for name, _ in net.named_parameters() if name != "alphas"]

    def loss(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        state = dict(zip([*names, "alphas"], [*weights, *alphas], strict=True))
        state |= {name: buffer.clone() for name, buffer in net.named_buffers()}
        return cross_entropy(functional_call(net, state, (images,)), labels)

    return loss


def search(
    net: SuperNet,
    weight_batches: Iterable[Batch],
    alpha_batches: Iterable[Batch],
    *,
    rule: str,
    steps: int,
    lr: float,
    alpha_lr: float,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Train `net` in place; yields the number of steps done, after each.

    `rule` says how the alphas move. "first", "second", "exact": before each step of the weights, by
    the `hypergradient` of that order on a batch of `alpha_batches` (this is DARTS, or, if these are
    the weights' own data, the paper's coordinate descent). "joint": with the weights, on the same
    batch and loss. "fixed": not at all. "sampled": nor then, but each step trains one cell drawn by
    `generator` (random search with weight sharing, Li & Talwalkar 2019). Both iterables are gone
    through again and again. Raises ValueError for another rule, and once they give nothing more.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: expected one of {', '.join(RULES)}.")
    weights = list(net.weights().values())
    weight_optimizer = torch.optim.SGD(weights, lr, momentum, weight_decay=weight_decay)
    alpha_optimizer = torch.optim.Adam(
        [net.alphas], alpha_lr, betas=(0.5, 0.999), weight_decay=1e-3
    )
    weight_batches, alpha_batches = again(weight_batches), again(alpha_batches)
    for step in range(steps):
        xi = lr * schedule(step, steps=steps, warmup=0)
        weight_optimizer.param_groups[0]["lr"] = xi
        images, labels = next(weight_batches)
        if rule in ORDERS:
            state = weight_optimizer.state
            drift = [
                momentum * state[p].get("momentum_buffer", 0) + weight_decay * p.detach()
                for p in weights
            ]
            train_loss, val_loss = loss_on(net, images, labels), loss_on(net, *next(alpha_batches))
            (net.alphas.grad,) = hypergradient(
                train_loss, val_loss, weights, [net.alphas], xi, order=rule, drift=drift
            )
            alpha_optimizer.step()

        weighting = mixture(net.alphas)
        if rule == "sampled":
            weighting = one_hot(random_cell(net, generator), net.operations).to(weighting)
        elif rule != "joint":
            weighting = weighting.detach()
        net.zero_grad()
        cross_entropy(net(images, weighting), labels).backward()
        weight_optimizer.step()
        if rule == "joint":
            alpha_optimizer.step()
        yield step + 1


def again(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, epoch after epoch; ValueError for an epoch without any."""
    while True:
        is_empty = True
        for batch in batches:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError(
                "There is no batch, or none any more: give a list, or `Batches`, which can be gone "
                "through again and again, and not a generator or another iterator, which ends."
            )


def random_cell(net: SuperNet, generator: torch.Generator | None = None) -> tuple[str, ...]:
    """A cell without none, all such cells equally likely."""
    names = [name for name in net.operations if name != "none"]
    drawn = torch.randint(len(names), (len(net.alphas),), generator=generator)
    return tuple(names[k] for k in drawn)


def alpha_hessian(loss: Loss, weights: list[Tensor], alphas: Tensor) -> Tensor:
    """The exact Hessian of `loss` in `alphas` [E, O], as a matrix [E*O, E*O]."""
    n = alphas.numel()
    fixed = [p.detach() for p in weights]
    hessian = torch.autograd.functional.hessian(lambda a: loss(fixed, [a]), alphas.detach())
    return hessian.reshape(n, n)


@torch.no_grad()
def score(net: SuperNet, batches: Iterable[Batch], weights: Tensor) -> tuple[float, float]:
    """Accuracy of `net` with the mixture `weights`, and its negative loss, which breaks ties.

    Batch norms use each batch's statistics, so batches should be large. Raises ValueError for none.
    """
    right = loss = total = 0.0
    for images, labels in batches:
        logits = net(images, weights)
        right += float((logits.argmax(dim=1) == labels).sum())
        loss += float(cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
    if not total:
        raise ValueError("There is no batch to score: give a list, or `Batches`, not an iterator.")
    return right / total, -loss / total
