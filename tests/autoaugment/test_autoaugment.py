"""AutoAugment: operations, policies and draws against torchvision, the search by enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from mini import autoaugment as aa
from mini.autoaugment import NAMES, Operation
from mini.data import operations as pixels
from tests.augmix.test_augmix import pictures, seeded
from tests.planted import defaults

GRADED = [name for name, limits in aa.OPERATIONS.items() if limits]
PEERED = [name for name in NAMES if name != "cutout"]  # torchvision has no cutout of this kind
MOVES = ("shear_x", "shear_y", "rotate")
BLENDS = ("contrast", "color", "brightness", "sharpness")
SIZE = (32, 32)


def ours(images, name, strength, interpolation="nearest", centres=None) -> torch.Tensor:
    """One operation on all images at one strength, or at one of its own for each."""
    shape = (1, len(images))
    centres = np.zeros((*shape, 2), dtype=int) if centres is None else centres
    strength = np.broadcast_to(np.asarray(strength, dtype=float), shape).copy()
    recipe = aa.Recipe(np.full(shape, NAMES.index(name)), strength, centres)
    return aa.operate(images, recipe, interpolation=interpolation)


def theirs(image, name, strength, interpolation="nearest"):
    """The same by torchvision's functions, as its AutoAugment calls them; a tensor or a picture."""
    kind = {"interpolation": v2.InterpolationMode(interpolation)}
    corner = {"scale": 1.0, "center": [0, 0], "angle": 0.0, "translate": [0, 0]} | kind
    slope = math.degrees(math.atan(strength))
    straight = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0]} | kind
    return {
        "shear_x": lambda: tv.affine(image, shear=[slope, 0.0], **corner),
        "shear_y": lambda: tv.affine(image, shear=[0.0, slope], **corner),
        "translate_x": lambda: tv.affine(image, translate=[int(strength), 0], **straight),
        "translate_y": lambda: tv.affine(image, translate=[0, int(strength)], **straight),
        "rotate": lambda: tv.rotate(image, strength, **kind),
        "autocontrast": lambda: tv.autocontrast(image),
        "invert": lambda: tv.invert(image),
        "equalize": lambda: tv.equalize(image),
        "solarize": lambda: image if strength == 256 else tv.solarize(image, strength),
        "posterize": lambda: tv.posterize(image, int(strength)),
        "contrast": lambda: tv.adjust_contrast(image, strength),
        "color": lambda: tv.adjust_saturation(image, strength),
        "brightness": lambda: tv.adjust_brightness(image, strength),
        "sharpness": lambda: tv.adjust_sharpness(image, strength),
    }[name]()


def by_pillow(image, name, strength, interpolation="nearest") -> torch.Tensor:
    picture = theirs(tv.to_pil_image(image), name, strength, interpolation)
    return tv.pil_to_tensor(picture)


def places(name, strength) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of [32, 32] comes from, in pixels from the left and from the upper edge."""
    y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in SIZE), indexing="ij")
    if name == "shear_x":
        return x + strength * y, y
    if name == "shear_y":
        return x, y + strength * x
    cos, sin = math.cos(math.radians(strength)), math.sin(math.radians(strength))
    x, y = x - 16, y - 16
    return x * cos - y * sin + 16, x * sin + y * cos + 16


def may_differ(image, name, strength, plain) -> tuple[torch.Tensor | bool, int]:
    """Pixels at which rounding decides between two results, and how far apart these are.

    A place on the border of two pixels, within the 1/2000 of a pixel to which Pillow's fixed point
    and float32 tell them; a value that is whole, and that rounding makes less than whole.
    """
    if name in MOVES:
        away = [np.abs(place - np.round(place)) for place in places(name, strength)]
        return torch.from_numpy(np.minimum(*away) < 1 / 2000), 255
    if name == "autocontrast":
        low, high = image.int().amin((1, 2), True), image.int().amax((1, 2), True)
        return 255 * (image - low) % (high - low).clamp(min=1) == 0, 1
    if name in BLENDS:
        exact = plain.double() + strength * (image.double() - plain)
        return (exact - exact.round()).abs() < 1e-4, 1
    return torch.tensor(False), 0


def assert_alike(image, found, name, strength) -> int:
    """`found` is torchvision's on the picture; returns at how many values rounding differs."""
    expected = by_pillow(image, name, strength)
    difference = (found.int() - expected.int()).abs()
    plain = by_pillow(image, name, 0.0) if name in BLENDS else None
    loose, most = may_differ(image, name, strength, plain)
    assert int((difference * ~loose).max()) == 0, (name, strength)
    assert int(difference.max()) <= most
    return int((difference > 0).sum())


def signs(name) -> tuple[int, ...]:
    return (-1, 1) if aa.OPERATIONS[name] and aa.OPERATIONS[name].signed else (1,)


def strength_of(name, share, sign=1, size=SIZE, ranges="OPERATIONS") -> float:
    """At a share of the range; `ranges` is the name of a table, in which a bug may be planted."""
    table = getattr(aa, ranges)
    return float(aa.strengths(name, np.array([share]), np.array([sign]), size, table)[0])


def all_strengths(name, levels=10, ranges="OPERATIONS") -> list[float]:
    shares = [level / (levels - 1) for level in range(levels if aa.OPERATIONS[name] else 1)]
    return [
        strength_of(name, share, sign, ranges=ranges) for share in shares for sign in signs(name)
    ]


# Operations


@pytest.mark.parametrize("name", PEERED)
def test_operations_are_those_of_torchvision_on_pictures(name):
    """Of values that rounding may decide, few differ: none on x86 but for ties and autocontrast."""
    images, differ, seen = pictures(12), 0, 0
    for strength in all_strengths(name):
        found = ours(images, name, strength)
        for image, one in zip(images, found, strict=True):
            differ += assert_alike(image, one, name, strength)
        seen += found.numel()
    assert differ < 0.01 * seen


EXACT = ("translate_x", "translate_y", "invert", "equalize", "solarize", "posterize", "brightness")


@pytest.mark.parametrize("name", PEERED)
def test_operations_are_nearly_those_of_torchvision_on_tensors(name):
    """Their grey is 0.2989 R + 0.587 G + 0.114 B, cut off; Pillow's, and ours, is rounded.

    So greys differ by one, and the means of them, of which Pillow's is rounded, by up to 1.53.
    """
    images = pictures()
    most = {"color": 1, "contrast": 2}.get(name, 0)
    for strength in all_strengths(name):
        found = ours(images, name, strength)
        difference = (found.int() - theirs(images, name, strength).int()).abs()
        if name in (*MOVES, "autocontrast", "sharpness"):
            plain = theirs(images, name, 0.0) if name == "sharpness" else [None] * len(images)
            for image, one, other in zip(images, difference, plain, strict=True):
                loose, most = may_differ(image, name, strength, other)
                assert int((one * ~loose).max()) == 0
        assert int(difference.max()) <= most
        if name in EXACT:
            assert torch.equal(found, theirs(images, name, strength))


@pytest.mark.parametrize("name", MOVES)
def test_bilinear_operations_are_those_of_torchvision_on_pictures(name):
    """But for one level of 255, and for places on the very edge of the image.

    These slopes make many values whole, which rounding makes less than whole in Pillow.
    """
    images = pictures(12)
    for strength in all_strengths(name):
        found = ours(images, name, strength, "bilinear").int()
        expected = torch.stack([by_pillow(i, name, strength, "bilinear") for i in images]).int()
        at_edge = np.zeros(SIZE, dtype=bool)
        for place in places(name, strength):
            at_edge |= np.minimum(np.abs(place), np.abs(place - 32)) < 1 / 2000
        difference = (found - expected).abs() * ~torch.from_numpy(at_edge)
        assert int(difference.max()) <= 1
        assert (difference > 0).float().mean() < 0.04


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_a_place_between_two_pixels_belongs_to_the_further_one(name):
    """Told by whole numbers: row y comes from floor(x + 1/2 + slope (y + 1/2))."""
    image = pictures(3)[:1]
    for level, sign in itertools.product(range(10), (-1, 1)):
        slope = Fraction(sign * level, 30)
        expected = torch.zeros_like(image)
        for y, x in itertools.product(range(32), range(32)):
            along, across = (x, y) if name == "shear_x" else (y, x)
            place = math.floor(along + Fraction(1, 2) + slope * (across + Fraction(1, 2)))
            if 0 <= place < 32:
                at = (y, place) if name == "shear_x" else (place, x)
                expected[0, :, y, x] = image[0, :, at[0], at[1]]
        assert torch.equal(ours(image, name, strength_of(name, level / 9, sign)), expected)


@pytest.mark.parametrize(
    ("ranges", "levels"), [("OPERATIONS", 10), ("OPERATIONS", 31), ("WIDE", 31)]
)
def test_no_place_depends_on_rounding(ranges, levels):
    """Of all that the tables hold, no place is nearer than 1e-9 pixels to where ties are cut."""
    for name in MOVES:
        for strength in all_strengths(name, levels, ranges):
            for place in places(name, strength):
                cut = place + pixels.TIE
                assert np.abs(cut - np.round(cut)).min() > 1e-9


def test_rotation_is_that_of_rot90():
    images = pictures(3)
    for turns in (1, 2, 3):
        expected = images.rot90(turns, (2, 3))
        assert torch.equal(ours(images, "rotate", 90.0 * turns), expected)
    wide = torch.cat([images, images[..., :8]], dim=3)
    assert torch.equal(ours(wide, "rotate", 180.0), wide.rot90(2, (2, 3)))


def test_cutout_is_a_grey_square_cut_off_at_the_edge():
    images = pictures(6)
    sides = np.arange(len(images)) % 7
    centres = np.random.default_rng(0).integers(32, size=(1, len(images), 2))
    found = ours(images, "cutout", sides, centres=centres)
    expected = images.clone()
    for image, side, (row, column) in zip(expected, sides, centres[0], strict=True):
        top, left = row - side // 2, column - side // 2
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 128
    assert torch.equal(found, expected)
    assert strength_of("cutout", 1) == 5  # 60 pixels of 331


@pytest.mark.parametrize("name", NAMES)
def test_each_image_gets_its_own_strength(name):
    images = pictures(12)
    random, n = np.random.default_rng(0), len(images)
    share, sign = random.random(n), random.choice([-1, 1], n)
    strength = aa.strengths(name, share, sign, SIZE)
    centres = random.integers(32, size=(1, n, 2))
    before = images.clone()
    found = ours(images, name, strength, centres=centres)
    assert torch.equal(images, before)
    for i in range(n):
        alone = ours(images[i : i + 1], name, strength[i], centres=centres[:, i : i + 1])
        assert torch.equal(found[i : i + 1], alone)


def test_bad_operations_are_refused():
    images = pictures(3)
    with pytest.raises(ValueError, match='give "nearest" or "bilinear"'):
        ours(images, "invert", 0, "cubic")
    with pytest.raises(ValueError, match='give "nearest" or "bilinear"'):
        pixels.rotate(images, torch.zeros(len(images)), "cubic")
    with pytest.raises(ValueError, match="one an image"):
        pixels.posterize(images, torch.tensor(3))


small = st.integers(0, 1000).map(
    lambda seed: torch.randint(256, (3, 3, 9, 12), dtype=torch.uint8, generator=seeded(seed))
)


@given(small, st.integers(0, 8), st.integers(0, 256))
@settings(max_examples=30)
def test_inverting_twice_and_posterizing_twice(images, bits, threshold):
    assert torch.equal(ours(ours(images, "invert", 0), "invert", 0), images)
    once = ours(images, "posterize", bits)
    assert torch.equal(ours(once, "posterize", bits), once)
    assert all(len(channel.unique()) <= 2**bits for channel in once)
    flipped = ours(images, "solarize", threshold)
    assert torch.equal(flipped, torch.where(images.int() >= threshold, ~images, images))


@given(small, st.integers(-14, 14))
@settings(max_examples=30)
def test_a_shift_and_back_loses_the_border_alone(images, d):
    there = ours(images, "translate_x", d)
    expected = torch.zeros_like(images)
    for x in range(12):
        if 0 <= x - d < 12:
            expected[..., x] = images[..., x - d]
    assert torch.equal(there, expected)
    lost = torch.tensor([not 0 <= x + d < 12 for x in range(12)])
    assert torch.equal(ours(there, "translate_x", -d), images.masked_fill(lost, 0))
    turned = ours(images.mT.contiguous(), "translate_y", d)
    assert torch.equal(turned, expected.mT)


@given(small, st.sampled_from(NAMES), st.floats(0, 1), st.sampled_from([-1, 1]))
@settings(max_examples=60)
def test_shape_and_type_are_kept(images, name, share, sign):
    for interpolation in ("nearest", "bilinear"):
        found = ours(images, name, strength_of(name, share, sign, (9, 12)), interpolation)
        assert found.shape == images.shape
        assert found.dtype == torch.uint8


# The table of strengths


def torchvisions(transform, name, levels):
    spelled = {"autocontrast": "AutoContrast"}.get(name, name.title().replace("_", ""))
    function, signed = transform._AUGMENTATION_SPACE[spelled]
    return function(levels, *SIZE), signed


@pytest.mark.parametrize(
    ("transform", "ranges", "levels"),
    [
        (v2.AutoAugment, "OPERATIONS", 10),
        (v2.RandAugment, "OPERATIONS", 31),
        (v2.TrivialAugmentWide, "WIDE", 31),
    ],
)
def test_strengths_are_those_of_torchvision(transform, ranges, levels):
    peers = [name for name in PEERED if name != "invert" or transform is v2.AutoAugment]
    assert len(peers) == len(transform._AUGMENTATION_SPACE) - (transform is not v2.AutoAugment)
    for name in peers:
        values, signed = torchvisions(transform, name, levels)
        limits = getattr(aa, ranges)[name]
        assert (values is None) == (limits is None)
        for level, sign in itertools.product(range(levels if limits else 0), signs(name)):
            assert limits.signed == signed
            mine, other = (
                strength_of(name, level / (levels - 1), sign, ranges=ranges),
                values[level],
            )
            if name == "solarize":  # the lowest value that is inverted
                other = math.ceil(255 * float(other) - 1e-4) if level else 256
            elif name.startswith("translate"):
                other = sign * int(other + 1e-4)
            elif signed:
                other = (name in BLENDS) + sign * float(other)
            assert mine == pytest.approx(float(other), abs=1e-5)  # float32


@pytest.mark.parametrize("ranges", ["OPERATIONS", "WIDE"])
def test_strength_zero_is_the_identity(ranges):
    images = pictures()  # with plain white, which a solarize at 255 would turn black
    for name in GRADED:
        for sign in (-1, 1):
            still = strength_of(name, 0, sign, ranges=ranges)
            for interpolation in ("nearest", "bilinear"):
                assert torch.equal(ours(images, name, still, interpolation), images)
    assert not torch.equal(ours(images, "solarize", 255), images)


def test_strength_zero_changes_images_through_two_operations_alone():
    images = pictures(90)
    recipe = aa.draw_random(len(images), 2, 0, SIZE, generator=seeded())
    found = aa.rand_augment(images, 2, 0, generator=seeded())
    two = [NAMES.index("autocontrast"), NAMES.index("equalize")]
    touched = np.isin(recipe.operations, two).any(0)
    assert 0.1 < touched.mean() < 0.4  # 1 - (12/14)^2 is 0.27
    untouched = torch.from_numpy(~touched)
    assert torch.equal(found[untouched], images[untouched])
    assert not torch.equal(found, images)


def test_strengths_of_rand_augment_are_the_papers():
    """10 is the top of AutoAugment's ranges; beyond it factors and thresholds end at 0."""
    assert strength_of("rotate", 0.9) == pytest.approx(27)
    assert strength_of("rotate", 1.4) == pytest.approx(42)
    assert strength_of("translate_x", 1, -1, (10, 331)) == -150
    assert strength_of("translate_y", 1, 1, (331, 10)) == 150
    assert strength_of("contrast", 3, -1) == 0
    assert strength_of("contrast", 3, 1) == pytest.approx(3.7)
    assert strength_of("posterize", 3) == 1
    assert strength_of("solarize", 3) == 0
    recipe = aa.draw_random(2000, 1, 9, SIZE, generator=seeded())
    turned = recipe.strengths[recipe.operations == NAMES.index("rotate")]
    np.testing.assert_allclose(np.abs(turned), 27)
    assert 0.3 < (turned > 0).mean() < 0.7


# Policies


SHEET = """
invert .1 7 + contrast .2 6; rotate .7 2 + translate_x .3 9; sharpness .8 1 + sharpness .9 3;
shear_y .5 8 + translate_y .7 9; autocontrast .5 8 + equalize .9 2; shear_y .2 7 + posterize .3 7;
color .4 3 + brightness .6 7; sharpness .3 9 + brightness .7 9; equalize .6 5 + equalize .5 1;
contrast .6 7 + sharpness .6 5; color .7 7 + translate_x .5 8; equalize .3 7 + autocontrast .4 8;
translate_y .4 3 + sharpness .2 6; brightness .9 6 + color .2 8; solarize .5 2 + invert .0 3;
equalize .2 0 + autocontrast .6 0; equalize .2 8 + equalize .6 4; color .9 9 + equalize .6 6;
autocontrast .8 4 + solarize .2 8; brightness .1 3 + color .7 0; solarize .4 5 + autocontrast .9 3;
translate_y .9 9 + translate_y .7 9; autocontrast .9 2 + solarize .8 3; equalize .8 8 + invert .1 3;
translate_y .7 9 + autocontrast .9 1
"""


def test_policy_is_that_of_the_paper_and_of_torchvision():
    listed = [
        tuple(
            Operation(name, float(probability), int(level))
            for name, probability, level in (one.split() for one in pair.split("+"))
        )
        for pair in SHEET.split(";")
    ]
    assert list(aa.CIFAR10_POLICY) == listed
    others = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert len(others) == len(aa.CIFAR10_POLICY) == 25
    for pair, other in zip(aa.CIFAR10_POLICY, others, strict=True):
        for operation, (name, probability, level) in zip(pair, other, strict=True):
            assert operation.name.replace("_", "") == name.lower()
            assert operation.probability == probability
            assert (level is None) == (aa.OPERATIONS[operation.name] is None)
            assert level in (None, operation.level)


def test_a_fifth_of_the_images_is_untouched_and_one_operation_happens():
    """In closed form from the table, and in what is drawn."""
    p = np.array([[operation.probability for operation in pair] for pair in aa.CIFAR10_POLICY])
    untouched, happening = (1 - p).prod(1).mean(), p.sum(1).mean()
    assert untouched == pytest.approx(0.2232)
    assert happening == pytest.approx(1.06)
    uses = dict.fromkeys(NAMES, 0.0)
    for operation in itertools.chain(*aa.CIFAR10_POLICY):
        uses[operation.name] += operation.probability / 25
    rounded = {name: round(use, 3) for name, use in uses.items() if use > 0.04}
    assert rounded == {
        **{"autocontrast": 0.2, "equalize": 0.188, "translate_y": 0.136, "color": 0.116},
        **{"sharpness": 0.112, "brightness": 0.092, "solarize": 0.076},
    }
    assert uses["shear_x"] == uses["cutout"] == 0
    n = 40_000
    drawn = aa.draw(n, aa.CIFAR10_POLICY, SIZE, generator=seeded()).operations
    sigma = math.sqrt(untouched * (1 - untouched) / n)
    assert (drawn < 0).all(0).mean() == pytest.approx(untouched, abs=5 * sigma)
    for number, name in enumerate(NAMES):
        expected = uses[name]
        assert (drawn == number).sum() / n == pytest.approx(expected, abs=5 * math.sqrt(1 / n) / 2)


def test_what_is_drawn_is_independent_between_images_operations_and_directions():
    pair = (Operation("rotate", 0.3, 9), Operation("color", 0.8, 4))
    other = (Operation("invert", 1.0, 0), Operation("shear_x", 0.0, 5))
    n = 20_000
    recipe = aa.draw(n, (pair, other, other), SIZE, generator=seeded())
    first, second = recipe.operations
    rotated, colored = first == NAMES.index("rotate"), second == NAMES.index("color")
    assert (first == NAMES.index("invert")).mean() == pytest.approx(2 / 3, abs=0.02)
    assert not (second == NAMES.index("shear_x")).any()
    assert rotated.mean() == pytest.approx(0.3 / 3, abs=0.012)
    assert colored.mean() == pytest.approx(0.8 / 3, abs=0.02)
    assert (rotated & colored).mean() == pytest.approx(0.24 / 3, abs=0.012)
    assert set(recipe.strengths[0][rotated]) == {-30, 30}
    assert set(recipe.strengths[1][colored].round(6)) == {0.6, 1.4}
    for strength, still in ((recipe.strengths[0][rotated], 0), (recipe.strengths[1][colored], 1)):
        assert (strength > still).mean() == pytest.approx(0.5, abs=0.06)


def test_random_draws_are_even_and_fresh():
    kept = {-1} | {i for i, name in enumerate(NAMES) if name not in ("invert", "cutout")}
    n = 14_000
    recipe = aa.draw_random(n, 3, 9, SIZE, generator=seeded())
    for step in recipe.operations:
        numbers, counts = np.unique(step, return_counts=True)
        assert set(numbers) == kept
        np.testing.assert_allclose(counts / n, 1 / 14, atol=0.012)
    same = (recipe.operations[0] == recipe.operations[1]).mean()
    assert same == pytest.approx(1 / 14, abs=0.012)
    recipe = aa.draw_trivial(31_000, SIZE, generator=seeded())
    numbers, counts = np.unique(recipe.operations, return_counts=True)
    assert set(numbers) == kept
    np.testing.assert_allclose(counts / counts.sum(), 1 / 14, atol=0.01)
    turned = np.abs(recipe.strengths[recipe.operations == NAMES.index("rotate")])
    angles, counts = np.unique(turned.round(6), return_counts=True)
    np.testing.assert_allclose(angles, np.linspace(0, 135, 31), atol=1e-6)
    assert counts.min() > 0.4 * counts.mean()


DRAWS = {
    "policy": lambda n, g: aa.draw(n, aa.CIFAR10_POLICY, SIZE, generator=g),
    "random, 3 at 9": lambda n, g: aa.draw_random(n, 3, 9, SIZE, generator=g),
    "random, 2 at 14": lambda n, g: aa.draw_random(n, 2, 14, SIZE, generator=g),
    "trivial": lambda n, g: aa.draw_trivial(n, SIZE, generator=g),
}
APPLY = {
    "policy": lambda x, g: aa.apply(x, aa.CIFAR10_POLICY, generator=g),
    "random, 3 at 9": lambda x, g: aa.rand_augment(x, 3, 9, generator=g),
    "random, 2 at 14": lambda x, g: aa.rand_augment(x, 2, 14, generator=g),
    "trivial": lambda x, g: aa.trivial_augment(x, generator=g),
}


@pytest.mark.parametrize("what", DRAWS)
def test_whole_augmentations_are_those_of_torchvision_for_what_was_drawn(what):
    """Step by step, each from the image that ours has come to: rounding never adds up."""
    images = pictures(90)
    recipe = DRAWS[what](len(images), seeded(3))
    seen = differ = 0
    x = images
    for step in range(len(recipe.operations)):
        one = aa.Recipe(*(part[step : step + 1] for part in recipe))
        after = aa.operate(x, one)
        for i, number in enumerate(recipe.operations[step]):
            if number < 0:
                assert torch.equal(after[i], x[i])
                continue
            strength = float(recipe.strengths[step, i])
            differ += assert_alike(x[i], after[i], NAMES[number], strength)
            seen += x[i].numel()
        x = after
    assert differ < 0.005 * seen
    assert torch.equal(x, APPLY[what](images, seeded(3)))
    assert torch.equal(x, aa.operate(images, recipe))


@pytest.mark.parametrize("what", APPLY)
def test_images_of_a_batch_differ_and_the_generator_decides(what):
    images = pictures(3)[:1].expand(40, -1, -1, -1)
    first = APPLY[what](images, seeded(0))
    assert torch.equal(first, APPLY[what](images, seeded(0)))
    assert not torch.equal(first, APPLY[what](images, seeded(1)))
    assert len({tuple(image.flatten().tolist()) for image in first}) > 10
    generator = seeded(0)
    APPLY[what](images, generator)
    assert not torch.equal(first, APPLY[what](images, generator))
    torch.manual_seed(0)
    default = APPLY[what](images, None)
    torch.manual_seed(0)
    assert torch.equal(default, APPLY[what](images, None))


@pytest.mark.parametrize("what", APPLY)
def test_shape_type_device_and_input_are_kept(what):
    for size in ((40, 3, 20, 31), (0, 3, 8, 8), (9, 3, 2, 2)):
        images = torch.randint(256, size, dtype=torch.uint8, generator=seeded())
        before = images.clone()
        with torch.device("meta"):  # where a tensor without a device would land
            found = APPLY[what](images, seeded())
        assert found.shape == images.shape
        assert found.dtype == torch.uint8
        assert found.device == images.device
        assert torch.equal(images, before)


def test_no_operation_leaves_images_alone():
    images = pictures(6)
    assert torch.equal(aa.rand_augment(images, 0, 9), images)
    never = ((Operation("invert", 0.0, 0), Operation("rotate", 0.0, 9)),)
    assert torch.equal(aa.apply(images, never), images)
    always = ((Operation("invert", 1.0, 0), Operation("invert", 1.0, 9)),)
    assert torch.equal(aa.apply(images, always), images)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ((), "one or more sub-policies of two"),
        (((Operation("invert", 1, 0),),), "give pairs"),
        (((Operation("blur", 1, 0), Operation("invert", 1, 0)),), "no operation 'blur'"),
        (((Operation("invert", 1.2, 0), Operation("invert", 1, 0)),), "is 1.2: give 0 to 1"),
        (((Operation("invert", math.nan, 0), Operation("invert", 1, 0)),), "is nan: give 0 to 1"),
        (((Operation("rotate", 1, 10), Operation("invert", 1, 0)),), "is 10: give 0 to 9"),
        (((Operation("rotate", 1, -1), Operation("invert", 1, 0)),), "level of rotate must be"),
        (((Operation("rotate", 1, 2.5), Operation("invert", 1, 0)),), "level of rotate must be"),
        (((Operation("sample_pairing", 1, 0), Operation("invert", 1, 0)),), "without it"),
    ],
)
def test_what_is_no_policy_is_refused(policy, words):
    with pytest.raises(ValueError, match=words):
        aa.apply(pictures(3), policy)


def test_bad_images_and_values_are_refused():
    good = pictures(3)
    for images in (good.float() / 255, good[0], good[:, :1], good.int()):
        with pytest.raises(ValueError, match="give uint8 ones"):
            aa.apply(images, aa.CIFAR10_POLICY)
    for n, m, words in ((-1, 9, "n must be"), (2.5, 9, "n must be"), (2, -1, "m is -1: give 0")):
        with pytest.raises(ValueError, match=words):
            aa.rand_augment(good, n, m)
    for m in (31, math.nan):
        with pytest.raises(ValueError, match="give 0 to 30"):
            aa.rand_augment(good, 2, m)
    with pytest.raises(ValueError, match="draw one for as many"):
        aa.operate(good, aa.draw_trivial(2, SIZE))


def test_defaults_are_those_of_torchvision():
    expected = {"interpolation": "nearest", "generator": None}
    for function in (aa.apply, aa.rand_augment, aa.trivial_augment):
        assert defaults(function) == expected
    assert v2.AutoAugment().interpolation == "nearest"


# The search


def test_the_space_has_the_papers_size():
    assert aa.SIZES == (16, 11, 10)
    assert aa.space_size() == 1760**10
    assert f"{aa.space_size():.1e}" == "2.9e+32"
    assert len(aa.encode(aa.CIFAR10_POLICY)) == 150
    assert len(aa.encode(aa.random_policy(seeded()))) == 30


tokens = st.tuples(*(st.integers(0, size - 1) for size in (16, 11, 10) * 2))


@given(st.lists(tokens, min_size=1, max_size=5))
@settings(max_examples=50)
def test_tokens_and_policies_are_the_same(subpolicies):
    flat = list(itertools.chain(*subpolicies))
    policy = aa.decode(flat)
    assert len(policy) == len(subpolicies)
    assert aa.encode(policy).tolist() == flat
    assert aa.decode(aa.encode(policy)) == policy


def test_policies_keep_their_order_in_tokens():
    assert aa.encode(aa.CIFAR10_POLICY)[:6].tolist() == [6, 1, 7, 10, 2, 6]
    assert aa.decode(aa.encode(aa.CIFAR10_POLICY)) == aa.CIFAR10_POLICY


def test_bad_tokens_are_refused():
    good = aa.encode(aa.CIFAR10_POLICY[:1]).tolist()
    for bad in (
        [],
        good[:5],
        good[:3],
        [16, *good[1:]],
        [0, 11, *good[2:]],
        [*good[:5], 10],
        [-1] * 6,
    ):
        with pytest.raises(ValueError, match="are no policy: give six"):
            aa.decode(bad)
    between = ((Operation("invert", 0.25, 0), Operation("invert", 1, 0)),)
    with pytest.raises(ValueError, match="give whole tenths"):
        aa.encode(between)


def test_random_policies_cover_the_space():
    drawn = [aa.random_policy(seeded(seed), 20) for seed in range(100)]
    values = torch.stack([aa.encode(policy) for policy in drawn]).view(-1, 3)
    for column, size in zip(values.T, (15, 11, 10), strict=True):
        share = torch.bincount(column, minlength=size) / len(values)
        assert len(share) == size
        torch.testing.assert_close(share, torch.full((size,), 1 / size), rtol=0, atol=0.02)
    aa.apply(pictures(12), drawn[0], generator=seeded())
    assert len(aa.random_policy(seeded(0))) == 5
    assert aa.random_policy(seeded(0)) == aa.random_policy(seeded(0))
    assert aa.random_policy(seeded(0)) != aa.random_policy(seeded(1))
    with pytest.raises(ValueError, match="subpolicies must be"):
        aa.random_policy(seeded(0), 0)


TOY = (2, 3, 2)


def controller(**options) -> aa.Controller:
    found = aa.Controller(TOY, **{"lr": 0.1} | options)
    random = np.random.default_rng(0)
    found.logits = [torch.from_numpy(random.normal(size=size)) for size in TOY]
    return found


def enumerated(one: aa.Controller):
    """All tokens of the toy space, with their probability and a reward that couples them."""
    odds = [row.softmax(0) for row in one.logits]
    for chosen in itertools.product(*map(range, TOY)):
        p = math.prod(float(row[t]) for row, t in zip(odds, chosen, strict=True))
        yield torch.tensor(chosen), p, chosen[0] * 1.5 - chosen[1] ** 2 + 2 * chosen[0] * chosen[2]


def exact_gradient(one: aa.Controller) -> torch.Tensor:
    """Of the expected reward, by automatic differentiation of the enumeration."""
    logits = [row.clone().requires_grad_() for row in one.logits]
    odds = [row.softmax(0) for row in logits]
    total = sum(
        reward * math.prod(row[t] for row, t in zip(odds, chosen, strict=True))
        for chosen, _, reward in enumerated(one)
    )
    return torch.cat(torch.autograd.grad(total, logits))


@pytest.mark.parametrize("baseline", [0.0, 0.7, -5.0])
def test_the_gradient_is_exact_on_average_for_every_baseline(baseline):
    one = controller()
    one.baseline = baseline
    mean = sum(p * torch.cat(one.gradient(chosen, r)) for chosen, p, r in enumerated(one))
    torch.testing.assert_close(mean, exact_gradient(one), rtol=0, atol=1e-12)


def test_samples_average_to_the_exact_gradient():
    one, generator, n = controller(), seeded(), 3000
    one.baseline = 0.5
    rewards = {tuple(chosen.tolist()): r for chosen, _, r in enumerated(one)}
    drawn = [one.sample(generator) for _ in range(n)]
    found = torch.stack([torch.cat(one.gradient(t, rewards[tuple(t.tolist())])) for t in drawn])
    error = found.std(0) / math.sqrt(n)
    assert ((found.mean(0) - exact_gradient(one)).abs() < 5 * error).all()


def test_a_baseline_near_the_mean_cuts_the_variance():
    one = controller()
    mean = sum(p * reward for _, p, reward in enumerated(one))
    spread = []
    for baseline in (mean - 3, mean):
        one.baseline = baseline
        square = sum(
            p * torch.cat(one.gradient(chosen, r)).square().sum()
            for chosen, p, r in enumerated(one)
        )
        spread.append(float(square))
    assert spread[1] < 0.7 * spread[0]


def test_the_baseline_is_a_moving_average_that_the_sample_is_not_in():
    one = controller(lr=0.5, decay=0.75)
    before, chosen = [row.clone() for row in one.logits], torch.tensor([1, 2, 0])
    one.update(chosen, 2.0)
    assert one.baseline == 2.0
    assert all(torch.equal(row, old) for row, old in zip(one.logits, before, strict=True))
    one.update(chosen, 4.0)
    assert one.baseline == pytest.approx(0.75 * 2 + 0.25 * 4)
    for row, old, token in zip(one.logits, before, chosen, strict=True):
        expected = old - 0.5 * (4 - 2) * old.softmax(0)
        expected[token] += 0.5 * (4 - 2)
        torch.testing.assert_close(row, expected)
    assert aa.Controller([3], lr=1.0).decay == 0.95


def test_the_controller_finds_the_best_of_a_small_space():
    one, generator = aa.Controller(TOY, lr=0.3), seeded()
    rewards = {tuple(chosen.tolist()): r for chosen, _, r in enumerated(one)}
    for _ in range(400):
        chosen = one.sample(generator)
        one.update(chosen, rewards[tuple(chosen.tolist())])
    best = max(rewards, key=rewards.get)
    assert tuple(int(row.argmax()) for row in one.logits) == best
