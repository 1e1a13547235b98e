"""Batches and augmentation, on a CPU and on a GPU."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import normalize

from mini import data
from mini.data.batches import unit_images
from tests.data.sample_data import complains, few, numbered_split, numbers_of

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
still = identity | {"shuffle": False}


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_another_type_come_out_in_int64(dtype):
    split = numbered_split(5)
    _, labels = next(iter(data.Batches(split._replace(labels=split.labels.to(dtype)), 5, **still)))
    assert (labels.dtype, labels.tolist()) == (torch.int64, split.labels.tolist())


def test_a_split_of_other_images_or_labels_is_refused():
    """Images in [0, 1] were divided by 255 once more; a column of labels is compared with rows."""
    images, labels = numbered_split(5)
    for other in (images / 255, images.float(), images.int(), images[0]):
        with complains("The images of a split are", str(other.dtype), "give uint8 ones"):
            data.Batches(data.Split(other, labels), 2, **still)
    for other in (labels.float(), labels[:, None], labels > 0):
        with complains("labels are", "give whole numbers [N]"):
            data.Batches(data.Split(images, other), 2, **still)


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, 3), (-1, 2)])
def test_batches_shift_by_what_is_drawn_and_not_back(down, right):
    check_shift(down, right)


def check_shift(down: int, right: int) -> None:
    """Row y of the shifted image is row y + shift of the image, here far from the border."""
    drawn = torch.tensor([[[down]], [[right]]])
    split = data.Split(noise(1), torch.zeros(1, dtype=torch.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *size, **options: drawn)
        ((images, _),) = data.Batches(split, 1, pad=4, **still)
        shown = data.augment(split.images, generator=torch.Generator(), pad=4, mirror=False)
    inside = slice(4, 28)
    moved = split.images[:, :, 4 + down : 28 + down, 4 + right : 28 + right]
    torch.testing.assert_close(images[:, :, inside, inside], moved.float())
    assert shown[:, :, inside, inside].equal(moved)


def test_a_unit_image_may_be_one_and_no_more():
    unit_images(torch.ones(1, 3, 2, 2))
    unit_images(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"give values in \[0, 1\]"):
        unit_images(torch.full((1, 3, 2, 2), 1 + 2**-23))
