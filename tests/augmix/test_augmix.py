"""AugMix: operations against Pillow, views against a loop over images, the loss against timm."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.special import rel_entr, softmax
from timm.loss import JsdCrossEntropy
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2 import functional as tv

from mini import augmix, data
from mini.augmix import operations
from mini.augmix.operations import OPERATIONS, operate
from tests.planted import defaults

NAMES = list(OPERATIONS)
TABLES = ("equalize", "posterize", "solarize")  # exact; the others may differ by one of 255 levels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 30) -> torch.Tensor:
    """uint8: digits on photographs, dim ones, noise of few and of many values, and plain ones."""
    photos = data.load("digits", n_train=10, n_test=max(n, 10)).test.images[:n]
    dim = photos[: n // 3] // 3 + 20
    random = torch.randint(256, (n // 3, 3, 32, 32), generator=seeded(), dtype=torch.uint8)
    plain = torch.tensor([0, 7, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 32, 32)
    return torch.cat([photos, dim, random, random // 64, plain])


def levels_for(images: torch.Tensor, largest: float = 10.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(-largest, largest, len(images))


def pillow(image: torch.Tensor, name: str, level: float) -> torch.Tensor:
    """One operation on one image [3, H, W], as the authors' code calls Pillow."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    width, height = picture.size
    bilinear = {"resample": Image.Resampling.BILINEAR}

    def affine(*six: float) -> Image.Image:
        return picture.transform((width, height), Image.Transform.AFFINE, six, **bilinear)

    strength = abs(level)
    result = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: ImageOps.posterize(picture, 4 - int(strength * 4 / 10)),
        "solarize": lambda: ImageOps.solarize(picture, 256 - int(strength * 256 / 10)),
        "rotate": lambda: picture.rotate(int(level * 30 / 10), **bilinear),
        "shear_x": lambda: affine(1, level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, level * 0.3 / 10, 1, 0),
        "translate_x": lambda: affine(1, 0, int(level * width / 3 / 10), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, int(level * height / 3 / 10)),
    }[name]()
    return torch.from_numpy(np.array(result)).permute(2, 0, 1)


def run_all(images: torch.Tensor, name: str, levels: np.ndarray) -> torch.Tensor:
    return operate(images, np.full(len(images), NAMES.index(name)), levels)


# Operations


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_of_pillow(name, size):
    images = pictures()[:, :, : size[0], : size[0]]
    images = torch.cat([images, images.flip(3)], dim=3)[..., : size[1]].contiguous()
    levels = levels_for(images)
    ours = run_all(images, name, levels)
    theirs = torch.stack(
        [pillow(image, name, level) for image, level in zip(images, levels, strict=True)]
    )
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= (name not in TABLES)
    assert (difference > 0).float().mean() < 0.004


def test_operations_are_those_of_torchvision():
    images = pictures()
    same, level = torch.equal, np.full(len(images), 3.0)
    assert same(run_all(images, "posterize", level), tv.posterize(images, 3))
    assert same(run_all(images, "equalize", level), tv.equalize(images))
    assert same(run_all(images, "solarize", level), tv.solarize(images, 256 - 76))
    moved = tv.affine(images, 0, [-3, 0], 1.0, [0.0, 0.0])
    assert same(run_all(images, "translate_x", level), moved)
    moved = tv.affine(images, 0, [0, -3], 1.0, [0.0, 0.0])
    assert same(run_all(images, "translate_y", level), moved)
    near = run_all(images, "autocontrast", level).int() - tv.autocontrast(images).int()
    assert near.abs().max() <= 1


def test_no_operation_overlaps_with_the_corruptions():
    allowed = {"autocontrast", "equalize", "posterize", "rotate", "solarize"}
    allowed |= {"shear_x", "shear_y", "translate_x", "translate_y"}
    assert set(augmix.OPERATIONS) == set(operations.OPERATIONS) == allowed
    drawn = augmix.draw(2000, generator=seeded()).operations
    assert set(drawn.ravel()) == set(range(9))


def test_what_is_left_out_is_never_drawn_and_the_rest_alike():
    left_out = ["autocontrast", "equalize"]
    drawn = augmix.draw(2000, generator=seeded(), without=left_out)
    counts = Counter(NAMES[i] for i in drawn.operations.ravel())
    assert set(counts) == set(NAMES) - set(left_out)
    np.testing.assert_allclose(
        np.array(list(counts.values())) / drawn.operations.size, 1 / 7, atol=0.01
    )
    images = pictures(9).double() / 255
    only = [name for name in NAMES if name != "solarize"]
    recipe = augmix.draw(len(images), 1, 1, generator=seeded(), without=only)
    found = augmix.augmix(images, width=1, depth=1, generator=seeded(), without=only)
    assert torch.equal(found, augmix.mix(images, recipe))
    assert set(recipe.operations.ravel()) == {NAMES.index("solarize")}
    for bad, words in (("rotate", "give a list"), (["blur"], "'blur': give"), (NAMES, "fewer")):
        with pytest.raises(ValueError, match=words):
            augmix.augmix(images, without=bad)


def test_each_image_gets_its_own_operation_at_its_own_level():
    images = pictures()
    numbers = np.arange(len(images)) % 10 - 1
    levels = levels_for(images)
    before = images.clone()
    found = operate(images, numbers, levels)
    assert torch.equal(images, before)
    for i, number in enumerate(numbers):
        if number < 0:
            assert torch.equal(found[i], images[i])
        else:
            alone = run_all(images[i : i + 1], NAMES[number], levels[i : i + 1])[0]
            assert torch.equal(found[i], alone)


def test_levels_give_the_papers_strengths():
    """At severity 3 and 32 pixels: at most 8 degrees, 3 pixels, 3 or 4 bits."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    counts = [len(run_all(ramp, "posterize", np.array([u])).unique()) for u in (0.1, 2.4, 2.6)]
    assert counts == [16, 16, 8]
    changed = [int((run_all(ramp, "solarize", np.array([u])) != ramp)[0, 0].sum()) for u in (1, 3)]
    assert changed == [25, 76]
    dot = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    dot[..., 10, 20] = 200
    moved = run_all(dot, "translate_x", np.array([2.9]))
    assert moved[0, 0].nonzero().tolist() == [[10, 17]]
    assert torch.equal(run_all(dot, "translate_y", np.array([-0.9])), dot)
    assert torch.equal(run_all(dot, "rotate", np.array([0.3])), dot)
    assert not torch.equal(run_all(dot, "rotate", np.array([0.34])), dot)


# Views


def loop(images: torch.Tensor, recipe: augmix.Recipe) -> torch.Tensor:
    """The views by plain loops and Pillow, in float64."""
    views = []
    k = recipe.weights.shape[1]
    for b, image in enumerate(images):
        x_aug = torch.zeros_like(image)
        for i in range(k):
            chain, number = (255 * image).round().byte(), b * k + i
            for step in range(recipe.depths[number]):
                name = NAMES[recipe.operations[step, number]]
                chain = pillow(chain, name, recipe.levels[step, number])
            x_aug += recipe.weights[b, i] * chain / 255
        views.append(recipe.m[b] * image + (1 - recipe.m[b]) * x_aug)
    return torch.stack(views)


@pytest.mark.parametrize("options", [{}, {"width": 1, "depth": 2}, {"width": 5, "severity": 10}])
def test_views_are_those_of_a_loop_over_images_with_pillow(options):
    images = pictures(12).double() / 255
    recipe = augmix.draw(len(images), generator=seeded(), **options)
    ours = augmix.augmix(images, generator=seeded(), **options)
    assert torch.equal(ours, augmix.mix(images, recipe))
    difference = (ours - loop(images, recipe)).abs()
    # One level more or less before equalize or solarize may be many levels after it.
    assert difference.mean() < 2e-4
    assert (difference > 0.01).double().mean() < 0.004


@given(st.integers(0, 1000), st.integers(1, 4), st.sampled_from([0.01, 0.3, 1.0, 50.0]))
@settings(max_examples=30)
def test_views_stay_in_the_convex_hull(seed, width, alpha):
    """Between 0 and 1, and normalising commutes with mixing."""
    images = torch.rand(3, 3, 16, 20, dtype=torch.float64, generator=seeded(seed))
    recipe = augmix.draw(3, width, None, alpha, 10, seeded(seed))
    np.testing.assert_allclose(recipe.weights.sum(1), 1)
    assert recipe.weights.min() >= 0
    assert 0 <= recipe.m.min() <= recipe.m.max() <= 1
    views = augmix.mix(images, recipe)
    assert views.min() >= -1e-12
    assert views.max() <= 1 + 1e-12
    chains = augmix.mix(images, recipe._replace(m=np.zeros(3)))
    m = torch.from_numpy(recipe.m).view(-1, 1, 1, 1)
    normalised = m * (images - 0.3) / 0.2 + (1 - m) * (chains - 0.3) / 0.2
    torch.testing.assert_close((views - 0.3) / 0.2, normalised)


def test_special_recipes():
    images = pictures(9).double() / 255
    n = len(images)
    recipe = augmix.draw(n, width=1, depth=1, generator=seeded())
    assert torch.equal(augmix.mix(images, recipe._replace(m=np.ones(n))), images)
    plain = operate((255 * images).round().byte(), recipe.operations[0], recipe.levels[0])
    found = augmix.mix(images, recipe._replace(m=np.zeros(n)))
    torch.testing.assert_close(found, plain.double() / 255)
    even = augmix.draw(n, width=3, alpha=1e9, generator=seeded())
    np.testing.assert_allclose(even.weights, 1 / 3, rtol=1e-3)
    np.testing.assert_allclose(even.m, 1 / 2, rtol=1e-3)


def test_what_is_drawn_has_the_papers_distribution():
    recipe = augmix.draw(20_000, generator=seeded())
    assert recipe.m.mean() == pytest.approx(1 / 2, abs=0.01)
    assert recipe.m.var() == pytest.approx(1 / 12, abs=0.002)
    np.testing.assert_allclose(recipe.weights.mean(0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(recipe.weights.var(0), 1 / 18, atol=0.002)
    assert sorted(Counter(recipe.depths)) == [1, 2, 3]
    assert recipe.depths.mean() == pytest.approx(2, abs=0.02)
    counts = np.bincount(recipe.operations.ravel())
    np.testing.assert_allclose(counts / counts.sum(), 1 / 9, atol=0.005)
    strength = np.abs(recipe.levels)
    assert 0.1 <= strength.min() <= strength.max() <= 3
    assert strength.mean() == pytest.approx(1.55, abs=0.01)
    assert (recipe.levels > 0).mean() == pytest.approx(0.5, abs=0.01)
    assert not np.array_equal(recipe.levels[0], recipe.levels[1])  # fresh for every call
    assert set(augmix.draw(50, depth=2, generator=seeded()).depths) == {2}


def test_images_of_a_batch_differ_and_the_generator_decides():
    images = (pictures(1)[:1].float() / 255).expand(8, -1, -1, -1)
    first = augmix.augmix(images, generator=seeded(0))
    assert torch.equal(first, augmix.augmix(images, generator=seeded(0)))
    assert not torch.equal(first, augmix.augmix(images, generator=seeded(1)))
    assert len({tuple(view.flatten().tolist()) for view in first}) == 8
    generator = seeded(0)
    augmix.augmix(images, generator=generator)
    assert not torch.equal(first, augmix.augmix(images, generator=generator))
    torch.manual_seed(0)
    default = augmix.augmix(images)
    torch.manual_seed(0)
    assert torch.equal(default, augmix.augmix(images))


def test_shape_type_device_and_input_are_kept():
    for images in (
        torch.rand(2, 3, 20, 31),
        torch.rand(5, 3, 8, 8).double(),
        torch.rand(0, 3, 8, 8),
    ):
        before = images.clone()
        with torch.device("meta"):  # where a tensor without a device would land
            views = augmix.augmix(images, generator=seeded())
        assert views.shape == images.shape
        assert views.dtype == images.dtype
        assert views.device == images.device
        assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, "width must be a whole number of at least 1"),
        ({"width": 2.5}, "width must be a whole number"),
        ({"depth": 0}, "depth must be a whole number of at least 1"),
        ({"depth": -1}, "depth must be a whole number"),
        ({"alpha": 0.0}, "alpha is 0.0: give a number above 0"),
        ({"alpha": math.inf}, "alpha is inf"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"severity": 0}, "severity is 0: give 0.1 to 10"),
        ({"severity": 11}, "severity is 11: give 0.1 to 10"),
        ({"severity": math.nan}, "severity is nan"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        augmix.augmix(torch.rand(2, 3, 8, 8), **options)


def test_images_of_another_kind_are_refused():
    good = torch.rand(2, 3, 8, 8)
    for bad in ((255 * good).byte(), good[0], good[:, :1], 3 * good - 1, good / 0):
        with pytest.raises(ValueError, match="images"):
            augmix.augmix(bad)


# The loss


def predictions(n: int = 3, b: int = 6, k: int = 10, scale: float = 3.0) -> list[torch.Tensor]:
    logits = scale * torch.randn(n, b, k, generator=seeded(), dtype=torch.float64)
    return list(logits)


def test_divergence_is_the_mean_of_kl_to_the_mean_by_scipy():
    p = softmax(torch.stack(predictions()).numpy(), axis=2)
    expected = rel_entr(p, p.mean(0)).sum(2).mean()
    assert float(augmix.jensen_shannon(*predictions())) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight", [12.0, 3.0])
def test_loss_is_that_of_timm(weight):
    """On a table of three predictions for each image, without label smoothing."""
    logits = predictions(scale=1.0)
    labels = torch.tensor([0, 3, 9, 9, 2, 5])
    theirs = JsdCrossEntropy(num_splits=3, alpha=weight, smoothing=0)(torch.cat(logits), labels)
    ours = cross_entropy(logits[0], labels) + weight * augmix.jensen_shannon(*logits)
    torch.testing.assert_close(ours, theirs)


class Affine(nn.Module):
    """A linear network that keeps what it was given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 64, 10).double()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.layer(images.flatten(1))


def test_objective_is_timms_loss_of_one_batch_of_clean_and_two_views():
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=seeded())
    labels = torch.tensor([0, 3, 9, 9, 2, 5])
    model, generator = Affine(), seeded(4)
    ours = augmix.objective(model, images, labels, generator=generator, severity=5)
    (batch,) = model.seen
    generator = seeded(4)
    views = [augmix.augmix(images, generator=generator, severity=5) for _ in range(2)]
    assert torch.equal(batch, torch.cat([images, *views]))
    theirs = JsdCrossEntropy(num_splits=3, alpha=12, smoothing=0)(model(batch), labels)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, model.layer.weight)
    (expected,) = torch.autograd.grad(theirs, model.layer.weight)
    torch.testing.assert_close(gradient, expected)
    augmix.objective(model, images, labels, views=1)
    assert len(model.seen[-1]) == 12


@given(st.integers(2, 5), st.integers(0, 1000), st.floats(0.1, 30))
@settings(max_examples=30)
def test_divergence_lies_between_zero_and_the_logarithm_of_n(n, seed, scale):
    logits = list(scale * torch.randn(n, 4, 6, generator=seeded(seed), dtype=torch.float64))
    value = augmix.jensen_shannon(*logits)
    assert -1e-12 <= value <= math.log(n) + 1e-12
    torch.testing.assert_close(augmix.jensen_shannon(*logits[::-1]), value)
    p = torch.stack(logits).softmax(2)
    entropy = torch.special.entr(p.mean(0)).sum(1) - torch.special.entr(p).sum(2).mean(0)
    torch.testing.assert_close(value, entropy.mean())


def test_certain_predictions_of_different_classes_reach_the_bound():
    logits = [1000.0 * torch.eye(3)[[i]] for i in range(3)]
    for one in logits:
        one.requires_grad_()
    value = augmix.jensen_shannon(*logits)
    assert float(value.detach()) == pytest.approx(math.log(3), rel=1e-6)
    value.backward()
    assert all(torch.isfinite(one.grad).all() for one in logits)


def test_a_logit_of_minus_infinity_is_a_probability_of_zero():
    """It was NaN, of 0 times infinity; the value is scipy's, the gradient that of a low logit."""
    excluded = [torch.tensor([[0.0, 0.0, -math.inf]]), torch.tensor([[0.0, 0.0, 0.0]])]
    low = [logits.clamp(min=-1000.0) for logits in excluded]  # exp(-1000) is 0 in float64
    p = [[0.5, 0.5, 0.0], [1 / 3] * 3]
    expected = rel_entr(p, np.mean(p, axis=0)).sum(1).mean()
    assert expected == pytest.approx(0.132, abs=5e-4)
    gradients = []
    for logits in (excluded, low):
        logits = [one.double().requires_grad_() for one in logits]
        value = augmix.jensen_shannon(*logits)
        assert float(value.detach()) == pytest.approx(expected, rel=1e-12)
        gradients.append(torch.autograd.grad(value, logits))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-15)
    both = augmix.jensen_shannon(excluded[0], excluded[0])
    assert float(both) == pytest.approx(0, abs=1e-6)
    for broken in (math.nan, math.inf):
        assert augmix.jensen_shannon(excluded[0], torch.tensor([[0.0, 0.0, broken]])).isnan()


def test_where_predictions_agree_neither_value_nor_gradient_is_there():
    logits = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
    value = augmix.jensen_shannon(logits, logits, logits)
    (gradient,) = torch.autograd.grad(value, logits)
    assert abs(value) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_predictions_of_different_shapes_or_too_few_are_refused():
    two = torch.randn(4, 10)
    for bad in ((), (two,), (two, two[:3]), (two, two[:, :5]), (two[0], two[0])):
        with pytest.raises(ValueError, match="give at least two tensors, all"):
            augmix.jensen_shannon(*bad)


def test_defaults_are_those_of_the_paper():
    expected = {"width": 3, "depth": None, "alpha": 1.0, "severity": 3, "generator": None}
    expected |= {"without": ()}
    assert defaults(augmix.augmix) == defaults(augmix.draw) == expected
    assert defaults(augmix.objective) == {"weight": 12.0, "views": 2}
