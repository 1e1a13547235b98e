"""What the notebooks measure of a classifier, on logits `[N, K]` and integer labels `[N]`.

Each measure raises ValueError unless there is one label a row, 0 .. K-1, and no logit is NaN, of
which a comparison would make some number or other.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mini.data.batches import whole_labels, whole_number


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's, in [0, 1]."""
    labels = _checked(logits, labels)
    return float((logits.argmax(dim=1) == labels).float().mean())


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    labels = _checked(logits, labels)
    return float(cross_entropy(logits, labels))


def calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error, `bins` equal-width bins, in [0, 1] (Guo et al. 2017, eq. 5)."""
    labels = _checked(logits, labels)
    # Imported where needed: it loads matplotlib and scipy, for each worker process seconds.
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = _probabilities(logits)
    return float(multiclass_calibration_error(p, labels, logits.shape[1], n_bins=bins))


def rms_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Root mean square gap of confidence and accuracy, `bins` bins of equal count, in [0, 1].

    Answers in order of confidence, the largest probability, are parted into bins whose sizes differ
    by one at most; each bin's squared difference of mean confidence and share of right answers
    counts by its size. The error is AugMix's (Hendrycks et al. 2020, figure 6); that its bins
    are adaptive, of equal count, is our reading. Raises ValueError for fewer answers than bins.
    """
    labels, bins = _checked(logits, labels), whole_number("bins", bins, at_least=1)
    if len(labels) < bins:
        raise ValueError(f"{len(labels)} answers do not fill {bins} bins: take fewer bins.")
    confidence, answer = _probabilities(logits.double()).max(dim=1)
    order = confidence.argsort(stable=True)
    gaps = (confidence - (answer == labels).double())[order]
    squares = [len(part) * part.mean().square() for part in gaps.tensor_split(bins)]
    return float((sum(squares) / len(gaps)).sqrt())


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 at which `logits / T` fit the labels best (Guo et al. 2017, section 4.2).

    Of 201 from 0.1 to 10, at equal ratios of 2.3 %, the one of the least `nll`.
    """
    candidates = torch.logspace(-1, 1, 201)
    losses = [nll(logits / T, labels) for T in candidates]
    return float(candidates[int(torch.tensor(losses).argmin())])


def one_label_a_row(rows: Tensor, labels: Tensor) -> Tensor:
    """The labels in int64; ValueError unless rows are `[N, D]`, labels whole `[N]`, and N is not 0.

    Labels in a column would be compared with every row, without a word.
    """
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or len(rows) == 0:
        raise ValueError(
            f"Labels {list(labels.shape)} for rows {list(rows.shape)}: give one label a row."
        )
    return whole_labels(labels)


def _probabilities(logits: Tensor) -> Tensor:
    probabilities = logits.softmax(dim=1)
    if probabilities.isnan().any():
        raise ValueError("A row of logits with +inf, or all -inf, has no softmax: mend them first.")
    return probabilities


def _checked(logits: Tensor, labels: Tensor) -> Tensor:
    labels = one_label_a_row(logits, labels)
    if logits.isnan().any():
        raise ValueError("Some logits are not a number: look at the training they come from.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"Labels reach from {int(labels.min())} to {int(labels.max())}, but logits "
            f"{list(logits.shape)} are of classes 0 to {logits.shape[1] - 1}: leave others out."
        )
    return labels
