"""Measures of an embedding by its neighbours: precision at 1, R-precision, MAP@R.

Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020, arXiv:2003.08505. Every
image asks for its class among all others: a query is not its own neighbour, nearest is by plain
distance, and R is the number of others of its class. All three measures look at R neighbours at
most, R is counted for each query, and there is no k to choose. A query whose class has no other
image has no right answer: it is left out as a query, and stays a wrong answer to others, as in
pytorch-metric-learning. Difference from there: of neighbours that are equally far no order is the
right one, so a measure is its mean over all orders, which costs a formula and no draw. Of a
collapsed network, where all are, precision at 1 and R-precision are R / (N - 1), chance, whatever
the order of the rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mini.metric_learning.triplets import checked, distances

BLOCK = 2**22  # distances at a time, 16 MiB in float32


class Retrieval(NamedTuple):
    """Of each query a number in [0, 1], float64 [Q]."""

    query: Tensor  # places of the queries among the embeddings, int64 [Q]
    precision_at_1: Tensor
    r_precision: Tensor
    map_at_r: Tensor


def precision_at_1(embeddings: Tensor, labels: Tensor) -> float:
    """Share of queries whose nearest neighbour is of their class (recall at 1): see `retrieval`."""
    return float(retrieval(embeddings, labels).precision_at_1.mean())


def r_precision(embeddings: Tensor, labels: Tensor) -> float:
    """Share of a query's R nearest that are of its class, the mean over queries: `retrieval`."""
    return float(retrieval(embeddings, labels).r_precision.mean())


def map_at_r(embeddings: Tensor, labels: Tensor) -> float:
    """MAP@R, the mean over queries (Musgrave et al. 2020): see `retrieval`.

    (1 / R) times the sum over i = 1 .. R of P(i), where P(i) is the share of the i nearest that
    are of the query's class if the i-th is, else 0. The divisor is R, not the number of hits.
    """
    return float(retrieval(embeddings, labels).map_at_r.mean())


@torch.no_grad()
def retrieval(embeddings: Tensor, labels: Tensor) -> Retrieval:
    """All three measures of each query, of embeddings float `[N, D]` with whole `labels` `[N]`.

    0 <= MAP@R <= R-precision <= 1; with R = 1 the three are one. Raises ValueError for labels that
    do not fit, embeddings that are not finite, and where no class has two images.
    """
    labels = checked(embeddings, labels)
    _, which, sizes = labels.unique(return_inverse=True, return_counts=True)
    R = sizes[which] - 1  # [N]
    query = torch.where(R > 0)[0]
    if not len(query):
        raise ValueError("No class has two images: there is nothing to find for any of them.")
    parts = []
    for rows in query.split(max(1, BLOCK // len(labels))):
        d = distances(embeddings[rows], embeddings)
        is_hit = labels[rows, None] == labels
        itself = rows[:, None]
        d.scatter_(1, itself, torch.inf)
        is_hit.scatter_(1, itself, False)
        parts.append(_measures(d, is_hit, R[rows, None]))
    return Retrieval(query, *map(torch.cat, zip(*parts, strict=True)))


def _measures(d: Tensor, is_hit: Tensor, R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of distances `[q, N]`, which of them are hits, and R `[q, 1]`: the measures, `[q]` each.

    Places i = 1 .. R of a query. A group of equally far ones has n members and m hits, and before
    it are s others with h hits. So a place in it is a hit in m / n of all orders, and then has, of
    the i - s - 1 before it in the group, a share of (m - 1) / (n - 1) that are.
    """
    nearest, order = d.topk(int(R.max()), dim=1, largest=False)  # [q, k], in order
    i = torch.arange(1, nearest.shape[1] + 1, device=d.device)
    hits = pad(is_hit.gather(1, order).cumsum(dim=1), (1, 0))  # [q, k + 1], among the first 0 .. k
    s = torch.searchsorted(nearest, nearest)
    end = torch.searchsorted(nearest, nearest, right=True)
    h = hits.gather(1, s)
    n, m = end - s, hits.gather(1, end) - h
    # The last group may go on beyond the k nearest: it is counted among all.
    last = nearest[:, -1:]
    n = torch.where(nearest == last, (d == last).sum(dim=1, keepdim=True), n)
    m = torch.where(nearest == last, ((d == last) & is_hit).sum(dim=1, keepdim=True), m)
    share = torch.where(i <= R, m.double() / n, 0.0)
    precision = (h + 1 + (i - s - 1) * (m - 1).double() / (n - 1).clamp(min=1)) / i
    R = R[:, 0]
    return share[:, 0], share.sum(dim=1) / R, (share * precision).sum(dim=1) / R
