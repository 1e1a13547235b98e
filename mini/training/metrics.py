"""What the notebooks measure of a classifier, on logits `[N, K]` and integer labels `[N]`."""

from torch import Tensor
from torch.nn.functional import cross_entropy


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's, in [0, 1].

    Raises ValueError unless there is one label a row, as all measures here do.
    """
    one_label_a_row(logits, labels)
    return float((logits.argmax(dim=1) == labels).float().mean())


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    one_label_a_row(logits, labels)
    return float(cross_entropy(logits, labels))


def calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error, `bins` equal-width bins, in [0, 1] (Guo et al. 2017, eq. 5)."""
    one_label_a_row(logits, labels)
    # Imported where needed: it loads matplotlib and scipy, for each worker process seconds.
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities = logits.softmax(dim=1)
    return float(multiclass_calibration_error(probabilities, labels, logits.shape[1], n_bins=bins))


def one_label_a_row(rows: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless `rows` are `[N, D]` and `labels` are `[N]`, and N is not 0.

    Labels in a column would be compared with every row, without a word.
    """
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or len(rows) == 0:
        raise ValueError(
            f"Labels {list(labels.shape)} for rows {list(rows.shape)}: give one label a row."
        )
