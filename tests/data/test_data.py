"""The data sets, and every kind of bad input."""

import functools
import hashlib
import importlib.util
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torch.nn.functional import interpolate

from mini import data
from mini.data import archives, digits, folders, sets
from tests.data.sample_data import (
    complains,
    damage,
    few,
    forget_images,
    left_in,
    make_folder,
    numbered_split,
    numbers_of,
    official,
    pixels_of,
    scratch,
    served,
)

# Digits.


def fingerprint(dataset: data.Dataset) -> str:
    """Of the images and labels of every split, the first 16 digits of a SHA-256."""
    tensors = (*dataset.train, *dataset.test, *(dataset.validation or ()))
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


@functools.cache
def photographs_hash() -> str:
    as_decoded = digits._photographs().transpose(0, 2, 3, 1).astype(np.int16)
    return hashlib.sha256(as_decoded.tobytes()).hexdigest()[:16]


def test_digits_are_the_same_bytes_on_every_machine():
    # If only the first of these differs, a JPEG decoder other than libjpeg-turbo read the photos.
    assert photographs_hash() == "c95fb8d3c2d4b4f7"
    assert fingerprint(data.load("digits")) == "91a3d08a8d550cbc"
    small = {"seed": 7, "n_train": 300, "n_test": 50}
    assert fingerprint(data.load("digits", **small)) == "6caf0176a4e6565c"
    assert fingerprint(data.load("digits", n_validation=100, **small)) == "05c7b7417ef26022"
    assert fingerprint(data.load("plain-digits", **small)) == "16ac722abca121ed"


def test_the_sources_are_those_of_scikit_learn():
    images, labels = digits._scikit_learn_digits()
    np.testing.assert_array_equal(images, load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)
    for name, photo in zip(digits.PHOTOS, digits._photographs(), strict=True):
        np.testing.assert_array_equal(photo.transpose(1, 2, 0), load_sample_image(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        with complains("sklearn", "china.jpg", "missing", "install scikit-learn"):
            digits._scikit_learn_file("images", "china.jpg")


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


@pytest.mark.parametrize("parts", [("train", "test"), ("rest", "validation", "test")])
def test_parts_share_no_digit_and_no_photo_region(parts):
    recipes = [digits.draw(2000, part, seed=3) for part in parts]
    used = [set(recipe.digits.tolist()) for recipe in recipes]
    # Every digit is in one of the parts, with its own label.
    assert sum(map(len, used)) == 1797
    assert set().union(*used) == set(range(1797))
    for recipe in recipes:
        np.testing.assert_array_equal(load_digits().target[recipe.digits], recipe.labels)
    # The pixels themselves: paint the photographs, and look at images without strokes.
    painted = np.zeros((2, 3, 427, 640), dtype=np.uint8)
    painted[:, 0], painted[:, 1] = np.arange(640) % 256, np.arange(640) // 256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_photographs", lambda: painted)
        patch.setattr(digits, "_digits_8x8", lambda: np.zeros((1797, 8, 8)))
        images = [digits.render(recipe).astype(int) for recipe in recipes]
    columns = [set(np.unique(image[:, 0] + 256 * image[:, 1]).tolist()) for image in images]
    assert sum(map(len, columns)) == 640
    assert set().union(*columns) == set(range(640))


def test_plain_digits_are_the_digits_without_their_photographs():
    sizes = {"n_train": 200, "n_test": 30, "n_validation": 20, "seed": 4}
    plain, blended = (data.load(name, **sizes) for name in ("plain-digits", "digits"))
    assert (plain.name, plain.title, plain.mirror) == ("plain-digits", "plain digits", False)
    assert plain.classes == blended.classes
    for part, pool in (("train", "rest"), ("test", "test"), ("validation", "validation")):
        white, behind = getattr(plain, part), getattr(blended, part)
        assert white.labels.equal(behind.labels)
        assert white.images.dtype == torch.uint8
        assert white.images[:, :1].expand(-1, 3, -1, -1).equal(white.images)
        assert (white.images == 0).float().mean() > 0.3
        assert white.images.amax((1, 2, 3)).min() > 200
        recipe = digits.draw(len(white.labels), pool, seed=4)
        photos = np.stack(
            [
                digits._photographs()[photo, :, top : top + 32, left : left + 32]
                for photo, top, left in zip(recipe.photos, recipe.tops, recipe.lefts, strict=True)
            ]
        )
        difference = np.abs(photos.astype(int) - white.images.numpy())
        np.testing.assert_array_equal(behind.images, difference)


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
    small = load_digits().images[plain_recipe().digits[0]] * (255 / 16)
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
    photo = load_sample_image("flower.jpg")[40:72, 7:39].astype(int)
    expected = np.abs(photo - upright[:, :, None]).transpose(2, 0, 1)
    np.testing.assert_array_equal(digits.render(recipe)[0], expected)


def test_digits_are_fast_enough_to_need_no_cache():
    data.load("digits", n_train=10, n_test=10)
    start = time.process_time()
    with scratch() as root:
        data.load("digits")
        assert not (root / "cache").exists()
    assert time.process_time() - start < 1


SLOW_IMPORTS = """
import sys
from mini import data
data.load(sys.argv[1], n_train=10, n_test=10)
print(*sorted({"matplotlib", "scipy", "sklearn", "torchvision"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", ["digits", "plain-digits", "folder"])
def test_a_worker_process_imports_nothing_slow_for_its_data(name):
    with scratch() as root:
        path = make_folder(root / "folder", n=5) if name == "folder" else name
        done = subprocess.run(
            [sys.executable, "-c", SLOW_IMPORTS, path], capture_output=True, text=True, check=True
        )
    assert done.stdout == "\n"


# Names and sizes.


def test_the_name_comes_from_the_argument_then_the_environment():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        make_folder(root / "mine")
        patch.setenv("MINI_DATA", str(root / "mine"))
        assert data.load().name == "mine"
        assert data.load("digits", n_train=10, n_test=10).name == "digits"
        patch.setenv("MINI_DATA", "plain-digits")
        assert data.load(n_train=10, n_test=10).title == "plain digits"
        patch.setenv("MINI_DATA", "")
        assert data.load(n_train=10, n_test=10).name == "digits"


@pytest.mark.parametrize("name", ["mnist", "no/such/folder", "Digits"])
def test_an_unknown_name_lists_the_choices(name):
    with scratch():
        choices = (
            "digits, plain-digits, cifar10, cifar100",
            "train/<class>/",
            str(Path(name).absolute()),
        )
        with complains(repr(name), *choices):
            data.load(name)


@pytest.mark.parametrize("n", [0, -1, 9, 2.5, "20", True])
@pytest.mark.parametrize("what", ["n_train", "n_test", "n_validation"])
def test_an_impossible_size_of_digits_is_refused(what, n):
    with complains(what, "at least 10", repr(n)):
        data.load("digits", **{what: n})


@pytest.mark.parametrize("seed", [-1, None, 0.5, 2**32])
def test_an_impossible_seed_is_refused(seed):
    with complains("seed", repr(seed)):
        data.load("digits", seed=seed)


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


def test_a_subset_keeps_images_of_any_type_and_refuses_labels_that_are_no_list():
    images, labels = numbered_split(30)
    scaled = data.subset(data.Split(images / 255, labels), 12, seed=0)
    whole = data.subset(data.Split(images, labels), 12, seed=0)
    assert scaled.images.equal(whole.images / 255)
    with complains("labels are torch.int64 [30, 1]", "whole numbers [N]"):
        data.subset(data.Split(images, labels[:, None]), 12, seed=0)


def test_mean_and_std_are_of_all_channels_and_of_uint8_images_only():
    images = torch.randint(256, (5, 4, 8, 8), dtype=torch.uint8)
    flat = (images.double() / 255).transpose(0, 1).flatten(1)
    for found, expected in zip(
        sets.mean_and_std(images), (flat.mean(1), flat.std(1, correction=0)), strict=True
    ):
        assert torch.allclose(found.double(), expected, rtol=0, atol=2**-24)  # float32, below 1
    for wrong in (images / 255, images.long(), images[:0], images[0]):
        with complains(f"images are {wrong.dtype} {list(wrong.shape)}", "uint8"):
            sets.mean_and_std(wrong)


STRANGERS = {
    "another's arrays": lambda path: np.savez(path, x_train=np.zeros(3), y_train=np.zeros(3)),
    "nearly ours": lambda path: np.savez(path, train_images=np.zeros(3), train_labels=[1, 2, 3]),
    "objects": lambda path: np.savez(path, images=np.array([{}])),
    "no archive": lambda path: path.write_bytes(b"notes on CIFAR"),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_s_file_where_the_cache_would_be_stays(kind):
    with scratch() as root, official("cifar10", root / "cache" / archives.CIFAR10.filename):
        path = root / "cache" / "cifar10.npz"
        STRANGERS[kind](path)
        before = path.read_bytes() if path.is_file() else left_in(path)
        with complains(f"{path} is in the way", "MINI_CACHE"):
            data.load("cifar10")
        assert before == (path.read_bytes() if path.is_file() else left_in(path))


@pytest.mark.parametrize("kind", ["truncated", "a byte changed", "empty"])
def test_a_damaged_cache_of_an_archive_is_made_again(kind):
    with scratch() as root, official("cifar10", root / "cache" / archives.CIFAR10.filename):
        first = data.load("cifar10")
        damage(root / "cache" / "cifar10.npz", kind)
        forget_images()
        assert data.load("cifar10").train.images.equal(first.train.images)


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


def test_a_folder_gives_its_images_in_the_order_of_names():
    with scratch() as root:
        folder = make_folder(root / "pets", classes=("dog", "cat", "Ant"))
        for hidden in (".DS_Store", "train/.ipynb_checkpoints", "train/cat/._000.png"):
            (folder / hidden).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is hidden is left out without a word
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
        # New memory may hold what an earlier call left there: the right images.
        patch.setattr(np, "empty", lambda shape, dtype: np.full(shape, 255, dtype))
        folder = make_folder(root / "many", n=11)
        images = data.load(str(folder)).train.images
        for k, path in enumerate(sorted(folder.glob("train/*/*.png"))):
            np.testing.assert_array_equal(images[k], pixels_of(path))


def test_the_names_of_folders_do_not_pass_for_those_of_data_sets():
    with scratch() as root:
        dataset = data.load(str(make_folder(root / "cifar10")))
        assert (dataset.name, dataset.title) == ("cifar10-folder", "cifar10-folder")
        dataset = data.load(str(make_folder(root / "plain-digits")))
        assert (dataset.name, dataset.mirror) == ("plain-digits-folder", True)
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


@pytest.mark.parametrize(
    "suffix", [".webp", ".bmp", ".gif", ".jfif", ".jpe", ".TIF", ".tiff", ".ppm", ".PNG"]
)
@pytest.mark.filterwarnings("error")
def test_what_pillow_reads_is_read(suffix):
    check_suffix(suffix)


def check_suffix(suffix: str) -> None:
    with scratch() as root:
        folder = make_folder(root / "pets")
        path = folder / "train" / "dog" / f"001{suffix}"
        how = {"lossless": True} if suffix == ".webp" else {}
        kind = {".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix)
        Image.new("RGB", (32, 32), (255, 0, 0)).save(path, format=kind, **how)
        images = data.load(str(folder)).train.images
        assert len(images) == (6 if suffix == ".PNG" and path.samefile(path.with_suffix(".png"))
                               else 7)  # fmt: skip
        red = [image for image in images if image[0].min() > 250 and image[1:].max() < 5]
        assert len(red) == 1


def test_what_is_left_out_is_said_in_one_sentence():
    with scratch() as root:
        folder = make_folder(root / "pets")
        dog = folder / "train" / "dog"
        dog.joinpath("puppies").mkdir()
        Image.new("RGB", (32, 32)).save(dog / "puppies" / "000.png")
        (dog / "gone.png").symlink_to(root / "nowhere.png")
        (dog / "self.png").symlink_to("self.png")
        (folder / "train" / "loop").symlink_to("loop")
        (dog / "notes.txt").write_text("no image")
        (folder / "test" / "cat" / "raw.cr2").write_text("no image that is read here")
        (folder / "test" / "notes.txt").write_text("no class")
        with pytest.warns(UserWarning, match="left out") as caught:
            found = data.load(str(folder))
        assert len(found.train.labels) == len(found.test.labels) == 6
        (text,) = {str(warning.message) for warning in caught}
        assert "\n" not in text
        assert text.startswith(f"In {folder} these are left out")
        for name in (
            "train/dog/gone.png (a link to nothing)",
            "train/dog/notes.txt",
            "train/dog/puppies/ (a folder)",
            "train/dog/self.png (a link to nothing)",
            "train/loop (a link to nothing)",
            "and 2 more",
        ):
            assert name in text


def test_a_folder_that_links_to_itself_ends():
    with scratch() as root:
        folder = make_folder(root / "pets")
        (folder / "train" / "dog" / "again").symlink_to(folder / "train" / "dog")
        with pytest.warns(UserWarning, match="again/ .a folder."):
            assert len(data.load(str(folder)).train.labels) == 6
        (root / "loop").symlink_to("loop")
        with complains(str(root / "loop"), "no folder"):
            data.load(str(root / "loop"))


COMPOSED, APART = "caf\u00e9", "cafe\u0301"


def test_names_in_two_unicode_forms_are_one_name():
    """As where train/ was made on a Mac and test/ on another machine."""
    with scratch() as root:
        folder = make_folder(root / "pets", classes=("dog", COMPOSED))
        (folder / "test" / COMPOSED).rename(folder / "test" / APART)
        found = data.load(str(folder))
        assert found.classes == (COMPOSED, "dog")
        assert found.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
        # Two files are two images, in whatever form.
        for name in (COMPOSED, APART):
            Image.new("RGB", (32, 32)).save(folder / "train" / "dog" / f"{name}.png")
        there = len(list((folder / "train" / "dog").iterdir()))
        assert len(data.load(str(folder)).train.labels) == 3 + there
        try:
            make_folder(root / "both", classes=(COMPOSED, APART))
        except FileExistsError:
            return  # this disk takes them for one
        with complains(str(root / "both" / "train"), COMPOSED, "two Unicode forms"):
            data.load(str(root / "both"))


def test_a_picture_that_moves_is_refused():
    with scratch() as root:
        path = root / "x.gif"
        frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with complains(str(path), "2 pictures"):
            folders.read_image(path)


def test_the_advice_for_another_size_leaves_the_original_and_its_turn():
    check_advice()


def check_advice() -> None:
    """What the sentence says is run, on a photograph that its EXIF turns by a quarter."""
    with tempfile.TemporaryDirectory() as place:
        path, copy = Path(place) / "photo.png", Path(place) / "copy.png"
        photo = Image.new("RGB", (96, 64), (0, 0, 255))
        photo.paste((255, 0, 0), (0, 0, 48, 64))  # its left half, which is up when it is turned
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.save(path, exif=exif)
        before = path.read_bytes()
        with pytest.raises(ValueError, match="96x64") as caught:
            folders.read_image(path)
        advice = re.search(r"(PIL\.ImageOps.*\.save\(copy\))", str(caught.value))[1]
        exec(f"import PIL.Image, PIL.ImageOps\n{advice}", {"path": path, "copy": copy})
        assert path.read_bytes() == before
        pixels = folders.read_image(copy)
        assert (pixels[:15] == (255, 0, 0)).all()
        assert (pixels[17:] == (0, 0, 255)).all()


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
