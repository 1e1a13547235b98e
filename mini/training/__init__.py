"""How networks are trained and measured: the loop, its precision, the network, metrics, probes."""

from mini.training.loop import (
    ADAMW,
    History,
    accuracy,
    fit,
    parameter_groups,
    predict,
    schedule,
)
from mini.training.precision import PRECISIONS, autocast, has_fast_bfloat16, precision_for

__all__ = [
    "ADAMW",
    "PRECISIONS",
    "History",
    "accuracy",
    "autocast",
    "fit",
    "has_fast_bfloat16",
    "parameter_groups",
    "precision_for",
    "predict",
    "schedule",
]
