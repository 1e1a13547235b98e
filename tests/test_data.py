"""The data sets, their caches, every kind of bad input, and batches."""

import contextlib
import functools
import hashlib
import http.server
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms.functional import normalize

from mini import archives, data, digits, files, folders
from mini.batches import unit_images

few = settings(max_examples=25, deadline=None)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own for a test, with the cache in it and no setting of the caller."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder).resolve()
        patch.setenv("MINI_CACHE", str(root / "cache"))
        patch.delenv("MINI_DATA", raising=False)
        yield root


@contextlib.contextmanager
def complains(*parts: str) -> Iterator[None]:
    """Expects a ValueError of one sentence with all `parts` in it and no other traceback."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the text is checked below
        yield
    error, text = caught.value, str(caught.value)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert "\n" not in text
    assert text.endswith((".", "?"))
    for part in parts:
        assert part in text


# Digits.


def fingerprint(dataset: data.Dataset) -> str:
    tensors = (*dataset.train, *dataset.test)
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


@functools.cache
def photographs_hash() -> str:
    return hashlib.sha256(digits._photographs().tobytes()).hexdigest()


def test_digits_are_the_same_bytes_on_every_machine():
    # If only the first of these differs, a JPEG decoder other than libjpeg-turbo read the photos.
    assert photographs_hash()[:16] == "c95fb8d3c2d4b4f7"
    assert fingerprint(data.load("digits"))[:16] == "91a3d08a8d550cbc"
    assert (
        fingerprint(data.load("digits", seed=7, n_train=300, n_test=50))[:16] == "6caf0176a4e6565c"
    )


def test_rounding_of_digits_does_not_hang_on_the_last_bits():
    recipe = digits.draw(500, "train", seed=0)
    nudged = recipe._replace(
        scales=recipe.scales * (1 + 1e-11),
        shifts_y=recipe.shifts_y + 1e-11,
        shifts_x=recipe.shifts_x - 1e-11,
    )
    np.testing.assert_array_equal(digits.render(nudged), digits.render(recipe))


def test_digits_have_their_shapes_types_and_statistics():
    dataset = data.load("digits")
    assert (dataset.name, dataset.title) == ("digits", "digits on photographs")
    assert dataset.classes == tuple("0123456789")
    assert not dataset.mirror
    for split, n in ((dataset.train, 4000), (dataset.test, 2000)):
        assert split.images.shape == (n, 3, 32, 32)
        assert split.images.dtype == torch.uint8
        assert split.labels.shape == (n,)
        assert split.labels.dtype == torch.int64
        assert split.labels.bincount().tolist() == [n // 10] * 10
    pixels = dataset.train.images.numpy() / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)), rtol=1e-6)


@given(n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
@few
def test_digits_are_balanced_and_fewer_are_the_first_of_more(n, seed):
    images, labels = digits.make(n, "test", seed=seed)
    for start in range(0, n, 10):
        block = labels[start : start + 10]
        assert len(set(block)) == len(block)
    more_images, more_labels = digits.make(n + 7, "test", seed=seed)
    np.testing.assert_array_equal(more_images[:n], images)
    np.testing.assert_array_equal(more_labels[:n], labels)


def test_sizes_and_seeds_change_only_what_they_should():
    small = data.load("digits", n_train=700, n_test=20)
    other = data.load("digits", n_train=700, n_test=510)
    assert small.train.images.equal(other.train.images)
    assert small.test.images.equal(other.test.images[:20])
    assert len(small.train.labels) == 700
    reseeded = data.load("digits", n_train=700, n_test=20, seed=1)
    assert (reseeded.train.labels != small.train.labels).float().mean() > 0.8
    assert not reseeded.test.images.equal(small.test.images)


def test_train_and_test_share_no_digit_and_no_photo_region():
    recipes = [digits.draw(2000, part, seed=3) for part in ("train", "test")]
    used = [set(recipe.digits.tolist()) for recipe in recipes]
    assert used[0].isdisjoint(used[1])
    # Every digit is in one of the two, with its own label.
    assert used[0] | used[1] == set(range(1797))
    for recipe in recipes:
        np.testing.assert_array_equal(digits.load_digits().target[recipe.digits], recipe.labels)
    # The pixels themselves: paint the photographs, and look at images without strokes.
    painted = np.zeros((2, 427, 640, 3), dtype=np.int16)
    painted[..., 0], painted[..., 1] = np.arange(640) % 256, np.arange(640) // 256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_photographs", lambda: painted)
        patch.setattr(digits, "_digits_8x8", lambda: np.zeros((1797, 8, 8)))
        images = [digits.render(recipe).astype(int) for recipe in recipes]
    columns = [set(np.unique(image[:, 0] + 256 * image[:, 1]).tolist()) for image in images]
    assert columns[0].isdisjoint(columns[1])
    assert columns[0] | columns[1] == set(range(640))


def plain_recipe(**changes: float) -> digits.Recipe:
    """The first train digit of class 5, upright and centred, on a corner of the first photo."""
    digit = digits.digit_pools("train")[5][0]
    fields = dict.fromkeys(digits.Recipe._fields, 0.0) | {"labels": 5, "digits": digit, "scales": 1}
    whole = {"labels", "digits", "photos", "tops", "lefts"}
    return digits.Recipe(
        *(np.array([int(v) if k in whole else v]) for k, v in (fields | changes).items())
    )


def test_a_digit_is_enlarged_turned_moved_and_blended():
    upright = digits._strokes(plain_recipe())[0].astype(int)
    small = digits.load_digits().images[plain_recipe().digits[0]] * (255 / 16)
    large = interpolate(torch.tensor(small)[None, None], size=(32, 32), mode="bilinear")[0, 0]
    # At the border ours fades to black where torch repeats the last pixel.
    inside = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(upright[inside], large.numpy()[inside], atol=1.01)
    turned = digits._strokes(plain_recipe(degrees=90))[0]
    assert any((turned == np.rot90(upright, quarter)).all() for quarter in (1, 3))
    down_right = digits._strokes(plain_recipe(shifts_y=2, shifts_x=3))[0]
    np.testing.assert_array_equal(down_right[2:, 3:], upright[:-2, :-3])
    half = digits._strokes(plain_recipe(scales=0.5))[0]
    assert half.sum() == pytest.approx(upright.sum() / 4, rel=0.05)
    recipe = plain_recipe(photos=1, tops=40, lefts=7)
    photo = digits.load_sample_image("flower.jpg")[40:72, 7:39].astype(int)
    expected = np.abs(photo - upright[:, :, None]).transpose(2, 0, 1)
    np.testing.assert_array_equal(digits.render(recipe)[0], expected)


def test_digits_are_fast_enough_to_need_no_cache():
    data.load("digits", n_train=10, n_test=10)
    start = time.process_time()
    with scratch() as root:
        data.load("digits")
        assert not (root / "cache").exists()
    assert time.process_time() - start < 1.5


# Names and sizes.


def test_the_name_comes_from_the_argument_then_the_environment():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        make_folder(root / "mine")
        patch.setenv("MINI_DATA", str(root / "mine"))
        assert data.load().name == "mine"
        assert data.load("digits", n_train=10, n_test=10).name == "digits"
        patch.setenv("MINI_DATA", "")
        assert data.load(n_train=10, n_test=10).name == "digits"


@pytest.mark.parametrize("name", ["mnist", "no/such/folder", "Digits"])
def test_an_unknown_name_lists_the_choices(name):
    with scratch():
        choices = ("digits, cifar10, cifar100", "train/<class>/", str(Path(name).absolute()))
        with complains(repr(name), *choices):
            data.load(name)


@pytest.mark.parametrize("n", [0, -1, 9, 2.5, "20", True])
@pytest.mark.parametrize("what", ["n_train", "n_test"])
def test_an_impossible_size_of_digits_is_refused(what, n):
    with complains(what, "at least 10", repr(n)):
        data.load("digits", **{what: n})


@pytest.mark.parametrize("seed", [-1, None, 0.5])
def test_an_impossible_seed_is_refused(seed):
    with complains("seed", repr(seed)):
        data.load("digits", seed=seed)


def numbered_split(n: int, classes: int = 3) -> data.Split:
    """Image i is i everywhere (modulo 256 and above), so that it can be told after augmentation."""
    numbers = torch.arange(n)
    images = torch.stack([numbers % 256, numbers // 256, numbers * 0], 1).to(torch.uint8)
    return data.Split(images[:, :, None, None].repeat(1, 1, 32, 32), numbers * 7919 % classes)


def numbers_of(images: torch.Tensor) -> list[int]:
    assert images.flatten(2).float().std(2).max() == 0  # one colour each
    return (images[:, 0, 0, 0] + 256 * images[:, 1, 0, 0].int()).tolist()


@given(labels=st.lists(st.integers(0, 3), min_size=4, max_size=60), seed=st.integers(0, 2**32 - 1))
@few
def test_subsets_are_balanced_nested_and_keep_their_labels(labels, seed):
    labels = torch.tensor([0, 1, 2, 3, *labels])
    split = data.Split(numbered_split(len(labels)).images, labels)
    before: list[int] = []
    for n in range(4, len(labels) + 1):
        part = data.subset(split, n, seed=seed)
        chosen = numbers_of(part.images)
        assert len(set(chosen)) == n
        assert chosen[: len(before)] == before
        assert part.labels.tolist() == labels[chosen].tolist()
        counts, available = (x.bincount(minlength=4) for x in (part.labels, labels))
        # Where a class has fewer than the largest less one, it is used up.
        assert all(counts[(counts < counts.max() - 1)] == available[counts < counts.max() - 1])
        before = chosen
    assert sorted(before) == list(range(len(labels)))


def test_subsets_differ_between_seeds_and_are_refused_when_impossible():
    split = numbered_split(30)
    first, second = (numbers_of(data.subset(split, 12, seed=seed).images) for seed in (0, 1))
    assert set(first) != set(second)
    assert first[0] not in range(3) or second[0] not in range(3)
    with complains("n is 31", "only 30 images"):
        data.subset(split, 31, seed=0)
    for n in (2, 0, -5, 3.0, "x"):
        with complains("n must be", "at least 3", repr(n)):
            data.subset(split, n, seed=0)


# Augmentation and batches.


def windows(image: np.ndarray, pad: int) -> dict[tuple[int, int, bool], bytes]:
    """Every shifted and possibly mirrored version of an image, padded by numpy."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (pad, pad), (pad, pad)], mode="reflect")
    found = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            window = padded[:, y : y + height, x : x + width]
            found[y - pad, x - pad, False] = window.tobytes()
            found[y - pad, x - pad, True] = window[:, :, ::-1].tobytes()
    return found


def noise(n: int, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def which_windows(images: torch.Tensor, augmented: torch.Tensor, pad: int) -> list[tuple]:
    """For each image the (shift_y, shift_x, mirrored) that was applied; fails if there is none."""
    kinds = []
    for image, result in zip(images.numpy(), augmented.numpy(), strict=True):
        table = {window: kind for kind, window in windows(image, pad).items()}
        kinds.append(table[result.tobytes()])
    return kinds


@given(
    size=st.tuples(st.integers(10, 14), st.integers(10, 14)),  # smaller ones may look mirrored
    pad=st.integers(0, 4),
    mirror=st.booleans(),
    seed=st.integers(0, 1000),
)
@few
def test_augmented_images_are_windows_of_the_padded_ones(size, pad, mirror, seed):
    images = noise(4, *size)
    before = images.clone()
    generator = torch.Generator().manual_seed(seed)
    augmented = data.augment(images, generator=generator, pad=pad, mirror=mirror)
    assert augmented.dtype == torch.uint8
    kinds = which_windows(images, augmented, pad)
    assert mirror or not any(mirrored for *_, mirrored in kinds)
    assert images.equal(before)


def test_augmentation_uses_every_shift_and_mirrors_half():
    images = noise(1, 8, 8).repeat(4000, 1, 1, 1)
    augmented = data.augment(images, generator=torch.Generator().manual_seed(0), pad=2)
    table = {window: kind for kind, window in windows(images[0].numpy(), 2).items()}
    kinds = [table[image.tobytes()] for image in augmented.numpy()]
    counts = [kinds.count(kind) for kind in table.values()]
    assert len(counts) == 50
    # 4000 / 50 = 80 of each kind, within five standard deviations.
    assert min(counts) > 35
    assert max(counts) < 125
    assert sum(mirrored for *_, mirrored in kinds) == pytest.approx(2000, abs=160)


def test_augmentation_is_decided_by_the_generator_alone():
    images = noise(20)
    results = [
        data.augment(images, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    ]
    assert results[0].equal(results[1])
    assert not results[0].equal(results[2])
    unchanged = data.augment(images, generator=torch.Generator(), pad=0, mirror=False)
    assert unchanged.equal(images)
    for pad in (32, -1, 1.5):
        with complains("pad"):
            data.augment(images, generator=torch.Generator(), pad=pad)


identity = {"mean": [0.0] * 3, "std": [1 / 255] * 3}  # leaves pixels as 0..255


@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 70),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    pad=st.integers(0, 3),
    mirror=st.booleans(),
)
@few
def test_an_epoch_has_every_image_once_with_its_label(n, batch_size, drop_last, **options):
    check_epoch(n, batch_size, drop_last, **options)


def test_epochs_of_a_few_sizes():
    for n, batch_size in ((300, 64), (128, 64), (5, 70), (70, 1)):
        for flag in (False, True):
            check_epoch(n, batch_size, False, shuffle=True, pad=2 * flag, mirror=flag)
    check_epoch(300, 64, True, shuffle=True, pad=2, mirror=True)
    check_epoch(300, 64, False, shuffle=False, pad=0, mirror=False)


def check_epoch(n: int, batch_size: int, drop_last: bool, *, shuffle: bool, **options) -> None:
    split = numbered_split(n)
    if drop_last and n < batch_size:
        with complains(f"{n} images", f"no batch of {batch_size}"):
            data.Batches(split, batch_size, drop_last=True, **identity)
        return
    generator = torch.Generator().manual_seed(n)
    batches = data.Batches(
        split,
        batch_size,
        **identity,
        drop_last=drop_last,
        shuffle=shuffle,
        generator=generator,
        **options,
    )
    found = list(batches)
    assert len(found) == len(batches)
    assert all(len(labels) == batch_size for _, labels in found[:-1])
    images, labels = (torch.cat(tensors) for tensors in zip(*found, strict=True))
    assert images.dtype == torch.float32
    assert images.shape[1:] == (3, 32, 32)
    numbers = numbers_of(images.round())
    count = n // batch_size * batch_size if drop_last else n
    assert len(numbers) == len(set(numbers)) == count
    assert labels.tolist() == split.labels[[int(number) for number in numbers]].tolist()
    if not shuffle:
        assert numbers == list(range(count))


def test_batches_are_normalised_as_torchvision_does():
    split = data.Split(noise(10), torch.arange(10))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    batches = data.Batches(split, 4, mean=mean, std=std, shuffle=False)
    images = torch.cat([images for images, _ in batches])
    expected = normalize(split.images.float() / 255, mean.tolist(), std.tolist())
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)
    assert len(batches) == 3


def test_batches_augment_each_image_of_each_batch_in_its_own_way():
    images = noise(60)
    options = {"shuffle": False, "pad": 3, "mirror": True, **identity}
    batches = data.Batches(
        data.Split(images, torch.arange(60)),
        20,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    epochs = []
    for _ in range(2):
        augmented = torch.cat([images for images, _ in batches]).round().to(torch.uint8)
        epochs.append(which_windows(images, augmented, 3))
    for kinds in epochs:
        assert len(set(kinds)) > 30  # of 98 kinds
        assert kinds[:20] != kinds[20:40] != kinds[40:]
    assert epochs[0] != epochs[1]


def test_order_changes_between_epochs_and_is_repeatable():
    def epochs(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        batches = data.Batches(numbered_split(50), 16, **identity, generator=generator)
        return [numbers_of(torch.cat([x for x, _ in batches]).round()) for _ in range(2)]

    assert epochs(0) == epochs(0)
    assert epochs(0) != epochs(1)
    assert epochs(0)[0] != epochs(0)[1]
    assert epochs(0)[0] != sorted(epochs(0)[0])


def test_batches_neither_change_nor_share_the_split():
    split = data.Split(noise(8), torch.arange(8))
    before = split.images.clone()
    for images, labels in data.Batches(split, 8, **identity, shuffle=False):
        images.zero_()
        labels.zero_()
    assert split.images.equal(before)
    assert split.labels.tolist() == list(range(8))


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None])
def test_an_impossible_batch_size_is_refused(batch_size):
    with complains("batch_size", repr(batch_size)):
        data.Batches(numbered_split(5), batch_size, **identity)


def test_batches_need_as_many_labels_as_images_and_a_sensible_pad():
    split = numbered_split(5)
    with complains("5 images and 4 labels"):
        data.Batches(data.Split(split.images, split.labels[:4]), 2, **identity)
    with complains("pad is 32"):
        list(data.Batches(split, 2, pad=32, **identity))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_gets_the_same_batches():
    split = data.Split(noise(50), torch.arange(50))
    found = {}
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        options = {"pad": 4, "mirror": True, "generator": generator, "device": device, **identity}
        found[device] = list(data.Batches(split, 16, **options))
        assert found[device][0][0].device.type == found[device][0][1].device.type == device
    for (images, labels), (cuda_images, cuda_labels) in zip(*found.values(), strict=True):
        torch.testing.assert_close(images, cuda_images.cpu())
        assert labels.equal(cuda_labels.cpu())


def test_images_that_are_no_floats_between_zero_and_one_are_refused():
    good = torch.rand(2, 3, 4, 5)
    unit_images(good)
    unit_images(good[:0].double())
    for bad, words in (
        ((255 * good).byte(), "uint8 images are divided by 255"),
        (good[0], "give floats"),
        (good[:, :1], "give floats"),
        (2 * good, r"give values in \[0, 1\]"),
        (good - 0.5, r"give values in \[0, 1\]"),
        (good * float("nan"), r"give values in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            unit_images(bad)


# CIFAR: archives in the official format, a few images large.

LABEL_KEYS = {"cifar10": "labels", "cifar100": "fine_labels"}


@contextlib.contextmanager
def official(name: str, archive: Path, images_a_file: int = 20) -> Iterator[dict]:
    """Write an archive in CIFAR's format and have torchvision take its checksums for the real ones.

    Gives the arrays that are in it: {"train": (images, labels), "test": (images, labels)}.
    """
    source, count = archives.SOURCES[name], int(name.removeprefix("cifar"))
    random, md5 = np.random.RandomState(0), {}
    stored: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:

        def add(filename: str, content: dict) -> None:
            blob = pickle.dumps(content, protocol=2)
            md5[filename] = hashlib.md5(blob).hexdigest()
            info = tarfile.TarInfo(f"{source.base_folder}/{filename}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))

        for part, filenames in (("train", source.train_list), ("test", source.test_list)):
            found = []
            for filename, _ in filenames:
                pixels = random.randint(0, 256, (images_a_file, 3072)).astype(np.uint8)
                labels = random.randint(0, count, images_a_file)
                add(filename, {"data": pixels, LABEL_KEYS[name]: labels.tolist()})
                found.append((pixels.reshape(-1, 3, 32, 32), labels))
            stored[part] = tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))
        names = [f"class {i}" for i in range(count)]
        add(source.meta["filename"], {source.meta["key"]: names})
    with pytest.MonkeyPatch.context() as patch:
        for which in ("train_list", "test_list"):
            patched = [[filename, md5[filename]] for filename, _ in getattr(source, which)]
            patch.setattr(source, which, patched)
        patch.setattr(source, "meta", source.meta | {"md5": md5[source.meta["filename"]]})
        patch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield stored


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_an_archive_put_by_hand(name):
    check_cifar(name)


def check_cifar(name: str = "cifar10") -> None:
    with scratch() as root:
        archive = root / "cache" / archives.SOURCES[name].filename
        with official(name, archive) as stored:
            first = data.load(name)
            assert left_in(root / "cache") == [archive.name, f"{name}.npz"]
        archive.unlink()
        for dataset in (first, data.load(name)):  # the second is from the cache
            assert dataset.name == name
            assert dataset.title == name.upper().replace("R", "R-")
            assert dataset.classes == tuple(f"class {i}" for i in range(len(dataset.classes)))
            assert len(dataset.classes) == int(name.removeprefix("cifar"))
            assert dataset.mirror
            for split, (images, labels) in zip(
                (dataset.train, dataset.test), stored.values(), strict=True
            ):
                np.testing.assert_array_equal(split.images, images)
                np.testing.assert_array_equal(split.labels, labels)
                assert split.labels.dtype == torch.int64


def test_subsets_of_cifar_are_balanced():
    filename = archives.SOURCES["cifar10"].filename
    with scratch() as root, official("cifar10", root / "cache" / filename, 60):
        dataset = data.load("cifar10", n_train=100, n_test=20, seed=3)
        assert dataset.train.labels.bincount().tolist() == [10] * 10
        assert dataset.test.labels.bincount().tolist() == [2] * 10
        pixels = dataset.train.images.numpy() / 255
        np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
        with complains("n_train is 1000", "only 300 images"):
            data.load("cifar10", n_train=1000)
        with complains("n_test must be", "at least 10"):
            data.load("cifar10", n_test=3)


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        content = content[: len(content) // 2]
    elif kind == "a byte changed":
        content[len(content) // 2] ^= 1
    elif kind == "empty":
        content = b""
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "a byte changed", "empty"])
def test_a_damaged_archive_is_named(kind):
    with scratch() as root:
        archive = root / "cache" / "cifar-10-python.tar.gz"
        with official("cifar10", archive):
            damage(archive, kind)
            with complains(str(archive), "damaged or incomplete", "delete it"):
                data.load("cifar10")
            assert left_in(root / "cache") == [archive.name]


def test_an_archive_that_cannot_be_unpacked_is_named():
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        archive = root / "cache" / "cifar-10-python.tar.gz"
        with official("cifar10", archive):
            patch.setattr(archives, "extract_archive", no_space)
            with complains(str(archive), "No space left", "disk"):
                data.load("cifar10")
            assert left_in(root / "cache") == [archive.name]


def test_without_a_network_the_ways_out_are_listed():
    with socket.socket() as unused, scratch() as root, pytest.MonkeyPatch.context() as patch:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar.tar.gz"
        for name in ("cifar10", "cifar100"):
            patch.setattr(archives.SOURCES[name], "url", url)
            archive = root / "cache" / archives.SOURCES[name].filename
            with complains(name, url, "failed", str(archive), "MINI_DATA=digits", "folder"):
                data.load(name)
        assert left_in(root / "cache") == []
        assert socket.getdefaulttimeout() is None


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server, on this machine, of the files in a folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_truncated", [False, True])
def test_a_download_is_checked_and_only_the_cache_stays(is_truncated):
    with scratch() as root, served(root) as address, pytest.MonkeyPatch.context() as patch:
        archive = root / "cifar-10-python.tar.gz"
        with official("cifar10", archive) as stored:
            patch.setattr(archives.SOURCES["cifar10"], "url", f"{address}/{archive.name}")
            if is_truncated:
                damage(archive, "truncated")
                with complains("cifar10", "failed", "MINI_DATA=digits"):
                    data.load("cifar10")
                assert left_in(root / "cache") == []
            else:
                dataset = data.load("cifar10")
                np.testing.assert_array_equal(dataset.train.images, stored["train"][0])
                assert left_in(root / "cache") == ["cifar10.npz"]


def test_an_interrupted_download_leaves_nothing():
    def interrupted(root: Path, **_: object) -> None:
        (root / "cifar-10-python.tar.gz").write_bytes(b"half")
        raise KeyboardInterrupt

    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        interrupted.filename, interrupted.url = "cifar-10-python.tar.gz", "http://127.0.0.1/"
        patch.setitem(archives.SOURCES, "cifar10", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.load("cifar10")
        assert left_in(root / "cache") == []


# Folders of images.


def make_folder(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), n: int = 3) -> Path:
    """A folder with `n` images (of noise, PNG) of each class in train/ and test/."""
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for label in classes:
            (folder / part / label).mkdir(parents=True)
            for i in range(n):
                pixels = random.randint(0, 256, (32, 32, 3)).astype(np.uint8)
                # Uncompressed, so that all files have the same size.
                path = folder / part / label / f"{i:03d}.png"
                Image.fromarray(pixels).save(path, compress_level=0)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1)


def test_a_folder_gives_its_images_in_the_order_of_names():
    with scratch() as root:
        folder = make_folder(root / "pets", classes=("dog", "cat", "Ant"))
        for hidden in (".DS_Store", "train/.ipynb_checkpoints", "train/cat/._000.png"):
            (folder / hidden).mkdir()
        (folder / "train" / "cat" / "notes.txt").write_text("no image")
        (folder / "train" / "notes.txt").write_text("no class")
        dataset = data.load(str(folder))
        assert (dataset.name, dataset.title, dataset.mirror) == ("pets", "pets", True)
        assert dataset.classes == ("Ant", "cat", "dog")
        for part, split in (("train", dataset.train), ("test", dataset.test)):
            assert split.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
            paths = [folder / part / c / f"{i:03d}.png" for c in dataset.classes for i in range(3)]
            np.testing.assert_array_equal(split.images, np.stack([pixels_of(p) for p in paths]))


def test_many_images_stay_in_order():
    """More images than one task of the thread pool reads."""
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "IMAGES_A_TASK", 4)
        folder = make_folder(root / "many", n=11)
        images = data.load(str(folder)).train.images
        for k, path in enumerate(sorted(folder.glob("train/*/*.png"))):
            np.testing.assert_array_equal(images[k], pixels_of(path))


def test_the_names_of_folders_do_not_pass_for_those_of_data_sets():
    with scratch() as root:
        dataset = data.load(str(make_folder(root / "cifar10")))
        assert (dataset.name, dataset.title) == ("cifar10-folder", "cifar10-folder")
        dataset = data.load(str(make_folder(root / "cifar10-jpeg")))
        assert (dataset.name, dataset.title) == ("cifar10-jpeg", "CIFAR-10 (JPEG copy)")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *((mode, ".png") for mode in ("1", "L", "LA", "P", "RGBA", "transparent palette")),
        *((mode, suffix) for mode in ("L", "CMYK") for suffix in (".jpeg", ".JPG")),
    ],
)
def test_other_colour_modes_become_rgb(mode, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{suffix}"
        white = Image.new("L", (32, 32), 255)
        white.paste(0, (0, 0, 32, 16))  # upper half black
        if mode == "transparent palette":
            white.convert("P").save(path, transparency=bytes(range(256)))
        else:
            white.convert(mode).save(path)
        pixels = folders.read_image(path)
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8
        assert pixels[:16].max() <= 2
        assert pixels[16:].min() >= 253


def spoil(folder: Path, kind: str) -> tuple[str, ...]:
    """Do one thing wrong in a folder of images; gives what the complaint must name."""
    image = folder / "test" / "dog" / "001.png"
    if kind == "another size":
        Image.new("RGB", (40, 32)).save(image)
        return str(image), "40x32", "32x32", "resize"
    if kind == "not an image":
        image.write_text("hello")
        return str(image), "cannot be read", "remove it"
    if kind == "truncated":
        damage(image, "truncated")
        return str(image), "cannot be read"
    if kind == "truncated JPEG":
        jpeg = image.with_suffix(".jpg")
        Image.open(image).save(jpeg)
        damage(jpeg, "truncated")
        return str(jpeg), "cannot be read"
    if kind == "empty file":
        image.write_bytes(b"")
        return str(image), "cannot be read"
    if kind == "16 bits":
        Image.fromarray(np.full((32, 32), 4000, dtype=np.uint16)).save(image)
        return str(image), "8 bits"
    if kind == "a dangling link":
        image.unlink()
        image.symlink_to(folder / "nowhere.png")
        for other in ("000.png", "002.png"):
            image.with_name(other).unlink()
        return str(image.parent), "no image in it"
    if kind == "an empty class":
        for path in image.parent.iterdir():
            path.unlink()
        return str(image.parent), "no image in it"
    if kind == "classes differ":
        image.parent.rename(folder / "test" / "wolf")
        return str(folder), "the same classes", "dog, wolf"
    if kind == "no test":
        (folder / "test").rename(folder / "validation")
        return str(folder), "no test/"
    if kind == "no train":
        (folder / "train").rename(folder / "training")
        return str(folder), "no train/"
    assert kind == "no classes"
    for path in [*(folder / "train").glob("*/*"), *(folder / "train").iterdir()]:
        path.rmdir() if path.is_dir() else path.unlink()
    return str(folder / "train"), "no class folder"


@pytest.mark.parametrize(
    "kind",
    [
        *("another size", "not an image", "truncated", "truncated JPEG", "empty file", "16 bits"),
        *("a dangling link", "an empty class", "classes differ"),
        *("no test", "no train", "no classes"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(kind):
    check_spoilt(kind)


def check_spoilt(kind: str) -> None:
    with scratch() as root:
        folder = make_folder(root / "pets")
        parts = spoil(folder, kind)
        with complains(*parts):
            data.load(str(folder))
        assert not (root / "cache").exists() or left_in(root / "cache") == []


# Caches.


def no_decoding(*_: object) -> None:
    raise AssertionError("an image was decoded although it is in the cache")


def test_a_second_load_reads_the_cache_even_in_a_read_only_folder():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        folder = make_folder(root / "pets")
        first = data.load(str(folder))
        assert len(left_in(root / "cache")) == 1
        patch.setattr(folders, "read_image", no_decoding)
        patch.setattr(files, "write_atomically", no_decoding)
        patch.setattr(files, "temporary_folder", no_decoding)
        second = data.load(str(folder))
        assert first.train.images.equal(second.train.images)
        assert first.test.labels.equal(second.test.labels)
        assert first.classes == second.classes


def test_a_changed_image_makes_a_new_cache_and_removes_the_old_one():
    with scratch() as root:
        folder, other = make_folder(root / "pets"), make_folder(root / "other" / "pets")
        first = data.load(str(folder))
        data.load(str(other))
        before = left_in(root / "cache")
        assert len(before) == 2
        path = folder / "train" / "dog" / "001.png"
        size = path.stat().st_size
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path, compress_level=0)
        os.utime(path, ns=(1, 1))
        assert path.stat().st_size == size
        second = data.load(str(folder))
        changed = (first.train.images != second.train.images).flatten(1).any(1)
        assert changed.tolist() == [False] * 4 + [True, False]
        after = left_in(root / "cache")
        assert len(after) == 2
        assert len(set(after) & set(before)) == 1
        # An image moved from one class to another is a change as well.
        path.rename(folder / "train" / "cat" / "003.png")
        assert data.load(str(folder)).train.labels.tolist() == [0, 0, 0, 0, 1, 1]


def pickled(path: Path) -> None:
    np.savez(path, **{key: np.array([{}]) for key in ("train_images", "classes")})


def cut_short(path: Path) -> None:
    """Sound, but with a label missing."""
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | {"train_labels": arrays["train_labels"][:-1]}))


@pytest.mark.parametrize(
    "harm",
    [
        functools.partial(damage, kind="truncated"),
        functools.partial(damage, kind="empty"),
        pickled,
        cut_short,
    ],
)
def test_a_damaged_cache_is_rebuilt(harm):
    check_damaged_cache(harm)


def test_a_changed_byte_in_a_cache_is_noticed():
    check_damaged_cache(functools.partial(damage, kind="a byte changed"))


def check_damaged_cache(harm: Callable[[Path], None]) -> None:
    with scratch() as root:
        folder = make_folder(root / "pets")
        first = data.load(str(folder))
        (cache,) = (root / "cache").iterdir()
        sound = cache.read_bytes()
        harm(cache)
        assert cache.read_bytes() != sound
        second = data.load(str(folder))
        assert first.train.images.equal(second.train.images)
        assert first.train.labels.equal(second.train.labels)
        with np.load(cache, allow_pickle=False) as stored:
            np.testing.assert_array_equal(stored["train_images"], first.train.images)


def test_a_cache_folder_that_cannot_be_written_is_named_before_the_work():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        folder = make_folder(root / "pets")
        (root / "file").write_text("a file, not a folder")
        patch.setenv("MINI_CACHE", str(root / "file" / "cache"))
        patch.setattr(folders, "read_image", no_decoding)
        for name in (str(folder), "cifar10"):
            with complains(str(root / "file" / "cache"), "cannot be written", "MINI_CACHE"):
                data.load(name)
        with complains(str(root / "file"), "cannot be written"):
            files.write_atomically(root / "file" / "x", lambda file: None)


def test_a_write_is_whole_or_absent():
    def full_disk(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    def interrupted(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        path = root / "new" / "file"
        files.write_atomically(path, lambda file: file.write(b"old"))
        with complains(str(path.parent), "No space left", "MINI_CACHE"):
            files.write_atomically(path, full_disk)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomically(path, interrupted)
        with pytest.raises(ZeroDivisionError):
            files.write_atomically(path, lambda file: 1 / 0)
        patch.setattr(os, "replace", refused)
        with complains(str(path.parent), "Permission denied"):
            files.write_atomically(path, lambda file: file.write(b"new"))
        assert path.read_bytes() == b"old"
        assert left_in(path.parent) == ["file"]


def test_what_dead_runs_left_is_removed_and_what_live_ones_use_is_not():
    with scratch() as root:
        folder = make_folder(root / "pets")
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        cache = root / "cache"
        cache.mkdir()
        own, dead_pid = f".{os.getpid()}.", f".{dead.pid}."
        with files.temporary_folder(cache) as mine:
            old_folder = cache / mine.name.replace(own, dead_pid)
            old_folder.mkdir()
            (old_folder / "cifar-10-python.tar.gz").write_bytes(b"half")
            old_file = cache / f".x.npz.{files.HOST}{dead_pid}abc.tmp"
            old_file.write_bytes(b"half")
            elsewhere = cache / f".x.npz.another-host{dead_pid}abc.tmp"
            elsewhere.write_bytes(b"a run on another machine writes here")
            ancient = cache / f".y.npz.another-host{dead_pid}abc.tmp"
            ancient.write_bytes(b"half")
            os.utime(ancient, (0, 0))
            (cache / ".unrelated.tmp").write_bytes(b"somebody else's")
            data.load(str(folder))
            assert not old_folder.exists()
            assert not old_file.exists()
            assert not ancient.exists()
            assert mine.exists()
            assert elsewhere.exists()
            assert (cache / ".unrelated.tmp").exists()
        assert not mine.exists()


def run_python(script: str, *arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"TQDM_DISABLE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from mini import files, folders
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before renaming":
    os.replace = kill
elif sys.argv[2] == "half-way":
    files.np.savez = lambda file, **arrays: (file.write(b"PK" * 1000), file.flush(), kill())
elif sys.argv[2] == "decoding":
    folders._decode = kill
folders.load(Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("when", ["before renaming", "half-way", "decoding"])
def test_a_kill_while_a_cache_is_made_leaves_nothing_that_is_read(when):
    with scratch() as root:
        folder = make_folder(root / "pets")
        process = run_python(KILLED_WHILE_WRITING, folder, when)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert list((root / "cache").glob("*.npz")) == []
        dataset = data.load(str(folder))
        path = folder / "train" / "cat" / "000.png"
        np.testing.assert_array_equal(dataset.train.images[0], pixels_of(path))
        assert [name.endswith(".npz") for name in left_in(root / "cache")] == [True]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_during_a_download_leaves_nothing_that_is_read():
    script = """
import os, signal, sys
from pathlib import Path
from mini import files
with files.temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "cifar-10-python.tar.gz").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with scratch() as root:
        run_python(script, root / "cache").communicate()
        assert len(left_in(root / "cache")) == 1
        archive = root / "cache" / "cifar-10-python.tar.gz"
        with official("cifar10", archive) as stored:
            dataset = data.load("cifar10")
        np.testing.assert_array_equal(dataset.train.images, stored["train"][0])
        assert left_in(root / "cache") == [archive.name, "cifar10.npz"]


def test_two_processes_may_prepare_the_same_folder_at_once():
    script = """
import sys, time
from pathlib import Path
from mini import folders
decode = folders._decode
Path(sys.argv[2]).touch()
def together(*arguments):
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
    return decode(*arguments)
folders._decode = together
arrays = folders.load(Path(sys.argv[1]))
assert arrays["train_images"].shape == (20, 3, 32, 32)
"""
    with scratch() as root:
        folder = make_folder(root / "pets", n=10)
        flags = [root / "first is ready", root / "second is ready"]
        processes = [run_python(script, folder, *order) for order in (flags, flags[::-1])]
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert errors == ""  # TQDM_DISABLE=1 silences the progress bar
        assert [name.endswith(".npz") for name in left_in(root / "cache")] == [True]
        assert data.load(str(folder)).train.images.shape == (20, 3, 32, 32)
