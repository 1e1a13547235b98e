"""Distillation: parity with torch, timm and sums by scipy, identities, controls, bad input.

timm's task adds `task_loss_weight` times the cross-entropy and `distill_loss_weight` times
T^2 KL(p || q), the mean over the batch, so that weights of 1 and w are our loss of weight w. Given
`task_loss_weight` c alone, the other is 1 - c: c times our loss of weight (1 - c) / c.
"""

import copy
import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.task import DistillationTeacher, LogitDistillationTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot, softmax

from mini import data, distillation, training
from mini.training import models
from tests.planted import defaults

STUDENTS = (torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3]))
TEACHERS = (torch.tensor([0.45, 0.5, 0.1]), torch.tensor([0.4, 0.1, 0.7]))
sizes = st.integers(1, 6), st.integers(2, 9)
temperatures = st.floats(0.5, 10)
seeds = st.integers(0, 2**32)
same = {"rtol": 0, "atol": 1e-12}  # float64, of numbers up to about 100


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(n: int = 6, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of a student, which wants a gradient, and of a teacher, in float64."""
    student, teacher = 2 * torch.randn(2, n, classes, generator=seeded(seed), dtype=torch.float64)
    return student.requires_grad_(), teacher


def labels_of(n: int = 6, classes: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(classes, (n,), generator=seeded(seed + 1))


def mixed_of(n: int = 6, classes: int = 5, seed: int = 0) -> Tensor:
    """Labels as mixup makes them: probabilities, some of them 0."""
    first, second = (one_hot(labels_of(n, classes, seed + i), classes).double() for i in (0, 1))
    return 0.3 * first + 0.7 * second


def gradient(loss: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(loss, by, retain_graph=True)[0]  # losses may share a graph


def compare(loss: Tensor, other: Tensor, by: Tensor, constant: Tensor | float = 0.0) -> None:
    """`loss` is `other` plus a constant, and their gradients are the same."""
    torch.testing.assert_close(loss, other + constant, **same)
    torch.testing.assert_close(gradient(loss, by), gradient(other, by), **same)


class Network(nn.Module):
    """Batch norm, dropout and a head: all that differs between training and evaluation."""

    def __init__(self, seed: int = 0, classes: int = 5):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
            )
            self.head = nn.Linear(8 * 4, classes)
        self.double()
        norm = self.body[1]
        norm.running_mean += torch.linspace(-1, 1, 8)
        norm.running_var *= torch.linspace(0.5, 2, 8)
        self.num_classes, self.in_chans = classes, 3  # timm asks for them

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def images_of(n: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 4, 4, generator=seeded(seed), dtype=torch.float64)


def double(statistics: distillation.Statistics) -> distillation.Statistics:
    mean, std = statistics
    return mean.double(), std.double()


# Parity


def compare_with_torch(n: int, classes: int, temperature: float, seed: int) -> None:
    student, teacher = logits_of(n, classes, seed)
    theirs = temperature**2 * kl_div(
        log_softmax(student / temperature, dim=1),
        log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    compare(distillation.soft_loss(student, teacher, temperature=temperature), theirs, student)


@given(*sizes, temperatures, seeds)
@settings(max_examples=40)
def test_soft_loss_is_that_of_torch(n, classes, temperature, seed):
    compare_with_torch(n, classes, temperature, seed)


def test_soft_loss_here():
    compare_with_torch(6, 5, 4.0, 0)


def relative_entropies(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 sum p ln(p / q) / B by scipy."""
    p, q = (
        scipy.special.softmax(logits.detach().numpy() / temperature, axis=1)
        for logits in (teacher, student)
    )
    return temperature**2 * scipy.special.rel_entr(p, q).sum() / len(p)


@given(*sizes, temperatures, seeds)
@settings(max_examples=40)
def test_soft_loss_is_the_sum_written_out(n, classes, temperature, seed):
    student, teacher = logits_of(n, classes, seed)
    loss = distillation.soft_loss(student, teacher, temperature=temperature)
    expected = relative_entropies(student, teacher, temperature)
    assert loss.item() == pytest.approx(expected, rel=0, abs=1e-12)


@given(*sizes, temperatures, st.floats(0, 20), seeds)
@settings(max_examples=40)
def test_distillation_loss_is_the_sum_written_out(n, classes, temperature, weight, seed):
    student, teacher = logits_of(n, classes, seed)
    log_q = scipy.special.log_softmax(student.detach().numpy(), axis=1)
    soft = relative_entropies(student, teacher, temperature)
    options = {"temperature": temperature, "weight": weight}
    labels = labels_of(n, classes, seed)
    for y, hard in (
        (labels, -log_q[np.arange(n), labels.numpy()].mean()),
        (mixed_of(n, classes, seed), -(mixed_of(n, classes, seed).numpy() * log_q).sum() / n),
    ):
        loss = distillation.distillation_loss(student, teacher, y, **options)
        assert loss.item() == pytest.approx(hard + weight * soft, rel=1e-12, abs=1e-11)


class Answers(nn.Module):
    """What timm takes for a network, which answers with logits that are given."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits, self.num_classes, self.in_chans = logits, logits.shape[1], 3
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

    def forward(self, _: Tensor) -> Tensor:
        return self.logits


def timms(student: nn.Module, teacher: nn.Module, **options: float) -> LogitDistillationTask:
    options |= {"dtype": torch.float64, "verbose": False}
    wrapped = DistillationTeacher(teacher, dtype=torch.float64)
    return LogitDistillationTask(student, wrapped, nn.CrossEntropyLoss(), **options)


@pytest.mark.parametrize("labels", [labels_of(), mixed_of()], ids=["whole", "mixed"])
@pytest.mark.parametrize("temperature", [1.0, 2.5, 8.0])
@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_the_losses_are_those_of_timm(weight, temperature, labels):
    student, teacher = logits_of()
    options = {"temperature": temperature, "distill_loss_weight": weight}
    theirs = timms(Answers(student), Answers(teacher), **options)(images_of(), labels)
    soft = distillation.soft_loss(student, teacher, temperature=temperature)
    compare(soft, theirs["kd_loss"], student)
    ours = distillation.distillation_loss(
        student, teacher, labels, temperature=temperature, weight=weight
    )
    compare(ours, theirs["loss"], student)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_shares_that_add_up_to_one_are_a_weight_and_a_factor(share):
    student, teacher = logits_of()
    options = {"temperature": 4.0, "task_loss_weight": share}
    theirs = timms(Answers(student), Answers(teacher), **options)(images_of(), labels_of())
    ours = distillation.distillation_loss(
        student, teacher, labels_of(), temperature=4.0, weight=(1 - share) / share
    )
    compare(share * ours, theirs["loss"], student)


def test_weight_and_temperature_are_those_of_usi():
    usual = defaults(distillation.distillation_loss)
    assert usual == {"temperature": 1.0, "weight": 5.0}
    assert defaults(distillation.soft_loss) == {"temperature": 1.0}


def test_whole_labels_are_of_any_type():
    student, teacher = logits_of()
    expected = distillation.distillation_loss(student, teacher, labels_of())
    for kind in (torch.int32, torch.uint8):
        loss = distillation.distillation_loss(student, teacher, labels_of().to(kind))
        assert torch.equal(loss, expected)


# The gradient, and its limit


@given(*sizes, temperatures, seeds)
@settings(max_examples=40)
def test_the_gradient_is_t_times_the_difference(n, classes, temperature, seed):
    student, teacher = logits_of(n, classes, seed)
    loss = distillation.soft_loss(student, teacher, temperature=temperature)
    q, p = (softmax(logits.detach() / temperature, dim=1) for logits in (student, teacher))
    expected = temperature * (q - p) / n
    torch.testing.assert_close(gradient(loss, student), expected, **same)


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def test_at_high_temperatures_logits_are_matched():
    """Gradient and value tend to those of half the mean squared difference, as 1 / T."""
    student, teacher = (torch.randn(8, 10, generator=seeded(i)).double() for i in (0, 1))
    student, teacher = centred(student).requires_grad_(), centred(teacher)
    limit = (student - teacher).square().sum() / (2 * 10 * len(student))
    misses = []
    for t in (10, 20, 50, 100, 1000, 10_000):
        loss = distillation.soft_loss(student, teacher, temperature=t)
        far = (gradient(loss, student) - (student - teacher) / (10 * len(student))).norm()
        misses.append(t * (far / ((student - teacher) / (10 * len(student))).norm()).item())
        assert loss.item() == pytest.approx(limit.item(), rel=2 / t)
    assert misses == pytest.approx([misses[-1]] * len(misses), rel=0.05)
    assert misses[-1] > 0.1  # it is an error that is looked at, not rounding


def test_logits_that_are_not_centred_count_as_if_they_were():
    student, teacher = logits_of()
    shifts = torch.arange(6.0).double()[:, None]
    for t in (1.0, 100.0):
        plain = distillation.soft_loss(student, teacher, temperature=t)
        moved = distillation.soft_loss(student + shifts, teacher - shifts, temperature=t)
        torch.testing.assert_close(moved, plain, rtol=0, atol=1e-13 * t**2)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits_of()
    teacher.requires_grad_()
    for loss in (
        distillation.soft_loss(student, teacher, temperature=2.0),
        distillation.distillation_loss(student, teacher, labels_of()),
    ):
        found = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
        assert found[0].abs().sum() > 0
        assert found[1] is None


def test_the_loss_is_zero_for_equal_logits_and_else_above():
    student, teacher = logits_of()
    for t in (0.5, 1.0, 8.0):
        assert distillation.soft_loss(student, teacher, temperature=t) > 0.01
        equal = distillation.soft_loss(teacher, teacher, temperature=t)
        torch.testing.assert_close(equal, torch.zeros_like(equal), **same)


# Identities


def compare_with_mixed_labels(n: int, classes: int, weight: float, seed: int) -> None:
    """CE(y) + a KL = (1 + a) CE((y + a p) / (1 + a)) - a H(p)."""
    student, teacher = logits_of(n, classes, seed)
    p = softmax(teacher, dim=1)
    constant = -weight * scipy.stats.entropy(p.numpy(), axis=1).mean()
    hot = one_hot(labels_of(n, classes, seed), classes).double()
    mixed = mixed_of(n, classes, seed)
    for given_labels, y in ((labels_of(n, classes, seed), hot), (mixed, mixed)):
        loss = distillation.distillation_loss(student, teacher, given_labels, weight=weight)
        other = (1 + weight) * cross_entropy(student, (y + weight * p) / (1 + weight))
        torch.testing.assert_close(loss, other + constant, rtol=1e-12, atol=1e-12)
        found = (gradient(value, student) for value in (loss, other))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@given(*sizes, st.floats(0, 20), seeds)
@settings(max_examples=40)
def test_at_temperature_1_it_is_cross_entropy_with_mixed_labels(n, classes, weight, seed):
    compare_with_mixed_labels(n, classes, weight, seed)


def test_mixed_labels_here():
    compare_with_mixed_labels(6, 5, 5.0, 0)


@given(*sizes, st.floats(0, 20), seeds)
@settings(max_examples=40)
def test_a_uniform_teacher_is_label_smoothing(n, classes, weight, seed):
    student, labels = logits_of(n, classes, seed)[0], labels_of(n, classes, seed)
    knows_nothing = torch.full((n, classes), 3.0, dtype=torch.float64)
    loss = distillation.distillation_loss(student, knows_nothing, labels, weight=weight)
    share = weight / (1 + weight)
    other = (1 + weight) * cross_entropy(student, labels, label_smoothing=share)
    expected = other - weight * math.log(classes)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    found = (gradient(value, student) for value in (loss, other))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


# The teacher


def test_an_answer_does_not_depend_on_the_rest_of_the_batch():
    images = images_of()
    teacher = distillation.Teacher(Network())
    answers = teacher(images)
    for i in range(len(images)):
        torch.testing.assert_close(teacher(images[i : i + 1])[0], answers[i], **same)
    crowd = torch.cat([images, 10 * images_of(20, seed=1)])
    torch.testing.assert_close(teacher(crowd)[: len(images)], answers, **same)
    torch.testing.assert_close(teacher(images), answers, rtol=0, atol=0)
    torch.testing.assert_close(answers, Network().eval()(images), **same)


def test_it_is_a_frozen_copy():
    network = Network()
    before = copy.deepcopy(network.state_dict())
    teacher = distillation.Teacher(network)
    answers = teacher(images_of())
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    network(100 * images_of(seed=1)).square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert not torch.equal(network.body[1].running_mean, before["body.1.running_mean"])
    assert torch.equal(teacher(images_of()), answers)
    assert not any(p.requires_grad for p in teacher.networks[0].parameters())
    for name, value in teacher.networks[0].state_dict().items():
        assert torch.equal(value, before[name]), name


def test_it_gives_no_gradient():
    images = images_of().requires_grad_()
    for networks in ([Network()], [Network(), Network(1)]):
        assert not distillation.Teacher(*networks)(images).requires_grad


def test_in_training_mode_it_refuses_to_answer():
    for switch in (
        lambda network: network.train(),
        lambda network: network.body[4].train(),  # the dropout alone
    ):
        teacher = distillation.Teacher(Network(), Network(1))
        switch(teacher.networks[1])
        with pytest.raises(RuntimeError, match=r"in training mode: call eval\(\)"):
            teacher(images_of())
        teacher.networks[1].eval()
        teacher(images_of())


def test_several_answer_with_the_mean_of_their_probabilities():
    networks = [Network(seed) for seed in range(3)]
    for network in networks:  # different in how sure they are
        network.head.weight.data *= 5 + 10 * networks.index(network)
    images = images_of()
    alone = [distillation.Teacher(network)(images) for network in networks]
    together = distillation.Teacher(*networks)(images)
    expected = np.mean([scipy.special.softmax(a.numpy(), axis=1) for a in alone], axis=0)
    np.testing.assert_allclose(softmax(together, dim=1).numpy(), expected, rtol=0, atol=1e-12)
    of_the_mean = softmax(sum(alone) / 3, dim=1).numpy()
    assert np.abs(of_the_mean - expected).max() > 0.01
    twice = distillation.Teacher(networks[0], networks[0])(images)
    torch.testing.assert_close(softmax(twice, 1), softmax(alone[0], 1), **same)


def test_images_are_brought_to_other_statistics():
    pixels = torch.rand(4, 3, 5, 5, generator=seeded(), dtype=torch.float64)
    mean, std, to_mean, to_std = (v.view(3, 1, 1) for v in (*STUDENTS, *TEACHERS))
    images, expected = (pixels - mean) / std, (pixels - to_mean) / to_std
    before = images.clone()
    found = distillation.renormalise(images, STUDENTS, TEACHERS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(images, before)
    back = distillation.renormalise(found, TEACHERS, STUDENTS)
    torch.testing.assert_close(back, images, rtol=0, atol=1e-12)
    theirs = DistillationTeacher(nn.Identity())
    theirs.mean_kd, theirs.std_kd = to_mean, to_std
    of_timm = theirs.normalize_input(images, mean, std)
    torch.testing.assert_close(found, of_timm, rtol=0, atol=1e-12)


def test_each_of_several_teachers_sees_its_statistics():
    pixels = torch.rand(4, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    (mean, std), (to_mean, to_std) = (
        [v.view(3, 1, 1) for v in double(statistics)] for statistics in (STUDENTS, TEACHERS)
    )
    images, wanted = (pixels - mean) / std, (pixels - to_mean) / to_std
    options = {"given": double(STUDENTS), "wanted": double(TEACHERS)}
    for networks in ([Network()], [Network(), Network(1)]):
        answers = distillation.Teacher(*networks, **options)(images)
        plain = distillation.Teacher(*networks)(wanted)
        torch.testing.assert_close(answers, plain, **same)
        assert (answers - distillation.Teacher(*networks)(images)).abs().max() > 0.01


def test_teacher_and_loss_together_are_the_task_of_timm():
    student, network = Network(1), Network()
    for net, (mean, std) in ((student, STUDENTS), (network, TEACHERS)):
        net.pretrained_cfg = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    options = {"temperature": 3.0, "distill_loss_weight": 5.0}
    student.body[4].p = 0.0  # what the student drops would be drawn
    teacher = distillation.Teacher(network, given=double(STUDENTS), wanted=double(TEACHERS))
    theirs = timms(student, network, **options)
    found = theirs.train()(images_of(), labels_of())["loss"]
    expected = distillation.distillation_loss(
        student(images_of()), teacher(images_of()), labels_of(), temperature=3.0, weight=5.0
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours, other = (torch.autograd.grad(x, student.parameters()) for x in (expected, found))
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_in_bfloat16_the_answer_is_float32_and_near():
    torch.manual_seed(0)
    networks = [models.SmallResNet(4), models.SmallResNet(4)]
    images = torch.randn(6, 3, 32, 32, generator=seeded())
    exact = distillation.Teacher(networks[0])(images)
    near = distillation.Teacher(networks[0], precision="bfloat16")(images)
    assert exact.dtype == near.dtype == torch.float32
    assert torch.equal(near, near.bfloat16().float())  # so it was computed in bfloat16
    assert (near - exact).abs().max() < 0.1 * exact.abs().max()
    both = distillation.Teacher(*networks)(images)
    near = distillation.Teacher(*networks, precision="bfloat16")(images)
    assert both.dtype == near.dtype == torch.float32
    assert (softmax(near, 1) - softmax(both, 1)).abs().max() < 0.02


def test_float64_stays():
    for networks in ([Network()], [Network(), Network(1)]):
        assert distillation.Teacher(*networks)(images_of()).dtype == torch.float64


# What takes the teacher's place


@given(st.integers(1, 6), st.integers(2, 8), seeds, st.booleans())
@settings(max_examples=40)
def test_the_largest_stays_and_each_row_is_a_permutation(n, classes, seed, ties):
    logits = torch.randn(n, classes, generator=seeded(seed), dtype=torch.float64)
    if ties:
        logits = logits.round()
    before = logits.clone()
    found = distillation.shuffle_wrong(logits, generator=seeded(seed))
    assert torch.equal(logits, before)
    assert torch.equal(found.sort(dim=1).values, logits.sort(dim=1).values)
    top = logits.argmax(dim=1, keepdim=True)
    assert torch.equal(found.gather(1, top), logits.gather(1, top))


def test_all_orders_of_the_wrong_ones_are_alike():
    logits = torch.tensor([[0.5, 3.0, -1.0, 0.0]]).expand(3000, 4)
    found = distillation.shuffle_wrong(logits, generator=seeded())
    assert (found[:, 1] == 3.0).all()
    orders, counts = np.unique(found.numpy(), axis=0, return_counts=True)
    expected = sorted([a, 3.0, b, c] for a, b, c in itertools.permutations([0.5, -1.0, 0.0]))
    assert orders.tolist() == expected
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_of_several_largest_one_is_kept_and_the_others_move():
    logits = torch.tensor([[2.0, 0.0, 2.0, 2.0]]).expand(3000, 4)
    found = distillation.shuffle_wrong(logits, generator=seeded())
    assert torch.equal(found.sort(dim=1).values, logits.sort(dim=1).values)
    kept = int(logits[0].argmax())
    counts = np.bincount(found.argmin(dim=1).numpy(), minlength=4)  # where the 0 went
    assert counts[kept] == 0
    assert scipy.stats.chisquare(np.delete(counts, kept)).pvalue > 0.001


def test_a_seed_decides_the_order():
    logits = logits_of(20, 8)[1]
    first, again, other = (
        distillation.shuffle_wrong(logits, generator=seeded(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        assert torch.equal(distillation.shuffle_wrong(logits), first)


def test_entropy_is_that_of_scipy():
    p = softmax(torch.randn(2, 3, 7, generator=seeded(), dtype=torch.float64), dim=-1)
    p[0, 0] = one_hot(torch.tensor(2), 7)  # 0 ln 0 = 0
    expected = scipy.stats.entropy(p.numpy(), axis=-1)
    np.testing.assert_allclose(distillation.entropy(p).numpy(), expected, rtol=0, atol=1e-12)


def entropy_of_smoothing(share: float, classes: int) -> float:
    """By numpy: the label has 1 - share + share / K, each other class share / K."""
    p = np.full(classes, share / classes)
    p[0] += 1 - share
    return float(scipy.stats.entropy(p))


@given(st.floats(0, 1), st.integers(2, 200))
@settings(max_examples=60)
def test_smoothing_has_the_entropy_that_was_asked_for(part, classes):
    nats = part * math.log(classes)
    share = distillation.smoothing_of_entropy(nats, classes)
    assert 0 <= share <= 1
    # The share is known to 2e-14, and where it is small the slope of the entropy is up to 40.
    assert entropy_of_smoothing(share, classes) == pytest.approx(nats, rel=0, abs=5e-12)


@given(st.floats(0, 0.9), st.integers(2, 200))  # at 1 the entropy is flat
@settings(max_examples=60)
def test_smoothing_is_found_again(share, classes):
    nats = entropy_of_smoothing(share, classes)
    found = distillation.smoothing_of_entropy(nats, classes)
    assert found == pytest.approx(share, rel=0, abs=1e-11)


def test_smoothing_at_its_ends():
    for classes in (2, 7, 10, 100):
        assert distillation.smoothing_of_entropy(0.0, classes) == pytest.approx(0, abs=1e-12)
        all_of_it = distillation.smoothing_of_entropy(math.log(classes), classes)
        assert all_of_it == pytest.approx(1, abs=1e-6)  # flat: the root of 1e-16, and some


@pytest.mark.parametrize("nats", [-0.1, -1e-9, 2.31, math.inf, math.nan])
def test_an_entropy_that_there_is_not_is_refused(nats):
    with pytest.raises(ValueError, match=r"the entropy of 10 classes is 0 to 2\.3026"):
        distillation.smoothing_of_entropy(nats, 10)


@given(*sizes, st.floats(0, 1), seeds)
@settings(max_examples=40)
def test_smoothed_labels_are_the_label_smoothing_of_torch(n, classes, share, seed):
    student, labels = logits_of(n, classes, seed)[0], labels_of(n, classes, seed)
    hot = one_hot(labels, classes).double()
    soft = distillation.smoothed(hot, share)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(n).double(), **same)
    theirs = cross_entropy(student, labels, label_smoothing=share)
    compare(cross_entropy(student, soft), theirs, student)
    mixed = mixed_of(n, classes, seed)
    theirs = cross_entropy(student, mixed, label_smoothing=share)
    compare(cross_entropy(student, distillation.smoothed(mixed, share)), theirs, student)


# A class left out


def test_a_shift_moves_one_class_and_leaves_its_input():
    logits = logits_of()[1]
    before = logits.clone()
    for k in range(5):
        for by in (3.5, -7.5, 2):
            found = distillation.shift_class(logits, k, by)
            expected = before.numpy().copy()
            expected[:, k] += by
            np.testing.assert_array_equal(found.numpy(), expected)
    assert torch.equal(logits, before)


def test_a_shift_is_as_exact_as_the_logits():
    for dtype in (torch.float32, torch.float64):
        logits = torch.zeros(2, 3, dtype=dtype)
        found = distillation.shift_class(logits, 1, 0.1)
        assert found.dtype == dtype
        assert torch.equal(found[:, 1], torch.full((2,), 0.1, dtype=dtype))


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 4), seeds)
@settings(max_examples=60)
def test_the_best_shift_is_the_best_and_the_smallest_of_equals(n, classes, k, seed):
    logits, labels = logits_of(n, classes, seed)[1], labels_of(n, classes, seed).numpy()
    k %= classes
    candidates = [-4.0, -2.5, -1.5, -0.75, -0.25, 0.5, 1.0, 2.0, 3.5]
    right = []
    for by in candidates:
        moved = logits.numpy().copy()
        moved[:, k] += by
        right.append(int((moved.argmax(axis=1) == labels).sum()))
    best = [by for by, count in zip(candidates, right, strict=True) if count == max(right)]
    found = distillation.best_shift(logits, torch.tensor(labels), k, iter(candidates))
    assert found == min(best, key=abs)


def test_the_best_shift_counts_the_other_classes_too():
    """With 1.5 class 2 has one of its two images, with 2.5 both, with 8 those of others too."""
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 2])
    assert distillation.best_shift(logits, labels, 2, [8.0, 1.5, 0.0, 2.5, 4.0]) == 2.5
    assert distillation.best_shift(logits, labels, 2, [8.0, 1.5, 0.0]) == 1.5
    assert distillation.best_shift(logits, labels, 2, [-3.0, -1.0, 0.5, -2.0]) == 0.5


def test_the_best_shift_takes_whole_labels_of_any_type():
    logits, labels = logits_of(30)[1], labels_of(30)
    candidates = [-2.0, -1.0, 0.0, 1.0, 2.0]
    expected = distillation.best_shift(logits, labels, 1, candidates)
    for kind in (torch.int32, torch.uint8):
        assert distillation.best_shift(logits, labels.to(kind), 1, candidates) == expected
    for wrong, why in ((labels.double(), "give whole numbers"), (labels[:1], "one label a row")):
        with pytest.raises(ValueError, match=why):
            distillation.best_shift(logits, wrong, 1, candidates)
    with pytest.raises(ValueError, match="give candidates"):
        distillation.best_shift(logits, labels, 1, [])
    assert type(distillation.best_shift(logits, labels, 1, torch.tensor([0.0, 1.0]))) is float


@pytest.mark.parametrize("k", [-1, 5])
def test_a_class_that_there_is_not_is_refused(k):
    with pytest.raises(ValueError, match="classes 0 to 4"):
        distillation.shift_class(logits_of(3)[1], k, 1.0)


def test_an_infinite_temperature_is_refused():
    with pytest.raises(ValueError, match="finite"):
        distillation.soft_loss(*logits_of(3), temperature=math.inf)


def test_an_empty_batch_stays_empty():
    assert distillation.shuffle_wrong(torch.zeros(0, 4)).shape == (0, 4)


# Bad input


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((4, 5), (4, 6)), ((4, 5), (1, 5)), ((5,), (5,)), ((2, 4, 5), (2, 4, 5))],
)
def test_logits_that_do_not_fit_are_refused(student, teacher):
    student, teacher = torch.zeros(student), torch.zeros(teacher)
    with pytest.raises(ValueError, match=r"both have to be \[B, K\], of the same classes"):
        distillation.soft_loss(student, teacher)
    with pytest.raises(ValueError, match=r"both have to be \[B, K\]"):
        distillation.distillation_loss(student, teacher, torch.zeros(len(student)).long())


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    student, teacher = logits_of()
    with pytest.raises(ValueError, match="expected a finite number above 0; 1 changes"):
        distillation.soft_loss(student, teacher, temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature={temperature}"):
        distillation.distillation_loss(student, teacher, labels_of(), temperature=temperature)


@pytest.mark.parametrize("weight", [-0.1, -math.inf, math.nan])
def test_a_negative_weight_is_refused(weight):
    with pytest.raises(ValueError, match="expected a number >= 0; 0 leaves the teacher out"):
        distillation.distillation_loss(*logits_of(), labels_of(), weight=weight)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (torch.zeros(6), r"Labels \[6\] for logits \[6, 5\]: .* one row of K probabilities"),
        (torch.zeros(6, 4), r"Labels \[6, 4\] for logits \[6, 5\]"),
        (torch.zeros(6, 5).long(), "give whole numbers"),
        (torch.zeros(6).bool(), "give whole numbers"),
    ],
)
def test_labels_that_are_none_are_refused(labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        distillation.distillation_loss(*logits_of(), labels)


def test_teachers_that_are_none_are_refused():
    for networks, options in (
        ([], {}),
        ([Network()], {"given": STUDENTS}),
        ([Network()], {"wanted": STUDENTS}),
    ):
        with pytest.raises(ValueError, match="needs a network, and of given and wanted both"):
            distillation.Teacher(*networks, **options)
    with pytest.raises(ValueError, match="expected one of float32, bfloat16"):
        distillation.Teacher(Network(), precision="half")(images_of())


# In the training loop


def test_a_student_learns_from_it_in_the_loop():
    digits = data.load("digits", n_train=100, n_test=100)
    torch.manual_seed(0)
    network, student = models.SmallResNet(8), models.SmallResNet(4)
    options = {"lr": 0.02, "batch_size": 50, "progress": False, "generator": seeded()}
    training.fit(network, digits, steps=20, **options)
    teacher = distillation.Teacher(network)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return distillation.distillation_loss(
            model(images), teacher(images), labels, temperature=2.0
        )

    def soft() -> float:
        rows = [training.predict(net, digits.train, digits) for net in (student, network)]
        return float(distillation.soft_loss(*rows, temperature=2.0))

    before = soft()
    history = training.fit(student, digits, steps=40, loss=loss, **options)
    assert soft() < 0.6 * before
    assert history[-1]["train_loss"] < history[0]["train_loss"]
