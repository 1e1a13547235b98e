"""DARTS: equations 6 to 8 against torch.func, the toy, the symmetries, the space, the table."""

import copy
import itertools
import json
import math
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, jvp

from mini import darts
from mini.darts import cell_table, cells, search
from mini.data import Dataset, Split, load, subset
from tests.planted import defaults

OPS = ("none", "skip", "conv3x3", "avg3x3")


def mixed_mlp(dtype=torch.float64, seed=0):
    """(train loss, validation loss, weights, alphas): a tanh network with three mixed operations.

    Between its layers stand tanh, identity and sine, mixed by alpha on each of three edges.
    """
    g = torch.Generator().manual_seed(seed)
    shapes = [(4, 5), (5, 5), (5, 5), (5, 3)]
    weights = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) * 0.5 for s in shapes]
    alphas = [torch.randn(3, 3, generator=g, dtype=torch.float64).to(dtype)]
    data = torch.randn(2, 12, 4, generator=g, dtype=torch.float64).to(dtype)
    labels = torch.randint(3, (2, 12), generator=g)

    def loss_on(x, y):
        def loss(w, a):
            h = x @ w[0]
            for edge, weight in enumerate(w[1:]):
                m = a[0][edge].softmax(-1)
                h = (m[0] * h.tanh() + m[1] * h + m[2] * h.sin()) @ weight
            return nn.functional.cross_entropy(h, y)

        return loss

    return loss_on(data[0], labels[0]), loss_on(data[1], labels[1]), weights, alphas


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def unrolled(train_loss, val_loss, weights, alphas, lr):
    """Equation 6 by torch.func alone."""

    def ahead(a):
        slope = grad(train_loss)(tuple(weights), (a,))
        return val_loss([w - lr * g for w, g in zip(weights, slope, strict=True)], (a,))

    return grad(ahead)(alphas[0])


# The hypergradient


@pytest.mark.parametrize("seed", range(3))
def test_exact_is_autograd_through_the_step(seed):
    problem = mixed_mlp(seed=seed)
    (found,) = darts.hypergradient(*problem, 0.3, order="exact")
    torch.testing.assert_close(found, unrolled(*problem, 0.3), rtol=0, atol=1e-12)


def test_exact_is_equation_7_with_an_exact_product():
    train_loss, val_loss, weights, alphas = mixed_mlp()
    lr = 0.3
    slope = grad(train_loss)(tuple(weights), tuple(alphas))
    ahead = tuple(w - lr * g for w, g in zip(weights, slope, strict=True))
    v, (direct,) = grad(val_loss, argnums=(0, 1))(ahead, tuple(alphas))
    of_alpha = grad(train_loss, argnums=1)
    _, (product,) = jvp(lambda *w: of_alpha(w, tuple(alphas)), tuple(weights), tuple(v))
    (found,) = darts.hypergradient(train_loss, val_loss, weights, alphas, lr, order="exact")
    torch.testing.assert_close(found, direct - lr * product, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-4), (torch.float32, 1e-3)])
@pytest.mark.parametrize("seed", range(3))
def test_second_order_is_near_the_exact_one(dtype, allowed, seed):
    problem = mixed_mlp(dtype, seed)
    (found,) = darts.hypergradient(*problem, 0.3, order="second")
    exact = unrolled(*mixed_mlp(seed=seed), 0.3)
    first = darts.hypergradient(*problem, 0.3, order="first")[0]
    assert found.dtype == dtype
    assert relative(found.double(), exact) < allowed
    assert relative(first.double(), exact) > 50 * allowed  # the implicit term is not small here


def test_second_order_is_near_here():
    test_second_order_is_near_the_exact_one(torch.float64, 1e-4, 0)


def test_error_falls_with_the_square_of_epsilon():
    problem = mixed_mlp()
    exact = unrolled(*problem, 0.3)
    errors = [
        relative(darts.hypergradient(*problem, 0.3, epsilon=e)[0], exact) for e in (1e-1, 1e-2)
    ]
    assert 80 < errors[0] / errors[1] < 120


def test_error_falls_with_the_square_of_epsilon_here():
    """And epsilon is the length of the whole perturbation, whatever the gradient's."""
    test_error_falls_with_the_square_of_epsilon()
    train_loss, val_loss, weights, alphas = mixed_mlp()
    found = [
        darts.hypergradient(train_loss, lambda w, a, f=f: f * val_loss(w, a), weights, alphas, 0.3)
        for f in (1, 1000)
    ]
    torch.testing.assert_close(found[1][0], 1000 * found[0][0], rtol=1e-9, atol=0)


def test_first_order_is_the_gradient_of_the_validation_loss():
    train_loss, val_loss, weights, alphas = mixed_mlp()
    (found,) = darts.hypergradient(train_loss, val_loss, weights, alphas, 0.3, order="first")
    expected = grad(lambda a: val_loss(weights, (a,)))(alphas[0])
    torch.testing.assert_close(found, expected)
    for order in ("second", "exact"):
        (at_zero,) = darts.hypergradient(train_loss, val_loss, weights, alphas, 0.0, order=order)
        torch.testing.assert_close(at_zero, expected)


def test_drift_moves_the_inner_step():
    """Momentum's and weight decay's part, written into the loss instead."""
    train_loss, val_loss, weights, alphas = mixed_mlp()
    drift = [torch.randn_like(w) for w in weights]

    def drifting(w, a):
        return train_loss(w, a) + sum((p * d).sum() for p, d in zip(w, drift, strict=True))

    expected = unrolled(drifting, val_loss, weights, alphas, 0.3)
    for order, allowed in (("exact", 1e-12), ("second", 1e-4)):
        (found,) = darts.hypergradient(
            train_loss, val_loss, weights, alphas, 0.3, order=order, drift=drift
        )
        assert relative(found, expected) < allowed


def test_several_alphas_and_one_that_a_loss_does_not_use():
    train_loss, val_loss, weights, (alpha,) = mixed_mlp()
    rows = list(alpha)

    def split(loss):
        return lambda w, a: loss(w, [torch.stack(list(a[:3]))])

    unused = torch.ones(2, dtype=torch.float64)
    found = darts.hypergradient(
        split(train_loss), split(val_loss), weights, [*rows, unused], 0.3, order="exact"
    )
    expected = unrolled(train_loss, val_loss, weights, [alpha], 0.3)
    torch.testing.assert_close(torch.stack(found[:3]), expected)
    assert torch.equal(found[3], torch.zeros(2, dtype=torch.float64))


def test_a_stationary_validation_loss_leaves_the_direct_term():
    w, a = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    found = darts.hypergradient(
        lambda w, a: (w[0] ** 2).sum() * a[0].sum(), lambda w, a: a[0].sum(), [w], [a], 0.1
    )
    assert torch.equal(found[0], torch.ones(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "third"}, "expected one of first, second, exact"),
        ({"lr": -0.1}, "lr >= 0"),
        ({"epsilon": 0.0}, "epsilon > 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        darts.hypergradient(*mixed_mlp(), **({"lr": 0.1} | change))


@pytest.mark.parametrize("order", darts.ORDERS)
def test_a_loss_of_other_tensors_is_refused(order):
    """The usual slip: a closure over the network's own parameters, whose gradient would be 0."""
    own = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="none of the weights or alphas"):
        darts.hypergradient(
            lambda w, a: (own**2).sum(),
            lambda w, a: (own**2).sum(),
            [torch.ones(2)],
            [torch.ones(2)],
            0.1,
            order=order,
        )


def test_a_loss_of_other_tensors_is_refused_here():
    test_a_loss_of_other_tensors_is_refused("first")


# The paper's toy (figure 2)


def toy(xi, steps=150, order="exact"):
    alpha, w = torch.tensor([2.0]).double(), torch.tensor([-2.0]).double()
    for _ in range(steps):
        (g,) = darts.hypergradient(
            lambda w, a: (w[0] ** 2 - 2 * a[0] * w[0] + a[0] ** 2).sum(),
            lambda w, a: (a[0] * w[0] - 2 * a[0] + 1).sum(),
            [w],
            [alpha],
            xi,
            order=order,
        )
        alpha = alpha - 0.3 * g
        w = w - 0.3 * (2 * w - 2 * alpha)
    return float(alpha), float(w)


@pytest.mark.parametrize("xi", [0.0, 0.3, 0.5, 0.7])
def test_the_toy_comes_to_rest_at_the_derived_point(xi):
    assert toy(xi) == pytest.approx((2 / (1 + 2 * xi),) * 2, abs=1e-6)


def test_the_toy_is_bilinear_so_differences_are_exact():
    assert toy(0.3, order="second") == pytest.approx((1.25, 1.25), abs=1e-6)


# Nothing is moved


class Tracked(nn.Module):
    """A network whose batch norm keeps statistics, with an alpha."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.alphas = nn.Parameter(torch.zeros(1, 2))

    def forward(self, x):
        m = self.alphas.softmax(-1)[0]
        h = self.norm(self.layer(x))
        return m[0] * h + m[1] * h.tanh()


def batch_for(net):
    shape = (8, 4) if isinstance(net, Tracked) else (8, 3, 32, 32)
    return torch.randn(shape), torch.randint(3, (8,))


@pytest.mark.parametrize("order", darts.ORDERS)
@pytest.mark.parametrize("make", [Tracked, lambda: darts.SuperNet(4, depth=1)])
def test_everything_is_bit_identical_after_a_call(make, order):
    torch.manual_seed(0)
    net = make().train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    images, labels = batch_for(net)
    nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    weights = [p for name, p in net.named_parameters() if name != "alphas"]
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()["state"]))
    losses = [search.loss_on(net, *batch_for(net)) for _ in "tv"]
    darts.hypergradient(*losses, weights, [net.alphas], 0.1, order=order)
    after = net.state_dict(), optimizer.state_dict()["state"]
    for old, new in zip(before[0].values(), after[0].values(), strict=True):
        assert torch.equal(old, new)
    for key, state in before[1].items():
        assert torch.equal(state["momentum_buffer"], after[1][key]["momentum_buffer"])
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_nothing_is_moved_here():
    for make in (Tracked, lambda: darts.SuperNet(4, depth=1)):
        test_everything_is_bit_identical_after_a_call(make, "second")


def test_loss_on_is_the_loss_of_the_network():
    torch.manual_seed(0)
    for net in (Tracked(), darts.SuperNet(4)):
        images, labels = batch_for(net)
        weights = [p for name, p in net.named_parameters() if name != "alphas"]
        found = search.loss_on(net, images, labels)(weights, [net.alphas])
        torch.testing.assert_close(found, nn.functional.cross_entropy(net(images), labels))


# The mixture


def test_a_mixture_is_the_weighted_sum_of_its_operations():
    mixed = darts.MixedOp([nn.Identity(), cells.Zero(), nn.Tanh()])
    x, weights = torch.randn(2, 3, 4, 4), torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close(mixed(x, weights), 0.2 * x + 0.3 * x.tanh())
    assert torch.equal(mixed(x, torch.tensor([0.0, 0, 1])), x.tanh())
    assert torch.equal(mixed(x, torch.zeros(3)), torch.zeros_like(x))
    with pytest.raises(ValueError, match="weights for 3 operations"):
        mixed(x, torch.ones(2))


def test_a_zero_weight_still_has_a_gradient():
    weights = torch.tensor([1.0, 0.0], requires_grad=True)
    x = torch.randn(2, 3, 4, 4)
    darts.MixedOp([nn.Identity(), nn.Tanh()])(x, weights).sum().backward()
    torch.testing.assert_close(weights.grad[1], x.tanh().sum())


@given(
    st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
@settings(max_examples=10)
def test_symmetries_of_alpha(values, shifts):
    torch.manual_seed(0)
    net = darts.SuperNet(3, depth=1).double()
    x, labels = torch.randn(4, 3, 32, 32).double(), torch.tensor([0, 1, 2, 3])
    loss = search.loss_on(net, x, labels)
    weights = list(net.weights().values())
    alphas = torch.tensor(values).view(3, 4).double().requires_grad_()
    (slope,) = torch.autograd.grad(loss(weights, [alphas]), alphas)
    assert slope.sum(dim=1).abs().max() < 1e-12
    moved = alphas + torch.tensor(shifts).double()[:, None]
    assert (loss(weights, [moved]) - loss(weights, [alphas])).abs() < 1e-10


def test_at_alpha_zero_all_operations_count_alike():
    net = darts.SuperNet(3, depth=1)
    assert torch.equal(darts.mixture(net.alphas), torch.full((3, 4), 0.25))
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    edge = net.cells[0].edges[0]
    mean = torch.stack([o(x) for o in edge.operations]).mean(0)
    torch.testing.assert_close(edge(x, darts.mixture(net.alphas)[0]), mean)
    skewed = darts.mixture(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 9]]))
    torch.testing.assert_close(skewed.sum(dim=1), torch.ones(2))


def test_one_hot_weights_are_the_cell():
    """The super-network with one-hot weights against the same cell built on its own."""
    torch.manual_seed(0)
    cell = ("conv3x3", "skip", "avg3x3")
    net, alone = darts.SuperNet(4), cells.build(cell, 4)
    alone.load_state_dict(
        {
            name.replace(f"{e}.operations.{OPS.index(op)}", str(e)): value
            for e, op in enumerate(cell)
            for name, value in net.state_dict().items()
        },
        strict=False,
    )
    alone.train()  # batch statistics, and scales of 1
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(net(x, darts.one_hot(cell)), alone(x), rtol=1e-4, atol=1e-5)


# Discretisation


def test_the_strongest_operation_other_than_none_stays():
    alphas = torch.tensor([[9.0, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    assert darts.discretise(alphas) == ("conv3x3", "skip", "avg3x3")
    assert darts.discretise(alphas, ("a", "b", "c", "none")) == ("a", "b", "a")


def test_edges_are_compared_by_their_softmax_weight():
    """A large logit says nothing beside a larger none; equation 2's weights do."""
    alphas = torch.tensor([[0.0, 1, 0, 0], [9.0, 3, 0, 0], [0.0, 0, 2, 0]])
    assert darts.discretise(alphas, keep=1) == ("skip", "none", "conv3x3")
    assert darts.discretise(alphas, keep=2) == ("skip", "skip", "conv3x3")


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 999))
@settings(max_examples=30)
def test_each_node_keeps_its_edges(nodes, keep, seed):
    edges = cells.edges(nodes)
    alphas = torch.randn(len(edges), 4, generator=torch.Generator().manual_seed(seed))
    cell = darts.discretise(alphas, keep=keep)
    for node in range(1, nodes):
        kept = [op for op, (_, j) in zip(cell, edges, strict=True) if j == node and op != "none"]
        assert len(kept) == min(keep, node)


@pytest.mark.parametrize(
    ("shape", "operations"), [((3, 3), OPS), ((4,), OPS), ((3, 1), ("none",)), ((2, 4), OPS)]
)
def test_alphas_of_another_shape_are_refused(shape, operations):
    with pytest.raises(ValueError, match=r"expected|No cell has 2 edges"):
        darts.discretise(torch.zeros(shape), operations)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_alphas_that_are_no_numbers_are_no_cell(wrong):
    """They were (skip, skip, skip)."""
    for place in ((1, 2), ...):
        alphas = torch.zeros(3, 4)
        alphas[place] = wrong
        with pytest.raises(ValueError, match="have no softmax"):
            darts.discretise(alphas)
    excluded = torch.tensor([[0.0, -math.inf, 1, 0]]).expand(3, 4)  # an operation taken out
    assert darts.discretise(excluded) == ("conv3x3",) * 3


@pytest.mark.parametrize("score", [math.nan, (0.1, math.nan), torch.tensor(math.nan)])
def test_a_score_that_is_no_number_leaves_nothing_out(score):
    with pytest.raises(ValueError, match="Without skip on edge 0 the score is no number"):
        darts.leave_one_out(lambda _: score, torch.full((3, 4), 0.25))


def test_leave_one_out_keeps_what_is_missed_most():
    worth = torch.tensor([[5.0, 1, 2, 3], [5, 3, 2, 1], [5, 0, 1, 0]])
    weights = darts.mixture(torch.zeros(3, 4))
    found = darts.leave_one_out(lambda w: float((worth * w).sum()), weights)
    assert found == ("avg3x3", "skip", "conv3x3")
    assert torch.equal(weights, torch.full((3, 4), 0.25))


# The search


def batches(n=6, size=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, 32, 32, generator=g), torch.randint(10, (size,), generator=g))
        for _ in range(n)
    ]


def searched(rule, steps=3, alpha_lr=0.05, weight_batches=None, alpha_batches=None):
    torch.manual_seed(0)
    net = darts.SuperNet(4, depth=1)
    weight_batches, alpha_batches = weight_batches or batches(), alpha_batches or batches(seed=1)
    options = {"rule": rule, "steps": steps, "lr": 0.1, "alpha_lr": alpha_lr}
    done = list(search.search(net, weight_batches, alpha_batches, **options))
    assert done == list(range(1, steps + 1))
    return net


def test_the_first_step_of_alpha_follows_the_validation_loss():
    """Adam's first step is alpha_lr times the gradient's sign."""
    torch.manual_seed(0)
    net = darts.SuperNet(4, depth=1)
    (slope,) = torch.autograd.grad(
        nn.functional.cross_entropy(net(batches(seed=1)[0][0]), batches(seed=1)[0][1]), net.alphas
    )
    found = searched("first", steps=1).alphas
    torch.testing.assert_close(found, -0.05 * slope.sign(), rtol=1e-3, atol=1e-3)


def test_only_the_validation_batches_move_alpha():
    one = searched("first", 1, weight_batches=batches(seed=2)).alphas
    two = searched("first", 1, weight_batches=batches(seed=3)).alphas
    other = searched("first", 1, alpha_batches=batches(seed=4)).alphas
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


def test_fixed_and_sampled_leave_alpha_alone_and_the_others_move_it():
    for rule in search.RULES:
        assert bool(searched(rule).alphas.abs().sum() > 0) == (rule not in ("fixed", "sampled"))


def test_the_unrolled_step_is_the_step_that_is_taken(monkeypatch):
    """w' of equation 6, with momentum, decay and the schedule, is where the weights go next."""
    seen = []

    def spy(train_loss, val_loss, weights, alphas, lr, *, order, drift):
        slope = torch.autograd.grad(train_loss(weights, alphas), weights)
        pairs = zip(weights, slope, drift, strict=True)
        seen.append([p.detach() - lr * (g + d) for p, g, d in pairs])
        return [torch.zeros_like(alphas[0])]

    monkeypatch.setattr(search, "hypergradient", spy)
    torch.manual_seed(0)
    net = darts.SuperNet(4, depth=1)
    options = {"rule": "second", "steps": 4, "lr": 0.1, "alpha_lr": 0.0}
    for step in search.search(net, batches(), batches(seed=1), **options):
        for expected, found in zip(seen[step - 1], net.weights().values(), strict=True):
            torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)
    assert len(seen) == 4


def test_the_second_order_search_is_the_exact_one_in_a_smooth_network(monkeypatch):
    monkeypatch.setattr(nn, "ReLU", nn.GELU)
    first, second, exact = (searched(rule, 1).alphas for rule in ("first", "second", "exact"))
    assert (second - exact).abs().max() < 1e-3  # Adam's first step: the signs agree
    problem, weights, alphas = supernet_problem()
    exact = darts.hypergradient(*problem, weights, alphas, 0.1, order="exact")[0]
    first = darts.hypergradient(*problem, weights, alphas, 0.1, order="first")[0]
    second = darts.hypergradient(*problem, weights, alphas, 0.1, epsilon=1e-3)[0]
    assert relative(second - first, exact - first) < 1e-3


def test_where_relu_bends_the_difference_sees_what_autograd_does_not():
    """At the paper's epsilon kinks are crossed; at one so small that none is, both agree."""
    problem, weights, alphas = supernet_problem()
    exact, first, second, tiny = (
        darts.hypergradient(*problem, weights, alphas, 0.1, order=order, epsilon=epsilon)[0]
        for order, epsilon in (("exact", 1), ("first", 1), ("second", 1e-2), ("second", 1e-7))
    )
    assert relative(second - first, exact - first) > 0.05
    assert relative(tiny - first, exact - first) < 1e-5


def supernet_problem():
    """Losses of a small super-network in float64, its weights, its alphas."""
    torch.manual_seed(0)
    net = darts.SuperNet(4, depth=1).double()
    pairs = [(x.double(), y) for x, y in batches(2, size=16)]
    return (
        [search.loss_on(net, *pair) for pair in pairs],
        list(net.weights().values()),
        [net.alphas],
    )


def test_the_unrolled_step_is_the_step_that_is_taken_here():
    with pytest.MonkeyPatch.context() as monkeypatch:
        test_the_unrolled_step_is_the_step_that_is_taken(monkeypatch)


def test_the_weights_step_leaves_no_gradient_in_alpha():
    net = searched("fixed")
    assert net.alphas.grad is None or not net.alphas.grad.abs().sum()


def test_sampled_cells_have_no_none_and_all_occur():
    net, g = darts.SuperNet(2, depth=1), torch.Generator().manual_seed(0)
    drawn = {search.random_cell(net, g) for _ in range(400)}
    assert drawn == set(cells.all_cells(OPS[1:]))


ENDS = (list, itertools.cycle)


@pytest.mark.parametrize("which", ["weight_batches", "alpha_batches"])
def test_batches_that_end_or_are_none_are_refused(which):
    """The search spun for ever. Endless ones need not be gone through again."""
    exhausted = iter(batches(1))
    next(exhausted)
    for some in (iter([]), exhausted, (batch for batch in batches(2))):
        with pytest.raises(ValueError, match="There is no batch, or none any more"):
            searched("first", **{which: some})
    with pytest.raises(ValueError, match="There is no batch"):
        next(search.again([]))
    again, endless = (searched("first", 8, **{which: make(batches())}) for make in ENDS)
    assert torch.equal(again.alphas, endless.alphas)
    net = darts.SuperNet(4, depth=1)
    with pytest.raises(ValueError, match="no batch to score"):
        search.score(net, exhausted, darts.mixture(net.alphas))


def test_the_rate_of_the_weights_falls_from_the_first_step_on_as_half_a_cosine(monkeypatch):
    """Without a ramp: (1 + cos(pi (k + 1/2) / steps)) / 2 of it in step k (appendix A.1.1)."""
    rates = []

    def spy(train_loss, val_loss, weights, alphas, lr, **options):
        rates.append(lr)
        return [torch.zeros_like(alphas[0])]

    monkeypatch.setattr(search, "hypergradient", spy)
    searched("second", 8)
    expected = [0.1 * (1 + math.cos(math.pi * (k + 0.5) / 8)) / 2 for k in range(8)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_the_rate_falls_here():
    with pytest.MonkeyPatch.context() as patch:
        test_the_rate_of_the_weights_falls_from_the_first_step_on_as_half_a_cosine(patch)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_cells_are_halved_in_between_and_nowhere_else(depth):
    skips = partial(map, cells.operation, ["skip"] * 3, [2] * 3)
    net, sizes = cells.CellNet(skips, 2, depth=depth), []
    for cell in net.cells:
        cell.register_forward_hook(
            lambda _, inputs, output: sizes.append((inputs[0].shape[-1], output.shape[-1]))
        )
    net(batches(1)[0][0])
    assert sizes == [(8 // 2**k, 8 // 2**k) for k in range(depth)]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="expected one of first, second, exact, joint"):
        searched("third")


def test_hessian_against_differences_of_the_gradient():
    torch.manual_seed(0)
    net = darts.SuperNet(3, depth=1).double()
    x, labels = torch.randn(4, 3, 32, 32).double(), torch.tensor([0, 1, 2, 3])
    loss, weights = search.loss_on(net, x, labels), list(net.weights().values())
    alphas = torch.randn(3, 4).double()
    hessian = search.alpha_hessian(loss, weights, alphas)

    def slope(a):
        a = a.requires_grad_()
        return torch.autograd.grad(loss(weights, [a]), a)[0].flatten()

    for k in (0, 5, 11):
        step = torch.zeros(12).double()
        step[k] = 1e-5
        ends = [slope(alphas + s * step.view(3, 4)) for s in (1, -1)]
        torch.testing.assert_close(hessian[k], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-9)
    # A constant added to an edge's alphas changes nothing, so three eigenvalues are zero.
    assert (torch.linalg.eigvalsh(hessian).abs() < 1e-12).sum() >= 3


def test_score_is_accuracy_and_negative_loss():
    net = darts.SuperNet(3, depth=1)
    given_batches = batches(2)
    weights = darts.one_hot(("conv3x3",) * 3)
    logits = torch.cat([net(x, weights) for x, _ in given_batches])
    labels = torch.cat([y for _, y in given_batches])
    accuracy, worse = search.score(net, given_batches, weights)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert worse == pytest.approx(-float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)


# The space


def test_how_many_cells_there_are():
    every = cells.all_cells()
    assert len(every) == len(set(every)) == 64
    assert sum(map(cells.is_connected, every)) == 57
    assert len({cells.canonical(cell) for cell in every}) == 26
    assert all(cells.canonical(cells.canonical(c)) == cells.canonical(c) for c in every)
    assert cells.edges(4) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_canonical_cells_compute_the_same_and_different_ones_do_not():
    """All convolutions get the same weights, so that the order of parameters cannot matter."""
    torch.manual_seed(0)
    x = torch.randn(3, 3, 32, 32).double()
    shared = torch.randn(4, 4, 3, 3).double()
    logits = {}
    for cell in cells.all_cells():
        torch.manual_seed(1)
        net = cells.build(cell, 4)
        torch.manual_seed(2)
        for module in (net.stem[0], net.head):
            module.reset_parameters()
        for module in net.cells.modules():
            if isinstance(module, nn.Conv2d):
                module.weight = nn.Parameter(shared)
        logits[cell] = net.double()(x).detach()
    groups = {}
    for cell, found in logits.items():
        groups.setdefault(cells.canonical(cell), []).append(found)
        is_constant = torch.allclose(found, found[:1].expand_as(found), atol=1e-9)
        assert is_constant != cells.is_connected(cell), cell
    for members in groups.values():
        for other in members[1:]:
            torch.testing.assert_close(other, members[0])
    alike = {
        frozenset(pair)
        for pair in itertools.combinations(groups, 2)
        if torch.allclose(*(groups[cell][0] for cell in pair), atol=1e-3)
    }
    # Twice the same operation with the same weights: the last norm undoes the factor.
    doubled = {frozenset({("none", op, "none"), ("skip", op, op)}) for op in OPS[1:]}
    assert alike == doubled


def test_in_larger_cells_dead_edges_become_none():
    dead_end = ("skip", "conv3x3", "conv3x3", "skip", "none", "none")  # node 2 leads nowhere
    assert cells.canonical(dead_end) == ("none", "none", "none", "skip", "none", "none")
    assert cells.is_connected(dead_end)
    assert not cells.is_connected(("skip", "skip", "skip", "none", "none", "none"))


def test_bad_cells_are_refused():
    with pytest.raises(ValueError, match="No cell has 2 edges"):
        cells.nodes_of(2)
    with pytest.raises(ValueError, match="no operation 'conv5x5'"):
        cells.operation("conv5x5", 3)


def test_searching_norms_have_no_scale_and_no_memory():
    norms = [m for m in darts.SuperNet(3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(not m.affine and m.running_mean is None for m in norms)
    norms = [m for m in cells.build(OPS[1:], 3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(m.affine and m.running_mean is not None for m in norms)


# The table


def tiny(n=40):
    g = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(256, (n, 3, 32, 32), generator=g, dtype=torch.uint8), torch.arange(n) % 4
    )
    mean = torch.full((3,), 0.5)
    held = Split(split.images.flip(0), split.labels.flip(0))
    return Dataset(
        "tiny", "tiny", split, split, tuple("abcd"), mean, mean, mirror=False, validation=held
    )


def test_a_table_is_made_once_and_read_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_table, "ROOT", tmp_path)
    monkeypatch.setattr(cell_table, "SETTINGS", cell_table.SETTINGS | {"epochs": 1, "channels": 2})
    monkeypatch.setattr(cell_table, "SEEDS", 1)
    data = tiny()
    made = cell_table.table(data)
    expected = cell_table.train_cell(0, ("skip", "avg3x3", "conv3x3"), data)
    for part, key in ((made.test, "accuracy"), (made.validation, "validation")):
        assert set(part) == set(cells.all_cells())
        assert all(np.array_equal(part[cell], part[cells.canonical(cell)]) for cell in part)
        assert part["skip", "avg3x3", "conv3x3"] == pytest.approx([expected[key]], abs=1e-4)

    trained = []
    monkeypatch.setattr(cell_table, "train_cell", lambda *a, **k: trained.append(a))
    again = cell_table.table(data)
    assert all(np.array_equal(made.test[cell], again.test[cell]) for cell in made.test)
    assert all(np.array_equal(made.validation[cell], again.validation[cell]) for cell in made.test)
    assert not trained


def test_a_table_needs_validation_images():
    with pytest.raises(ValueError, match="load it with n_validation"):
        cell_table.table(replace(tiny(), validation=None))


def test_validation_accuracy_is_that_of_the_validation_images():
    """Labels that all are another class's: validation accuracy differs, test accuracy does not."""
    data = tiny()
    images, labels = data.validation
    wrong = replace(data, validation=Split(images, labels.new_full(labels.shape, 0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_table, "SETTINGS", cell_table.SETTINGS | {"epochs": 1, "channels": 2})
        found = [cell_table.train_cell(0, ("none",) * 3, some) for some in (data, wrong)]
    assert found[0]["accuracy"] == found[1]["accuracy"] == found[0]["validation"] == 0.25
    assert found[1]["validation"] in (0, 1)


def stored_table(data, accuracy=0.5):
    """A record as `table` stores it, all cells as good as each other."""
    rows = [
        {"cell": cells.title(cell), "accuracy": [accuracy], "validation": [accuracy]}
        for cell in {cells.canonical(cell) for cell in cells.all_cells()}
    ]
    return cell_table._made_from(data) | {"cells": rows}


def other_label(data):
    images, labels = data.test
    return replace(data, test=Split(images, torch.cat([labels[:1] + 1, labels[1:]])))


def other_pixel(data):
    images, labels = data.train
    changed = images.clone()
    changed[7, 2, 31, 31] ^= 1
    return replace(data, train=Split(changed, labels))


OTHER_TABLES = {
    "settings": lambda data: (data, {"settings": {"epochs": 99}}),
    "n_train": lambda data: (data, {"n_train": 41}),
    "n_test": lambda data: (data, {"n_test": 41}),
    "no digest": lambda data: (data, {"data": None}),
    "label": lambda data: (other_label(data), {}),
    "pixel": lambda data: (other_pixel(data), {}),
    "mirror": lambda data: (replace(data, mirror=True), {}),
    "validation": lambda data: (replace(data, validation=other_label(data).test), {}),
    "classes": lambda data: (replace(data, classes=tuple("abcde")), {}),
}


@pytest.mark.parametrize("kind", OTHER_TABLES)
def test_a_table_of_anything_else_is_made_anew(kind):
    check_other_table(kind)


def check_other_table(kind):
    """It is made and read again; a table of other data stays beside it."""
    data, change = OTHER_TABLES[kind](tiny())

    def accuracies(data):
        return set(np.concatenate(list(cell_table.table(data).test.values())))

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_table, "ROOT", Path(folder))
        path = Path(folder) / "results" / "06_darts" / "cells-tiny-40.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(before := stored_table(tiny()) | change))
        patch.setattr(cell_table, "make", lambda data, **_: stored_table(data, accuracy=0.75))
        assert accuracies(data) == {0.75}
        patch.delattr(cell_table, "make")
        assert accuracies(data) == {0.75}
        if not change:
            assert json.loads(path.read_text()) == before
            assert accuracies(tiny()) == {0.5}


def test_a_table_is_read_for_the_same_images_under_other_names_of_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_table, "ROOT", tmp_path)
    path = cell_table.path_of(tiny())
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored_table(tiny())))
    monkeypatch.delattr(cell_table, "make")
    for data in (tiny(), replace(tiny(), classes=tuple("efgh"))):
        assert set(cell_table.table(data).test) == set(cells.all_cells())


def test_a_damaged_table_is_named_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_table, "ROOT", tmp_path)
    path = cell_table.path_of(tiny())
    path.parent.mkdir(parents=True)
    path.write_text("<<<<<<< HEAD\n{}")
    with pytest.raises(ValueError, match=r"cells-tiny-40\.json cannot be read"):
        cell_table.table(tiny())
    assert path.read_text() == "<<<<<<< HEAD\n{}"


@pytest.mark.parametrize(
    "path",
    sorted(cell_table.ROOT.glob("results/06_darts/cells-*.json")),
    ids=lambda path: path.stem,
)
def test_committed_tables_are_whole(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["settings"] == cell_table.SETTINGS
    assert path.name == f"cells-{record['dataset']}-{record['n_train']}.json"
    listed = [name for row in record["cells"] for name in (row["cell"], *row["same_as"])]
    assert sorted(listed) == sorted(map(cells.title, cells.all_cells()))
    for row in record["cells"]:
        cell = tuple(row["cell"].split("-"))
        model = cells.build(cell, cell_table.SETTINGS["channels"])
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        for found in (row["accuracy"], row["validation"]):
            assert len(found) == cell_table.SEEDS
            assert all(0 <= accuracy <= 1 for accuracy in found)
            if not cells.is_connected(cell):  # a constant answer: chance
                assert max(found) < 0.15


def test_the_committed_table_of_digits_is_that_of_the_notebooks_data():
    data = load("digits", n_train=8000, n_test=2000, n_validation=1000)
    data = replace(data, train=subset(data.train, 4000, seed=0))
    record = json.loads(cell_table.path_of(data).read_text(encoding="utf-8"))
    assert record["data"] == cell_table.digest_of(data)


def test_the_optimizers_are_those_of_the_paper(monkeypatch):
    """SGD: momentum 0.9, decay 3e-4; Adam: betas (0.5, 0.999), decay 1e-3 (appendix A.1.1)."""
    made = {}

    def spy(kind):
        def make(params, *args, **options):
            optimizer = kind(params, *args, **options)
            made[kind.__name__] = optimizer.defaults
            return optimizer

        return make

    for kind in (torch.optim.SGD, torch.optim.Adam):
        monkeypatch.setattr(torch.optim, kind.__name__, spy(kind))
    searched("first", 1)
    found = {name: made["SGD"][name] for name in ("lr", "momentum", "weight_decay")}
    assert found == {"lr": 0.1, "momentum": 0.9, "weight_decay": 3e-4}
    found = {name: made["Adam"][name] for name in ("lr", "betas", "weight_decay")}
    assert found == {"lr": 0.05, "betas": (0.5, 0.999), "weight_decay": 1e-3}


def test_defaults_are_those_of_the_paper():
    found = defaults(darts.hypergradient)
    assert (found["order"], found["epsilon"]) == ("second", 0.01)
    assert defaults(darts.discretise)["keep"] == 2
    assert cells.OPERATIONS == ("none", "skip", "conv3x3", "avg3x3")
