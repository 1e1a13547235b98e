"""Discovery: find the classes among what was refused, and add them to a trained network.

The second half of the loop of open-world learning (Chen, Liu, "Lifelong Machine Learning", 2nd ed.
2018, chapter 5; Shu, Xu, Liu, arXiv:1801.05609): cluster the refused (by scikit-learn), ask a
person for the labels of a few in each cluster, and extend the head by one sigmoid unit per class.
"""

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mini.data.batches import whole_labels


def name_clusters(
    clusters: ArrayLike, labels: ArrayLike, budget: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Ask for the labels of `budget` items per cluster; each cluster gets the commonest answer.

    `clusters` and `labels` are `[N]`; returns one name for each cluster, `[clusters.max() + 1]`,
    and the places of those asked, of a smaller cluster all. Of answers that are equally common
    the one that was given first is the name, and who is asked first is drawn by `generator`.
    Raises ValueError for a budget below 1, other shapes, and clusters that are not numbered
    0, 1, 2 ... without a gap: a cluster of nothing has no name.
    """
    clusters, labels = (whole_labels(torch.as_tensor(part)) for part in (clusters, labels))
    if len(clusters) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(clusters)} clusters for {len(labels)} labels: give one an item.")
    numbers = clusters.unique().tolist()
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"The clusters are numbered {numbers}: number them from 0 on without a gap, as "
            "numpy.unique(clusters, return_inverse=True)[1] does."
        )
    if budget < 1:
        raise ValueError(f"budget is {budget}: ask for at least one label per cluster.")
    names, places = [], []
    for cluster in numbers:
        members = (clusters == cluster).nonzero().flatten()
        asked = members[torch.randperm(len(members), generator=generator)[:budget]]
        answers = labels[asked]
        votes = (answers[:, None] == answers).sum(dim=1)
        names.append(answers[votes.argmax()])  # of equal ones, the first
        places.append(asked)
    return torch.stack(names), torch.cat(places)


class ExtendedHead(nn.Module):
    """An old head's logits, untouched, and beside them those of `k` new units: `[B, N + k]`.

    Old and new units are computed apart, so old logits stay the same to the last bit for the same
    features. The old units are frozen unless `trains_old`.
    """

    def __init__(self, old: nn.Linear, k: int, *, trains_old: bool = False):
        super().__init__()
        self.old = old.requires_grad_(trains_old)
        self.new = nn.Linear(old.in_features, k).to(old.weight)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.old(features), self.new(features)], dim=1)
