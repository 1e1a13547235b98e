"""One protocol for every loss: the same folds, as many trials, a choice by classes held out.

Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020, arXiv:2003.08505: papers had
compared losses by the classes on which their settings had been chosen. Here the *old* classes are
dealt into folds; a network of a fold is trained on some of them and judged by the others, and the
*new* classes, which it is about, have no say. Differences from the paper: it has four folds, draws
fifty settings a loss by Bayesian optimisation, and stops each network by its own fold, where here
the caller lists the settings, and all folds stop at one look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mini.data import Dataset, select_classes
from mini.data.batches import whole_number
from mini.metric_learning.measures import map_at_r
from mini.training import predict


class Fold(NamedTuple):
    """Two parts of the old classes, none in both."""

    train: Dataset
    held_out: Dataset  # its validation images choose


def class_folds(old: Dataset, held_out: int) -> tuple[Fold, ...]:
    """`held_out` classes of `old` for validation, the others to train on, for each of the folds.

    The folds hold out consecutive classes, none of them twice; where `held_out` does not divide
    their number, the last ones are always trained on. Raises ValueError unless `old` has validation
    images and two classes are on either side: of one class alone every measure of neighbours is 1,
    and no loss has a negative.
    """
    held_out = whole_number("held_out", held_out, at_least=2)
    places = range(len(old.classes))
    if old.validation is None or held_out > len(places) - 2:
        raise ValueError(
            f"To hold {held_out} of {len(places)} classes out takes validation images (load with "
            "n_validation) and two classes more to train on."
        )
    folds = []
    for start in range(0, len(places) - held_out + 1, held_out):
        out = places[start : start + held_out]
        train = select_classes(old, [k for k in places if k not in out])
        folds.append(Fold(train, select_classes(old, out)))
    return tuple(folds)


class Scores(NamedTuple):
    """MAP@R of every setting, fold and look: float64 arrays, only `validation` for choosing."""

    validation: np.ndarray  # [settings, folds, looks], of the fold's held-out classes
    separate: np.ndarray  # [settings, folds, looks], new classes, test images, each network alone
    joined: np.ndarray  # [settings, looks], the same, embeddings of the folds beside each other
    other_images: np.ndarray  # [settings, looks], the same of the new classes' validation images

    def chosen(self) -> tuple[int, int]:
        """Setting and look of the highest mean of `validation` over folds, the first of equals."""
        mean = self.validation.mean(axis=1)
        setting, look = np.unravel_index(mean.argmax(), mean.shape)
        return int(setting), int(look)


class _Look(NamedTuple):
    held_out: float  # MAP@R of the held-out classes
    alone: float  # of the new classes, test images
    test: Tensor  # embeddings [N, D] of the new classes' test images
    other: Tensor  # of their validation images


@dataclass(frozen=True)
class Protocol:
    """What every loss is given alike: `folds` of the old classes, and the `new` classes.

    Raises ValueError if `new` has no validation images.
    """

    folds: tuple[Fold, ...]
    new: Dataset

    def __post_init__(self) -> None:
        if self.new.validation is None:
            raise ValueError("The new classes have no validation images: load with n_validation.")

    def search(
        self, settings: Sequence, train: Callable[[Dataset, Any, Callable[[nn.Module], None]], None]
    ) -> Scores:
        """Train a network for every setting and fold, and score it each time it is shown.

        `train(data, setting, look)` trains one on `data.train` and calls `look(network)` in the
        course of it and at its end, equally often for all. Embeddings `[B, D]` are scaled to length
        1, alone and joined. Raises ValueError for no settings, and for looks that are none or not
        equally many.
        """
        rows, counts = [], set()
        for setting in settings:
            folds = [self._looks(fold, setting, train) for fold in self.folds]
            counts |= {len(looks) for looks in folds}
            if len(counts) > 1 or 0 in counts:
                raise ValueError(
                    f"Trainings called look(network) {sorted(counts)} times: call it equally often "
                    "in all of them, at least once."
                )
            scores = [self._joined(looks) for looks in zip(*folds, strict=True)]
            rows.append(
                Scores(
                    np.array([[look.held_out for look in looks] for looks in folds]),
                    np.array([[look.alone for look in looks] for looks in folds]),
                    *np.array(scores).T,
                )
            )
        if not rows:
            raise ValueError("There are no settings: give one or more.")
        return Scores(*map(np.stack, zip(*rows, strict=True)))

    def _looks(self, fold: Fold, setting: Any, train: Callable) -> list[_Look]:
        looks = []
        train(fold.train, setting, lambda network: looks.append(self._look(fold, network)))
        return looks

    def _look(self, fold: Fold, network: nn.Module) -> _Look:
        test, other, held_out = (
            normalize(predict(network, split, fold.train), dim=1)
            for split in (self.new.test, self.new.validation, fold.held_out.validation)
        )
        labels = fold.held_out.validation.labels
        return _Look(map_at_r(held_out, labels), map_at_r(test, self.new.test.labels), test, other)

    def _joined(self, looks: tuple[_Look, ...]) -> tuple[float, float]:
        """MAP@R of the embeddings of all folds beside each other: new test and other images."""
        test, other = (
            torch.cat(parts, dim=1) for parts in zip(*(look[2:] for look in looks), strict=True)
        )
        return map_at_r(test, self.new.test.labels), map_at_r(other, self.new.validation.labels)
