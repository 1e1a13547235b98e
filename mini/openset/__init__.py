"""Open world: DOC (Shu et al., EMNLP 2017) refuses; `discovery` names and learns what it found."""

from mini.openset.doc import (
    centre_similarities,
    class_centres,
    closed_world,
    fit_thresholds,
    one_vs_rest_loss,
    open_f1,
    open_labels,
    oscr,
    predict_open,
    seen_only,
    svm_scores,
)

__all__ = [
    "centre_similarities",
    "class_centres",
    "closed_world",
    "fit_thresholds",
    "one_vs_rest_loss",
    "open_f1",
    "open_labels",
    "oscr",
    "predict_open",
    "seen_only",
    "svm_scores",
]
