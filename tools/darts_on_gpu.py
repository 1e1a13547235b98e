"""DARTS in a larger network, on a GPU: NAS-Bench-201's cell, by the images that a search has.

    python tools/darts_on_gpu.py many DATA OUT.npz     # 22,500 images each for weights and alphas
    python tools/darts_on_gpu.py few DATA OUT.npz      # from 500 to 22,500, in equally many steps
    python tools/darts_on_gpu.py record MANY.npz FEW.npz

The network is that of Dong & Yang (ICLR 2020), with one cell of 16, 32 and 64 channels for their
five of each: four nodes, six edges, none, skip, conv1x1, conv3x3 and avg3x3. The recipe is DARTS's
(appendix A.1.1), first order. Notebook 06 shows the record, which no CPU makes in an hour.

Several searches are trained as one: `torch.func.vmap` over stacked weights and alphas, and a CUDA
graph of a whole step. They differ in seed, images, labels and operations, never in shapes. Moved
images are moved for weights and alphas alike.

The committed record was made by two scripts that this file puts in order; since then it has run on
a CPU only, where tests hold a step to torch's optimizers.
"""

import json
import math
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from mini import data
from mini.darts import cells
from mini.files import ROOT, write_atomically

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avg3x3")
EDGES = cells.edges(4)
BATCH, MOMENTUM = 64, 0.9
SHIFT = 4  # pixels each way, with a mirror image in half of all cases, filled with black


class Network(nn.Module):
    """Three stages, halved in between, one mixed cell each: 32x32, 16x16 and 8x8 pixels."""

    def __init__(self, channels: int, *, affine: bool):
        super().__init__()

        def norm(c: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(c, affine=affine, track_running_stats=False)

        def convolution(c: int, size: int) -> nn.Sequential:
            layer = nn.Conv2d(c, c, size, padding=size // 2, bias=False)
            return nn.Sequential(nn.ReLU(), layer, norm(c))

        c = channels
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), norm(c))
        self.cells, self.halve = nn.ModuleList(), nn.ModuleList()
        for stage in range(3):
            if stage:
                layer = nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False)
                self.halve.append(nn.Sequential(nn.ReLU(), layer, norm(2 * c)))
                c *= 2
            pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            edges = [
                nn.ModuleList([convolution(c, 1), convolution(c, 3), nn.Sequential(pool, norm(c))])
                for _ in EDGES
            ]
            self.cells.append(nn.ModuleList(edges))
        self.last = nn.Sequential(norm(c), nn.ReLU())
        self.head = nn.Linear(c, 10)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`x` [B, 3, 32, 32] and the mixture `weights` [E, O] -> logits [B, 10]."""
        x = self.stem(x)
        for stage, cell in enumerate(self.cells):
            states = [self.halve[stage - 1](x) if stage else x]
            for e, ((i, j), edge) in enumerate(zip(EDGES, cell, strict=True)):
                h = states[i]
                rest = sum(weights[e, 2 + o] * operation(h) for o, operation in enumerate(edge))
                value = weights[e, 1] * h + rest  # none adds nothing
                if j == len(states):
                    states.append(value)
                else:
                    states[j] = states[j] + value
            x = states[-1]
        return self.head(self.last(x).mean((2, 3)))


class Pool:
    """All images of a data set on one device, training images first."""

    def __init__(self, folder: str, device: torch.device):
        part = data.load(folder)
        both = [torch.cat(two) for two in zip(part.train, part.test, strict=True)]
        self.images = nn.functional.pad(both[0], (SHIFT,) * 4).to(device)
        self.labels = both[1].to(device)
        self.mean = 255 * part.mean.view(1, 1, 3, 1, 1).to(device)
        self.std = 255 * part.std.view(1, 1, 3, 1, 1).to(device)
        self.n_train, self.device = len(part.train.labels), device

    def batch(self, index: Tensor, moves: Tensor | None = None) -> Tensor:
        """`index` [S, B] -> [S, B, 3, 32, 32]; `moves` [3, S, B]: rows, columns, mirrored."""
        if moves is None:
            moves = torch.tensor([SHIFT, SHIFT, 0], device=self.device).view(3, 1, 1)
        r = torch.arange(32, device=self.device)
        rows = moves[0][..., None] + r
        columns = moves[1][..., None] + torch.where(moves[2][..., None] > 0, 31 - r, r)
        x = self.images[index[..., None, None], :, rows[..., :, None], columns[..., None, :]]
        return (x.permute(0, 1, 4, 2, 3).float() - self.mean) / self.std


class Many:
    """S networks of the same shape, one for each seed, that take a step together."""

    def __init__(self, pool: Pool, seeds: list[int], *, affine: bool, channels: int = 16):
        networks = []
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(Network(channels, affine=affine))
        stacked, _ = stack_module_state(networks)
        self.weights = {k: w.detach().to(pool.device).requires_grad_() for k, w in stacked.items()}
        self.one, self.pool, self.S = networks[0].to(pool.device), pool, len(seeds)

    def losses(self, index: Tensor, mixture: Tensor, labels: Tensor, moves=None) -> Tensor:
        """The sum over networks of the mean loss on their images `index` [S, B]."""
        logits = self.logits(self.pool.batch(index, moves), mixture)
        return self.S * cross_entropy(logits.flatten(0, 1), labels.flatten())

    def logits(self, x: Tensor, mixture: Tensor) -> Tensor:
        def of_one(w: dict[str, Tensor], x: Tensor, m: Tensor) -> Tensor:
            return functional_call(self.one, w, (x, m))

        return vmap(of_one)(self.weights, x, mixture)

    def descend(self, loss: Tensor, buffers: list[Tensor], lr: Tensor, decay: float) -> None:
        """SGD with momentum and weight decay, as torch's, on stacked tensors."""
        weights = list(self.weights.values())
        grads = torch.autograd.grad(loss, weights)
        for w, g, buffer in zip(weights, grads, buffers, strict=True):
            buffer.mul_(MOMENTUM).add_(g + decay * w.detach())
            w.data.sub_(lr * buffer)

    @torch.no_grad()
    def evaluate(self, index: Tensor, mixture: Tensor, size: int = 500) -> np.ndarray:
        """Accuracy [S] on the images `index` [S, n], with batch statistics."""
        right = sum(
            (self.logits(self.pool.batch(part), mixture).argmax(2) == self.pool.labels[part])
            .float()
            .sum(1)
            for part in index.split(size, 1)
        )
        return (right / index.shape[1]).cpu().numpy()


def graphed(step, state: list[Tensor]):
    """`step` as a CUDA graph, with `state` as it was before the graph was made."""
    if state[0].device.type != "cuda":
        return step
    torch.backends.cudnn.benchmark = True
    before = [tensor.detach().clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tensor, value in zip(state, before, strict=True):
        tensor.data.copy_(value)
    return graph.replay


def curvature(many: Many, index: Tensor, labels: Tensor, alphas: Tensor) -> np.ndarray:
    """The largest eigenvalue of each loss's Hessian in its alphas [S]."""
    a = alphas.detach().requires_grad_()
    (g,) = torch.autograd.grad(many.losses(index, a.softmax(2), labels), [a], create_graph=True)
    rows = [
        torch.autograd.grad(entry, [a], retain_graph=True)[0].flatten(1)
        for entry in g.flatten(1).sum(0)
    ]
    hessian = torch.stack(rows, 1).cpu().double()
    return torch.linalg.eigvalsh((hessian + hessian.mT) / 2)[:, -1].numpy()


def search(many, groups, halves, held, labels, *, epochs, alpha_lr, n_curvature):
    """All searches, `epochs` times through the longest half; what is seen every other epoch.

    `halves` are two index tensors [S, n], for weights and alphas; `labels` [S, images] are those
    that the alphas see.
    """
    device, S = many.pool.device, many.S
    alphas = torch.zeros(S, len(EDGES), len(OPERATIONS), device=device)
    for s, group in enumerate(groups):
        alphas[s, :, [name not in group["operations"] for name in OPERATIONS]] = -1e4
    is_open = (alphas == 0).float()
    alphas.requires_grad_()
    moved = torch.tensor([int(group["moved"]) for group in groups], device=device).view(1, -1, 1)
    home = torch.tensor([SHIFT, SHIFT, 0], device=device).view(3, 1, 1)
    rate = torch.tensor([alpha_lr * group["learned"] for group in groups], device=device)
    m, v, t = torch.zeros_like(alphas), torch.zeros_like(alphas), torch.zeros((), device=device)
    buffers = [torch.zeros_like(w) for w in many.weights.values()]
    lr = torch.zeros((), device=device)
    index = torch.zeros(2, S, BATCH, dtype=torch.long, device=device)
    moves = torch.zeros(2, 3, S, BATCH, dtype=torch.long, device=device)
    each = torch.arange(S, device=device)[:, None]

    def step():
        of_alpha, of_weights = (some * moved + home * (1 - moved) for some in moves.flip(0))
        seen = labels[each, index[1]]
        loss = many.losses(index[1], alphas.softmax(2), seen, of_alpha)
        (g,) = torch.autograd.grad(loss, [alphas])
        g = (g + 1e-3 * alphas.detach()) * is_open
        t.add_(1)
        m.mul_(0.5).add_(0.5 * g)
        v.mul_(0.999).add_(0.001 * g * g)
        change = (m / (1 - 0.5**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)  # Adam
        alphas.data.sub_(rate.view(-1, 1, 1) * change)
        mixture = alphas.detach().softmax(2)
        loss = many.losses(index[0], mixture, many.pool.labels[index[0]], of_weights)
        many.descend(loss, buffers, lr, 3e-4)

    run = graphed(step, [*many.weights.values(), *buffers, alphas, m, v, t])
    n, generator = halves[0].shape[1], torch.Generator().manual_seed(1000)
    per_epoch, done, start = n // BATCH, 0, time.perf_counter()
    some = halves[1][:, :n_curvature].to(device)
    seen, held, looks = halves[0][:, :5000].to(device), held.to(device), []

    def look(epoch):
        mixture = alphas.detach().softmax(2)
        looks.append(
            {
                "epoch": epoch,
                "weights": mixture.cpu().numpy(),
                "held out": many.evaluate(held, mixture),
                "seen": many.evaluate(seen, mixture),
                "eigenvalue": curvature(many, some, labels[each, some], alphas),
            }
        )
        skip = looks[-1]["weights"][:, :, 1].mean(1).round(2)
        print(f"epoch {epoch}, {time.perf_counter() - start:.0f} s, skip", *skip, flush=True)

    look(0)
    for epoch in range(1, epochs + 1):
        orders = torch.stack(
            [torch.stack([row[torch.randperm(n, generator=generator)] for row in half])
             for half in halves]
        ).to(device)  # fmt: skip
        sizes = (2, 2, S, per_epoch * BATCH), (2, 1, S, per_epoch * BATCH)
        drawn = [torch.randint(top, size, generator=generator)
                 for top, size in zip((2 * SHIFT + 1, 2), sizes, strict=True)]  # fmt: skip
        drawn = torch.cat(drawn, 1).to(device)
        for k in range(per_epoch):
            now = slice(k * BATCH, (k + 1) * BATCH)
            index.copy_(orders[:, :, now])
            moves.copy_(drawn[..., now])
            lr.fill_(0.025 * (1 + math.cos(math.pi * done / (epochs * per_epoch))) / 2)
            run()
            done += 1
        if epoch % 2 == 0 or epoch == epochs:
            look(epoch)
    return {key: np.array([one[key] for one in looks]) for key in looks[0]}, alphas.detach()


def retrain(pool, jobs, *, n_train, epochs, batch=128):
    """Test accuracy of each (arm, seed, cell), trained from scratch with batch norms that scale."""
    many = Many(pool, [100 + seed for _, seed, _ in jobs], affine=True)
    rows = [[OPERATIONS.index(name) for name in cell] for *_, cell in jobs]
    mixture = torch.eye(len(OPERATIONS), device=pool.device)[torch.tensor(rows)]
    buffers = [torch.zeros_like(w) for w in many.weights.values()]
    lr = torch.zeros((), device=pool.device)
    index = torch.zeros(many.S, batch, dtype=torch.long, device=pool.device)
    moves = torch.zeros(3, many.S, batch, dtype=torch.long, device=pool.device)

    def step():
        loss = many.losses(index, mixture, pool.labels[index], moves)
        many.descend(loss, buffers, lr, 5e-4)

    run = graphed(step, [*many.weights.values(), *buffers])
    chosen = torch.stack([permutation(pool.n_train, seed)[:n_train] for _, seed, _ in jobs])
    per_epoch, generator, done = n_train // batch, torch.Generator().manual_seed(2000), 0
    for _ in range(epochs):
        order = torch.stack([row[torch.randperm(n_train, generator=generator)] for row in chosen])
        sizes = (2, many.S, per_epoch * batch), (1, many.S, per_epoch * batch)
        drawn = [torch.randint(top, size, generator=generator)
                 for top, size in zip((2 * SHIFT + 1, 2), sizes, strict=True)]  # fmt: skip
        order, drawn = order.to(pool.device), torch.cat(drawn).to(pool.device)
        for k in range(per_epoch):
            now = slice(k * batch, (k + 1) * batch)
            index.copy_(order[:, now])
            moves.copy_(drawn[..., now])
            fall = (1 + math.cos(math.pi * done / (epochs * per_epoch))) / 2
            lr.fill_(0.1 * min(1, (done + 1) / per_epoch) * fall)
            run()
            done += 1
    test = pool.n_train + permutation(len(pool.labels) - pool.n_train, 9).to(pool.device)
    return many.evaluate(test.expand(many.S, -1), mixture)


def permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def best(weights: np.ndarray) -> tuple[str, ...]:
    """The strongest operation other than none on each edge, of a mixture [E, O]."""
    return tuple(OPERATIONS[1 + k] for k in weights[:, 1:].argmax(1))


def many_images(pool: Pool, out: str) -> None:
    """15 epochs of searches that differ in labels and operations, and their picks from scratch."""
    two = ("skip", "conv3x3")
    groups = [("DARTS", seed, OPERATIONS, True) for seed in (0, 1, 2)]
    groups += [("two operations", seed, two, True) for seed in (0, 1)]
    groups += [("shuffled", 0, OPERATIONS, True)]
    groups += [("fixed", seed, OPERATIONS, False) for seed in (0, 1)]
    groups = [{"arm": arm, "seed": seed, "images": 22_500, "moved": True, "operations": ops,
               "learned": learned} for arm, seed, ops, learned in groups]  # fmt: skip
    orders = [permutation(pool.n_train, group["seed"]) for group in groups]
    halves = [torch.stack([order[start : start + 22_500] for order in orders])
              for start in (0, 22_500)]  # fmt: skip
    held = torch.stack([order[45_000:50_000] for order in orders])
    labels = pool.labels.repeat(len(groups), 1)
    for s, group in enumerate(groups):
        if group["arm"] == "shuffled":
            mine = halves[1][s]
            other = mine[permutation(len(mine), group["seed"] + 50)]
            labels[s, mine.to(pool.device)] = pool.labels[other.to(pool.device)]
    many = Many(pool, [group["seed"] for group in groups], affine=False)
    looks, alphas = search(many, groups, halves, held, labels, epochs=15, alpha_lr=3e-4,
                           n_curvature=128)  # fmt: skip
    some, mixture = halves[1][:, :5000].to(pool.device), alphas.softmax(2)
    jobs = [(g["arm"], g["seed"], best(w)) for g, w in
            zip(groups, looks["weights"][-1], strict=True) if g["learned"]]  # fmt: skip
    missed = np.zeros(mixture.shape)
    for e, o in np.ndindex(*mixture.shape[1:]):
        rest = mixture.clone()
        rest[:, e, o] = 0
        missed[:, e, o] = -many.evaluate(some, rest)
    jobs += [("fixed, left out", g["seed"], best(row)) for g, row in
             zip(groups, missed, strict=True) if g["arm"] == "fixed"]  # fmt: skip
    jobs += [("all convolution", 0, ("conv3x3",) * 6), ("all skip", 0, ("skip",) * 6)]
    accuracy = retrain(pool, jobs, n_train=45_000, epochs=4)
    rows = [{"arm": arm, "seed": seed, "cell": cells.title(cell), "accuracy": float(a)}
            for (arm, seed, cell), a in zip(jobs, accuracy, strict=True)]  # fmt: skip
    np.savez(out, groups=json.dumps(groups), cells=json.dumps(rows), **named(), **looks)


def few_images(pool: Pool, out: str) -> None:
    """12 x 351 steps with few images each, repeated as often as 22,500 need, or with all."""
    groups = [(500, False, 0), (2000, False, 0), (2000, False, 1), (2000, True, 0)]
    groups = [{"arm": "DARTS", "seed": seed, "images": images, "moved": moved, "learned": True,
               "operations": OPERATIONS}
              for images, moved, seed in [*groups, (22_500, False, 0)]]  # fmt: skip
    orders = [permutation(pool.n_train, group["seed"]) for group in groups]
    halves = []
    for start in (0, 22_500):
        rows = [order[start : start + group["images"]]
                for order, group in zip(orders, groups, strict=True)]  # fmt: skip
        halves.append(torch.stack([row.repeat(-(-22_500 // len(row)))[:22_500] for row in rows]))
    held = torch.stack([order[45_000:48_000] for order in orders])
    many = Many(pool, [group["seed"] for group in groups], affine=False)
    labels = pool.labels.repeat(len(groups), 1)
    looks, _ = search(many, groups, halves, held, labels, epochs=12, alpha_lr=1e-3,
                      n_curvature=64)  # fmt: skip
    np.savez(out, groups=json.dumps(groups), cells="[]", **named(), **looks)


def named() -> dict[str, str]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": name, "torch": torch.__version__}


def record(paths: list[str]) -> None:
    """Both files as the one that the notebook reads: results/06_darts/gpu-searches.json."""
    searches, rows, machines = [], [], []
    for path in paths:
        with np.load(path) as file:
            found = {key: file[key] for key in file.files}
        machines.append({"device": str(found["device"]), "torch": str(found["torch"])})
        rows += json.loads(str(found["cells"]))
        for s, group in enumerate(json.loads(str(found["groups"]))):
            curves = {"weights": found["weights"][:, s].round(3).tolist()}
            for key in ("held out", "seen", "eigenvalue"):
                curves[key] = found[key][:, s].astype(float).round(4).tolist()
            searches.append(group | {"epochs": found["epoch"].tolist()} | curves)
    text = json.dumps({"date": datetime.now(UTC).date().isoformat(), "machines": machines,
                       "operations": OPERATIONS, "searches": searches, "cells": rows})  # fmt: skip
    path = ROOT / "results" / "06_darts" / "gpu-searches.json"
    write_atomically(path, lambda file: file.write(text.encode()))
    print(f"{path.name}: {len(searches)} searches, {len(rows)} cells")


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[1] not in ("many", "few", "record"):
        sys.exit(__doc__)
    if sys.argv[1] == "record":
        record(sys.argv[2:])
        return
    if not torch.cuda.is_available() and "ON_CPU" not in os.environ:
        sys.exit("There is no GPU here, and without one this takes days: ON_CPU=1 does it anyway.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pool = Pool(sys.argv[2], torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    {"many": many_images, "few": few_images}[sys.argv[1]](pool, sys.argv[3])


if __name__ == "__main__":
    main()
