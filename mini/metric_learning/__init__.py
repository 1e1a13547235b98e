"""Metric learning: triplets (Hoffer & Ailon 2015), and measures of neighbours (Musgrave et al.)."""

from mini.metric_learning.measures import (
    Retrieval,
    map_at_r,
    precision_at_1,
    r_precision,
    retrieval,
)
from mini.metric_learning.triplets import (
    KINDS,
    Triplets,
    class_balanced_batches,
    contrastive,
    distance,
    distances,
    mine,
    random_triplets,
    triplet_hinge,
    triplet_softmax,
)

__all__ = [
    "KINDS",
    "Retrieval",
    "Triplets",
    "class_balanced_batches",
    "contrastive",
    "distance",
    "distances",
    "map_at_r",
    "mine",
    "precision_at_1",
    "r_precision",
    "random_triplets",
    "retrieval",
    "triplet_hinge",
    "triplet_softmax",
]
