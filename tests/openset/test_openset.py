"""Open-world learning: parity with torch, scipy, scikit-learn and pytorch-ood, and brute force."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.detector import EnergyBased, MaxLogit, MaxSoftmax
from pytorch_ood.detector import OpenMax as TheirOpenMax
from pytorch_ood.metrics import oscr_score
from pytorch_ood.metrics.functional import fpr_at_tpr
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn
from torch.nn.functional import binary_cross_entropy, one_hot

from mini import data, openset
from mini.openset import discovery
from tests.planted import defaults

SEEDS = st.integers(0, 2**32 - 1)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_dataset(per_class: int = 10, classes: int = 5) -> data.Dataset:
    """Images filled with ten times their class's number, in the test set plus five."""
    labels = torch.arange(classes).repeat(per_class)
    images = (labels * 10).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    train, test = data.Split(images.contiguous(), labels), data.Split(images + 5, labels)
    names = tuple("abcde"[:classes])
    zero, one = torch.zeros(3), torch.ones(3)
    return data.Dataset("tiny", "tiny", train, test, names, zero, one, mirror=False)


# Seen and unseen classes


def test_open_labels_are_places_in_the_list_of_seen_classes():
    labels = torch.tensor([3, 0, 7, 3, 2])
    assert openset.open_labels(labels, [7, 3]).tolist() == [1, -1, 0, 1, -1]
    with pytest.raises(ValueError, match=r"seen=\[1, 1\] names a class twice"):
        openset.open_labels(labels, [1, 1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_open_labels_of_any_whole_type_are_the_same(dtype):
    found = openset.open_labels(torch.tensor([3, 0, 7, 3, 2], dtype=dtype), [7, 3])
    assert (found.dtype, found.tolist()) == (torch.int64, [1, -1, 0, 1, -1])
    for other in (torch.tensor([0.5, 1]), torch.tensor([True]), torch.tensor([[1]])):
        with pytest.raises(ValueError, match="give whole numbers"):
            openset.open_labels(other, [1])


def test_labels_in_bytes_make_the_same_closed_world():
    """255, the byte of -1, was a seen class: the world trained on unseen ones."""
    whole = tiny_dataset()
    narrow = replace(whole, train=whole.train._replace(labels=whole.train.labels.byte()))
    worlds = [openset.closed_world(d, [4, 1], held_out=0.2, seed=0) for d in (whole, narrow)]
    for part in ("train", "test"):
        wide, bytes_ = (getattr(world, part) for world in worlds)
        assert bytes_.images.equal(wide.images)
        assert bytes_.labels.equal(wide.labels)
        assert set(bytes_.labels.tolist()) == {0, 1}


def test_a_closed_world_of_float_images_is_refused():
    whole = tiny_dataset()
    floats = replace(whole, train=whole.train._replace(images=whole.train.images / 255))
    with pytest.raises(ValueError, match="give uint8 ones"):
        openset.closed_world(floats, [0, 1], held_out=0.2, seed=0)


@pytest.mark.parametrize("seen", [[4, 1], [0, 2, 3]])
def test_nothing_unseen_is_left_in_a_closed_world(seen):
    whole = tiny_dataset()
    world = openset.closed_world(whole, seen, held_out=0.2, seed=0)
    assert len(world.train.labels) == 8 * len(seen)
    assert len(world.test.labels) == 2 * len(seen)
    for split in (world.train, world.test):
        assert not (split.images % 10).any()  # no test image
        true = split.images[:, 0, 0, 0].long() // 10
        assert set(true.tolist()) <= set(seen)
        assert torch.equal(torch.tensor(seen)[split.labels], true)
    both = torch.cat([world.train.images, world.test.images])[:, 0, 0, 0]
    counts = (both // 10).bincount(minlength=5).tolist()
    assert counts == [10 * (label in seen) for label in range(5)]
    assert world.classes == tuple("abcde"[label] for label in seen)


def test_the_unseen_do_not_move_mean_and_std():
    whole = tiny_dataset()
    images = whole.train.images.clone()
    images[whole.train.labels == 2] = 255
    changed = replace(whole, train=data.Split(images, whole.train.labels))
    a, b = (openset.closed_world(d, [0, 4], held_out=0.5, seed=1) for d in (whole, changed))
    assert torch.equal(a.mean, b.mean)
    assert torch.equal(a.std, b.std)
    pixels = a.train.images / 255
    torch.testing.assert_close(a.mean, pixels.mean(dim=(0, 2, 3)))


def test_a_closed_world_is_the_same_for_the_same_seed():
    worlds = [openset.closed_world(tiny_dataset(), [1, 2], held_out=0.3, seed=s) for s in (5, 5, 6)]
    assert torch.equal(worlds[0].train.labels, worlds[1].train.labels)
    assert not torch.equal(worlds[0].train.labels, worlds[2].train.labels)


def test_classes_without_images_and_odd_shares_are_refused():
    whole = tiny_dataset()
    with pytest.raises(ValueError, match="name one or more of 0 to 4, each once"):
        openset.closed_world(whole, [0, 9], held_out=0.2, seed=0)
    some = whole.train.labels != 3
    without = replace(whole, train=data.Split(whole.train.images[some], whole.train.labels[some]))
    with pytest.raises(ValueError, match="have none of class d"):
        openset.closed_world(without, [0, 3], held_out=0.2, seed=0)
    with pytest.raises(ValueError, match="held_out=1: expected a share"):
        openset.closed_world(whole, [0], held_out=1, seed=0)


# Loss


@given(SEEDS, st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=25)
def test_the_loss_is_the_sum_of_binary_cross_entropies(seed, k, n):
    logits = 4 * torch.randn(n, k, generator=random(seed), dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=random(seed + 1))
    targets = one_hot(labels, k).double()
    expected = binary_cross_entropy(logits.sigmoid(), targets, reduction="sum") / n
    torch.testing.assert_close(openset.one_vs_rest_loss(logits, labels), expected)


def test_the_loss_is_torchs_here():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    logits.requires_grad_()
    targets = one_hot(labels, 3).double()
    theirs = nn.BCEWithLogitsLoss(reduction="sum")(logits, targets) / 2
    ours = openset.one_vs_rest_loss(logits, labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_the_loss_stays_finite_where_sigmoids_saturate():
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = openset.one_vs_rest_loss(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 400
    assert logits.grad.tolist() == [[-1.0, 1.0]]


# Thresholds


@given(SEEDS, st.floats(0.1, 4))
@settings(max_examples=25)
def test_thresholds_are_scipys_fit_of_the_doubled_sample(seed, alpha):
    p = torch.rand(30, 3, generator=random(seed), dtype=torch.float64)
    labels = torch.arange(3).repeat(10)
    found = openset.fit_thresholds(p, labels, alpha=alpha)
    for k in range(3):
        own = p[labels == k, k].numpy()
        doubled = np.concatenate([own, 2 - own])
        mean, sigma = stats.norm.fit(doubled, floc=1)
        assert mean == 1
        assert abs(doubled.mean() - 1) < 1e-14
        assert math.isclose(found[k], max(0.5, 1 - alpha * sigma), abs_tol=1e-12)


def test_thresholds_are_scipys_fit_here():
    p = torch.tensor([[0.95, 0.3], [0.85, 0.2], [0.90, 0.1], [0.4, 0.99], [0.1, 0.97]]).double()
    labels = torch.tensor([0, 0, 0, 1, 1])
    expected = []
    for own in (p[:3, 0], p[3:, 1]):
        sigma = stats.norm.fit(np.concatenate([own, 2 - own]), floc=1)[1]
        expected.append(max(0.5, 1 - 2.5 * sigma))
    found = openset.fit_thresholds(p, labels, alpha=2.5)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert openset.fit_thresholds(p, labels).tolist() == pytest.approx(
        [max(0.5, 1 - 3 * math.sqrt((0.05**2 + 0.15**2 + 0.1**2) / 3)), 1 - 3 * 0.0005**0.5]
    )


@given(SEEDS, st.floats(0, 5), st.floats(0, 5))
@settings(max_examples=25)
def test_a_larger_alpha_never_raises_a_threshold(seed, a, b):
    p = torch.rand(20, 2, generator=random(seed))
    labels = torch.arange(2).repeat(10)
    low, high = sorted((a, b))
    strict, lax = (openset.fit_thresholds(p, labels, alpha=alpha) for alpha in (low, high))
    assert ((strict >= lax) & (lax >= 0.5) & (strict <= 1)).all()


def test_the_limits_of_alpha():
    p = torch.full((4, 2), 0.75)
    labels = torch.tensor([0, 1, 0, 1])
    assert openset.fit_thresholds(p, labels, alpha=0).tolist() == [1, 1]
    for alpha in (1 / (2 * 0.25), 3, 100):
        assert openset.fit_thresholds(p, labels, alpha=alpha).tolist() == [0.5, 0.5]
    assert openset.fit_thresholds(torch.ones(4, 2), labels, alpha=1e9).tolist() == [1, 1]


def test_bad_scores_are_refused():
    p, labels = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"in \[0, 1\]: give probabilities"):
        openset.fit_thresholds(4 * p - 2, labels)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        openset.fit_thresholds(p * math.nan, labels)
    with pytest.raises(ValueError, match="alpha=-1: expected"):
        openset.fit_thresholds(p, labels, alpha=-1)
    with pytest.raises(ValueError, match=r"No examples of class \[1\]"):
        openset.fit_thresholds(p, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\[4, 2\] and \[3\]: expected \[N, K\]"):
        openset.fit_thresholds(p, labels[:3])


@pytest.mark.parametrize("labels", [[0, -1], [0, 2]])
def test_unseen_classes_are_refused_in_training_and_in_fitting(labels):
    with pytest.raises(ValueError, match="the seen classes are 0 to 1: leave the unseen"):
        openset.one_vs_rest_loss(torch.zeros(2, 2), torch.tensor(labels))
    with pytest.raises(ValueError, match="the seen classes are 0 to 1: leave the unseen"):
        openset.fit_thresholds(torch.ones(2, 2), torch.tensor(labels))


# Rule


def test_only_what_every_class_refuses_is_unknown():
    p = torch.tensor([[0.69, 0.2], [0.55, 0.65], [0.8, 0.9], [0.72, 0.71]])
    thresholds = torch.tensor([0.7, 0.6])
    assert openset.predict_open(p.logit(), thresholds).tolist() == [-1, 1, 1, 0]


def test_another_class_may_vouch_for_the_likeliest_one():
    # Class 0 is likelier but refuses; class 1 accepts: the paper's rule answers 0, its code -1.
    p = torch.tensor([[0.75, 0.60]])
    assert openset.predict_open(p.logit(), torch.tensor([0.8, 0.55])).tolist() == [0]


@given(SEEDS)
@settings(max_examples=25)
def test_the_rule_is_its_definition(seed):
    logits = 3 * torch.randn(8, 3, generator=random(seed))
    thresholds = 0.5 + torch.rand(3, generator=random(seed + 1)) / 2
    for z, found in zip(logits.tolist(), openset.predict_open(logits, thresholds), strict=True):
        p = [1 / (1 + math.exp(-value)) for value in z]
        refused = all(p[i] < float(thresholds[i]) for i in range(3))
        assert found == (-1 if refused else p.index(max(p)))


def test_what_is_rejected_grows_as_alpha_falls():
    p = torch.rand(40, 4, generator=random(0))
    labels = torch.arange(4).repeat(10)
    logits = 3 * torch.randn(200, 4, generator=random(1))
    rejected = [
        openset.predict_open(logits, openset.fit_thresholds(p**0.2, labels, alpha=alpha)) == -1
        for alpha in (4.0, 2.0, 1.0, 0.5, 0.0)
    ]
    for fewer, more in pairwise(rejected):
        assert (more | ~fewer).all()
    assert rejected[0].sum() < rejected[-1].sum()


def test_thresholds_must_be_probabilities_one_a_class():
    with pytest.raises(ValueError, match="must be in"):
        openset.predict_open(torch.zeros(2, 2), torch.tensor([0.5, 2.0]))
    with pytest.raises(ValueError, match=r"\[2, 2\] and \[3\]: expected \[N, K\] and \[K\]"):
        openset.predict_open(torch.zeros(2, 2), torch.full((3,), 0.5))


# Measures


def brute_force_oscr(known, correct, unknown) -> float:
    """The curve, point by point: every score is a threshold; area by trapezoids."""
    points = [(0.0, 0.0)]
    for threshold in sorted({*known, *unknown}, reverse=True):
        accepted = sum(s >= threshold and c for s, c in zip(known, correct, strict=True))
        points.append((sum(s >= threshold for s in unknown) / len(unknown), accepted / len(known)))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


@st.composite
def scored(draw):
    """Scores with many ties, and marks."""
    score = st.integers(0, 6).map(float)
    known = draw(st.lists(score, min_size=1, max_size=12))
    correct = draw(st.lists(st.booleans(), min_size=len(known), max_size=len(known)))
    return known, correct, draw(st.lists(score, min_size=1, max_size=12))


@given(scored())
@settings(max_examples=100)
def test_oscr_is_the_area_by_brute_force_and_pytorch_oods(case):
    known, correct, unknown = case
    found = openset.oscr(known, correct, unknown)
    assert found == pytest.approx(brute_force_oscr(known, correct, unknown), abs=1e-12)
    # There, a label of -1 means unknown, and a higher score means more surely unknown.
    predictions = torch.zeros(len(known) + len(unknown), dtype=torch.long)
    labels = torch.tensor([0 if c else 1 for c in correct] + [-1] * len(unknown))
    theirs = oscr_score(-torch.tensor(known + unknown), predictions, labels)
    assert found == pytest.approx(theirs, abs=1e-9)


@given(scored())
@settings(max_examples=100)
def test_oscr_is_accuracy_times_auroc_of_what_is_correct(case):
    known, correct, unknown = map(np.array, case)
    found = openset.oscr(known, correct, unknown)
    is_known = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    auroc = roc_auc_score(is_known, np.r_[known, unknown])
    assert -1e-12 <= found <= min(correct.mean(), auroc) + 1e-12
    if correct.any():
        is_known = np.r_[np.ones(correct.sum()), np.zeros(len(unknown))]
        auroc = roc_auc_score(is_known, np.r_[known[correct], unknown])
        assert found == pytest.approx(correct.mean() * auroc)


def test_oscr_here():
    known, correct, unknown = [0.9, 0.8, 0.6, 0.4], [True, False, True, True], [0.7, 0.5, 0.4]
    expected = brute_force_oscr(known, correct, unknown)
    assert expected == pytest.approx((1 + 2 + 2.5) / 3 / 4)
    assert openset.oscr(known, correct, unknown) == pytest.approx(expected)
    assert openset.oscr([1.0] * 4, correct, [1.0]) == 0.75 / 2
    assert openset.oscr([2.0] * 4, correct, [1.0]) == 0.75
    assert openset.oscr([0.0] * 4, correct, [1.0]) == 0


def test_oscr_takes_tensors():
    known, unknown = torch.tensor([0.3, 0.7]), torch.tensor([0.5])
    assert openset.oscr(known, torch.tensor([True, True]), unknown) == 0.5


def test_oscr_refuses_what_has_no_area():
    with pytest.raises(ValueError, match="expected a list, none empty"):
        openset.oscr([0.5], [True], [])
    with pytest.raises(ValueError, match=r"2 scores of knowns and marks \(1,\)"):
        openset.oscr([0.5, 0.4], [True], [0.1])
    with pytest.raises(ValueError, match="not a number"):
        openset.oscr([math.nan], [True], [0.1])


def test_open_f1_counts_unknown_and_absent_classes():
    labels, predicted = [0, 0, 1, -1, -1], [0, -1, 1, -1, 0]
    expected = (0.5 + 0.5 + 1 + 0) / 4  # unknown, 0, 1, and 2, which nobody sees
    assert openset.open_f1(predicted, labels, 3) == pytest.approx(expected)
    ours = openset.open_f1(predicted, labels, 2)
    assert ours == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_rejecting_everything_scores_two_u_by_one_plus_u():
    labels = torch.tensor([0] * 3 + [1] * 3 + [-1] * 4)
    u = 0.4
    found = openset.open_f1(torch.full_like(labels, -1), labels, 2)
    assert found == pytest.approx(2 * u / (1 + u) / 3)


# With unknowns at 0.9, 0.5 and 0.1, the threshold that accepts 3 of 4 knowns is 0.4.
KNOWN, UNKNOWN = [0.8, 0.6, 0.4, 0.2], [0.9, 0.5, 0.1]


def test_fpr_is_the_share_of_unknowns_accepted_where_enough_knowns_are():
    assert openset.threshold_at(KNOWN, 0.75) == 0.4
    assert openset.fpr_at_tpr(KNOWN, UNKNOWN, tpr=0.75) == 2 / 3
    assert openset.threshold_at(KNOWN, 0.76) == 0.2  # three of four are not enough
    assert openset.fpr_at_tpr(KNOWN, UNKNOWN) == 2 / 3
    assert openset.fpr_at_tpr(KNOWN, [0.2, 0.1], tpr=1) == 0.5  # as high as the threshold is in
    assert openset.fpr_at_tpr(UNKNOWN, KNOWN, tpr=0.95) == 1  # the roles are not the same


@given(SEEDS, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=50)
def test_fpr_is_pytorch_oods_with_the_roles_swapped(seed, tpr):
    """There, unknowns are the positives: ask it of minus the scores, and call knowns unknown."""
    known = torch.randint(12, (37,), generator=random(seed))
    unknown = torch.randint(9, (23,), generator=random(seed + 1))
    is_theirs = torch.tensor([-1] * 37 + [0] * 23)
    theirs = fpr_at_tpr(torch.cat([known, unknown]).double(), is_theirs, tpr=tpr)
    assert openset.fpr_at_tpr(known, unknown, tpr=tpr) == pytest.approx(float(theirs))


def test_scores_without_a_rate_are_refused():
    for known in ([], [[0.5]]):
        with pytest.raises(ValueError, match="expected a list, none empty"):
            openset.fpr_at_tpr(known, [0.5])
    with pytest.raises(ValueError, match="not a number"):
        openset.threshold_at([math.nan], 0.95)
    for share in (0, 1.01, math.nan):
        with pytest.raises(ValueError, match="expected one above 0 and at most 1"):
            openset.threshold_at([0.5], share)


# Rivals


def test_scores_of_logits_are_pytorch_oods_with_the_sign_turned():
    logits = 4 * torch.randn(50, 5, generator=random(0), dtype=torch.float64)
    for ours, theirs in (
        (openset.max_softmax, MaxSoftmax),
        (openset.max_logit, MaxLogit),
        (openset.energy, EnergyBased),
    ):
        torch.testing.assert_close(ours(logits), -theirs.score(logits), rtol=0, atol=1e-14)


def around_corners(n: int, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose label's is raised, and labels: most are rightly classified, some are not."""
    labels = torch.arange(n) % k
    logits = torch.randn(n, k, generator=random(seed), dtype=torch.float64)
    return logits + 4 * one_hot(labels, k), labels


@pytest.mark.parametrize(("k", "alpha", "tail"), [(3, 10, 20), (6, 4, 10)])
def test_openmax_is_pytorch_oods(k, alpha, tail):
    """Theirs is fitted to all training images, ours to the rightly classified, as in the paper.

    Both ask scipy for the Weibull's shape and scale, theirs as a special case of another family;
    its search stops at a relative change of 1e-4 or so, and the distribution function at 10,000
    has a slope of a few units at most: 1e-3 is beyond what the two searches can differ by.
    """
    logits, labels = around_corners(600, k, seed=1)
    is_right = logits.argmax(dim=1) == labels
    assert 0.9 < is_right.double().mean() < 1
    fresh = 3 * torch.randn(200, k, generator=random(2), dtype=torch.float64)
    theirs = TheirOpenMax(None, tailsize=tail, alpha=alpha)
    theirs.fit_logits(logits[is_right], labels[is_right])
    expected = theirs._openmax.predict(fresh.numpy())
    ours = openset.OpenMax(logits, labels, tail=tail, alpha=alpha)
    found = ours.probabilities(fresh)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert found[:, 0].min() < 0.1 < 0.9 < found[:, 0].max()
    answer = ours.predict(fresh)
    assert torch.equal(answer, found.argmax(dim=1) - 1)
    strict = ours.predict(fresh, threshold=0.6)
    assert torch.equal(strict == -1, (answer == -1) | (found.amax(dim=1) < 0.6))
    assert 0 < (answer == -1).sum() < (strict == -1).sum() < 200


def test_openmax_leaves_alone_what_lies_at_a_centre():
    logits, labels = around_corners(600, 3, seed=1)
    openmax = openset.OpenMax(logits, labels)
    is_right = logits.argmax(dim=1) == labels
    centres = openset.class_centres(logits[is_right], labels[is_right])
    torch.testing.assert_close(openmax.centres, centres)
    near = openmax.probabilities(centres)
    assert (near.argmax(dim=1) == torch.arange(1, 4)).all()
    far = openmax.probabilities(centres + 20 * one_hot(torch.arange(3), 3))
    assert (far.argmax(dim=1) == 0).all()


def test_openmax_wants_images_that_are_right():
    logits, labels = around_corners(600, 3, seed=1)
    few = (labels > 0) | (torch.arange(600) < 3)  # of class 0, one image
    with pytest.raises(ValueError, match="Class 0 has 1 rightly classified images"):
        openset.OpenMax(logits[few], labels[few])
    for options in ({"tail": 1}, {"alpha": 0}):
        with pytest.raises(ValueError, match="expected at least 2 and 1"):
            openset.OpenMax(logits, labels, **options)


# CBS


def test_centres_and_similarities():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    centres = openset.class_centres(x, torch.tensor([0, 0, 1]))
    assert centres.tolist() == [[2, 0], [0, 2]]
    found = openset.centre_similarities(x, centres[0])
    torch.testing.assert_close(found, torch.tensor([[-1, 1], [-1, 1], [-(8**0.5), 0]]))


def test_centres_of_classes_without_features_are_refused():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    for labels in ([0, 0, 2], [1, 1, 2], [0, -1, 1]):
        with pytest.raises(ValueError, match="give features of every class"):
            openset.class_centres(x, torch.tensor(labels))
    with pytest.raises(ValueError, match="one label a row"):
        openset.class_centres(x, torch.tensor([[0], [0], [1]]))


def test_logits_that_are_no_numbers_are_neither_known_nor_refused():
    logits = torch.tensor([[5.0, -5.0], [math.nan, -5.0]])
    with pytest.raises(ValueError, match="not a number"):
        openset.predict_open(logits, torch.tensor([0.5, 0.5]))


def test_f1_refuses_labels_that_would_not_count():
    """2 is neither seen nor unknown; as -1 it is unknown, and refused rightly."""
    assert openset.open_f1([0, 1, -1], [0, 1, -1], 2) == 1
    for predicted, labels in (([0, 1, -1], [0, 1, 2]), ([0, 1, 2], [0, 1, -1])):
        with pytest.raises(ValueError, match="must be -1 to 1"):
            openset.open_f1(predicted, labels, 2)


def test_labels_of_any_whole_type_train_and_fit_the_same():
    logits, labels = torch.randn(12, 3, generator=random(0)), torch.arange(12) % 3
    loss = openset.one_vs_rest_loss(logits, labels)
    assert torch.equal(openset.one_vs_rest_loss(logits, labels.byte()), loss)
    fitted = openset.fit_thresholds(logits.sigmoid(), labels)
    assert torch.equal(openset.fit_thresholds(logits.sigmoid(), labels.byte()), fitted)
    with pytest.raises(ValueError, match="give whole numbers"):
        openset.one_vs_rest_loss(logits, labels.float())


def test_cosine_does_not_notice_scale_and_distance_does():
    x, centre = torch.randn(20, 5, generator=random(0)), torch.randn(5, generator=random(1))
    near, far = (openset.centre_similarities(scale * x, centre) for scale in (1, 1000))
    torch.testing.assert_close(near[:, 1], far[:, 1])
    assert (far[:, 0] < near[:, 0]).all()


def test_cbs_refuses_far_points_and_a_linear_svm_does_not():
    labels = torch.arange(3).repeat(30)
    corners = torch.tensor([[4.0, 0.0], [-2.0, 3.5], [-2.0, -3.5]])
    x = corners[labels] + torch.randn(90, 2, generator=random(0))
    far = 100 * corners
    centres = openset.class_centres(x, labels)
    assert (openset.svm_scores(x, labels, far, centres) < 0).all()
    assert (openset.svm_scores(x, labels, far).argmax(1) == torch.arange(3)).all()
    assert (openset.svm_scores(x, labels, far).amax(1) > 0).all()
    for c in (None, centres):
        inside = openset.svm_scores(x, labels, corners, c)
        assert ((inside > 0) == torch.eye(3, dtype=torch.bool)).all()


# Loop


def test_clusters_are_named_by_the_majority_of_those_asked():
    clusters = torch.tensor([1, 0, 0, 2, 1, 0])
    labels = torch.tensor([4, 7, 7, 9, 4, 3])
    names, asked = discovery.name_clusters(clusters, labels, 10, random(0))
    assert names.tolist() == [7, 4, 9]
    assert sorted(asked.tolist()) == [0, 1, 2, 3, 4, 5]
    found = [discovery.name_clusters(clusters, labels, 1, random(s)) for s in range(20)]
    assert {int(names[0]) for names, _ in found} == {3, 7}
    for names, asked in found:  # one a cluster, and its label is the name
        assert torch.equal(clusters[asked], torch.arange(3))
        assert torch.equal(labels[asked], names)
    with pytest.raises(ValueError, match="budget is 0"):
        discovery.name_clusters(clusters, labels, 0, random(0))


def test_a_tie_is_broken_by_who_is_asked_first_and_not_by_the_label():
    """`Tensor.mode` takes the smallest label, and so favours some classes."""
    clusters, labels = torch.zeros(3, dtype=torch.int64), torch.tensor([8, 5, 2])
    found = [discovery.name_clusters(clusters, labels, 3, random(s)) for s in range(20)]
    assert {int(names[0]) for names, _ in found} == {8, 5, 2}
    assert all(names[0] == labels[asked[0]] for names, asked in found)
    # Two of three win, whoever is first.
    labels = torch.tensor([8, 8, 2])
    found = [discovery.name_clusters(clusters, labels, 3, random(s)) for s in range(20)]
    assert {int(names[0]) for names, _ in found} == {8}


def test_clusters_and_labels_may_be_numpys():
    clusters, labels = np.array([0, 0, 1, 1]), np.array([3, 3, 2, 2])
    for some, names in ((clusters, labels), (clusters.astype(np.int32), torch.tensor(labels))):
        found, _ = discovery.name_clusters(some, names, 2, random(0))
        assert (found.dtype, found.tolist()) == (torch.int64, [3, 2])


def test_clusters_of_nothing_are_refused():
    labels = [3, 3, 2, 2]
    for clusters in ([0, 0, 2, 2], [1, 1, 2, 2], [-1, -1, 0, 1]):
        with pytest.raises(ValueError, match="without a gap"):
            discovery.name_clusters(clusters, labels, 2, random(0))
    with pytest.raises(ValueError, match="3 clusters for 4 labels"):
        discovery.name_clusters([0, 0, 1], labels, 2, random(0))
    empty = torch.tensor([], dtype=torch.int64)
    with pytest.raises(ValueError, match="0 clusters for 0 labels"):
        discovery.name_clusters(empty, empty, 2, random(0))


def test_an_extended_head_leaves_old_logits_alone():
    torch.manual_seed(0)
    old, x = nn.Linear(6, 4), torch.randn(50, 6)
    weight, bias, before = old.weight.clone(), old.bias.clone(), old(x).detach()
    head = discovery.ExtendedHead(old, 3)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        openset.one_vs_rest_loss(head(x), torch.randint(7, (50,))).backward()
        optimizer.step()
    after = head(x).detach()
    assert after.shape == (50, 7)
    assert torch.equal(after[:, :4], before)
    assert torch.equal(old.weight, weight)
    assert torch.equal(old.bias, bias)
    assert not torch.allclose(after[:, 4:], discovery.ExtendedHead(old, 3)(x)[:, 4:])


def test_old_units_can_be_trained_on_request():
    head = discovery.ExtendedHead(nn.Linear(6, 4).double(), 1, trains_old=True)
    assert all(parameter.requires_grad for parameter in head.parameters())
    assert head.new.weight.dtype == torch.float64


def test_defaults_are_the_papers():
    assert defaults(openset.fit_thresholds) == {"alpha": 3.0}
    assert defaults(openset.OpenMax.__init__) == {"tail": 20, "alpha": 10}
    assert defaults(openset.fpr_at_tpr) == {"tpr": 0.95}
