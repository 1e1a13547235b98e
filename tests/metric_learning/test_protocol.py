"""The protocol: folds without a shared class, scores by hand, a choice that new classes never make.

Its networks are linear maps of the pixels, so that every score can be had without it.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mini.data import Dataset, Split, select_classes
from mini.metric_learning import map_at_r
from mini.metric_learning.protocol import Protocol, Scores, class_folds
from tests.metric_learning.test_triplets import seeded

OLD, NEW = 5, 3


def dataset(classes: int, seed: int, validation: bool = True) -> Dataset:
    """Images 2x2 of noise around a colour for each class: 6 to train, 5 and 4 to look at."""
    draw = seeded(seed)
    colours = torch.randint(60, 190, (classes, 3, 1, 1), generator=draw)

    def split(n: int) -> Split:
        labels = torch.arange(classes).repeat_interleave(n)
        noise = torch.randint(-60, 60, (len(labels), 3, 2, 2), generator=draw)
        return Split((colours[labels] + noise).to(torch.uint8), labels)

    return Dataset(
        "noise",
        "noise",
        split(6),
        split(5),
        tuple(f"class {k}" for k in range(classes)),
        torch.tensor([0.4, 0.5, 0.6]),
        torch.tensor([0.2, 0.3, 0.1]),
        mirror=True,
        validation=split(4) if validation else None,
    )


class Linear(nn.Module):
    """Three numbers an image, each a mix of its pixels."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 3, generator=seeded(seed)))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def embedded(network: Linear, split: Split, data: Dataset) -> Tensor:
    """By hand: the images as `data` normalises them, rows at length 1."""
    images = (split.images.float() / 255 - data.mean.view(1, 3, 1, 1)) / data.std.view(1, 3, 1, 1)
    with torch.no_grad():
        return normalize(network(images), dim=1)


def searched(looks: int = 2) -> tuple[Protocol, Scores, dict]:
    """A protocol, the scores of settings 0 to 2, and the networks, by setting, fold and look."""
    protocol = Protocol(class_folds(dataset(OLD, 0), 2), dataset(NEW, 1))
    networks: dict[tuple[int, int, int], Linear] = {}

    def train(data: Dataset, setting: int, look) -> None:
        place = next(i for i, fold in enumerate(protocol.folds) if fold.train is data)
        for at in range(looks):
            network = networks[setting, place, at] = Linear(100 * setting + 10 * place + at)
            look(network)

    return protocol, protocol.search([0, 1, 2], train), networks


def test_folds_hold_out_each_class_at_most_once_and_train_on_the_others():
    old = dataset(OLD, 0)
    folds = class_folds(old, 2)
    assert [fold.held_out.classes for fold in folds] == [old.classes[:2], old.classes[2:4]]
    assert [fold.train.classes for fold in folds] == [
        old.classes[2:],
        (*old.classes[:2], "class 4"),
    ]
    for fold in folds:
        assert not set(fold.train.classes) & set(fold.held_out.classes)
        assert fold.train.train.labels.unique().tolist() == [0, 1, 2]
        assert fold.held_out.validation.labels.unique().tolist() == [0, 1]
    assert len(class_folds(dataset(8, 0), 2)) == 4


def test_scores_are_those_of_the_networks_by_hand():
    protocol, scores, networks = searched()
    assert scores.validation.shape == scores.separate.shape == (3, 2, 2)
    assert scores.joined.shape == scores.other_images.shape == (3, 2)
    new = protocol.new
    for (setting, place, at), network in networks.items():
        fold = protocol.folds[place]
        out = fold.held_out.validation
        assert scores.validation[setting, place, at] == pytest.approx(
            map_at_r(embedded(network, out, fold.train), out.labels), abs=1e-6
        )
        assert scores.separate[setting, place, at] == pytest.approx(
            map_at_r(embedded(network, new.test, fold.train), new.test.labels), abs=1e-6
        )
    for setting, at in np.ndindex(3, 2):
        for split, given in ((new.test, scores.joined), (new.validation, scores.other_images)):
            both = torch.cat(
                [
                    embedded(networks[setting, place, at], split, fold.train)
                    for place, fold in enumerate(protocol.folds)
                ],
                dim=1,
            )
            assert given[setting, at] == pytest.approx(map_at_r(both, split.labels), abs=1e-6)


def test_the_choice_is_the_mean_of_the_folds_and_never_looks_at_new_classes():
    validation = np.zeros((3, 2, 2))
    validation[0, :, 1] = 0.9, 0.1  # the best fold of all
    validation[2, :, 0] = 0.6, 0.6  # the best mean
    validation[1, :, 1] = 0.6, 0.6  # and before it another as good
    for new in (np.zeros((3, 2)), np.arange(6.0).reshape(3, 2)):
        scores = Scores(validation, np.stack([new, new], axis=1), new, new)
        assert scores.chosen() == (1, 1)
        assert all(type(place) is int for place in scores.chosen())


def test_every_training_has_the_fold_s_own_data_and_the_setting():
    seen = []
    protocol = Protocol(class_folds(dataset(OLD, 0), 2), dataset(NEW, 1))

    def train(data: Dataset, setting: str, look) -> None:
        seen.append((data, setting))
        look(Linear(0))

    protocol.search(["a", "b"], train)
    trained = [fold.train for fold in protocol.folds]
    assert [setting for _, setting in seen] == ["a", "a", "b", "b"]
    assert all(data is trained[i % 2] for i, (data, _) in enumerate(seen))


@pytest.mark.parametrize("held_out", [1, 4, 5, 2.5, True])
def test_folds_that_cannot_be_are_refused(held_out):
    with pytest.raises(ValueError, match=r"at least 2|two classes more"):
        class_folds(dataset(OLD, 0), held_out)


def test_data_without_validation_images_are_refused():
    old, new = dataset(OLD, 0, validation=False), dataset(NEW, 1)
    with pytest.raises(ValueError, match="n_validation"):
        class_folds(old, 2)
    with pytest.raises(ValueError, match="n_validation"):
        Protocol(class_folds(dataset(OLD, 0), 2), dataset(NEW, 1, validation=False))
    assert select_classes(new, [0, 1]).validation is not None


def test_looks_that_differ_are_refused_before_the_next_setting_is_trained():
    protocol = Protocol(class_folds(dataset(OLD, 0), 2), dataset(NEW, 1))
    trained = []

    def train(data: Dataset, setting: int, look) -> None:
        trained.append(setting)
        for _ in range(setting + (data is protocol.folds[1].train)):
            look(Linear(0))

    with pytest.raises(ValueError, match=r"\[1, 2\] times.*equally often"):
        protocol.search([1, 2], train)
    assert trained == [1, 1]
    with pytest.raises(ValueError, match=r"\[0\] times"):
        protocol.search([1], lambda data, setting, look: None)
    with pytest.raises(ValueError, match="no settings"):
        protocol.search([], train)
