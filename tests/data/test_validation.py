"""What a seed draws: training, test and validation images, and none of them twice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mini import data
from mini.data import digits, sets
from tests.data.sample_data import complains, few, make_folder, numbered_split, numbers_of, scratch

# Archives and folders: a pool of numbered images stands for them.

TEST_BEGINS = 1000  # the numbers of test images


def load_numbered(labels: list[int], **options: int) -> data.Dataset:
    """`data.load` of a pool of training images 0, 1, ... with these labels and 30 test images."""
    tests = numbered_split(TEST_BEGINS + 30).images[TEST_BEGINS:]
    arrays = {
        "train_images": numbered_split(len(labels)).images.numpy(),
        "train_labels": np.array(labels),
        "test_images": tests.numpy(),
        "test_labels": np.arange(30) % 3,
        "classes": np.array(["ant", "bee", "cat"]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "_read_pool", lambda name: (name, arrays))
        return data.load("numbered", **options)


def check_balance(labels: torch.Tensor, available: torch.Tensor) -> None:
    """As many of each class, within one, but for the classes that are used up."""
    counts, available = (x.bincount(minlength=3) for x in (labels, available))
    is_short = counts < counts.max() - 1
    assert counts[is_short].equal(available[is_short])


@given(
    extra=st.lists(st.integers(0, 2), max_size=40),
    n_train=st.integers(3, 15),
    n_validation=st.integers(3, 12),
    seed=st.integers(0, 2**32 - 1),
)
@few
def test_validation_images_are_other_training_images(extra, n_train, n_validation, seed):
    labels = [0, 1, 2] * 9 + extra  # so many of each that neither part uses a class up
    options = {"n_test": 12, "seed": seed}
    dataset = load_numbered(labels, n_train=n_train, n_validation=n_validation, **options)
    train, validation, test = (
        numbers_of(split.images) for split in (dataset.train, dataset.validation, dataset.test)
    )
    assert (len(train), len(validation), len(test)) == (n_train, n_validation, 12)
    assert len({*train, *validation}) == n_train + n_validation
    assert max(train + validation) < TEST_BEGINS <= min(test)
    pool = torch.tensor(labels)
    assert dataset.train.labels.equal(pool[train])
    assert dataset.validation.labels.equal(pool[validation])
    check_balance(dataset.train.labels, pool)
    is_left = torch.ones(len(labels), dtype=torch.bool)
    is_left[train] = False
    check_balance(dataset.validation.labels, pool[is_left])
    without = load_numbered(labels, n_train=n_train, **options)
    assert without.validation is None
    for ours, theirs in ((dataset.train, without.train), (dataset.test, without.test)):
        assert ours.images.equal(theirs.images)


@given(
    extra=st.lists(st.integers(0, 2), max_size=30),
    n_validation=st.integers(3, 12),
    seed=st.integers(0, 2**32 - 1),
)
@few
def test_without_a_size_all_that_validation_leaves_is_trained_on(extra, n_validation, seed):
    labels = [0, 1, 2] * 5 + extra
    dataset = load_numbered(labels, n_validation=n_validation, seed=seed)
    train, validation = (numbers_of(split.images) for split in (dataset.train, dataset.validation))
    assert len(validation) == n_validation
    assert train == sorted(set(range(len(labels))) - set(validation))
    assert dataset.train.labels.tolist() == [labels[i] for i in train]
    check_balance(dataset.validation.labels, torch.tensor(labels))
    assert numbers_of(dataset.test.images) == list(range(TEST_BEGINS, TEST_BEGINS + 30))


def test_a_seed_draws_training_test_and_validation_images_alike():
    sizes = {"n_train": 12, "n_test": 9, "n_validation": 9}
    first, again, other = (load_numbered([0, 1, 2] * 20, **sizes, seed=s) for s in (0, 0, 1))
    for part in ("train", "test", "validation"):
        ours, same, theirs = (
            numbers_of(getattr(dataset, part).images) for dataset in (first, again, other)
        )
        assert ours == same
        assert set(ours) != set(theirs)


def test_mean_and_std_are_those_of_the_train_part_alone():
    check_statistics(load_numbered([0, 1, 2] * 20, n_train=6, n_validation=30))
    check_statistics(load_numbered([0, 1, 2] * 20, n_validation=30))
    check_statistics(data.load("digits", n_train=40, n_test=20, n_validation=30))


def check_statistics(dataset: data.Dataset) -> None:
    pixels = dataset.train.images.numpy() / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)).clip(1 / 255), rtol=1e-6)


def test_validation_parts_that_cannot_be_had_are_refused():
    labels = [0] * 20 + [1] * 20 + [2] * 4
    for n in (2, 0, -5, 3.0, "x", True):
        with complains("n_validation must be", "at least 3", repr(n)):
            load_numbered(labels, n_validation=n)
    with complains("n_validation is 45", "only 44 images"):
        load_numbered(labels, n_validation=45)
    with complains("n_validation is 15", "only 14 images beside those of train"):
        load_numbered(labels, n_train=30, n_validation=15)
    with complains("train part has no image of the class cat", "n_validation is 12"):
        load_numbered(labels, n_validation=12)
    with complains("validation part has no image of the class cat", "n_train is 12"):
        load_numbered(labels, n_train=12, n_validation=6)


def test_a_folder_gives_a_validation_part():
    with scratch() as root:
        folder = str(make_folder(root / "pets", n=6))
        dataset = data.load(folder, n_validation=4)
        pool = data.load(folder).train
    splits = {
        part: {image.numpy().tobytes() for image in getattr(dataset, part).images}
        for part in ("train", "validation", "test")
    }
    assert [len(images) for images in splits.values()] == [8, 4, 12]
    whole = {image.numpy().tobytes() for image in pool.images}
    assert splits["train"] | splits["validation"] == whole
    assert splits["test"].isdisjoint(whole)
    assert dataset.validation.labels.bincount().tolist() == [2, 2]


# Digits: that their parts share nothing is tested with the digits.


def test_digits_train_on_what_validation_leaves():
    sizes = {"n_train": 60, "n_test": 30, "seed": 5}
    dataset = data.load("digits", n_validation=40, **sizes)
    without = data.load("digits", **sizes)
    parts = {"rest": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for part, split in {**parts, "train": without.train}.items():
        images, labels = digits.make(len(split.labels), part, seed=5)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    assert len(dataset.validation.labels) == 40
    assert without.validation is None
    assert without.test.images.equal(dataset.test.images)
    assert len(data.load("digits", n_test=10, n_validation=10).train.labels) == 4000


def test_a_seed_draws_every_part_of_the_digits():
    sizes = {"n_train": 50, "n_test": 50, "n_validation": 50}
    first, other = (data.load("digits", **sizes, seed=seed) for seed in (0, 1))
    for part in ("train", "test", "validation"):
        ours, theirs = getattr(first, part), getattr(other, part)
        assert not ours.labels.equal(theirs.labels)
        assert (ours.images == theirs.images).float().mean() < 0.1
    # Nor do the parts of one seed follow each other.
    assert not first.train.labels.equal(first.validation.labels)
    assert not first.validation.labels.equal(first.test.labels)
