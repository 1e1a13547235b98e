"""DINO: parity with lightly, torchvision and scikit-learn, and what each part promises."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import DINOLoss as LightlyLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.utils import update_momentum
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize, softmax
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.functional import resized_crop as torchvision_crop

from mini import dino, sam, vit
from mini.dino import crops
from mini.training import models
from tests.planted import defaults

OUT = 24  # K


def logits(views: int, *, seed: int = 0, batch: int = 5, out: int = OUT) -> list[Tensor]:
    """One [B, K] for each view, float64, of the size of cosines."""
    generator = torch.Generator().manual_seed(seed)
    return [
        2 * torch.rand(batch, out, generator=generator, dtype=torch.float64) - 1
        for _ in range(views)
    ]


def loss_of(out: int = OUT, **options) -> dino.DINOLoss:
    return dino.DINOLoss(out, **options).double()


def double_loop(student, teacher, center, tau_s, tau_t) -> tuple[float, int]:
    """Equation 3, term by term; also how many terms there are."""
    terms = []
    for u, g_t in enumerate(teacher):
        for v, g_s in enumerate(student):
            if u != v:
                P_t = softmax((g_t - center) / tau_t, dim=-1)
                P_s = softmax(g_s / tau_s, dim=-1)
                terms.append(-(P_t * P_s.log()).sum(dim=-1).mean())
    return float(sum(terms) / len(terms)), len(terms)


# The loss


@pytest.mark.parametrize("tau_s", [0.1, 0.5])
@pytest.mark.parametrize("tau_t", [0.02, 0.04, 0.1])
@pytest.mark.parametrize("views", [2, 3, 10])
def test_loss_gradient_and_centre_are_lightlys_over_successive_calls(tau_s, tau_t, views):
    tau_t = float(torch.tensor(tau_t))  # theirs is rounded to float32
    ours = loss_of(student_temperature=tau_s, teacher_temperature=tau_t)
    theirs = LightlyLoss(OUT, teacher_temp=tau_t, student_temp=tau_s).double()
    for call in range(3):  # the centre carries over
        student = [g.requires_grad_() for g in logits(views, seed=call)]
        teacher = logits(2, seed=100 + call)
        one = ours(student, teacher)
        two = theirs(teacher, student, teacher_temp=tau_t)
        torch.testing.assert_close(one, two)
        for mine, other in zip(
            torch.autograd.grad(one, student), torch.autograd.grad(two, student), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.center, theirs.center[0, 0])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("views", [2, 5])
def test_one_output_has_nothing_to_say_and_costs_exactly_nothing(views, batch):
    """The degenerate case of lightly's own tests: K = 1, whose softmax is 1."""
    ours, theirs = dino.DINOLoss(1), LightlyLoss(1)
    student = [g.float().requires_grad_() for g in logits(views, batch=batch, out=1)]
    teacher = [g.float() for g in logits(2, seed=1, batch=batch, out=1)]
    value = ours(student, teacher)
    assert value.item() == theirs(teacher, student).item() == 0
    assert all(g.abs().max() == 0 for g in torch.autograd.grad(value, student))
    torch.testing.assert_close(ours.center, theirs.center[0, 0])
    found = dino.target_statistics(ours, student, teacher)
    assert found == {"entropy": 0, "kl": 0, "outputs": 1, "information": 0}


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_centre_momentum_is_lightlys(momentum):
    ours = loss_of(center_momentum=momentum)
    theirs = LightlyLoss(OUT, center_momentum=momentum).double()
    for call in range(3):
        ours(logits(2, seed=call), logits(2, seed=call + 9))
        theirs(logits(2, seed=call + 9), logits(2, seed=call))
        torch.testing.assert_close(ours.center, theirs.center[0, 0])


@given(st.integers(2, 6), st.integers(0, 10_000), st.floats(0.01, 1.0), st.floats(0.05, 1.0))
@settings(max_examples=25)
def test_loss_is_the_double_loop_over_pairs(views, seed, tau_t, tau_s):
    ours = loss_of(teacher_temperature=tau_t, student_temperature=tau_s)
    ours.center.copy_(logits(1, seed=seed + 1)[0][0])
    center = ours.center.clone()
    student, teacher = logits(views, seed=seed), logits(2, seed=seed + 2)
    expected, terms = double_loop(student, teacher, center, tau_s, tau_t)
    assert terms == 2 * (views - 1)
    assert float(ours(student, teacher)) == pytest.approx(expected, rel=1e-10)


def test_loss_of_2_and_3_views_is_the_double_loop_here():
    for views in (2, 3):
        ours, student, teacher = loss_of(), logits(views), logits(2, seed=7)
        expected, _ = double_loop(student, teacher, 0, 0.1, 0.04)
        assert float(ours(student, teacher)) == pytest.approx(expected, rel=1e-10)


def test_loss_accepts_as_many_teacher_views_as_there_are():
    ours, student, teacher = loss_of(), logits(4), logits(3, seed=7)
    expected, terms = double_loop(student, teacher, 0, 0.1, 0.04)
    assert terms == 9
    assert float(ours(student, teacher)) == pytest.approx(expected, rel=1e-10)


def test_loss_uses_the_centre_of_before_and_then_moves_it():
    ours, teacher = loss_of(), logits(2, seed=3)
    expected, _ = double_loop(logits(2), teacher, 0, 0.1, 0.04)
    assert float(ours(logits(2), teacher)) == pytest.approx(expected, rel=1e-10)
    mean = torch.cat(teacher).mean(dim=0)  # of raw outputs
    torch.testing.assert_close(ours.center, 0.1 * mean)


def test_gradient_of_one_term_is_the_difference_of_the_distributions():
    student = [g.requires_grad_() for g in logits(2, batch=1)]
    teacher = [g.requires_grad_() for g in logits(2, batch=1, seed=1)]
    ours = loss_of()
    P_t = ours.targets(teacher)[0]
    ours(student, teacher).backward()
    P_s = softmax(student[1] / 0.1, dim=-1).detach()
    # Two terms with two views, of which the second student view is in one.
    torch.testing.assert_close(student[1].grad, (P_s - P_t) / 0.1 / 2)
    assert all(g.grad is None for g in teacher)
    assert not P_t.requires_grad
    assert not ours.center.requires_grad


def test_gradient_of_the_loss_is_that_of_finite_differences():
    student = tuple(g.requires_grad_() for g in logits(3, batch=2, out=4))

    def value(*student):
        return loss_of(4)(student, logits(2, batch=2, out=4, seed=8))

    assert torch.autograd.gradcheck(value, student)


@pytest.mark.parametrize(("student", "teacher"), [(3, 3), (4, 3), (6, 4), (5, 1)])
def test_any_number_of_teacher_views_has_the_loss_and_gradient_of_the_double_loop(student, teacher):
    ours, views = loss_of(), [g.requires_grad_() for g in logits(student)]
    answers = logits(teacher, seed=7)
    P_t = [softmax(g / 0.04, dim=-1) for g in answers]
    terms = [
        -(P_t[u] * log_softmax(views[v] / 0.1, dim=-1)).sum(dim=-1).mean()
        for u in range(teacher)
        for v in range(student)
        if u != v
    ]
    expected = sum(terms) / len(terms)
    found = ours(views, answers)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    for mine, other in zip(
        torch.autograd.grad(found, views),
        torch.autograd.grad(expected, views, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_the_hessian_is_refused_where_it_would_come_out_zero_and_is_that_of_the_pairs():
    """Of a linear student, of three views, and a teacher, of two."""
    w = nn.Parameter(torch.cat(logits(1, batch=4, out=3)))
    views, teacher = logits(3, batch=5, out=3, seed=2), logits(2, batch=5, out=4, seed=1)
    weights, student = [w], [view @ w.T for view in views]
    with pytest.raises(ValueError, match="add up the cross-entropies of all pairs"):
        sam.top_eigenvalues(loss_of(4)(student, teacher), weights)
    with pytest.raises(ValueError, match="no second derivative"):
        torch.autograd.grad(loss_of(4)(student, teacher), weights, create_graph=True)
    # What the error says to do.
    P_t = loss_of(4).targets(teacher)
    pairs = [(u, v) for u in range(2) for v in range(3) if u != v]
    value = sum(-(P_t[u] * log_softmax(student[v] / 0.1, -1)).sum() for u, v in pairs)
    value = value / (len(pairs) * 5)
    torch.testing.assert_close(value, loss_of(4)(student, teacher))
    generator = torch.Generator().manual_seed(0)
    (top,) = sam.top_eigenvalues(value, weights, generator=generator)
    # 1 / tau_s^2 sum over pairs, images of (diag P - P P') (x) x x', over the number of terms.
    H = torch.zeros(12, 12, dtype=torch.float64)
    for _, v in pairs:
        for x, g in zip(views[v], student[v].detach(), strict=True):
            P = softmax(g / 0.1, -1)
            H += torch.kron(P.diag() - torch.outer(P, P), torch.outer(x, x))
    expected = torch.linalg.eigvalsh(H / 0.1**2 / (len(pairs) * 5))[-1]
    assert top == pytest.approx(float(expected), rel=1e-6)


def test_a_batch_that_is_no_number_leaves_the_centre_as_it_was():
    """One NaN made the centre, and with it each later loss, NaN for ever."""
    ours, good = loss_of(), logits(2, seed=1)
    ours(logits(2), good)
    before = ours.center.clone()
    for wrong in (math.nan, math.inf, -math.inf):
        bad = [g.clone() for g in good]
        bad[1][2, 3] = wrong
        value = ours(logits(2), bad)
        assert torch.equal(ours.center, before)
        assert not value.isfinite() or wrong == -math.inf  # which has a softmax
    ours(logits(2), good)
    torch.testing.assert_close(ours.center, 0.9 * before + 0.1 * torch.cat(good).mean(dim=0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_have_the_loss_of_their_values(dtype):
    """A raw error about a dot product. They are rounded before, and nowhere here."""
    ours, wide = dino.DINOLoss(OUT), dino.DINOLoss(OUT)
    student = [g.to(dtype).requires_grad_() for g in logits(3)]
    teacher = [g.to(dtype) for g in logits(2, seed=1)]
    same = [g.detach().float().requires_grad_() for g in student]
    found, expected = ours(student, teacher), wide(same, [g.float() for g in teacher])
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(ours.center, wide.center)
    for half, full in zip(
        torch.autograd.grad(found, student), torch.autograd.grad(expected, same), strict=True
    ):
        assert torch.equal(half, full.to(dtype))
    statistics = dino.target_statistics(ours, student, teacher)
    assert statistics == dino.target_statistics(wide, same, [g.float() for g in teacher])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_trains_under_autocast(dtype):
    torch.manual_seed(0)
    student, ours = network(), dino.DINOLoss(OUT)
    views = [torch.randn(3, 3, 16, 16) for _ in range(3)]
    expected = dino.DINOLoss(OUT)(student(views), student(views[:2]))
    with torch.autocast("cpu", dtype):
        found = ours(student(views), student(views[:2]))
    found.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())
    # Cosines are off by the rounding of their 8 bits (bfloat16), times 1 / tau of the teacher.
    assert float(found) == pytest.approx(float(expected), abs=2 * 2**-8 / 0.04)


def test_huge_logits_give_a_finite_loss_and_gradient():
    student = [(1e4 * g).float().requires_grad_() for g in logits(2)]
    value = dino.DINOLoss(OUT)(student, [g.float() for g in logits(2, seed=1)])
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(g.grad).all() for g in student)


@pytest.mark.parametrize(("out", "plateau"), [(1024, 6.9315), (4096, 8.3178), (65536, 11.0904)])
def test_uniform_collapse_costs_ln_k(out, plateau):
    same = [torch.full((2, out), 0.3, dtype=torch.float64)] * 2
    assert float(loss_of(out)(same, same)) == pytest.approx(plateau, abs=5e-5)


def test_constant_outputs_are_forgotten_by_the_centre_at_the_known_pace():
    ours, a = loss_of(), logits(1)[0][0]
    for n in range(1, 6):
        ours(logits(2), [a.expand(5, -1)] * 2)
        torch.testing.assert_close(ours.center, a * (1 - 0.9**n))


def test_constant_teacher_outputs_cancel_once_the_centre_has_caught_up():
    ours, a = loss_of(), logits(1)[0][0]
    for _ in range(300):
        ours(logits(2), [a.expand(5, -1)] * 2)
    (P_t,) = ours.targets([a.expand(5, -1)])
    torch.testing.assert_close(P_t, torch.full_like(P_t, 1 / OUT))


def test_one_number_added_to_all_teacher_outputs_changes_nothing():
    teacher = logits(2, seed=4)
    shifted = [g + 3.0 for g in teacher]
    one, two = loss_of()(logits(2), teacher), loss_of()(logits(2), shifted)
    torch.testing.assert_close(one, two)


def test_momentum_one_is_no_centring():
    ours = loss_of(center_momentum=1.0)
    ours(logits(2), logits(2, seed=1))
    assert ours.center.abs().max() == 0


def test_low_teacher_temperature_gives_the_argmax():
    (P_t,) = loss_of(teacher_temperature=1e-4).targets(logits(1))
    expected = nn.functional.one_hot(logits(1)[0].argmax(dim=1), OUT).double()
    torch.testing.assert_close(P_t, expected)


def test_statistics_split_the_cross_entropy():
    ours, student, teacher = loss_of(), logits(2), logits(2, seed=5)
    found = dino.target_statistics(ours, student, teacher)
    expected = float(ours(student, teacher))  # two views: the same pairs
    assert found["entropy"] + found["kl"] == pytest.approx(expected)
    P_t = torch.cat(loss_of().targets(teacher))
    assert found["entropy"] == pytest.approx(float(-(P_t * P_t.log()).sum(-1).mean()))
    assert found["entropy"] < math.log(found["outputs"]) < math.log(OUT)
    # What a view's answer tells: the mean divergence of each from the mean of all.
    told = (P_t * (P_t / P_t.mean(0)).log()).sum(-1).mean()
    assert found["information"] == pytest.approx(float(told))


def test_statistics_of_both_collapses():
    same = [torch.zeros(3, OUT, dtype=torch.float64)] * 2
    found = dino.target_statistics(loss_of(), same, same)
    uniform = {"entropy": math.log(OUT), "kl": 0.0, "outputs": OUT, "information": 0.0}
    assert found == pytest.approx(uniform, abs=1e-12)
    peak = [100 * torch.eye(OUT, dtype=torch.float64)[:1].expand(3, -1)] * 2
    found = dino.target_statistics(loss_of(), peak, peak)
    peaked = {"entropy": 0.0, "kl": 0.0, "outputs": 1.0, "information": 0.0}
    assert found == pytest.approx(peaked, abs=1e-9)


def test_the_information_of_answers_that_name_each_view_is_the_logarithm_of_their_number():
    eye = 100 * torch.eye(OUT, dtype=torch.float64)
    found = dino.target_statistics(loss_of(), [eye[:3]] * 2, [eye[:3], eye[3:6]])
    assert found["information"] == pytest.approx(math.log(6))
    found = dino.target_statistics(loss_of(), [eye[:3]] * 2, [eye[:3], eye[:3]])
    assert found["information"] == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (logits(2), logits(2, out=9), "of every view"),
        (logits(2, out=9), logits(2, out=9), "of every view"),
        (logits(2), logits(2, batch=3), "of every view"),
        (logits(1), logits(1), "at least two"),
        (logits(2), logits(3), "at least two"),
    ],
)
def test_views_that_do_not_fit_are_refused(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        loss_of()(student, teacher)


@pytest.mark.parametrize(
    "options",
    [{"student_temperature": 0}, {"teacher_temperature": -0.04}, {"center_momentum": 1.5}],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="Expected temperatures above 0"):
        dino.DINOLoss(4, **options)


# Head and network


def lightly_head(ours: dino.DINOHead) -> DINOProjectionHead:
    """Lightly's head with the weights of ours."""
    first, last = ours.mlp[0], ours.mlp[-1]
    sizes = first.in_features, first.out_features, last.out_features, ours.prototypes.out_features
    with warnings.catch_warnings():  # torch's older weight_norm, which lightly uses
        warnings.simplefilter("ignore", FutureWarning)
        theirs = DINOProjectionHead(*sizes).double()
    linears = [layer for layer in theirs.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for mine, other in zip(ours.mlp[::2], linears, strict=True):
            other.weight.copy_(mine.weight)
            other.bias.copy_(mine.bias)
        theirs.last_layer.weight_v.copy_(ours.prototypes.weight)
    return theirs


def test_head_is_lightlys_in_value_and_gradient():
    torch.manual_seed(0)
    ours = dino.DINOHead(6, OUT, hidden=10, bottleneck=8).double()
    for layer in ours.mlp[::2]:
        nn.init.normal_(layer.bias)
        nn.init.normal_(layer.weight)
    theirs = lightly_head(ours)
    x, weight = torch.randn(7, 6).double(), torch.randn(7, OUT).double()
    torch.testing.assert_close(ours(x), theirs(x))
    (ours(x) * weight).sum().backward()
    (theirs(x) * weight).sum().backward()
    torch.testing.assert_close(ours.prototypes.weight.grad, theirs.last_layer.weight_v.grad)
    torch.testing.assert_close(ours.mlp[0].weight.grad, theirs.layers[0].weight.grad)


def test_head_has_no_gain_to_train():
    torch.manual_seed(0)
    head = dino.DINOHead(6, OUT, hidden=10, bottleneck=8)
    x = torch.randn(50, 6)
    assert head(x).abs().max() <= 1 + 1e-6
    with torch.no_grad():
        before = head(x)
        head.prototypes.weight.mul_(7.0)
    torch.testing.assert_close(head(x), before)
    trained = sum(p.numel() for p in head.parameters() if p.requires_grad)
    assert trained == (6 * 10 + 10) + (10 * 10 + 10) + (10 * 8 + 8) + OUT * 8


def test_head_starts_as_the_authors_does():
    torch.manual_seed(0)
    head = dino.DINOHead(200, 512, hidden=300, bottleneck=64)
    for layer in head.mlp[::2]:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert layer.bias.abs().max() == 0
    bound = float(head.prototypes.weight.detach().abs().max())
    assert bound == pytest.approx(64**-0.5, rel=0.01)  # that of a linear layer, uniform


def network(seed: int = 0) -> dino.DINONetwork:
    torch.manual_seed(seed)
    backbone = vit.ViT(16, 4, dim=12, depth=1, heads=2)
    backbone.head = nn.Identity()
    return dino.DINONetwork(backbone, dino.DINOHead(12, OUT, hidden=10, bottleneck=8))


def test_network_gives_each_view_its_own_logits_in_order():
    model = network().eval()
    views = [torch.randn(3, 3, size, size) for size in (16, 16, 8, 8, 8)]
    found = model(views)
    assert [g.shape for g in found] == [(3, OUT)] * 5
    for view, g in zip(views, found, strict=True):
        torch.testing.assert_close(g, model.head(model.backbone(view)))


def test_network_works_with_a_residual_backbone():
    backbone = models.SmallResNet(4)
    backbone.head = nn.Identity()
    model = dino.DINONetwork(backbone, dino.DINOHead(16, OUT, hidden=10, bottleneck=8))
    assert [g.shape for g in model([torch.randn(2, 3, s, s) for s in (32, 16)])] == [(2, OUT)] * 2


# Teacher


def test_teacher_is_a_copy_that_asks_for_no_gradient():
    student = network()
    teacher = dino.make_teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    for theta_t, theta_s in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(theta_t, theta_s)
        assert theta_t.data_ptr() != theta_s.data_ptr()


def test_step_moves_the_student_and_leaves_the_teacher_alone():
    student = network()
    teacher, ours = dino.make_teacher(student), dino.DINOLoss(OUT)
    before = copy.deepcopy(list(teacher.parameters()))
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    views = [torch.randn(3, 3, 16, 16) for _ in range(2)]
    ours(student(views), teacher(views)).backward()
    optimizer.step()
    after, moved = list(teacher.parameters()), list(student.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))


@given(st.floats(0, 1), st.integers(1, 6))
@settings(max_examples=20)
def test_ema_is_its_closed_form(m, n):
    student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    student, teacher = student.double(), teacher.double()
    weights = np.linspace(-1, 2, n)
    expected = m**n * teacher.weight.item()
    for i, weight in enumerate(weights):
        nn.init.constant_(student.weight, weight)
        dino.update_ema(teacher, student, m)
        expected += (1 - m) * m ** (n - 1 - i) * weight
    assert teacher.weight.item() == pytest.approx(expected, abs=1e-12)


def test_ema_is_lightlys():
    student, ours = network(0).double(), network(1).double()
    theirs = copy.deepcopy(ours)
    for _ in range(3):
        dino.update_ema(ours, student, 0.9)
        update_momentum(student, theirs, m=0.9)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_ema_leaves_the_statistics_of_batch_norm_alone():
    student, teacher = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    student.running_mean.fill_(5.0)
    dino.update_ema(teacher, student, 0.0)
    assert teacher.running_mean.abs().max() == 0


def test_ema_takes_parameters_of_nothing():
    """What is empty has no address, or the same one: it looked shared."""
    student = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(0, 3))])
    student.append(nn.Parameter(torch.zeros(0)))
    teacher = dino.make_teacher(student)
    with torch.no_grad():
        student[0].zero_()
    dino.update_ema(teacher, student, 0.75)
    assert teacher[0].tolist() == [0.75, 0.75]


def test_ema_refuses_a_teacher_of_another_shape():
    """[2, 3] and [2, 1] would be stretched to each other."""
    for teacher in (nn.Linear(3, 2), nn.Linear(1, 2, bias=False), nn.Linear(3, 1, bias=False)):
        with pytest.raises(ValueError, match="differ in shape"):
            dino.update_ema(teacher, nn.Linear(1, 2), 0.9)
    with pytest.raises(ValueError, match="differ in shape"):
        dino.update_ema(nn.Linear(3, 2, bias=False), nn.Linear(1, 2, bias=False), 0.9)


def test_ema_refuses_a_teacher_that_is_the_student():
    student = network()
    for teacher in (student, copy.copy(student)):
        with pytest.raises(ValueError, match="make the teacher a deep copy"):
            dino.update_ema(teacher, student, 0.9)
    with pytest.raises(ValueError, match="expected a number in"):
        dino.update_ema(dino.make_teacher(student), student, 1.1)


def test_cosine_starts_at_one_end_and_almost_reaches_the_other():
    values = [dino.cosine(i, start=0.996, end=1.0, steps=10) for i in range(10)]
    assert values[0] == pytest.approx(0.996, abs=1e-12)
    assert dino.cosine(5, start=0.996, end=1.0, steps=10) == pytest.approx(0.998)
    assert values == sorted(values)
    assert 1 > values[-1] > 0.9998  # the end itself would come one step later


# Crops


def random_images(n: int = 6, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_crop_is_torchvisions_for_the_same_box(size):
    images = random_images(40)
    boxes = crops.random_boxes(40, 32, (0.05, 1.0), generator=torch.Generator().manual_seed(1))
    ours = crops.resized_crop(images, boxes, size)
    for image, box, view in zip(images, boxes.tolist(), ours, strict=True):
        theirs = torchvision_crop(
            image, *box, [size, size], InterpolationMode.BILINEAR, antialias=True
        )
        torch.testing.assert_close(view, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_view_that_shrinks_is_a_mean_and_not_a_sample(factor):
    """A view of stripes one pixel wide is grey; sampled, it was black or white, by its place."""
    stripes = torch.arange(32).remainder(2).float().expand(2, 3, 32, 32)
    boxes = torch.tensor([[0, 0, 32, 32], [2, 0, 30, 31]])
    view = crops.resized_crop(stripes, boxes, 32 // factor)[..., 1:-1]
    assert float((view - 0.5).abs().max()) < 0.1
    flat = crops.resized_crop(torch.ones(2, 3, 32, 32), boxes, 32 // factor)
    torch.testing.assert_close(flat, torch.ones_like(flat))


def test_crop_of_everything_is_the_image_and_a_negative_width_mirrors():
    images = random_images()
    whole = torch.tensor([[0, 0, 32, 32]]).expand(6, -1)
    torch.testing.assert_close(crops.resized_crop(images, whole, 32), images, rtol=0, atol=1e-5)
    whole = torch.tensor([[0, 0, 32, -32]]).expand(6, -1)
    turned = crops.resized_crop(images, whole, 32)
    torch.testing.assert_close(turned, images.flip(3), rtol=0, atol=1e-5)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(4, 64), st.integers(0, 999))
@settings(max_examples=40)
def test_boxes_lie_in_the_image(a, b, size, seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = crops.random_boxes(50, size, (min(a, b), max(a, b)), generator=generator)
    top, left, height, width = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size
    assert (left + width).max() <= size


def test_boxes_have_the_areas_ratios_and_places_asked_for():
    generator = torch.Generator().manual_seed(0)
    top, left, height, width = (
        crops.random_boxes(4000, 1000, (0.1, 0.4), generator=generator).double().T
    )
    area, ratio = height * width / 1000**2, width / height
    assert area.min() == pytest.approx(0.1, abs=2e-3)
    assert area.max() == pytest.approx(0.4, abs=2e-3)
    assert area.mean() == pytest.approx(0.25, abs=5e-3)
    assert ratio.min() == pytest.approx(3 / 4, abs=3e-3)
    assert ratio.max() == pytest.approx(4 / 3, abs=3e-3)
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.01)
    for offset, side in ((top, height), (left, width)):
        assert (offset + side).max() <= 1000
        assert float((offset / (1000 - side)).mean()) == pytest.approx(0.5, abs=0.02)


def test_views_are_two_global_and_n_local_ones_and_differ():
    generator = torch.Generator().manual_seed(0)
    images = random_images()
    views = dino.multicrop(images, n_local=3, generator=generator, mirror=True, colour=0.5)
    assert [tuple(v.shape) for v in views] == [(6, 3, 32, 32)] * 2 + [(6, 3, 16, 16)] * 3
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[2], views[3])
    generator.manual_seed(0)
    again = dino.multicrop(images, n_local=3, generator=generator, mirror=True, colour=0.5)
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))


def test_local_views_show_less_than_global_ones():
    ramp = torch.linspace(0, 1, 32).expand(500, 3, 32, 32)  # how much of it shows is the width
    generator = torch.Generator().manual_seed(0)
    views = dino.multicrop(ramp, n_local=1, generator=generator)
    first, _, local = (v.amax(dim=(1, 2, 3)) - v.amin(dim=(1, 2, 3)) for v in views)
    assert first.min() > local.min()
    assert first.mean() > 1.5 * local.mean()
    assert local.max() < math.sqrt(0.4 * 4 / 3)


def test_every_image_gets_its_own_crop_mirrored_half_of_the_time():
    ramp = torch.linspace(0, 1, 32)
    ramp = (ramp + 2 * ramp[:, None]).expand(400, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    view = dino.multicrop(ramp, n_local=0, generator=generator, mirror=True)[0]
    is_mirrored = view[:, 0, 0, 0] > view[:, 0, 0, -1]
    assert 0.4 < float(is_mirrored.float().mean()) < 0.6
    assert view.flatten(1).unique(dim=0).shape[0] > 200
    view = dino.multicrop(ramp, n_local=0, generator=generator)[0]
    assert (view[:, 0, 0, 0] < view[:, 0, 0, -1]).all()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.rand(2, 3, 32, 16), {"n_local": 1}, "square images"),
        (random_images(), {"n_local": -1}, "n_local >= 0"),
        (random_images(), {"n_local": 1, "local_scale": (0.4, 0.1)}, "two shares"),
        (random_images(), {"n_local": 1, "global_scale": (0.0, 1.0)}, "two shares"),
    ],
)
def test_impossible_crops_are_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        dino.multicrop(images, **options)


def test_recolouring_jitters_brightness_contrast_and_saturation_of_each_image():
    images = random_images(2000).double()
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(crops.recolour(images, 0.0, generator=generator), images)
    found = crops.recolour(images, 1.0, generator=generator)
    before, after = (x.mean(dim=1).flatten(1) for x in (images, found))  # grey pixels, [B, 1024]
    contrast = after.std(dim=1) / before.std(dim=1)
    shift = after.mean(dim=1) - contrast * before.mean(dim=1)
    torch.testing.assert_close(after, contrast[:, None] * before + shift[:, None])
    colours, jittered = ((x[:, 0] - x[:, 1]).flatten(1).std(dim=1) for x in (images, found))
    saturation = jittered / colours / contrast
    for values, lowest, highest in ((contrast, 0.6, 1.4), (shift, -0.8, 0.8)):
        assert lowest <= float(values.min()) < lowest + 0.01
        assert highest - 0.01 < float(values.max()) <= highest
    is_grey = saturation < 1e-9
    assert float(is_grey.double().mean()) == pytest.approx(0.2, abs=0.03)
    assert 0.4 <= float(saturation[~is_grey].min()) < 0.41
    assert 1.59 < float(saturation.max()) <= 1.6 + 1e-9
    drawn = torch.stack([contrast, shift, saturation * ~is_grey])
    assert float((torch.corrcoef(drawn) - torch.eye(3)).abs().max()) < 0.1  # independent draws


# k-NN


def clouds(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    noise = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return centres[labels] + 1.2 * noise, labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 0.5)])
def test_knn_is_scikit_learns_with_the_same_weights(k, temperature):
    (x, y), (x_test, y_test) = clouds(300, 0), clouds(1200, 1)
    # Cosine distance d = 1 - cosine, so the weight is exp((1 - d) / temperature).
    theirs = KNeighborsClassifier(
        k, weights=lambda d: np.exp((1 - d) / temperature), metric="cosine", algorithm="brute"
    ).fit(x, y)
    expected = theirs.score(x_test, y_test)
    assert 0.5 < expected < 0.95
    found = dino.knn_accuracy(x, y, x_test, y_test, k=k, temperature=temperature)
    assert found == pytest.approx(expected, abs=1e-9)


def test_knn_ignores_the_length_of_features_and_float32_survives_a_low_temperature():
    (x, y), (x_test, y_test) = clouds(300, 0), clouds(200, 1)
    expected = dino.knn_accuracy(x, y, x_test, y_test)
    lengths = torch.rand(300, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    assert dino.knn_accuracy(x * lengths, y, 9 * x_test, y_test) == expected
    cold = dino.knn_accuracy(x.float(), y, x_test.float(), y_test, temperature=5e-3)
    assert cold == dino.knn_accuracy(x, y, x_test, y_test, temperature=5e-3)


@pytest.mark.parametrize("k", [0, 301])
def test_knn_refuses_more_neighbours_than_there_are(k):
    x, y = clouds(300, 0)
    with pytest.raises(ValueError, match="the number of train rows"):
        dino.knn_accuracy(x, y, x, y, k=k)


def test_features_are_unit_vectors_before_they_are_compared():
    train = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    test = normalize(torch.tensor([[0.4, 0.6]]))
    assert dino.knn_accuracy(train, torch.tensor([0, 1]), test, torch.tensor([1]), k=1) == 1.0


def test_bounded_logits_bound_the_student():
    out, tau = 512, 0.1
    worst = torch.ones(1, out, dtype=torch.float64)
    worst[0, 0] = -1.0
    assert float(log_softmax(worst / tau, dim=-1)[0, 0]) > -(2 / tau + math.log(out))


def test_defaults_are_those_of_the_paper():
    """Temperatures and momentum of the centre (section 3.1), head (appendix C), crops."""
    expected = {"student_temperature": 0.1, "teacher_temperature": 0.04, "center_momentum": 0.9}
    assert defaults(dino.DINOLoss) == expected
    assert defaults(dino.DINOHead) == {"hidden": 2048, "bottleneck": 256}
    found = defaults(crops.multicrop)
    assert (found["global_scale"], found["local_scale"]) == ((0.4, 1.0), (0.1, 0.4))
    assert (found["local_size"], found["mirror"], found["colour"]) == (16, False, 0.0)
