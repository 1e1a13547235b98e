"""Triplets: parity with torch and pytorch-metric-learning, identities, batches, bad input.

pytorch-metric-learning scales embeddings to length 1 unless it is told not to. Its distances are
torch.cdist's, which are computed as ours are up to 25 rows.
"""

import math
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from torch import Tensor, nn

from mini import metric_learning
from mini.metric_learning import Triplets, mine

PLAIN = LpDistance(normalize_embeddings=False)
rows_of = st.integers(1, 8), st.integers(1, 6)
margins = st.floats(0.01, 3)
seeds = st.integers(0, 2**32)
same = {"rtol": 0, "atol": 1e-12}  # float64, of numbers up to about 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def triplets_of(n: int = 8, dim: int = 5, seed: int = 0) -> list[Tensor]:
    """Anchors, positives and negatives in float64, which want a gradient."""
    rows = torch.randn(3, n, dim, generator=seeded(seed), dtype=torch.float64)
    return [row.requires_grad_() for row in rows]


def batch_of(n: int = 20, dim: int = 3, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings in float64 and labels, of which each class has two at least."""
    embeddings = torch.randn(n, dim, generator=seeded(seed), dtype=torch.float64)
    return embeddings, (torch.arange(n) % classes)[torch.randperm(n, generator=seeded(seed + 1))]


def compare(ours: Tensor, theirs: Tensor, by: list[Tensor]) -> None:
    """Values and gradients are the same."""
    torch.testing.assert_close(ours, theirs, **same)
    gradients = [torch.autograd.grad(loss, by, retain_graph=True) for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, **same)


# The paper's loss


def compare_with_the_paper(n: int, dim: int, seed: int) -> None:
    anchor, positive, negative = triplets_of(n, dim, seed)
    d = torch.stack([(anchor - row).square().sum(dim=1).sqrt() for row in (positive, negative)])
    theirs = (d.softmax(dim=0) - torch.tensor([[0.0], [1.0]])).square().sum(dim=0).mean()
    ours = metric_learning.triplet_softmax(anchor, positive, negative)
    compare(ours, theirs, [anchor, positive, negative])


@given(*rows_of, seeds)
@settings(max_examples=40)
def test_the_softmax_loss_is_the_paper_s(n, dim, seed):
    compare_with_the_paper(n, dim, seed)


def test_the_softmax_loss_here():
    compare_with_the_paper(8, 5, 0)


def softmax_at(delta: float) -> tuple[float, float]:
    """The loss and its slope where d+ is 3 + delta and d- is 3, all on a line."""
    positive = torch.tensor([[3 + delta]], dtype=torch.float64, requires_grad=True)
    anchor, negative = torch.zeros(1, 1).double(), torch.full((1, 1), -3.0).double()
    loss = metric_learning.triplet_softmax(anchor, positive, negative)
    return loss.item(), torch.autograd.grad(loss, positive)[0].item()


def test_value_and_slope_of_the_softmax_loss():
    for delta in (-2.5, -1.0, 0.0, math.log(2), 1.0, 4.0):
        s = 1 / (1 + math.exp(-delta))
        expected = (2 * s**2, 4 * s**2 * (1 - s))
        assert softmax_at(delta) == pytest.approx(expected, rel=0, abs=1e-12)
    assert softmax_at(0.0)[0] == 0.5
    slopes = [softmax_at(math.log(2) + step)[1] for step in (-0.01, 0.0, 0.01)]
    assert max(slopes) == slopes[1] == pytest.approx(16 / 27)
    assert softmax_at(40.0)[0] <= 2
    assert softmax_at(40.0)[1] < 1e-15


@given(*rows_of, seeds)
@settings(max_examples=40)
def test_a_triplet_turned_round_has_the_other_share(n, dim, seed):
    anchor, positive, negative = triplets_of(n, dim, seed)
    for a, p, m in zip(anchor, positive, negative, strict=True):
        one, other = (
            metric_learning.triplet_softmax(a[None], *pair)
            for pair in ((p[None], m[None]), (m[None], p[None]))
        )
        torch.testing.assert_close((one / 2).sqrt() + (other / 2).sqrt(), torch.ones(()).double())
        assert (one < 0.5) == ((a - p).norm() < (a - m).norm())


# The hinge


def compare_with_torch(n: int, dim: int, margin: float, seed: int) -> None:
    """torch adds `eps` to each coordinate's difference unless it is 0, and averages over all."""
    rows = triplets_of(n, dim, seed)
    losses = nn.TripletMarginLoss(margin, eps=0.0, reduction="none")(*rows)
    active = int((losses > 0).sum())
    ours = metric_learning.triplet_hinge(*rows, margin)
    compare(ours, losses.sum() / max(active, 1), rows)


@given(*rows_of, margins, seeds)
@settings(max_examples=60)
def test_the_hinge_is_torch_s_over_the_active_ones(n, dim, margin, seed):
    compare_with_torch(n, dim, margin, seed)


def test_the_hinge_here():
    losses = nn.TripletMarginLoss(0.5, eps=0.0, reduction="none")(*triplets_of())
    assert 0 < int((losses > 0).sum()) < len(losses)
    compare_with_torch(8, 5, 0.5, 0)


def compare_the_hinge_with_a_library(n: int, margin: float, seed: int) -> None:
    embeddings, labels = batch_of(n, seed=seed)
    embeddings.requires_grad_()
    rows = [embeddings[places] for places in mine(embeddings, labels, "all")]
    theirs = TripletMarginLoss(margin, distance=PLAIN)(embeddings, labels)
    compare(metric_learning.triplet_hinge(*rows, margin), theirs, [embeddings])


@given(st.integers(8, 25), margins, seeds)
@settings(max_examples=25)
def test_the_hinge_of_all_triplets_is_that_of_pytorch_metric_learning(n, margin, seed):
    compare_the_hinge_with_a_library(n, margin, seed)


def test_the_hinge_of_a_library_here():
    compare_the_hinge_with_a_library(20, 0.2, 0)


def test_plain_distances_scale_with_the_embeddings():
    rows = triplets_of()
    d = metric_learning.distance(*rows[:2])
    torch.testing.assert_close(metric_learning.distance(3 * rows[0], 3 * rows[1]), 3 * d, **same)
    x = torch.tensor([[3.0, 4.0]])
    assert metric_learning.distance(x, torch.zeros(1, 2)).tolist() == [5.0]


def test_a_collapsed_network_has_half_or_the_margin_and_no_gradient():
    for rows, loss, value in (
        (torch.ones(3, 6, 4).double(), metric_learning.triplet_softmax, 0.5),
        (torch.ones(3, 6, 4).double(), lambda *r: metric_learning.triplet_hinge(*r, 0.3), 0.3),
    ):
        rows.requires_grad_()
        found = loss(*rows)
        assert found.item() == pytest.approx(value, rel=0, abs=1e-15)
        assert torch.equal(torch.autograd.grad(found, rows)[0], torch.zeros_like(rows))


def test_a_duplicate_leaves_the_gradient_a_number():
    anchor, positive, negative = triplets_of()
    positive = anchor.detach().clone().requires_grad_()
    rows = [anchor, positive, negative]
    for loss in (
        metric_learning.triplet_softmax(*rows),
        metric_learning.triplet_hinge(*rows, 9.0),
    ):
        for gradient in torch.autograd.grad(loss, rows, retain_graph=True):
            assert gradient.isfinite().all()


def test_without_an_active_triplet_the_loss_is_0_and_can_be_stepped():
    far = torch.zeros(4, 2), torch.zeros(4, 2), torch.full((4, 2), 9.0)
    for rows in (far, [row[:0] for row in far]):
        rows = [row.clone().requires_grad_() for row in rows]
        loss = metric_learning.triplet_hinge(*rows, 0.1)
        loss.backward()
        assert loss.item() == 0
        assert all(torch.equal(row.grad, torch.zeros_like(row)) for row in rows)
    empty = [torch.zeros(0, 2, requires_grad=True)] * 3
    assert metric_learning.triplet_softmax(*empty).item() == 0


@pytest.mark.parametrize("margin", [0, -0.1, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match=f"margin={margin}: expected a finite number above 0"):
        metric_learning.triplet_hinge(*triplets_of(), margin)
    x, y, _ = triplets_of()
    with pytest.raises(ValueError, match=f"margin={margin}: expected a finite number above 0"):
        metric_learning.contrastive(x, y, torch.ones(8, dtype=torch.bool), margin)


# Pairs


def pairs_of(n: int = 12, dim: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    x, y, _ = triplets_of(n, dim, seed)
    return x, y, torch.rand(n, generator=seeded(seed)) < 0.4


def compare_pairs_with_torch(n: int, dim: int, margin: float, seed: int) -> None:
    """torch's hinge of a distance is plain: its square is that of the paper, d^2 for d itself."""
    x, y, is_same = pairs_of(n, dim, seed)
    d = nn.functional.pairwise_distance(x, y, eps=0.0)
    signs = torch.where(is_same, 1.0, -1.0).double()
    losses = nn.functional.hinge_embedding_loss(d, signs, margin, reduction="none").square()
    theirs = sum(part.mean() if len(part) else 0 for part in (losses[is_same], losses[~is_same]))
    compare(metric_learning.contrastive(x, y, is_same, margin), theirs, [x, y])


@given(*rows_of, margins, seeds)
@settings(max_examples=60)
def test_the_loss_of_pairs_is_torch_s_squared(n, dim, margin, seed):
    compare_pairs_with_torch(n, dim, margin, seed)


def test_the_loss_of_pairs_here():
    x, y, is_same = pairs_of()
    d = metric_learning.distance(x, y)[~is_same]
    assert 0 < int((d < 1.5).sum()) < len(d)
    assert 2 < int(is_same.sum()) < 6
    compare_pairs_with_torch(12, 2, 1.5, 0)


def test_pairs_of_one_kind_alone_have_a_loss_and_a_gradient():
    x, y, _ = pairs_of()
    for is_same in (torch.ones(12).bool(), torch.zeros(12).bool()):
        loss = metric_learning.contrastive(x, y, is_same, 9.0)
        assert loss > 0
        assert all(rows.isfinite().all() for rows in torch.autograd.grad(loss, (x, y)))
    empty = torch.zeros(0, 2)
    assert metric_learning.contrastive(empty, empty, torch.zeros(0).bool(), 1.0).item() == 0


@pytest.mark.parametrize("is_same", [torch.ones(8), torch.ones(1).bool(), torch.ones(8, 1).bool()])
def test_what_does_not_say_which_pairs_are_alike_is_refused(is_same):
    x, y, _ = triplets_of()
    with pytest.raises(ValueError, match=r"is_same is torch.\w+ \[.*: bool \[8\]"):
        metric_learning.contrastive(x, y, is_same, 1.0)


@pytest.mark.parametrize("shapes", [((4, 3), (1, 3)), ((4, 3), (4, 2)), ((3,), (3,))])
def test_embeddings_that_do_not_fit_are_refused(shapes):
    x, y = map(torch.zeros, shapes)
    for rows in ((x, y, x), (x, x, y)):
        if x.shape == y.shape or rows[1].shape != rows[2].shape:
            with pytest.raises(ValueError, match=r"give floats \[B, D\], as many rows of each"):
                metric_learning.triplet_softmax(*rows)
            with pytest.raises(ValueError, match="give floats"):
                metric_learning.triplet_hinge(*rows, 0.1)


def test_whole_numbers_are_no_embeddings():
    with pytest.raises(ValueError, match="give floats"):
        metric_learning.distance(*[torch.zeros(2, 2).long()] * 2)


# Mining


def as_set(triplets: tuple[Tensor, ...]) -> set[tuple[int, ...]]:
    """The triplets, none of them twice."""
    rows = list(zip(*(places.tolist() for places in triplets), strict=True))
    assert len(set(rows)) == len(rows)
    return set(rows)


def compare_mining(n: int, classes: int, seed: int) -> None:
    embeddings, labels = batch_of(n, classes=classes, seed=seed)
    every = TripletMarginMiner(margin=1e9, type_of_triplets="all", distance=PLAIN)
    assert as_set(mine(embeddings, labels, "all")) == as_set(every(embeddings, labels))
    hardest = BatchHardMiner(distance=PLAIN)(embeddings, labels)
    assert as_set(mine(embeddings, labels, "hard")) == as_set(hardest)
    farther = TripletMarginMiner(margin=1e9, type_of_triplets="semihard", distance=PLAIN)
    d = torch.cdist(embeddings, embeddings)
    nearest = {}
    for a, p, m in as_set(farther(embeddings, labels)):
        if (a, p) not in nearest or d[a, m] < d[a, nearest[a, p]]:
            nearest[a, p] = m
    expected = {(a, p, m) for (a, p), m in nearest.items()}
    assert as_set(mine(embeddings, labels, "semihard")) == expected


@given(st.integers(8, 25), st.integers(2, 4), seeds)
@settings(max_examples=40)
def test_mining_is_that_of_pytorch_metric_learning(n, classes, seed):
    compare_mining(n, classes, seed)


def test_mining_here():
    compare_mining(20, 4, 0)


def test_all_triplets_are_as_many_as_there_are():
    for classes, images in ((2, 2), (4, 5), (3, 7)):
        n = classes * images
        found = mine(*batch_of(n, classes=classes), "all")
        assert len(found.anchor) == n * (images - 1) * (n - images)


LINE = torch.tensor([[0.0], [1.0], [3.0], [4.0], [9.0]]).double()


def test_what_is_mined_on_a_line():
    labels = torch.tensor([0, 1, 0, 1, 2])
    assert as_set(mine(LINE, labels, "hard")) == {(0, 2, 1), (1, 3, 0), (2, 0, 3), (3, 1, 2)}
    assert as_set(mine(LINE, labels, "semihard")) == {(0, 2, 3), (1, 3, 4), (2, 0, 4), (3, 1, 0)}


def test_one_image_of_a_class_is_no_anchor_but_a_negative():
    labels = torch.tensor([5, 7, 7, 6, 6])
    found = [mine(LINE, labels, kind) for kind in metric_learning.KINDS]
    for triplets in found:
        assert isinstance(triplets, Triplets)
        assert all(places.dtype == torch.int64 for places in triplets)
        assert 0 not in triplets.anchor
        assert 0 not in triplets.positive
        assert (labels[triplets.anchor] == labels[triplets.positive]).all()
        assert (triplets.anchor != triplets.positive).all()
        assert (labels[triplets.anchor] != labels[triplets.negative]).all()
    assert 0 in found[0].negative
    assert 0 in found[1].negative


def test_a_pair_without_a_farther_negative_is_left_out():
    labels = torch.tensor([0, 1, 1, 1, 0])  # the ends of the line
    found = mine(LINE, labels, "semihard")
    assert not set(found.anchor.tolist()) & {0, 4}
    ends = torch.tensor([0, 1, 0])
    assert len(mine(torch.tensor([[0.0], [1.0], [3.0]]), ends, "semihard").anchor) == 0


def test_of_equals_all_are_semihard_none():
    embeddings, labels = torch.ones(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    assert len(mine(embeddings, labels, "semihard").anchor) == 0
    assert len(mine(embeddings, labels, "hard").anchor) == 6


def test_mining_leaves_no_trace_in_the_gradient():
    embeddings, labels = batch_of()
    embeddings.requires_grad_()
    for kind in metric_learning.KINDS:
        assert not any(places.requires_grad for places in mine(embeddings, labels, kind))
    before = labels.clone()
    mine(embeddings, labels, "hard")
    assert torch.equal(labels, before)


def test_mining_takes_other_types():
    embeddings, labels = batch_of()
    expected = mine(embeddings.bfloat16().float(), labels, "hard")
    assert as_set(mine(embeddings.bfloat16(), labels.to(torch.uint8), "hard")) == as_set(expected)


@pytest.mark.parametrize("kind", metric_learning.KINDS)
def test_a_batch_without_a_triplet_is_refused(kind):
    embeddings = torch.randn(4, 2)
    for labels in (torch.arange(4), torch.zeros(4).long()):
        with pytest.raises(ValueError, match="hold no triplet: give two of a class and one of an"):
            mine(embeddings, labels, kind)


def test_bad_input_of_mining_is_refused():
    embeddings, labels = batch_of()
    with pytest.raises(ValueError, match="kind='hardest': expected one of all, hard, semihard"):
        mine(embeddings, labels, "hardest")
    with pytest.raises(ValueError, match="give one label a row"):
        mine(embeddings, labels[:, None], "all")
    with pytest.raises(ValueError, match="give whole numbers"):
        mine(embeddings, labels.double(), "all")
    with pytest.raises(ValueError, match="some are not finite"):
        mine(embeddings.where(labels[:, None] > 0, math.nan), labels, "hard")


# Random triplets


def test_random_triplets_are_triplets_and_all_come_up():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    drawn = metric_learning.random_triplets(labels, 5000, generator=seeded())
    assert isinstance(drawn, Triplets)
    every = as_set(mine(torch.zeros(7, 1), labels, "all"))
    assert set(zip(*(places.tolist() for places in drawn), strict=True)) == every
    assert 5 not in drawn.anchor  # the only one of its class


def test_random_triplets_are_uniform():
    """Of 6 anchors with a partner, of their positives, and of their negatives."""
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    n = 60_000
    drawn = metric_learning.random_triplets(labels, n, generator=seeded())
    seen = drawn.anchor.bincount(minlength=7) / n
    assert (seen[labels != 2] - 1 / 6).abs().max() < 5 * math.sqrt(5 / 36 / n)
    of_0 = drawn.anchor == 0
    for partners, places in ((drawn.positive, (1, 6)), (drawn.negative, (2, 3, 4, 5))):
        shares = partners[of_0].bincount(minlength=7)[list(places)] / of_0.sum()
        assert (shares - 1 / len(places)).abs().max() < 0.03


def test_a_seed_decides_the_triplets():
    labels = torch.arange(40) % 5
    one, again, other = (
        metric_learning.random_triplets(labels, 30, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.stack(one), torch.stack(again))
    assert not torch.equal(torch.stack(one), torch.stack(other))
    before = torch.random.get_rng_state()
    metric_learning.random_triplets(labels, 30, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_triplets_that_there_are_not_are_refused():
    for labels in (torch.arange(4), torch.zeros(4).long()):
        with pytest.raises(ValueError, match="hold no triplet: give two of a class and one of an"):
            metric_learning.random_triplets(labels, 3, generator=seeded())
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        metric_learning.random_triplets(torch.arange(8) % 2, 0, generator=seeded())


# Batches


def batches_of(labels: Tensor, classes: int, images: int, batches: int, seed: int = 0) -> list:
    numbers = {"classes": classes, "images": images, "batches": batches}
    return list(metric_learning.class_balanced_batches(labels, **numbers, generator=seeded(seed)))


@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 3), st.integers(0, 5), seeds)
@settings(max_examples=40)
def test_a_batch_holds_as_many_different_images_of_each_class(p, k, more, spare, seed):
    """Of p + `more` classes of unequal sizes, from k to k + `spare`."""
    sizes = [k + (spare * i) // (p + more) for i in range(p + more)]
    labels = torch.cat([torch.full((size,), 3 * i) for i, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=seeded(seed))]
    for chosen in batches_of(labels, p, k, 7, seed):
        assert chosen.dtype == torch.int64
        assert len(set(chosen.tolist())) == len(chosen) == p * k
        of = labels[chosen].view(p, k)
        assert (of == of[:, :1]).all()
        assert len(set(of[:, 0].tolist())) == p


def test_a_deck_is_dealt_out_before_it_is_shuffled_again():
    labels = torch.arange(40) % 4
    dealt = torch.cat(batches_of(labels, 4, 5, 6))
    rounds = dealt.view(3, 40)  # 10 of a class: all in two batches
    assert all(torch.equal(one.sort().values, torch.arange(40)) for one in rounds)
    for k in range(4):
        orders = [[i for i in one.tolist() if i % 4 == k] for one in rounds]
        assert all(one != other for one, other in pairwise(orders))


def test_every_class_gets_its_turn():
    labels = torch.arange(100) % 10
    drawn = labels[torch.stack(batches_of(labels, 3, 2, 200))][:, ::2].flatten().bincount()
    assert drawn.min() > 35  # of 60 in the mean, with a deviation of 6.5
    first = {tuple(sorted(labels[c][::2].tolist())) for c in batches_of(labels, 3, 2, 50)}
    assert len(first) > 20


def test_a_seed_decides_the_batches():
    labels = torch.arange(60) % 6
    before = torch.random.get_rng_state()
    one, again, other = (torch.stack(batches_of(labels, 3, 4, 5, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    many = {"classes": 3, "images": 4, "batches": 10**9}
    lazy = metric_learning.class_balanced_batches(labels, **many, generator=seeded(1))
    assert torch.equal(torch.stack(list(islice(lazy, 5))), one)


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ((1, 2, 1), "classes must be a whole number of at least 2"),
        ((2, 1, 1), "images must be a whole number of at least 2"),
        ((2, 2, 0), "batches must be a whole number of at least 1"),
        ((2, 2.0, 1), "images must be a whole number"),
        ((4, 2, 1), "of 3 classes of which one has 5 images: ask for fewer"),
        ((2, 6, 1), "of 3 classes of which one has 5 images: ask for fewer"),
    ],
)
def test_batches_that_there_are_not_are_refused_at_once(numbers, complaint):
    labels = torch.tensor([0] * 5 + [1] * 6 + [2] * 7)
    named = dict(zip(("classes", "images", "batches"), numbers, strict=True))
    with pytest.raises(ValueError, match=complaint):
        metric_learning.class_balanced_batches(labels, **named, generator=seeded())
    with pytest.raises(ValueError, match="of 0 classes of which one has 0 images"):
        batches_of(labels[:0], 2, 2, 1)


# Distances


def test_equal_rows_are_exactly_0_apart():
    rows = 5 + 3 * torch.randn(40, 64, generator=seeded())
    assert not metric_learning.distances(rows, rows).diagonal().any()
    twins = torch.cat([rows, rows])
    d = metric_learning.distances(rows, twins)
    assert torch.equal(d[:, :40], d[:, 40:])


def test_distances_are_those_of_rows():
    x, y, _ = triplets_of(30)
    d = metric_learning.distances(x, y)
    torch.testing.assert_close(d.diagonal(), metric_learning.distance(x, y), **same)
    assert metric_learning.distances(x.half(), y.half()).dtype == torch.float32
