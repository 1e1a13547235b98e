"""How good is a classifier that may refuse? The measures of open-set recognition.

Throughout, a score says how surely an image is of a seen class, *higher is more known*, whichever
rule it comes from; a label of -1 means "of no seen class". Other libraries score the other way
round and call unknowns positive (pytorch-ood, OpenOOD): areas stay as they are, rates swap.
"""

import numpy as np
from numpy.typing import ArrayLike


def open_f1(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> float:
    """F1, averaged over the K seen classes and "unknown"; an empty class counts 0.

    Raises ValueError for an answer or a label that is none of -1 .. K-1, which would not count.
    """
    # Imported where needed: scikit-learn takes a second to load, and the notebook starts without.
    from sklearn.metrics import f1_score

    every = range(-1, num_classes)
    if not (np.isin(predicted, every).all() and np.isin(labels, every).all()):
        raise ValueError(f"Answers and labels must be -1 to {num_classes - 1}: see open_labels.")
    return float(f1_score(labels, predicted, labels=every, average="macro", zero_division=0))


def oscr(known_scores: ArrayLike, known_correct: ArrayLike, unknown_scores: ArrayLike) -> float:
    """Area under the open-set classification rate curve, in [0, 1] (Dhamija et al. 2018).

    The curve: over all thresholds, the share of knowns that are both accepted and correctly
    classified, against the share of unknowns accepted. Its area is the mean over unknowns of the
    share of knowns that are correct and score higher, ties counting half. `known_scores` and
    `known_correct` are `[N]`, `unknown_scores` `[M]`; higher means more surely known.
    Raises ValueError for empty lists, unequal lengths, or a score that is not a number.
    """
    scores, unknown = _checked(known_scores, unknown_scores)
    is_correct = np.asarray(known_correct, dtype=bool)
    if scores.shape != is_correct.shape:
        raise ValueError(
            f"Got {len(scores)} scores of knowns and marks {is_correct.shape}: give one a score."
        )
    correct = np.sort(scores[is_correct])
    higher = len(correct) - np.searchsorted(correct, unknown, side="right")  # [M]
    at_least = len(correct) - np.searchsorted(correct, unknown, side="left")
    return float((higher + at_least).mean() / 2 / len(scores))


def fpr_at_tpr(known_scores: ArrayLike, unknown_scores: ArrayLike, *, tpr: float = 0.95) -> float:
    """FPR95: the share of unknowns accepted where at least the share `tpr` of knowns is.

    A score is accepted at a threshold if it is at least that; the threshold is the highest that
    accepts enough knowns (Hendrycks & Gimpel 2017; Liang et al. 2018). Knowns are the positives:
    a library in which unknowns are answers another question under the same name. Scores are `[N]`
    and `[M]`. Raises ValueError for empty lists, NaN, or a share outside (0, 1].
    """
    known, unknown = _checked(known_scores, unknown_scores)
    return float((unknown >= threshold_at(known, tpr)).mean())


def threshold_at(known_scores: ArrayLike, share: float) -> float:
    """The highest threshold that accepts at least this share of knowns; no unknown is asked.

    `share` is in (0, 1]. Raises ValueError for another, an empty list, or a score that is NaN.
    """
    (known,) = _checked(known_scores)
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected one above 0 and at most 1, such as 0.95.")
    # numpy's inverted_cdf is the smallest score with a share of at least so many at or below it.
    return -float(np.quantile(-known, share, method="inverted_cdf"))


def _checked(*scores: ArrayLike) -> list[np.ndarray]:
    """The lists of scores as arrays of float64, none empty, no NaN."""
    arrays = [np.asarray(s, dtype=float) for s in scores]
    for array in arrays:
        if array.ndim != 1 or not array.size:
            raise ValueError(f"Scores have shape {array.shape}: expected a list, none empty.")
        if np.isnan(array).any():
            raise ValueError("A score is not a number: look at the model's outputs first.")
    return arrays
