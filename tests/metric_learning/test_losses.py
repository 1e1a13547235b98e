"""Losses of a batch: parity with pytorch-metric-learning and torch, identities, bad input.

pytorch-metric-learning scales embeddings to length 1 unless it is told not to. Its distances are
torch.cdist's, which are computed as ours are up to 25 rows.
"""

import math
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as library
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mini.metric_learning import losses, mine, triplet_hinge
from tests.metric_learning.test_triplets import LINE, PLAIN, batch_of, seeded

sizes = st.integers(8, 25), st.integers(2, 5)
temperatures, scales, margins = st.floats(0.05, 2), st.floats(0.5, 64), st.floats(0, 1)
seeds = st.integers(0, 2**32)
# float64 of logits up to 64, and of gradients as long as 64 / |x|
same = {"rtol": 1e-10, "atol": 1e-10}
FACTORIES = {
    "normalized softmax": lambda k=4, dim=3, seed=9: losses.NormalizedSoftmax(
        k, dim, 0.3, generator=seeded(seed)
    ),
    "cosface": lambda k=4, dim=3, seed=9: losses.CosFace(k, dim, 8, 0.35, generator=seeded(seed)),
    "proxy-nca": lambda k=4, dim=3, seed=9: losses.ProxyNCA(k, dim, 5, generator=seeded(seed)),
}
every_module = pytest.mark.parametrize("name", FACTORIES)


def learnable(n: int = 20, dim: int = 3, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    embeddings, labels = batch_of(n, dim, classes, seed)
    return embeddings.requires_grad_(), labels


def compare(
    ours: Tensor, theirs: Tensor, by: list[Tensor], by_theirs: list[Tensor], turned: bool = False
) -> None:
    """Values and gradients are the same; of the last, `turned` round in theirs."""
    torch.testing.assert_close(ours, theirs, **same)
    one = torch.autograd.grad(ours, by, retain_graph=True)
    *other, last = torch.autograd.grad(theirs, by_theirs, retain_graph=True)
    torch.testing.assert_close(one, (*other, last.T if turned else last), **same)


def compare_modules(
    ours: nn.Module, theirs: nn.Module, n: int = 20, classes: int = 4, seed: int = 0
) -> None:
    """Of the library's module with our weights, in three dimensions; its `W` is [D, K]."""
    embeddings, labels = learnable(n, 3, classes, seed)
    (mine,), ((name, other),) = ours.double().parameters(), theirs.named_parameters()
    turned = name == "W"
    other.data = (mine.T if turned else mine).detach().clone()
    values = [module(embeddings, labels) for module in (ours, theirs)]
    compare(*values, [embeddings, mine], [embeddings, other], turned)


# Pairs


def compare_pairs(n: int, classes: int, near: float, far: float, seed: int) -> None:
    embeddings, labels = learnable(n, classes=classes, seed=seed)
    theirs = library.ContrastiveLoss(near, far, distance=PLAIN)(embeddings, labels)
    ours = losses.contrastive_of_all(embeddings, labels, near, far)
    compare(ours, theirs, [embeddings], [embeddings])
    rows = normalize(embeddings)
    theirs = library.ContrastiveLoss(near, far)(embeddings, labels)
    ours = losses.contrastive_of_all(rows, labels, near, far)
    compare(ours, theirs, [embeddings], [embeddings])


@given(*sizes, st.floats(-0.5, 1), st.floats(0.01, 2), seeds)
@settings(max_examples=40)
def test_pairs_are_those_of_pytorch_metric_learning(n, classes, near, more, seed):
    compare_pairs(n, classes, near, max(near, 0) + more, seed)


def test_pairs_here():
    embeddings, labels = batch_of()
    d = torch.cdist(embeddings, embeddings)
    is_same = labels[:, None] == labels
    for active in ((d > 0.8)[is_same], (d < 1.5)[~is_same]):
        assert 0 < int(active.sum()) < len(active) - len(labels)
    compare_pairs(20, 4, 0.8, 1.5, 0)


def test_pairs_on_a_line():
    """Two pairs of a class, 3 apart; of others, three are within 2.5: 1, 2 and 1 apart."""
    labels = torch.tensor([0, 1, 0, 1, 2])
    found = losses.contrastive_of_all(LINE, labels, 1.0, 2.5)
    assert found.item() == pytest.approx(2 + 3.5 / 3, rel=0, abs=1e-12)


def test_a_negative_margin_of_positives_has_the_gradient_of_none():
    embeddings, labels = learnable()
    none, negative = (
        losses.contrastive_of_all(embeddings, labels, margin, 0.4) for margin in (0.0, -0.2)
    )
    torch.testing.assert_close(negative, none + 0.2, **same)
    slopes = [torch.autograd.grad(loss, embeddings)[0] for loss in (none, negative)]
    torch.testing.assert_close(*slopes, **same)


def test_pairs_without_an_active_one_are_0_and_can_be_stepped():
    rows = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0]], requires_grad=True)
    loss = losses.contrastive_of_all(rows, torch.tensor([0, 0, 1]), 0.2, 0.5)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(rows.grad, torch.zeros_like(rows))


def test_a_collapsed_network_has_the_margin_and_no_gradient():
    rows = torch.ones(6, 2, requires_grad=True)
    loss = losses.contrastive_of_all(rows, torch.arange(6) % 2, 0.0, 0.5)
    loss.backward()
    assert loss.item() == 0.5
    assert torch.equal(rows.grad, torch.zeros_like(rows))


def test_pairs_of_one_kind_alone_have_a_loss():
    embeddings, _ = batch_of()
    d = torch.cdist(embeddings, embeddings)[~torch.eye(20).bool()]
    found = losses.contrastive_of_all(embeddings, torch.zeros(20).long(), 0.0, 0.5)
    torch.testing.assert_close(found, d.mean(), **same)
    found = losses.contrastive_of_all(embeddings, torch.arange(20), 0.0, 9.0)
    torch.testing.assert_close(found, 9 - d.mean(), **same)
    assert losses.contrastive_of_all(embeddings[:1], torch.zeros(1).long(), 0.0, 9.0) == 0


@pytest.mark.parametrize(
    "margins", [(0.5, 0.0), (0.5, 0.5), (-0.2, 0.0), (0.0, math.inf), (math.nan, 1.0)]
)
def test_margins_of_pairs_that_are_none_are_refused(margins):
    with pytest.raises(ValueError, match="the second above 0 and above the first"):
        losses.contrastive_of_all(*batch_of(), *margins)


# Triplets


@settings(deadline=None)
@given(*sizes, st.floats(0.01, 2), seeds)
def test_triplets_of_all_are_the_hinge_of_those_mined(n, classes, margin, seed):
    embeddings, labels = learnable(n, classes=classes, seed=seed)
    triplets = mine(embeddings, labels, "all")
    mined = triplet_hinge(*(embeddings[places] for places in triplets), margin)
    found = losses.triplet_of_all(embeddings, labels, margin)
    torch.testing.assert_close(found, mined, **same)
    slopes = [torch.autograd.grad(loss, embeddings)[0] for loss in (found, mined)]
    torch.testing.assert_close(*slopes, **same)


def test_triplets_of_all_here():
    """On a line: of 12 triplets those within the margin of 1.5."""
    labels = torch.tensor([0, 1, 0, 1, 2])
    places = LINE[:, 0].tolist()
    hinges = [
        abs(places[a] - places[p]) - abs(places[a] - places[n]) + 1.5
        for a, p in ((0, 2), (2, 0), (1, 3), (3, 1))
        for n in range(5)
        if labels[n] != labels[a]
    ]
    active = [value for value in hinges if value > 0]
    assert 0 < len(active) < len(hinges) == 12
    found = losses.triplet_of_all(LINE, labels, 1.5)
    assert found.item() == pytest.approx(fmean(active), rel=0, abs=1e-12)


# NT-Xent


def compare_nt_xent(n: int, classes: int, temperature: float, seed: int) -> None:
    embeddings, labels = learnable(n, classes=classes, seed=seed)
    theirs = library.NTXentLoss(temperature)(embeddings, labels)
    ours = losses.nt_xent(embeddings, labels, temperature)
    compare(ours, theirs, [embeddings], [embeddings])


@given(*sizes, temperatures, seeds)
@settings(max_examples=40)
def test_nt_xent_is_that_of_pytorch_metric_learning(n, classes, temperature, seed):
    compare_nt_xent(n, classes, temperature, seed)


def test_nt_xent_here():
    compare_nt_xent(19, 4, 0.2, 0)  # three of a class, and four or five of the others


def test_nt_xent_is_the_mean_over_pairs_as_it_is_written():
    x, labels = batch_of(11, classes=3)
    e = torch.exp(normalize(x) @ normalize(x).T / 0.3).tolist()
    of = labels.tolist()
    terms = [
        -math.log(e[a][p] / (e[a][p] + sum(e[a][m] for m in range(11) if of[m] != of[a])))
        for a in range(11)
        for p in range(11)
        if a != p and of[a] == of[p]
    ]
    assert losses.nt_xent(x, labels, 0.3).item() == pytest.approx(fmean(terms), rel=1e-12)


@given(st.integers(2, 9), temperatures, seeds)
@settings(max_examples=30)
def test_with_two_views_of_each_it_is_that_of_simclr(n, temperature, seed):
    x, _ = learnable(2 * n, seed=seed)
    logits = normalize(x) @ normalize(x).T / temperature
    others = logits.masked_fill(torch.eye(2 * n).bool(), -math.inf)
    theirs = cross_entropy(others, torch.arange(2 * n).roll(n))
    ours = losses.nt_xent(x, torch.arange(n).repeat(2), temperature)
    compare(ours, theirs, [x], [x])


def test_nt_xent_of_a_collapsed_network_is_that_of_chance():
    for classes, images in ((2, 2), (4, 5)):
        n = classes * images
        rows, labels = torch.ones(n, 3).double(), torch.arange(n) % classes
        found = losses.nt_xent(rows, labels, 0.1).item()
        assert found == pytest.approx(math.log(1 + n - images), rel=0, abs=1e-12)


def test_at_a_low_temperature_a_wrong_pair_is_still_pulled():
    """The library's exp is 0 in float32, and so is its gradient: it stops where most is wrong."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 2])
    ours, theirs = losses.nt_xent(rows, labels, 0.005), library.NTXentLoss(0.005)(rows, labels)
    assert ours.item() == pytest.approx(200 / math.sqrt(1.01), rel=1e-5)
    assert torch.autograd.grad(ours, rows)[0].norm() > 100
    assert theirs.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny), rel=1e-5)
    assert not torch.autograd.grad(theirs, rows)[0].any()


def test_a_batch_without_a_triplet_is_refused():
    for labels in (torch.arange(4), torch.zeros(4).long()):
        with pytest.raises(ValueError, match="hold no triplet"):
            losses.nt_xent(torch.randn(4, 2), labels, 0.1)
        with pytest.raises(ValueError, match="hold no triplet"):
            losses.triplet_of_all(torch.randn(4, 2), labels, 0.1)


# Classes


def compare_normalized_softmax(n: int, classes: int, temperature: float, seed: int) -> None:
    ours = losses.NormalizedSoftmax(classes, 3, temperature, generator=seeded(seed + 2))
    theirs = library.NormalizedSoftmaxLoss(classes, 3, temperature)
    compare_modules(ours, theirs, n, classes, seed)


@given(*sizes, temperatures, seeds)
@settings(max_examples=40)
def test_normalized_softmax_is_that_of_pytorch_metric_learning(n, classes, temperature, seed):
    compare_normalized_softmax(n, classes, temperature, seed)


def test_normalized_softmax_here():
    compare_normalized_softmax(20, 4, 0.2, 0)


def compare_cosface(n: int, classes: int, scale: float, margin: float, seed: int) -> None:
    ours = losses.CosFace(classes, 3, scale, margin, generator=seeded(seed + 2))
    theirs = library.CosFaceLoss(classes, 3, margin=margin, scale=scale)
    compare_modules(ours, theirs, n, classes, seed)


@given(*sizes, scales, margins, seeds)
@settings(max_examples=40)
def test_cosface_is_that_of_pytorch_metric_learning(n, classes, scale, margin, seed):
    compare_cosface(n, classes, scale, margin, seed)


def test_cosface_here():
    compare_cosface(20, 4, 8.0, 0.35, 0)


def compare_proxy_nca(n: int, classes: int, scale: float, seed: int) -> None:
    ours = losses.ProxyNCA(classes, 3, scale, generator=seeded(seed + 2))
    theirs = library.ProxyNCALoss(classes, 3, softmax_scale=scale)
    compare_modules(ours, theirs, n, classes, seed)


@given(*sizes, scales, seeds)
@settings(max_examples=40)
def test_proxy_nca_is_that_of_pytorch_metric_learning(n, classes, scale, seed):
    compare_proxy_nca(n, classes, scale, seed)


def test_proxy_nca_here():
    compare_proxy_nca(20, 4, 5.0, 0)


def with_weights(module: nn.Module, weights: Tensor) -> nn.Module:
    (of_it,) = module.double().parameters()
    of_it.data = weights
    return module


def three_of_one(scale: float, seed: int) -> list[nn.Module]:
    """The three losses with the same weights, which they share, at settings that make them one."""
    generator = seeded(seed)
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return [
        with_weights(module, weights)
        for module in (
            losses.NormalizedSoftmax(4, 3, 1 / scale, generator=generator),
            losses.CosFace(4, 3, scale, 0.0, generator=generator),
            losses.ProxyNCA(4, 3, scale / 2, generator=generator),
        )
    ]


@given(scales, seeds)
@settings(max_examples=30)
def test_three_losses_with_a_vector_a_class_are_one(scale, seed):
    modules = three_of_one(scale, seed)
    embeddings, labels = learnable(seed=seed)
    first = modules[0]
    for other in modules[1:]:
        compare(
            first(embeddings, labels),
            other(embeddings, labels),
            [embeddings, *first.parameters()],
            [embeddings, *other.parameters()],
        )


def test_the_paper_s_proxies_leave_the_own_one_out_of_the_sum():
    """Its loss is log(exp(L) - 1) of an image's loss L here: below 0 where L is below log 2."""
    proxy_nca = FACTORIES["proxy-nca"]().double()
    embeddings, labels = batch_of()
    d = torch.cdist(normalize(embeddings), normalize(proxy_nca.proxies)).square()
    for i, label in enumerate(labels.tolist()):
        others = torch.arange(4) != label
        paper = 5 * d[i, label] + torch.logsumexp(-5 * d[i, others], dim=0)
        ours = proxy_nca(embeddings[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(ours.expm1().log(), paper, **same)


def test_a_margin_is_asked_of_the_own_class_alone():
    """With the embedding on its weight, and one other at a right angle: both logits are known."""
    cosface = with_weights(FACTORIES["cosface"](2, 2), torch.eye(2).double())
    found = cosface(torch.tensor([[3.0, 0.0]]).double(), torch.tensor([0])).item()
    assert found == pytest.approx(math.log1p(math.exp(-8 * (1 - 0.35))), rel=1e-12)
    cosface.margin = 1.0  # as much as the two cosines differ by
    found = cosface(torch.tensor([[3.0, 0.0]]).double(), torch.tensor([0])).item()
    assert found == pytest.approx(math.log(2), rel=1e-12)


# What the losses share


@given(st.floats(0.01, 100), seeds)
@settings(max_examples=30)
def test_only_directions_count(factor, seed):
    embeddings, labels = batch_of(seed=seed)
    lengths = factor ** torch.rand(20, 1, generator=seeded(seed), dtype=torch.float64)
    calls: list[Callable] = [lambda x: losses.nt_xent(x, labels, 0.2)]
    for make in FACTORIES.values():
        module = make().double()
        calls.append(lambda x, module=module: module(x, labels))
        before = module(embeddings, labels)
        (weights,) = module.parameters()
        weights.data *= factor
        torch.testing.assert_close(module(embeddings, labels), before, **same)
    for loss in calls:
        torch.testing.assert_close(loss(lengths * embeddings), loss(embeddings), **same)


def test_a_row_of_zeros_is_at_cosine_0_to_all_and_leaves_the_gradient_a_number():
    x, labels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
    assert not losses.cosines(x, x)[0].any()
    x.requires_grad_()
    found = [losses.nt_xent(x, labels, 0.2)]
    found += [make(2, 2)(x, labels) for make in FACTORIES.values()]
    for loss in found:
        assert torch.autograd.grad(loss, x)[0].isfinite().all()


def test_other_types_are_computed_in_float32_and_weights_keep_theirs():
    embeddings, labels = batch_of()
    short = embeddings.bfloat16()
    expected = losses.nt_xent(short.float(), labels, 0.2)
    assert torch.equal(losses.nt_xent(short, labels.to(torch.uint8), 0.2), expected)
    for make in FACTORIES.values():
        module = make()
        assert torch.equal(module(short, labels), module(short.float(), labels))
        assert module(embeddings, labels).dtype == torch.float64
        assert next(module.parameters()).dtype == torch.float32


@every_module
def test_weights_are_drawn_by_the_generator_and_learned(name):
    before = torch.random.get_rng_state()
    one, again, other = (next(FACTORIES[name](50, 40, seed).parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == (50, 40)
    assert one.mean().item() == pytest.approx(0, abs=0.12)  # five deviations
    assert one.std().item() == pytest.approx(1, abs=0.08)
    module = FACTORIES[name]()
    module(*batch_of(dim=3)).backward()
    assert [float(weights.grad.norm()) > 0 for weights in module.parameters()] == [True]


@every_module
def test_labels_and_embeddings_that_do_not_fit_the_weights_are_refused(name):
    module = FACTORIES[name]()
    embeddings, labels = batch_of()
    for wrong in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match="numbers and classes 0 to 3: number the classes"):
            module(embeddings, wrong)
    with pytest.raises(ValueError, match="the weights are for 3 numbers"):
        module(embeddings[:, :2], labels)


def test_bad_input_is_refused():
    embeddings, labels = batch_of()
    calls = [make() for make in FACTORIES.values()]
    calls.append(lambda *batch: losses.nt_xent(*batch, 0.1))
    calls.append(lambda *batch: losses.contrastive_of_all(*batch, 0.0, 0.5))
    calls.append(lambda *batch: losses.triplet_of_all(*batch, 0.5))
    for loss in calls:
        with pytest.raises(ValueError, match="give whole numbers"):
            loss(embeddings, labels.double())
        with pytest.raises(ValueError, match="give one label a row"):
            loss(embeddings, labels[:, None])
        with pytest.raises(ValueError, match="give one label a row"):
            loss(embeddings[:0], labels[:0])
        with pytest.raises(ValueError, match="some are not finite"):
            loss(embeddings.where(labels[:, None] > 0, math.nan), labels)


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
def test_a_temperature_or_scale_that_is_none_is_refused(value):
    here = {"generator": seeded()}
    with pytest.raises(ValueError, match=f"margin={value}: expected a finite number above 0"):
        losses.triplet_of_all(*batch_of(), value)
    with pytest.raises(ValueError, match=f"temperature={value}: expected a finite number above 0"):
        losses.nt_xent(*batch_of(), value)
    with pytest.raises(ValueError, match=f"temperature={value}: expected a finite number above 0"):
        losses.NormalizedSoftmax(4, 3, value, **here)
    with pytest.raises(ValueError, match=f"scale={value}: expected a finite number above 0"):
        losses.CosFace(4, 3, value, 0.1, **here)
    with pytest.raises(ValueError, match=f"scale={value}: expected a finite number above 0"):
        losses.ProxyNCA(4, 3, value, **here)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_would_help_is_refused(margin):
    with pytest.raises(ValueError, match=f"margin={margin}: expected a finite number, 0 or more"):
        losses.CosFace(4, 3, 8.0, margin, generator=seeded())


@every_module
def test_weights_of_no_classes_are_refused(name):
    with pytest.raises(ValueError, match="k must be a whole number of at least 2"):
        FACTORIES[name](1)
    with pytest.raises(ValueError, match="dim must be a whole number of at least 1"):
        FACTORIES[name](4, 0)
