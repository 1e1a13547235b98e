"""Embeddings whose neighbours are known beforehand, to try measures on.

After the toy examples of Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020,
arXiv:2003.08505.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mini.data.batches import whole_number


def on_a_line(right: Sequence[int], R: int = 10) -> tuple[Tensor, Tensor]:
    """Embeddings `[2 R + 1, 1]` in float64, and labels; image 0 finds its class at `right`.

    `right` are ranks, 1 the nearest; image 0 has `R` others of its class, of which those that are
    at no rank of these lie beyond rank R. Raises ValueError for ranks that are not whole numbers
    from 1 to R, each once.
    """
    R = whole_number("R", R, at_least=1)
    ranks = [whole_number("A rank", rank, at_least=1) for rank in right]
    if len(set(ranks)) < len(ranks) or max(ranks, default=1) > R:
        raise ValueError(f"Ranks {ranks}: give whole numbers from 1 to {R}, each once.")
    labels = torch.ones(2 * R + 1, dtype=torch.long)
    labels[[0, *ranks]] = 0
    labels[R + 1 : 2 * R + 1 - len(ranks)] = 0
    return torch.arange(2 * R + 1, dtype=torch.float64)[:, None], labels


def clumps(each: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two classes of 100 places in the plane, in `each` clumps that lie on a line in turn.

    Places are `[200, 2]`, clumps 1 apart and .08 wide (deviation), so that the nearest place is of
    the same clump; labels 0 and 1. Raises ValueError unless `each` divides 100.
    """
    each = whole_number("each", each, at_least=1)
    if 100 % each:
        raise ValueError(f"each={each}: 100 places are dealt to the clumps, give a divisor of 100.")
    middles = torch.arange(2 * each).repeat_interleave(100 // each)
    noise = 0.08 * torch.randn(200, 2, generator=generator)
    return torch.stack([middles.float(), torch.zeros(200)], dim=1) + noise, middles % 2
