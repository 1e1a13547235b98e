"""mixup and its relatives: parity with torchvision, timm and torchbearer, identities, bad input."""

import math
from functools import partial

import numpy as np
import pytest
import timm.data.mixup
import timm.loss
import torch
import torchbearer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, one_hot
from torchbearer.callbacks.manifold_mixup import ManifoldMixup
from torchvision.transforms import v2

from mini import mixup
from mini.training import models


def batch(n: int = 6, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise images and one-hot targets in float64."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 4, 4, generator=draw, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=draw)
    return images, one_hot(labels, classes).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0, hidden: int = 8, classes: int = 4) -> nn.Sequential:
    """Four stages: flatten, two layers with an activation, a linear head."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(48, hidden), nn.ReLU()),
        nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh()),
        nn.Linear(hidden, classes),
    ).double()


# Parity


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixes_as_torchvision_does(alpha):
    images, targets = batch()
    theirs = v2.MixUp(alpha=alpha, num_classes=4)
    torch.manual_seed(3)
    expected = theirs(images.clone(), targets.clone())
    torch.manual_seed(3)
    lam = theirs.make_params([])["lam"]
    order = torch.arange(len(images)).roll(1)
    for ours, other in zip((images, targets), expected, strict=True):
        torch.testing.assert_close(mixup.mix(ours, lam, order), other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixes_as_timm_does(alpha):
    images, targets = batch()
    theirs = timm.data.mixup.Mixup(mixup_alpha=alpha, label_smoothing=0.0, num_classes=4)
    np.random.seed(3)  # noqa: NPY002 -- timm draws from the global generator
    expected = theirs(images.clone(), targets.argmax(dim=1))
    np.random.seed(3)  # noqa: NPY002
    lam, _ = theirs._params_per_batch()
    order = torch.arange(len(images)).flip(0)
    torch.testing.assert_close(mixup.mix(images, lam, order), expected[0], rtol=0, atol=1e-12)
    mixed = mixup.mix(targets, lam, order).float()  # theirs are float32
    torch.testing.assert_close(mixed, expected[1], rtol=0, atol=1e-6)


def test_loss_agrees_with_torch_and_timm():
    logits = torch.randn(5, 7, generator=seeded(), dtype=torch.float64)
    targets = torch.rand(5, 7, generator=seeded(1), dtype=torch.float64)
    targets /= targets.sum(dim=1, keepdim=True)
    loss = mixup.soft_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, cross_entropy(logits, targets), rtol=0, atol=1e-12)
    theirs = timm.loss.SoftTargetCrossEntropy()(logits, targets)
    torch.testing.assert_close(loss, theirs, rtol=0, atol=1e-12)


def test_a_logit_of_minus_infinity_costs_nothing_where_its_target_is_zero():
    """It was NaN, of 0 times infinity, in value and gradient."""
    targets = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64)
    found = []
    for lowest in (-math.inf, -1000.0):
        logits = torch.tensor([[1.0, 2.0, lowest]], dtype=torch.float64, requires_grad=True)
        value = mixup.soft_cross_entropy(logits, targets)
        found.append((value.detach(), *torch.autograd.grad(value, logits)))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    expected = math.log(math.exp(1) + math.exp(2)) - 0.25 - 2 * 0.75
    assert float(found[0][0]) == pytest.approx(expected, rel=1e-12)
    excluded = torch.tensor([[1.0, -math.inf, 0.0]], dtype=torch.float64)
    assert mixup.soft_cross_entropy(excluded, targets) == math.inf


# What is drawn


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0, 32.0])
def test_lambda_is_beta_distributed(alpha):
    generator = seeded()
    lams = [mixup.draw(1, alpha, generator=generator)[0] for _ in range(2000)]
    assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_partners_are_every_permutation_alike():
    generator = seeded()
    drawn = [tuple(mixup.draw(3, 1.0, generator=generator)[1].tolist()) for _ in range(3000)]
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_seed_decides_lambda_and_partners():
    first, again = (mixup.mixup(*batch(), 1.0, generator=seeded(5)) for _ in range(2))
    other = mixup.mixup(*batch(), 1.0, generator=seeded(6))
    for x, same in zip(first[:2], again[:2], strict=True):
        assert torch.equal(x, same)
    assert first[2] == again[2] != other[2]
    torch.manual_seed(5)
    a = mixup.mixup(*batch(), 1.0)
    torch.manual_seed(5)
    b = mixup.mixup(*batch(), 1.0)
    assert torch.equal(a[0], b[0])


# mixup


def compare_with_pairs(n: int, alpha: float, seed: int) -> None:
    """Every row by hand, from the same draw."""
    images, targets = batch(n, seed=seed)
    mixed, soft, lam = mixup.mixup(images, targets, alpha, generator=seeded(seed))
    drawn, order = mixup.draw(n, alpha, generator=seeded(seed))
    assert lam == drawn
    for i, j in enumerate(order.tolist()):
        for before, after in ((images, mixed), (targets, soft)):
            expected = lam * before[i] + (1 - lam) * before[j]
            torch.testing.assert_close(after[i], expected, rtol=0, atol=1e-12)


@given(st.integers(1, 9), st.floats(0.05, 40), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_mixed_row_is_a_pair_in_the_ratio_lambda(n, alpha, seed):
    compare_with_pairs(n, alpha, seed)


def test_mixup_here():
    compare_with_pairs(64, 1.0, 1)  # so many that no other permutation gives the same labels


def test_means_are_kept_and_variance_shrinks():
    images, targets = batch(4000)
    mixed, soft, lam = mixup.mixup(images, targets, 1.0, generator=seeded())
    torch.testing.assert_close(mixed.mean(0), images.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(soft.mean(0), targets.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(soft.sum(1), torch.ones(4000).double())
    shrunk = lam**2 + (1 - lam) ** 2
    assert float((mixed.var(0) / images.var(0)).mean()) == pytest.approx(shrunk, rel=0.02)


def test_alpha_0_changes_nothing():
    images, targets = batch()
    mixed, soft, lam = mixup.mixup(images, targets, 0, generator=seeded())
    assert lam == 1
    assert torch.equal(mixed, images)
    assert torch.equal(soft, targets)


def test_input_is_left_alone_and_types_are_kept():
    images, targets = batch()
    before = images.clone(), targets.clone()
    mixup.mixup(images, targets, 1.0)
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])
    mixed, soft, _ = mixup.mixup(images.float(), targets.float(), 1.0)
    assert mixed.dtype == soft.dtype == torch.float32


def test_mixing_targets_is_mixing_losses():
    images, targets = batch()
    model, order, lam = network(), torch.tensor([1, 2, 3, 4, 5, 0]), 0.3
    logits = model(mixup.mix(images, lam, order))
    labels = targets.argmax(1)
    parts = cross_entropy(logits, labels), cross_entropy(logits, labels[order])
    whole = mixup.soft_cross_entropy(logits, mixup.mix(targets, lam, order))
    losses = whole, lam * parts[0] + (1 - lam) * parts[1]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    ours, split = (
        torch.autograd.grad(loss, model.parameters(), retain_graph=True) for loss in losses
    )
    for a, b in zip(ours, split, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# Partners of the same label


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(max_examples=40)
def test_partners_of_the_same_label_have_it_and_are_a_permutation(labels, seed):
    labels = torch.tensor(labels)
    order = mixup.partners_of_the_same_label(labels, generator=seeded(seed))
    assert torch.equal(labels[order], labels)
    assert order.sort().values.tolist() == list(range(len(labels)))


def test_partners_of_the_same_label_are_every_such_permutation_alike():
    labels, generator = torch.tensor([1, 0, 1, 1], dtype=torch.uint8), seeded()
    drawn = [
        tuple(mixup.partners_of_the_same_label(labels, generator=generator).tolist())
        for _ in range(3000)
    ]
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (found[:, 1] == 1).all()
    assert stats.chisquare(counts).pvalue > 0.001


# CutMix


@pytest.mark.parametrize("seed", range(12))
def test_cuts_as_torchvision_does(seed):
    images, targets = cut_batch()
    theirs = v2.CutMix(alpha=1.0, num_classes=4)
    torch.manual_seed(seed)
    expected = theirs(images.clone(), targets.clone())
    torch.manual_seed(seed)
    drawn = theirs.make_params([images])
    x_1, y_1, x_2, y_2 = drawn["box"]
    order = torch.arange(len(images)).roll(1)
    pasted, lam = mixup.paste(images, order, slice(y_1, y_2), slice(x_1, x_2))
    torch.testing.assert_close(pasted, expected[0], rtol=0, atol=0)
    mixed = mixup.mix(targets, lam, order)
    torch.testing.assert_close(mixed, expected[1], rtol=0, atol=1e-12)
    assert lam == pytest.approx(drawn["lam_adjusted"], abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_the_box_is_that_of_torchvision(seed):
    images, _ = cut_batch()
    height, width = images.shape[-2:]
    torch.manual_seed(seed)
    x_1, y_1, x_2, y_2 = v2.CutMix(alpha=1.0, num_classes=4).make_params([images])["box"]
    torch.manual_seed(seed)  # as torchvision draws: lambda, column, row
    lam = torch.distributions.Beta(1.0, 1.0).sample(()).item()
    column, row = torch.randint(width, ()).item(), torch.randint(height, ()).item()
    assert mixup.box(lam, height, width, (row, column)) == (slice(y_1, y_2), slice(x_1, x_2))


def test_the_box_here():
    for seed in range(12):
        test_the_box_is_that_of_torchvision(seed)


def cut_batch() -> tuple[Tensor, Tensor]:
    """Images that are wider than they are high, and one-hot targets, in float64."""
    images = torch.randn(6, 3, 10, 14, generator=seeded(), dtype=torch.float64)
    return images, batch()[1]


def test_cutmix_keeps_lambda_of_the_pixels_and_of_the_label():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 9, 12)  # each image one number
    targets, generator, seen, middles = torch.eye(6), seeded(), [], []
    for _ in range(300):
        cut, soft, lam = mixup.cutmix(images, targets, 1.0, generator=generator)
        kept = (cut == images).float().mean(dim=(1, 2, 3))
        other = soft.argmax(1) if lam < 0.5 else (soft - 2 * torch.eye(6)).argmax(1)
        for i, j in enumerate(other.tolist()):
            if soft[i, i] == 1:  # its own partner, or an empty box
                continue
            assert kept[i].item() == pytest.approx(lam, abs=1e-6)
            assert soft[i, i].item() == pytest.approx(lam, abs=1e-6)
            assert soft[i, j].item() == pytest.approx(1 - lam, abs=1e-6)
            assert set(cut[i].unique().tolist()) <= {float(i), float(j)}
        seen.append(lam)
        middles.append((cut[:, 0] != images[:, 0]).float().mean(0))
    assert 0.5 < np.mean(seen) < 0.75  # 1/2, and more, as boxes are cut off at the edges
    covered = torch.stack(middles).mean(0)
    assert covered.min() > 0.05  # the box is anywhere


def test_cutmix_with_alpha_0_changes_nothing_and_leaves_its_input():
    images, targets = cut_batch()
    before = images.clone()
    cut, soft, lam = mixup.cutmix(images, targets, 0, generator=seeded())
    assert lam == 1
    assert torch.equal(cut, images)
    assert torch.equal(soft, targets)
    mixup.cutmix(images, targets, 1.0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(4, 9), (4, 6, 6), (4, 1, 3, 6, 6)])
def test_cutmix_refuses_what_is_no_batch_of_images(shape):
    """Of [B, D] it pasted rows of the batch itself."""
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]; for other shapes there is mixup"):
        mixup.cutmix(torch.rand(shape), torch.eye(4), 1.0)


def test_cutmix_refuses_vectors_here():
    test_cutmix_refuses_what_is_no_batch_of_images((4, 9))


@pytest.mark.parametrize(
    ("lam", "middle"), [(-0.1, (0, 0)), (1.1, (0, 0)), (math.nan, (0, 0)), (0.5, (4, 0))]
)
def test_a_box_that_is_none_is_refused(lam, middle):
    with pytest.raises(ValueError, match="expected a share in"):
        mixup.box(lam, 4, 6, middle)


# Manifold Mixup


def test_at_layer_0_it_is_mixup():
    images, targets = batch()
    model = network()
    logits, soft = mixup.manifold_mixup(
        model, images, targets, 2.0, layers=[0], generator=seeded(4)
    )
    mixed, expected, _ = mixup.mixup(images, targets, 2.0, generator=seeded(4))
    torch.testing.assert_close(logits, model(mixed), rtol=0, atol=1e-12)
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_states_and_labels_are_mixed_after_k_stages(k):
    images, targets = batch(64)  # no other permutation gives the same labels
    model = network()
    logits, soft = mixup.manifold_mixup(
        list(model), images, targets, 2.0, layers=[k], generator=seeded(1)
    )
    lam, order = mixup.draw(len(images), 2.0, generator=seeded(1))
    hidden = model[:k](images)
    expected = model[k:](lam * hidden + (1 - lam) * hidden[order])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft, lam * targets + (1 - lam) * targets[order])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_mixes_states_as_torchbearer_does(k, monkeypatch):
    """In value and gradient; its callback mixes what the module before layer k returns."""
    images, targets = batch()
    state = {torchbearer.MODEL: network(), torchbearer.X: images, torchbearer.Y_TRUE: targets}
    theirs = ManifoldMixup(lam=0.3).for_layers([str(k - 1)])
    theirs.on_start(state)
    theirs.on_sample(state)
    expected, order = state[torchbearer.MODEL](images), state[torchbearer.MIXUP_PERMUTATION]
    y, partners_y = state[torchbearer.Y_TRUE]
    monkeypatch.setattr(mixup, "draw", lambda *_, **__: (0.3, order))
    model = network()
    logits, soft = mixup.manifold_mixup(model, images, targets, 2.0, layers=[k])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft, 0.3 * y + 0.7 * partners_y, rtol=0, atol=1e-12)
    mixup.soft_cross_entropy(logits, soft).backward()
    mixup.soft_cross_entropy(expected, soft).backward()
    both = zip(model.parameters(), state[torchbearer.MODEL].parameters(), strict=True)
    for ours, other in both:
        torch.testing.assert_close(ours.grad, other.grad, rtol=0, atol=1e-12)


def watched(stage: nn.Module, seen: list[Tensor], h: Tensor) -> Tensor:
    seen.append(h)
    return stage(h)


def test_every_layer_of_the_set_is_drawn_and_no_other():
    images, targets = batch()
    model, generator, found = network(), seeded(), []
    for _ in range(100):
        seen = []
        stages = [partial(watched, stage, seen) for stage in model]
        mixup.manifold_mixup(stages, images, targets, 2.0, layers={0, 2}, generator=generator)
        plain = [images, model[:1](images), model[:2](images), model[:3](images)]
        same = [torch.equal(a, b) for a, b in zip(seen, plain, strict=True)]
        found.append(same.index(False))
    counts = np.bincount(found, minlength=4)
    assert counts[1] == counts[3] == 0
    assert stats.binomtest(int(counts[0]), 100).pvalue > 0.001


def test_gradients_reach_the_layers_before_the_mix():
    images, targets = batch()
    model = network()
    for detach in (False, True):
        model.zero_grad()
        stop = (lambda h: h.detach()) if detach else nn.Identity()
        stages = [model[0], model[1], stop, model[2], model[3]]
        logits, soft = mixup.manifold_mixup(stages, images, targets, 2.0, layers=[3])
        mixup.soft_cross_entropy(logits, soft).backward()
        before = model[1][0].weight.grad
        assert (before is None) if detach else (before.abs().sum() > 0)
        assert model[3].weight.grad.abs().sum() > 0


def test_mixing_before_a_linear_head_is_mixing_logits():
    images, targets = batch()
    model = network()
    logits, _ = mixup.manifold_mixup(model, images, targets, 2.0, layers=[3], generator=seeded())
    lam, order = mixup.draw(len(images), 2.0, generator=seeded())
    torch.testing.assert_close(logits, mixup.mix(model(images), lam, order), rtol=0, atol=1e-12)


def test_the_small_resnet_in_five_stages():
    torch.manual_seed(0)
    model = models.SmallResNet(4).eval()
    images = torch.randn(3, 3, 32, 32)
    stages = [
        lambda x: gelu(model.stem(x)),
        *model.stages,
        lambda h: model.head(h.mean(dim=(2, 3))),
    ]
    logits, _ = mixup.manifold_mixup(stages, images, torch.eye(3), 0, layers=[0, 1, 2, 3, 4])
    torch.testing.assert_close(logits, model(images))


# What one looks at


def test_between_agrees_with_finite_differences():
    images, targets = batch(5)
    labels, partners = targets.argmax(1), torch.tensor([1, 2, 3, 4, 0])
    model, lam = network(), 0.3
    misses, jacobians, norms = mixup.between(model, images, labels, partners, lam)
    pairs = [(i, j) for i, j in enumerate(partners.tolist()) if labels[i] != labels[j]]
    assert 0 < len(pairs) == len(misses) == len(norms) == len(jacobians)
    step = 1e-6
    for p, (i, j) in enumerate(pairs):
        x = lam * images[i] + (1 - lam) * images[j]
        shifts = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
        logits = model(torch.cat([x + shifts, x - shifts, x[None]]))
        up, down = logits[:-1].view(2, -1, 4)
        slope = ((up - down) / (2 * step)).norm().item()
        assert jacobians[p].item() == pytest.approx(slope, rel=1e-5)
        log_p = logits.log_softmax(1)
        loss = -(lam * log_p[:, labels[i]] + (1 - lam) * log_p[:, labels[j]])
        up, down = loss[:-1].view(2, -1)
        assert norms[p].item() == pytest.approx(((up - down) / (2 * step)).norm().item(), rel=1e-5)
        assert misses[p].item() == (log_p[-1].argmax() not in (labels[i], labels[j]))


def test_between_counts_misses():
    eye = torch.eye(3)
    labels, partners = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 2])  # the last: its own partner
    for favourite, missed in ((0, 0.0), (1, 0.0), (2, 1.0)):
        model = nn.Linear(3, 3)
        with torch.no_grad():
            model.bias.copy_(9 * eye[favourite])
        misses = mixup.between(model, torch.zeros(3, 3), labels, partners, 0.7).misses
        assert misses.tolist() == [missed, missed]


@pytest.mark.parametrize("centred", [False, True])
def test_singular_values_are_those_of_each_class(centred):
    hidden = torch.randn(40, 5, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(40) % 2
    found = mixup.singular_values(hidden, labels, centred=centred)
    assert found.shape == (2, 5)
    for label in (0, 1):
        states = hidden[labels == label].numpy()
        gram = (len(states) - 1) * np.cov(states.T) if centred else states.T @ states
        expected = np.sqrt(np.linalg.eigvalsh(gram)[::-1])
        np.testing.assert_allclose(found[label], expected, rtol=1e-9)


def test_singular_values_here():
    for centred in (False, True):
        test_singular_values_are_those_of_each_class(centred)


def test_a_class_of_few_samples_spans_few_directions():
    hidden = torch.randn(7, 5, generator=seeded(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])  # three of one class, four of the other
    for centred in (False, True):
        found = mixup.singular_values(hidden, labels, centred=centred)
        assert found.shape == (2, 5)
        assert ((found > 1e-12).sum(dim=1) + centred).tolist() == [3, 4]
        for label in (0, 1):
            states = hidden[labels == label].numpy()
            states = states - states.mean(axis=0) * centred
            square = np.vstack([states, np.zeros((5 - len(states), 5))])  # no new direction
            expected = np.linalg.svd(square, compute_uv=False)
            np.testing.assert_allclose(found[label], expected, rtol=1e-9, atol=1e-12)


# Bad input


@pytest.mark.parametrize("alpha", [-0.1, -1, math.inf, math.nan])
def test_alpha_out_of_range_is_refused(alpha):
    images, targets = batch()
    with pytest.raises(ValueError, match="expected a finite number >= 0"):
        mixup.mixup(images, targets, alpha)
    with pytest.raises(ValueError, match="expected a finite number >= 0"):
        mixup.manifold_mixup(network(), images, targets, alpha, layers=[0])


@pytest.mark.parametrize(
    ("images", "targets", "complaint"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2), r"torch.uint8.*float\(\) / 255"),
        (
            torch.zeros(2, 3, 4, 4),
            torch.tensor([0, 1]),
            r"int64 \[2\]: pass probabilities \[B, K\]",
        ),
        (torch.zeros(2, 3, 4, 4), torch.eye(2).long(), "one_hot"),
        (torch.zeros(2, 3, 4, 4), torch.eye(3), "2 images and 3 targets"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, 3), "0 images and 0 targets"),
    ],
)
def test_images_and_targets_that_cannot_be_mixed_are_refused(images, targets, complaint):
    with pytest.raises(ValueError, match=complaint):
        mixup.mixup(images, targets, 1.0)
    with pytest.raises(ValueError, match=complaint):
        mixup.cutmix(images, targets, 1.0)
    with pytest.raises(ValueError, match=complaint):
        mixup.manifold_mixup([nn.Flatten()], images, targets, 1.0, layers=[0])


def test_uint8_is_refused_here():
    with pytest.raises(ValueError, match="uint8"):
        mixup.mixup(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2), 1.0)


@pytest.mark.parametrize("layers", [[], [4], [-1], [0, 9]])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(ValueError, match="expected one or more of 0 to 3"):
        mixup.manifold_mixup(network(), *batch(), 1.0, layers=layers)


def test_loss_refuses_integer_labels():
    with pytest.raises(ValueError, match=r"logits \[2, 3\] and targets \[2\] differ"):
        mixup.soft_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_labels_are_whole_numbers_of_any_type():
    x, labels = torch.randn(12, 2, generator=seeded()), torch.arange(12) % 2
    expected = mixup.singular_values(x, labels)
    assert torch.equal(mixup.singular_values(x, labels.byte()), expected)
    model, partners = network().float().eval(), torch.arange(12).roll(1)
    images = torch.randn(12, *next(model.parameters()).shape[1:], generator=seeded())
    for found, same in zip(
        mixup.between(model, images, labels.byte(), partners, 0.3),
        mixup.between(model, images, labels, partners, 0.3),
        strict=True,
    ):
        assert torch.equal(found, same)
    for wrong in (labels.float(), labels[:, None]):
        with pytest.raises(ValueError, match="give whole numbers"):
            mixup.singular_values(x, wrong)
        with pytest.raises(ValueError, match="give whole numbers"):
            mixup.between(model, images, wrong, partners, 0.3)
