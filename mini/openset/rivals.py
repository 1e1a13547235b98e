"""Other ways to refuse, which DOC is compared with: each gives an image a score, higher is known.

Scores of a classifier's logits `[N, K]`: the largest softmax probability (Hendrycks & Gimpel, ICLR
2017), the largest logit (Hendrycks et al., ICML 2022; Vaze et al., ICLR 2022), minus the free
energy (Liu et al., NeurIPS 2020), and OpenMax (Bendale & Boult, CVPR 2016). Scores of features
`[N, D]`: linear classifiers, and linear classifiers in the space of similarities to a class's
centre, after Fei & Liu, "Breaking the Closed World Assumption in Text Classification", NAACL 2016
(CBS), simplified: one representation, a network's features, and two similarities, where theirs has
several of each.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mini.training.metrics import one_label_a_row


def max_softmax(logits: Tensor) -> Tensor:
    """The largest softmax probability, `[N]` from `[N, K]`, in [1/K, 1]."""
    return logits.double().softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """The largest logit, `[N]`: for sigmoids it ranks as the largest probability does."""
    return logits.double().amax(dim=1)


def energy(logits: Tensor) -> Tensor:
    """log sum exp of the logits, `[N]`: minus the free energy at temperature 1."""
    return logits.double().logsumexp(dim=1)


class OpenMax:
    """A softmax with one more class, "unknown" (Bendale & Boult 2016, algorithms 1 and 2).

    Fitting: the centre of a class is the mean of the logits of its training images that were
    rightly classified; a Weibull distribution is fitted to their `tail` largest distances from it.
    Prediction: the `alpha` likeliest classes each hand a part of their logit to "unknown", the more
    the further the image lies from the centre, by the Weibull's distribution function.

    Two details are the released code's: a class of rank r, from 0 on, hands over at most the share
    (alpha - r) / alpha (the paper's algorithm: (alpha - r - 1) / alpha, by which the last of them
    hands over nothing), and distances are shifted by 10,000 before the fit, as its library does.
    Distances are Euclidean; the paper has a weighted sum with the cosine too.
    """

    SHIFT = 10_000.0

    def __init__(self, logits: Tensor, labels: Tensor, *, tail: int = 20, alpha: int = 10):
        """Fit to training logits `[N, K]` and labels `[N]` in 0 .. K-1.

        Raises ValueError if a class has fewer than two rightly classified images, which have no
        spread, and for a tail below 2 or an alpha below 1.
        """
        from scipy.stats import weibull_min

        if tail < 2 or alpha < 1:
            raise ValueError(f"tail={tail}, alpha={alpha}: expected at least 2 and 1.")
        labels, logits = one_label_a_row(logits, labels), logits.double()
        self.alpha = min(alpha, logits.shape[1])
        centres, self.fits = [], []
        for k in range(logits.shape[1]):
            own = logits[(labels == k) & (logits.argmax(dim=1) == k)]
            if len(own) < 2:
                raise ValueError(f"Class {k} has {len(own)} rightly classified images: train more.")
            centres.append(own.mean(dim=0))
            far = (own - centres[-1]).norm(dim=1).sort().values[-tail:].numpy()
            shape, _, scale = weibull_min.fit(far - far[0] + self.SHIFT, floc=0)
            self.fits.append(weibull_min(shape, scale=scale, loc=far[0] - self.SHIFT))
        self.centres = torch.stack(centres)  # [K, K]

    def probabilities(self, logits: Tensor) -> Tensor:
        """`[N, K + 1]` in float64 from `[N, K]`: "unknown" first, then the K classes."""
        logits = logits.double()
        distances = torch.cdist(logits, self.centres, compute_mode="donot_use_mm_for_euclid_dist")
        columns = zip(self.fits, distances.T.numpy(), strict=True)
        outlying = torch.tensor(np.stack([fit.cdf(column) for fit, column in columns], axis=1))
        rank = logits.argsort(dim=1, descending=True).argsort(dim=1)  # [N, K]: 0 is the likeliest
        share = ((self.alpha - rank) / self.alpha).clamp(min=0)
        given = logits * share * outlying
        return torch.cat([given.sum(dim=1, keepdim=True), logits - given], dim=1).softmax(dim=1)

    def predict(self, logits: Tensor, *, threshold: float = 0.0) -> Tensor:
        """The likeliest of K + 1 as a label `[N]`; -1 where that is "unknown", or below a threshold
        of its probability."""
        likeliest, answer = self.probabilities(logits).max(dim=1)
        return torch.where(likeliest >= threshold, answer - 1, -1)


def class_centres(features: Tensor, labels: Tensor) -> Tensor:
    """The mean feature vector of each class, `[K, D]`, from `[N, D]` and labels 0 .. K-1.

    Raises ValueError for other labels, or a class without features, which has no mean.
    """
    labels = one_label_a_row(features, labels)
    present, classes = labels.unique().tolist(), list(range(int(labels.max()) + 1))
    if present != classes:
        raise ValueError(f"The labels are {present}: give features of every class from 0 on.")
    return torch.stack([features[labels == k].mean(dim=0) for k in classes])


def centre_similarities(features: Tensor, centre: Tensor) -> Tensor:
    """Two similarities of `[N, D]` to one centre `[D]`: minus the distance, cosine. `[N, 2]`."""
    distance = (features - centre).norm(dim=1)
    return torch.stack([-distance, cosine_similarity(features, centre[None])], dim=1)


def svm_scores(
    features: Tensor, labels: Tensor, queries: Tensor, centres: Tensor | None = None
) -> Tensor:
    """Decision values `[M, K]` of K linear SVMs, class against rest, trained on `[N, D]`.

    With `centres`, SVM k sees `centre_similarities` to centre k (CBS learning), else the features;
    either is scaled to unit variance first.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    columns = []
    for k in range(int(labels.max()) + 1):
        views = features, queries
        if centres is not None:
            views = [centre_similarities(x, centres[k]) for x in views]
        svm = make_pipeline(StandardScaler(), LinearSVC(random_state=0))
        svm.fit(views[0].numpy(), (labels == k).numpy())
        columns.append(torch.from_numpy(svm.decision_function(views[1].numpy())))
    return torch.stack(columns, dim=1)
