"""How much features know, or pixels: two ways to read a class out of them, no network trained.

`knn_accuracy` and `linear_probe` are the field's two ways to judge frozen features; on the pixels
themselves they are what a network has to beat before anything it says counts.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from mini.data import Dataset, Split
from mini.training.metrics import one_label_a_row

# The penalty for pixels: of 1e-5 to 1, in factors of 10, the best on validation images of CIFAR-10.
PIXELS_C = 1e-3


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
    exp(cosine / temperature) votes for its label. Raises ValueError for k outside 1 to N, labels
    that are not whole and one a row, or negative ones of train rows, and features that do not fit
    or are not finite.
    """
    train_labels, test_labels = _check(train_features, train_labels, test_features, test_labels)
    if train_labels.min() < 0:
        raise ValueError(f"A train label is {int(train_labels.min())}: number classes from 0.")
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


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    c: float = 1.0,
    steps: int = 1000,
) -> float:
    """Share of test rows, in [0, 1], that logistic regression on the train rows gets right
    (Alain & Bengio 2017; with this solver, CLIP, appendix A.3).

    Features are `[N, D]`, standardised here by the train rows. The regression is scikit-learn's:
    multinomial, at most `steps` of L-BFGS from zero, and a penalty |W|^2 / (2 c) beside the sum of
    the losses, which does not shrink as rows are added. Raises ValueError for labels that are not
    whole and one a row, and features that do not fit or are not finite.
    """
    # Imported where needed: worker processes that do not probe start a second earlier.
    from sklearn.linear_model import LogisticRegression

    train_labels, test_labels = _check(train_features, train_labels, test_features, test_labels)
    train, test = (rows.numpy() for rows in _standardised(train_features, test_features))
    regression = LogisticRegression(C=c, max_iter=steps).fit(train, train_labels.numpy(force=True))
    return float(regression.score(test, test_labels.numpy(force=True)))


def pixel_accuracies(
    data: Dataset, split: Split | None = None, *, linear: bool = True
) -> dict[str, float]:
    """What needs no network: shares of the images of `split`, or of the test set, in [0, 1].

    `knn` and `linear`, of `knn_accuracy` and `linear_probe` on the pixels of `data.train`, each
    pixel standardised. A network below the better of the two has not learned to see. 4,000 images
    take some 3 seconds of one core, 45,000 a minute or two and 4 GiB; nearly all of it goes into
    the second, which `linear=False` leaves out.
    """
    split = data.test if split is None else split
    train, test = (part.images.flatten(1).float() for part in (data.train, split))
    labels, test_labels = data.train.labels, split.labels
    alike, test_alike = _standardised(train, test)
    found = {"knn": knn_accuracy(alike, labels.cpu(), test_alike, test_labels.cpu())}
    if linear:
        found["linear"] = linear_probe(train, labels, test, test_labels, c=PIXELS_C)
    return found


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both by mean and deviation of the train rows, on the CPU; a constant column becomes zero."""
    from sklearn.preprocessing import StandardScaler

    at_least_float32 = torch.promote_types(train.dtype, torch.float32)
    train, test = (rows.to(at_least_float32).numpy(force=True) for rows in (train, test))
    scaler = StandardScaler().fit(train)
    return torch.from_numpy(scaler.transform(train)), torch.from_numpy(scaler.transform(test))


def _check(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Both kinds of labels in int64."""
    train_features, train_labels, test_features, test_labels = parts
    train_labels = one_label_a_row(train_features, train_labels)
    test_labels = one_label_a_row(test_features, test_labels)
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"Train rows have {train_features.shape[1]} features, test rows "
            f"{test_features.shape[1]}: take both from the same network."
        )
    if not (train_features.isfinite().all() and test_features.isfinite().all()):
        raise ValueError("Some features are not finite: look at the training they come from.")
    return train_labels, test_labels
