"""DINO (Caron et al., ICCV 2021): crops, the networks, the loss and its sum over pairs."""

from mini.dino.crops import multicrop
from mini.dino.loss import (
    DINOHead,
    DINOLoss,
    DINONetwork,
    cosine,
    make_teacher,
    target_statistics,
    update_ema,
)
from mini.training.probes import knn_accuracy

__all__ = [
    "DINOHead",
    "DINOLoss",
    "DINONetwork",
    "cosine",
    "knn_accuracy",
    "make_teacher",
    "multicrop",
    "target_statistics",
    "update_ema",
]
