"""Wrong labels, and data sets divided by class."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mini import data
from tests.data.sample_data import complains, few, numbered_split, numbers_of

SEEDS = st.integers(0, 2**32 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Wrong labels.


@given(
    labels=st.lists(st.integers(0, 6), max_size=60),
    share=st.floats(0, 1),
    spare=st.integers(0, 3),
    keep_true=st.booleans(),
    dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]),
    seed=SEEDS,
)
@few
def test_a_share_of_the_labels_is_flipped(labels, share, spare, keep_true, dtype, seed):
    old = torch.tensor(labels, dtype=dtype)
    before = old.clone()
    options = {"num_classes": 7 + spare, "keep_true": keep_true}
    new = data.flip_labels(old, share, generator=generator(seed), **options)
    assert old.equal(before)
    assert (new.shape, new.dtype) == (old.shape, dtype)
    touched = round(share * len(labels))
    wrong = int((new != old).sum())
    assert wrong <= touched if keep_true else wrong == touched
    assert all(0 <= label < 7 + spare for label in new.tolist())
    again = data.flip_labels(old, share, generator=generator(seed), **options)
    assert new.equal(again)


def test_the_labels_that_were_given_stay_as_they_were():
    old = torch.arange(20) % 4
    data.flip_labels(old, 1.0, num_classes=4, keep_true=False, generator=generator(0))
    assert old.equal(torch.arange(20) % 4)


def test_flipped_labels_are_uniform_over_the_classes_they_are_drawn_from():
    check_flips(keep_true=False)
    check_flips(keep_true=True)


def check_flips(keep_true: bool, n: int = 100_000, num_classes: int = 5) -> None:
    """Who is flipped, and to what, within five standard deviations of a uniform draw."""
    old = torch.arange(n) % num_classes
    new = data.flip_labels(
        old, 0.4, num_classes=num_classes, keep_true=keep_true, generator=generator(3)
    )
    drawn_from = num_classes if keep_true else num_classes - 1
    wrong = (new != old).sum().item()
    # Without the true class exactly 40,000; with it they are wrong with probability 4/5.
    spread = math.sqrt(0.4 * n * 0.8 * 0.2) if keep_true else 0
    assert abs(wrong - 0.4 * n * (num_classes - 1) / drawn_from) <= 5 * spread
    # Of the labels of each class, so many became each other one.
    table = (old * num_classes + new).bincount(minlength=num_classes**2).view(num_classes, -1)
    expected = 0.4 * n / num_classes / drawn_from
    off_diagonal = table[~torch.eye(num_classes, dtype=torch.bool)].double()
    assert (off_diagonal - expected).abs().max() <= 5 * math.sqrt(expected)
    # Everywhere in the list.
    quarters = (new != old).double().view(4, -1).sum(1)
    assert (quarters - wrong / 4).abs().max() <= 5 * math.sqrt(wrong / 4)


def test_flips_at_the_ends_of_the_range():
    old = torch.arange(20) % 2
    for keep_true in (True, False):
        options = {"num_classes": 2, "keep_true": keep_true, "generator": generator(0)}
        assert data.flip_labels(old, 0, **options).equal(old)
    options = {"num_classes": 2, "generator": generator(0)}
    assert data.flip_labels(old, 1, keep_true=False, **options).equal(1 - old)
    large = torch.full((400,), 255, dtype=torch.uint8)  # 255 + 1 must not wrap before it is 256
    options = {"num_classes": 256, "keep_true": False, "generator": generator(0)}
    assert len(data.flip_labels(large, 1, **options).unique()) > 150


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"share": 1.01}, ("share is 1.01", "between 0 and 1")),
        ({"share": -0.1}, ("share is -0.1",)),
        ({"share": math.nan}, ("share is nan",)),
        ({"labels": torch.zeros(3)}, ("torch.float32", "whole numbers")),
        ({"labels": torch.zeros(3, dtype=torch.bool)}, ("torch.bool",)),
        ({"labels": torch.zeros(3, 2, dtype=torch.int64)}, ("[3, 2]",)),
        ({"labels": torch.tensor([0, 3])}, ("from 0 to 3", "expected 0 to 2", "num_classes is 3")),
        ({"labels": torch.tensor([-1, 1])}, ("from -1 to 1",)),
        ({"num_classes": 1}, ("num_classes", "at least 2")),
        ({"num_classes": 2.0}, ("num_classes", "2.0")),
    ],
)
def test_labels_that_cannot_be_flipped_are_refused(change, parts):
    options = {"labels": torch.tensor([0, 1, 2]), "share": 0.5, "num_classes": 3, "keep_true": True}
    with complains(*parts):
        data.flip_labels(**options | change, generator=generator(0))


# Data sets divided by class.

NAMES = tuple("abcdefgh")


def numbered_dataset(classes: int = 8, *, validation: bool = True) -> data.Dataset:
    """Image i, of class i % classes; 0 to 99 are train, 100 to 159 test, 160 to 199 validation."""
    images, labels = numbered_split(200).images, torch.arange(200) % classes
    train, test, held = (
        data.Split(images[here], labels[here])
        for here in (slice(100), slice(100, 160), slice(160, 200))
    )
    third = torch.full((3,), 1 / 3)
    names = NAMES[:classes]
    return data.Dataset(
        *("numbers", "numbers", train, test, names, third, third),
        mirror=False,
        validation=held if validation else None,
    )


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda s: sum(s) <= 8),
    seed=SEEDS,
)
@few
def test_no_class_is_in_two_parts(sizes, seed):
    dataset = numbered_dataset()
    parts = data.split_classes(dataset, *sizes, seed=seed)
    assert [len(part.classes) for part in parts] == sizes
    names = [name for part in parts for name in part.classes]
    assert len(set(names)) == len(names)
    for split in ("train", "test", "validation"):
        all_numbers = numbers_of(getattr(dataset, split).images)
        seen = []
        for part in parts:
            images, labels = getattr(part, split)
            numbers = numbers_of(images)
            seen += numbers
            # Numbered from 0, with the names that the images had; in the order they had.
            assert labels.unique().tolist() == list(range(len(part.classes)))
            assert [part.classes[k] for k in labels] == [NAMES[i % 8] for i in numbers]
            assert numbers == sorted(numbers)
        assert sorted(seen) == [i for i in all_numbers if NAMES[i % 8] in names]


def test_classes_are_dealt_by_the_seed_in_one_order():
    dataset = numbered_dataset()
    small, large, other = (
        data.split_classes(dataset, size, seed=seed)[0].classes
        for size, seed in ((2, 0), (5, 0), (8, 1))
    )
    assert large[:2] == small
    assert other[:5] != large
    assert sorted(other) == list(NAMES)
    firsts = [data.split_classes(dataset, 1, seed=seed)[0].classes[0] for seed in range(400)]
    counts = [firsts.count(name) for name in NAMES]  # 50 each, standard deviation 6.6
    assert min(counts) > 15
    assert max(counts) < 85


def test_selected_classes_are_labelled_in_the_order_asked_for():
    dataset = numbered_dataset(validation=False)
    part = data.select_classes(dataset, [6, 1])
    assert part.classes == ("g", "b")
    assert part.validation is None
    assert (part.name, part.mirror) == (dataset.name, dataset.mirror)
    numbers = numbers_of(part.train.images)
    assert [i % 8 for i in numbers] == [[6, 1][label] for label in part.train.labels]
    pixels = part.train.images.numpy() / 255
    np.testing.assert_allclose(part.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(part.std, pixels.std((0, 2, 3)).clip(1 / 255), rtol=1e-6)
    # Folds of a part, by class, as in cross-validation.
    first, _ = data.split_classes(dataset, 6, 2, seed=0)
    folds = [data.select_classes(first, range(k, k + 2)).classes for k in (0, 2, 4)]
    assert sum(folds, ()) == first.classes


def test_classes_that_cannot_be_divided_are_refused():
    dataset = numbered_dataset()
    with complains("[7, 2]", "there are 8 classes"):
        data.split_classes(dataset, 7, 2, seed=0)
    with complains("at least one part"):
        data.split_classes(dataset, seed=0)
    for size in (0, -1, 2.0, True):
        with complains("A number of classes", "at least 1", repr(size)):
            data.split_classes(dataset, 3, size, seed=0)
    with complains("seed", "-1"):
        data.split_classes(dataset, 3, seed=-1)
    for labels in ([], [8], [1, 1]):
        with complains("labels are", "one or more of 0 to 7"):
            data.select_classes(dataset, labels)
    for label in (-1, "a", 1.0):
        with complains("A label", repr(label)):
            data.select_classes(dataset, [label])
    few_tests = data.Split(dataset.test.images[:2], dataset.test.labels[:2])
    lacking = data.Dataset(
        *("few", "few", dataset.train, few_tests, NAMES, dataset.mean, dataset.std), mirror=False
    )
    with complains("test images have none of class c", "load more images"):
        data.select_classes(lacking, [4, 2])


def test_labels_of_any_whole_type_select_the_same_classes():
    """An index of uint8 is a mask."""
    dataset = numbered_dataset()
    narrow = replace(
        dataset,
        **{
            part: split._replace(labels=split.labels.byte())
            for part in ("train", "test", "validation")
            if (split := getattr(dataset, part)) is not None
        },
    )
    for part in ("train", "test", "validation"):
        expected, found = (getattr(data.select_classes(d, [5, 2]), part) for d in (dataset, narrow))
        assert found.images.equal(expected.images)
        assert found.labels.equal(expected.labels)
        assert found.labels.dtype == torch.int64
