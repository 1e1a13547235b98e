"""How much features know, without training anything on them: weighted k nearest neighbours."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of test rows, in [0, 1], whose `k` nearest train rows elect their label
    (Wu et al. 2018; DINO, appendix F.1).

    Features are `[N, D]`, scaled to length 1 here; nearest is by cosine, and each neighbour has
    exp(cosine / temperature) votes for its label. Raises ValueError for k outside 1 to N.
    """
    if not 1 <= k <= len(train_features):
        raise ValueError(f"{k=}: expected 1 to {len(train_features)}, the number of train rows.")
    train, correct = normalize(train_features, dim=1), 0
    votes_for = one_hot(train_labels).to(train)  # [N, C]
    for rows, labels in zip(test_features.split(1000), test_labels.split(1000), strict=True):
        cosines, nearest = (normalize(rows, dim=1) @ train.T).topk(k, dim=1)  # [b, k]
        weights = torch.exp((cosines - 1) / temperature)
        votes = torch.einsum("bk,bkc->bc", weights, votes_for[nearest])
        correct += int((votes.argmax(dim=1) == labels).sum())
    return correct / len(test_labels)
