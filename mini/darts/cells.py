"""A space of 64 cells: small enough to train every one, so that a search can be marked.

A cell (Liu et al. 2019, section 2.1) is a graph whose node j is the sum of what its edges (i, j)
bring from all earlier nodes i. Here it has three nodes, 0 the input and 2 the output, so three
edges, and each edge holds one of four operations: the small sister of NAS-Bench-201 (Dong & Yang
2020, four nodes and five operations). What differs from the paper's space: one input, not the
outputs of the last two cells; the last node is the output, not all of them side by side; one kind
of cell, not two. The operations are those of the authors' code: ReLU before the convolution, batch
norm after it and after the pooling.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

OPERATIONS = ("none", "skip", "conv3x3", "avg3x3")

Cell = tuple[str, ...]  # one operation an edge, in the order of `edges`


def edges(nodes: int = 3) -> list[tuple[int, int]]:
    """All edges (i, j), i < j, of a cell with so many nodes, by their target: (0, 1), (0, 2) ..."""
    return [(i, j) for j in range(1, nodes) for i in range(j)]


def nodes_of(n_edges: int) -> int:
    """How many nodes a cell with so many edges has; ValueError if there is no such cell."""
    nodes = round((1 + (1 + 8 * n_edges) ** 0.5) / 2)
    if n_edges < 1 or len(edges(nodes)) != n_edges:
        raise ValueError(
            f"No cell has {n_edges} edges: a cell of N nodes has N(N-1)/2, so give 1, 3, 6, 10 ..."
        )
    return nodes


class Zero(nn.Module):
    """The operation `none`: zeros in the shape of `x`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def operation(name: str, channels: int, *, searching: bool = False) -> nn.Module:
    """The operation called `name`, `[B, C, H, W] -> [B, C, H, W]`.

    While `searching`, batch norms have no scale and shift, which the mixing weights would fight,
    and always use the batch's statistics (appendix A.1.1). Raises ValueError for another name.
    """
    norm = nn.BatchNorm2d(channels, affine=not searching, track_running_stats=not searching)
    if name == "none":
        return Zero()
    if name == "skip":
        return nn.Identity()
    if name == "conv3x3":
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        return nn.Sequential(nn.ReLU(), convolution, norm)
    if name == "avg3x3":
        return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), norm)
    raise ValueError(f"There is no operation {name!r}: use one of {', '.join(OPERATIONS)}.")


class Graph(nn.Module):
    """A cell made of one module an edge: node j is the sum over i < j of edge (i, j) on node i."""

    def __init__(self, modules: Iterable[nn.Module]):
        super().__init__()
        self.edges = nn.ModuleList(modules)
        self.nodes = nodes_of(len(self.edges))

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        """`weights`, if given, holds one argument more for each edge's module."""
        states = [x]
        calls = zip(edges(self.nodes), self.edges, weights or [()] * len(self.edges), strict=True)
        for (i, j), module, weight in calls:
            value = module(states[i], weight) if weights else module(states[i])
            if j == len(states):
                states.append(value)
            else:
                states[j] = states[j] + value
        return states[-1]


class CellNet(nn.Module):
    """`[B, 3, 32, 32] -> logits [B, K]`: a stem to 8x8, `depth` cells, halving in between, a head.

    `edges()` makes the modules of one cell's edges, and is called for each cell.
    """

    def __init__(
        self,
        edges: Callable[[], Iterable[nn.Module]],
        channels: int,
        *,
        depth: int = 2,
        num_classes: int = 10,
        searching: bool = False,
    ):
        super().__init__()
        norm = {"affine": not searching, "track_running_stats": not searching}
        stem = nn.Conv2d(3, channels, 5, stride=4, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels, **norm))
        self.cells = nn.ModuleList([Graph(edges()) for _ in range(depth)])
        self.halve = nn.AvgPool2d(2)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels, **norm), nn.ReLU())
        self.head = nn.Linear(channels, num_classes)
        self.to(memory_format=torch.channels_last)  # the fast layout, on a processor twice as fast

    def forward(self, images: Tensor, *weights: Tensor) -> Tensor:
        """`weights`, if given, holds one argument more for each edge, the same in all cells."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        for position, cell in enumerate(self.cells):
            x = cell(self.halve(x) if position else x, *weights)
        return self.head(self.norm(x).mean(dim=(2, 3)))


def build(cell: Sequence[str], channels: int, *, num_classes: int = 10) -> CellNet:
    """The network with this `cell`, ready to be trained from scratch."""
    return CellNet(
        lambda: [operation(name, channels) for name in cell], channels, num_classes=num_classes
    )


def all_cells(operations: Sequence[str] = OPERATIONS, nodes: int = 3) -> list[Cell]:
    """Every cell of the space, the last edge changing fastest."""
    return list(itertools.product(operations, repeat=len(edges(nodes))))


def is_connected(cell: Sequence[str]) -> bool:
    """Is there a way from input to output? If not, every image gets the same logits."""
    return any(name != "none" for name in canonical(cell))


def canonical(cell: Sequence[str]) -> Cell:
    """One cell for all that compute the same function, up to the order of their parameters.

    An edge that no way from input to output uses becomes none. In a cell of three nodes, a skip on
    one edge of the way through node 1 makes the other edge a parallel of the direct one.
    """
    nodes = nodes_of(len(cell))
    used = [edge for edge, name in zip(edges(nodes), cell, strict=True) if name != "none"]
    reached, needed = {0}, {nodes - 1}
    for i, j in used:  # by target, so that what reaches i is known
        reached |= {j} if i in reached else set()
    for i, j in sorted(used, reverse=True):  # by source, so that what j leads to is known
        needed |= {i} if j in needed else set()
    alive = {(i, j) for i, j in used if i in reached and j in needed}
    pairs = zip(edges(nodes), cell, strict=True)
    pruned = tuple(name if edge in alive else "none" for edge, name in pairs)
    if nodes == 3 and "skip" in (pruned[0], pruned[2]):
        into, direct, out = pruned
        weaker, stronger = sorted((direct, into if out == "skip" else out))
        if "none" in (weaker, stronger):
            return ("none", stronger if weaker == "none" else weaker, "none")
        return ("skip", weaker, stronger)
    return pruned


def title(cell: Sequence[str]) -> str:
    """The cell as a file or a table names it: skip-conv3x3-none."""
    return "-".join(cell)
