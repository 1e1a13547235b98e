"""Open world: DOC (Shu et al., EMNLP 2017) refuses; `discovery` names and learns what it found."""

from mini.openset.doc import (
    closed_world,
    fit_thresholds,
    one_vs_rest_loss,
    open_labels,
    predict_open,
)
from mini.openset.measures import fpr_at_tpr, open_f1, oscr, threshold_at
from mini.openset.rivals import (
    OpenMax,
    centre_similarities,
    class_centres,
    energy,
    max_logit,
    max_softmax,
    svm_scores,
)

__all__ = [
    "OpenMax",
    "centre_similarities",
    "class_centres",
    "closed_world",
    "energy",
    "fit_thresholds",
    "fpr_at_tpr",
    "max_logit",
    "max_softmax",
    "one_vs_rest_loss",
    "open_f1",
    "open_labels",
    "oscr",
    "predict_open",
    "svm_scores",
    "threshold_at",
]
