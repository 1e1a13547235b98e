"""SAM: its climb, its bookkeeping, batch norm, the scheduler's view of it, and the top eigenvalues.

Parity is with pytorch-optimizer's SAM (installed from PyPI), in float64.
"""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD, Adam

from mini import data, sam, training, vit
from mini.training import models
from tests.planted import defaults

NORMS = (1.5, 2.0, 3.0, 4.0)
entries = st.floats(-100, 100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3)
vectors = st.lists(entries, min_size=1, max_size=8).filter(any).map(torch.tensor)


def double(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


# The climb (eq. 2).


def dual(p: float) -> float:
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


@settings(max_examples=100)
@given(vectors, st.sampled_from((1.0, *NORMS, math.inf)))
def test_climb_has_length_rho_and_attains_the_dual_norm(g, p):
    g = g.double()
    e = sam.dual_norm_step(g, 0.3, p)
    assert float(e.norm(p)) == pytest.approx(0.3, rel=1e-12)
    assert float(g @ e) == pytest.approx(0.3 * float(g.norm(dual(p))), rel=1e-12)


@settings(max_examples=50)
@given(vectors, st.sampled_from((1.0, *NORMS, math.inf)), st.integers(0, 1000))
def test_no_other_point_of_the_ball_climbs_higher(g, p, seed):
    g = g.double()
    others = torch.randn(200, len(g), generator=torch.Generator().manual_seed(seed)).double()
    others = 0.3 * others / others.norm(p, dim=1, keepdim=True)
    best = g @ sam.dual_norm_step(g, 0.3, p)
    assert (others @ g <= best * (1 + 1e-12)).all()


def test_limits_are_the_largest_coordinate_and_the_sign():
    g = double([3.0, -4.0, 0.0, 1.0])
    largest, signs = double([0, -0.5, 0, 0]), double([0.5, -0.5, 0, 0.5])
    torch.testing.assert_close(sam.dual_norm_step(g, 0.5, 1.0), largest)
    torch.testing.assert_close(sam.dual_norm_step(g, 0.5, 1.001), largest)
    torch.testing.assert_close(sam.dual_norm_step(g, 0.5, math.inf), signs)
    torch.testing.assert_close(sam.dual_norm_step(g, 0.5, 1e9), signs)
    shared = sam.dual_norm_step(double([2.0, -2.0, 1.0]), 1.0, 1.0)
    torch.testing.assert_close(shared, double([0.5, -0.5, 0]))


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_length_of_the_gradient_does_not_matter(p, scale):
    g = torch.tensor([3.0, -4.0, 2.0])  # float32: squares of 1e-30 and 1e30 are 0 and inf
    torch.testing.assert_close(sam.dual_norm_step(g * scale, 1.0, p), sam.dual_norm_step(g, 1.0, p))


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_a_zero_gradient_gives_no_climb_and_no_nan(p):
    assert torch.equal(sam.dual_norm_step(torch.zeros(3), 1.0, p), torch.zeros(3))


# The step.


class Quadratic:
    """L = 1/2 w'Hw in float64, with its SAM gradient in closed form."""

    def __init__(self, seed: int = 0, d: int = 4):
        generator = torch.Generator().manual_seed(seed)
        A = torch.randn(d, d, generator=generator).double()
        self.H = A @ A.T + torch.eye(d)
        self.w = nn.Parameter(torch.randn(d, generator=generator).double())
        self.evaluations = 0

    def sam_gradient(self, rho: float) -> torch.Tensor:
        Hw = self.H @ self.w.detach()
        return Hw + rho * self.H @ Hw / Hw.norm()

    def closure(self) -> torch.Tensor:
        """Leaves the clearing of gradients to the optimizer."""
        self.evaluations += 1
        loss = 0.5 * self.w @ self.H @ self.w
        loss.backward()
        return loss


def test_step_is_that_of_the_closed_form_on_a_quadratic():
    problem = Quadratic()
    before, gradient = problem.w.detach().clone(), problem.sam_gradient(0.3)
    loss = sam.SAM([problem.w], SGD, rho=0.3, lr=0.1).step(problem.closure)
    torch.testing.assert_close(problem.w.detach(), before - 0.1 * gradient, rtol=1e-12, atol=1e-12)
    assert float(loss.detach()) == pytest.approx(float(0.5 * before @ problem.H @ before))


def test_the_gradient_of_the_first_pass_does_not_leak_into_the_second():
    problem = Quadratic()
    optimizer = sam.SAM([problem.w], SGD, rho=0.3, lr=0.1)
    for _ in range(3):  # the closure never clears gradients
        expected = problem.w.detach() - 0.1 * problem.sam_gradient(0.3)
        optimizer.step(problem.closure)
        torch.testing.assert_close(problem.w.detach(), expected, rtol=1e-12, atol=1e-12)


def test_sharp_valley_ends_in_a_two_cycle_of_known_width():
    lr, curvature, rho = 0.1, 4.0, 0.5
    w = nn.Parameter(double([1.3]))
    optimizer = sam.SAM([w], SGD, rho=rho, lr=lr)

    def closure():
        loss = 0.5 * curvature * (w**2).sum()
        loss.backward()
        return loss

    trace = []
    for _ in range(200):
        optimizer.step(closure)
        trace.append(float(w.detach()))
    width = lr * curvature * rho / (2 - lr * curvature)
    assert np.abs(trace[-2:]) == pytest.approx(width, rel=1e-10)
    assert trace[-1] == pytest.approx(-trace[-2], rel=1e-10)


def test_evaluations_are_two_or_one_more_than_the_inner_steps():
    for inner_steps in (1, 2, 3):
        problem = Quadratic()
        sam.SAM([problem.w], SGD, lr=0.1, inner_steps=inner_steps).step(problem.closure)
        assert problem.evaluations == 1 + inner_steps


def test_a_second_inner_step_aims_from_the_perturbed_point():
    problem = Quadratic()
    w, H = problem.w.detach().clone(), problem.H
    e = sam.dual_norm_step(H @ w, 0.3)
    e = sam.dual_norm_step(H @ (w + e), 0.3)
    sam.SAM([problem.w], SGD, rho=0.3, lr=0.1, inner_steps=2).step(problem.closure)
    torch.testing.assert_close(problem.w.detach(), w - 0.1 * H @ (w + e), rtol=1e-12, atol=1e-12)


def network(dtype=torch.float64) -> nn.Sequential:
    """Two layers, batch norm between them, and a parameter that never gets a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model.to(dtype)


def batch(n: int = 16, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(n, 5, generator=generator) + 1
    return x.to(dtype), torch.randint(3, (n,), generator=generator)


def closure_for(model, optimizer, x, y):
    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def train(model, optimizer, steps: int = 5, scheduler=None) -> None:
    closure = closure_for(model, optimizer, *batch(dtype=next(model.parameters()).dtype))
    for _ in range(steps):
        optimizer.step(closure)
        if scheduler:
            scheduler.step()


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, ours), theirs in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


BASES = [
    pytest.param(partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1), id="sgd"),
    pytest.param(partial(Adam, lr=0.01), id="adam"),
]


@pytest.mark.parametrize("base", BASES)
def test_rho_zero_is_the_base_optimizer_bit_for_bit(base):
    ours, theirs = network(torch.float32), network(torch.float32)
    train(ours, sam.SAM(ours.parameters(), base, rho=0))
    train(theirs, base(theirs.parameters()))
    assert_same(ours, theirs)


def test_learning_rate_zero_leaves_the_weights_bit_identical():
    model = network(torch.float32)
    before = [w.detach().clone() for w in model.parameters()]
    # Far from here most of w + e - e are not w, whichever way a processor rounds; near by, few.
    train(model, sam.SAM(model.parameters(), SGD, rho=30.0, lr=0.0, momentum=0.9))
    for w, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(w, old)


def test_an_error_in_the_second_pass_leaves_the_old_weights():
    problem = Quadratic()
    before = problem.w.detach().clone()

    def closure():
        if problem.evaluations:
            raise RuntimeError("out of memory")
        return problem.closure()

    with pytest.raises(RuntimeError, match="out of memory"):
        sam.SAM([problem.w], SGD, rho=0.3, lr=0.1).step(closure)
    assert torch.equal(problem.w, before)


def test_parameters_without_gradient_and_zero_gradients_are_left_alone():
    model = network()
    train(model, sam.SAM(model.parameters(), SGD, lr=0.1, adaptive=True))
    assert torch.equal(model.unused, torch.ones_like(model.unused))
    w = nn.Parameter(torch.zeros(3))
    optimizer = sam.SAM([w], SGD, lr=0.1)
    optimizer.step(lambda: (w**2).sum())  # no backward: no gradient at all

    def closure():
        loss = (w**2).sum()  # its gradient is zero
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(w, torch.zeros(3))


def test_clipping_acts_on_the_borrowed_gradient_alone():
    problem = Quadratic()
    expected = problem.sam_gradient(0.3)
    expected = problem.w.detach() - 0.1 * expected / expected.norm() * 0.01

    def clipped():
        loss = problem.closure()
        nn.utils.clip_grad_norm_([problem.w], 0.01)
        return loss

    sam.SAM([problem.w], SGD, rho=0.3, lr=0.1).step(clipped)
    torch.testing.assert_close(problem.w.detach(), expected, rtol=1e-4, atol=0)


# Groups, schedulers, state.


def groups(model: nn.Module) -> list[dict]:
    """Two groups that differ in decay, in radius and in learning rate."""
    return [
        {"params": [*model[0].parameters()], "weight_decay": 0.1, "rho": 0.2},
        {"params": [*model[1].parameters(), *model[3].parameters()], "lr": 0.02},
    ]


def test_a_scheduler_on_sam_moves_the_base_optimizer():
    ours, theirs = network(torch.float32), network(torch.float32)
    for model, make in (
        (ours, lambda params: sam.SAM(params, SGD, rho=0, lr=0.1)),
        (theirs, lambda params: SGD(params, lr=0.1)),
    ):
        optimizer = make(model.parameters())
        halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        train(model, optimizer, scheduler=halving)
    assert_same(ours, theirs)


@pytest.mark.parametrize("base", BASES)
def test_state_dict_round_trip_continues_the_same_run(base):
    kept, loaded = network(torch.float32), network(torch.float32)
    kept_optimizer = sam.SAM(kept.parameters(), base, rho=0.2)
    train(kept, kept_optimizer)
    loaded.load_state_dict(kept.state_dict())
    loaded_optimizer = sam.SAM(loaded.parameters(), base, rho=0.05, adaptive=True)
    loaded_optimizer.load_state_dict(copy.deepcopy(kept_optimizer.state_dict()))
    assert loaded_optimizer.base.param_groups is loaded_optimizer.param_groups
    train(kept, kept_optimizer)
    train(loaded, loaded_optimizer)
    assert_same(kept, loaded)


def test_an_added_group_is_stepped_by_the_base_too():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = sam.SAM([first], SGD, rho=0.1, lr=0.5)
    optimizer.add_param_group({"params": [second]})

    def closure():
        loss = first.sum() + second.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(second.detach(), torch.full((2,), 0.5))


COPIES = [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("base", BASES)
def test_a_copy_goes_on_as_the_original_does(base, copied):
    model = network(torch.float32)
    options = {"rho": 0.2, "adaptive": True, "p": 3.0, "inner_steps": 2}
    optimizer = sam.SAM(groups(model), base, **options)
    optimizer.seed = 5  # something of its own, as a control has
    halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, scheduler=halving)
    other, other_optimizer = copied((model, optimizer))
    assert (other_optimizer.p, other_optimizer.inner_steps, other_optimizer.seed) == (3.0, 2, 5)
    assert other_optimizer.base.param_groups is other_optimizer.param_groups
    assert other_optimizer.base.state is other_optimizer.state
    before = copy.deepcopy(other.state_dict())
    train(model, optimizer)
    assert all(
        torch.equal(old, now)
        for old, now in zip(before.values(), other.state_dict().values(), strict=True)
    )
    train(other, other_optimizer)
    assert_same(model, other)


def test_the_state_of_a_base_optimizer_alone_continues_its_run():
    plain, model = network(torch.float32), network(torch.float32)
    base = partial(SGD, lr=0.1, momentum=0.9)
    optimizer = base(plain.parameters())
    train(plain, optimizer)
    model.load_state_dict(plain.state_dict())
    ours = sam.SAM(model.parameters(), partial(SGD, lr=0.5), rho=0.0, adaptive=True)
    ours.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (group,) = ours.param_groups
    assert (group["rho"], group["adaptive"]) == (0.0, True)
    assert (group["lr"], group["momentum"]) == (0.1, 0.9)
    train(plain, optimizer)
    train(model, ours)
    assert_same(plain, model)


def test_scaled_gradients_are_refused():
    """They were stepped along as they came, 65,536 times too long."""
    model = network(torch.float32)
    optimizer = sam.SAM(model.parameters(), SGD, lr=0.1)
    closure = closure_for(model, optimizer, *batch(dtype=torch.float32))
    before = copy.deepcopy(model.state_dict())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(cross_entropy(model(batch(dtype=torch.float32)[0]), batch()[1])).backward()
    for arguments in ((), (closure,)):
        with pytest.raises(ValueError, match="train in bfloat16, which needs no scaling"):
            scaler.step(optimizer, *arguments)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])
    idle = torch.amp.GradScaler("cpu", enabled=False)  # as on a machine without CUDA
    with pytest.raises(ValueError, match=r"call step\(closure\)"):
        idle.step(optimizer)
    idle.step(optimizer, closure)  # a plain step
    fresh = torch.amp.GradScaler("cpu")  # torch's own sentence, before it asks the optimizer
    with pytest.raises(AssertionError, match=r"did not use scaler\.scale\("):
        fresh.step(optimizer, closure)


# Parity.

VARIANTS = [
    pytest.param({"lr": 0.1}, False, False, id="plain"),
    pytest.param({"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, False, False, id="momentum"),
    pytest.param({"lr": 0.1, "momentum": 0.9}, True, False, id="groups"),
    pytest.param({"lr": 0.1, "momentum": 0.9}, False, True, id="adaptive"),
    pytest.param({"lr": 0.1, "momentum": 0.9}, True, True, id="adaptive-groups"),
]


# Theirs rounds the length of the climb to float32: each of six tensors' norms, its square, five
# sums, a square root (which halves the relative error so far), rho, and the quotient of both:
# (3 + 5) / 2 + 1 + 1 + 1 = 7 roundings of 2^-24 each. (float64's own, 2^-53, vanish beside them.)
CLIMB_IS_OFF_BY = 7 * 2**-24  # of its length


@pytest.mark.parametrize(("options", "grouped", "adaptive"), VARIANTS)
def test_twenty_steps_agree_with_pytorch_optimizer(options, grouped, adaptive):
    """Theirs adds 1e-12 to the norm (here 0), has T = |w| (ours: |w| + 0.01, here + 0), and
    rounds the norm to float32.

    How much the climbs so far have moved the weights is measured, against the base optimizer
    without a climb. If every climb is off by a share of its length, so is, to first order, what
    it moves; n climbs may be off to different sides, so that each counts as much as all.
    """
    ours, theirs, unclimbed = network(), network(), network()

    def params(model):
        model.unused.requires_grad_(False)
        model.eval()  # which pass batch norm's statistics come from is tested below
        return groups(model) if grouped else [w for w in model.parameters() if w.requires_grad]

    common = {"rho": 0.3, "adaptive": adaptive, **options}
    mine = sam.SAM(params(ours), SGD, **common)
    other = pytorch_optimizer.SAM(params(theirs), SGD, perturb_eps=0.0, **common)
    base = SGD(params(unclimbed), **options)
    my_closure = closure_for(ours, mine, *batch())
    other_closure = closure_for(theirs, other, *batch())
    base_closure = closure_for(unclimbed, base, *batch())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam, "ETA", 0.0)
        for n in range(1, 21):
            mine.step(my_closure)
            other_closure()  # theirs wants the first gradient from outside
            other.step(other_closure)
            base.step(base_closure)
            climbed = max(
                float((a - b).detach().abs().max())
                for a, b in zip(ours.parameters(), unclimbed.parameters(), strict=True)
            )
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=n * CLIMB_IS_OFF_BY * climbed)


check_momentum_parity = partial(
    test_twenty_steps_agree_with_pytorch_optimizer,
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05},
    False,
    False,
)
check_group_parity = partial(
    test_twenty_steps_agree_with_pytorch_optimizer, {"lr": 0.1, "momentum": 0.9}, True, False
)
check_adaptive_parity = partial(
    test_twenty_steps_agree_with_pytorch_optimizer, {"lr": 0.1, "momentum": 0.9}, False, True
)


def test_adaptive_climb_is_that_of_asam():
    """e = rho T^2 g / ||T g|| with T = |w| + 0.01 (Kwon et al. 2021, section 3)."""
    w, g = double([2.0, -0.5, 0.0]), double([1.0, 2.0, -3.0])
    parameter = nn.Parameter(w.clone())
    seen = []

    def closure():
        seen.append(parameter.detach() - w)
        loss = g @ parameter
        loss.backward()
        return loss

    sam.SAM([parameter], SGD, rho=0.7, adaptive=True, lr=0.1).step(closure)
    T = w.abs() + 0.01
    torch.testing.assert_close(seen[1], 0.7 * T**2 * g / (T * g).norm())


# m-sharpness.


def test_each_part_climbs_for_itself_and_gradients_are_averaged():
    x, y = batch()
    model = network().eval()
    w = [w for w in model.parameters() if w.requires_grad]
    start = [v.detach().clone() for v in w]
    borrowed = []
    for part in (slice(0, 8), slice(8, 16)):
        alone = copy.deepcopy(model)
        optimizer = sam.SAM(alone.parameters(), SGD, rho=0.5, lr=0.0)
        optimizer.step(closure_for(alone, optimizer, x[part], y[part]))
        borrowed.append([v.grad for v in alone.parameters()])
    optimizer = sam.SAM(model.parameters(), SGD, rho=0.5, lr=0.1)
    parts = [closure_for(model, optimizer, x[i : i + 8], y[i : i + 8]) for i in (0, 8)]
    optimizer.step(parts)
    for new, old, first, second in zip(w, start, *borrowed, strict=True):
        if first is None:
            assert torch.equal(new, old)
        else:
            torch.testing.assert_close(new.detach(), old - 0.1 * (first + second) / 2)


def test_one_part_that_is_the_whole_batch_is_plain_sam():
    ours, theirs = network(), network()
    a = sam.SAM(ours.parameters(), SGD, rho=0.5, lr=0.1)
    b = sam.SAM(theirs.parameters(), SGD, rho=0.5, lr=0.1)
    a.step([closure_for(ours, a, *batch())])
    b.step(closure_for(theirs, b, *batch()))
    assert_same(ours, theirs)


# Batch norm.


def test_running_statistics_are_updated_once_from_the_unperturbed_pass():
    ours, plain = network(torch.float32), network(torch.float32)
    x, y = batch(dtype=torch.float32)
    plain(x)  # one pass at the old weights
    for inner_steps in (1, 2):
        model = copy.deepcopy(ours)
        optimizer = sam.SAM(model.parameters(), SGD, rho=2.0, lr=0.1, inner_steps=inner_steps)
        optimizer.step(closure_for(model, optimizer, x, y))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(getattr(model[1], name), getattr(plain[1], name)), name
        assert model[1].track_running_stats


def test_the_second_pass_still_normalises_by_its_batch():
    model = network(torch.float32)
    x, _ = batch(dtype=torch.float32)
    with sam.frozen_batch_norm():
        frozen = model(x)
    assert torch.equal(frozen, model(x))
    assert not torch.equal(frozen, model.eval()(x))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_batch_norm_leaves_statistics_alone_and_comes_back(named, momentum):
    model = network(torch.float32)
    model[1].momentum = momentum  # None: a cumulative mean, which needs the counter
    model(batch(dtype=torch.float32)[0])
    before = copy.deepcopy(model.state_dict())

    def interrupted():
        with sam.frozen_batch_norm(model if named else None):
            with sam.frozen_batch_norm(model if named else None):
                model(batch(dtype=torch.float32)[0] + 1)
            model(batch(dtype=torch.float32)[0] + 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model(batch(dtype=torch.float32)[0] + 1)
    assert int(model[1].num_batches_tracked) == 2


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_function(model):
    return torch.compile(lambda x: model(x), backend="eager")


def scripted(model):
    return torch.jit.script(model)


def traced(model):
    return torch.jit.trace(model, batch(dtype=torch.float32)[0], check_trace=False)


def scripted_layer(model):
    model[1] = torch.jit.script(model[1])
    return model


OTHERS = [compiled, compiled_in_place, compiled_function, scripted, traced, scripted_layer]


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, and used
@pytest.mark.parametrize("converted", OTHERS)
def test_statistics_are_updated_once_where_code_is_compiled(converted):
    """Compiled code asks no layer whether its statistics are frozen: it counted each batch twice.

    And tracing a model runs it, so that the statistics start after it.
    """
    x, y = batch(dtype=torch.float32)
    plain, model = network(torch.float32), network(torch.float32)
    call = converted(model)
    model.load_state_dict(plain.state_dict())
    optimizer = sam.SAM(model.parameters(), SGD, rho=2.0, lr=0.1, inner_steps=2)
    expected = sam.SAM(plain.parameters(), SGD, rho=2.0, lr=0.1, inner_steps=2)
    for step in (1, 2, 3):
        optimizer.step(closure_for(call, optimizer, x, y))
        expected.step(closure_for(plain, expected, x, y))
        assert int(model[1].num_batches_tracked) == step
    for (name, ours), theirs in zip(
        model.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=name)
    before = copy.deepcopy(model.state_dict())
    for named in (call if isinstance(call, nn.Module) else model, None):
        with sam.frozen_batch_norm(named):
            call(x)
            call(x + 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    call(x)
    assert int(model[1].num_batches_tracked) == 4


def test_fit_with_sam_counts_every_batch_once():
    small = data.load(n_train=60, n_test=20)
    torch.manual_seed(0)
    model = models.SmallResNet(2)
    optimizer = partial(sam.SAM, base_optimizer=partial(SGD, momentum=0.9), rho=0.5)
    training.fit(
        model, small, epochs=2, lr=0.01, batch_size=20, optimizer=optimizer, progress=False
    )
    assert int(model.stages[0].norm1.num_batches_tracked) == 2 * 3


# The top eigenvalues.


def test_top_eigenvalues_agree_with_the_dense_hessian_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(30, 4).double(), torch.randint(3, (30,))
    names, weights = zip(*model.named_parameters(), strict=True)

    def loss_of(*values):
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), x)
        return cross_entropy(logits, y)

    blocks = torch.autograd.functional.hessian(loss_of, weights)
    rows = [
        torch.cat([b.reshape(w.numel(), -1) for b in row], 1)
        for w, row in zip(weights, blocks, strict=True)
    ]
    H = torch.cat(rows)
    generator = torch.Generator().manual_seed(0)
    loss = loss_of(*weights)
    for k in (1, 5):
        expected = torch.linalg.eigvalsh(H).flip(0)[:k]
        found = sam.top_eigenvalues(loss, weights, k=k, generator=generator)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    T = torch.cat([w.detach().flatten().abs() + 0.01 for w in weights])
    expected = torch.linalg.eigvalsh(T[:, None] * H * T).flip(0)[:3]
    found = sam.top_eigenvalues(loss, weights, k=3, adaptive=True, generator=generator)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_eigenvalues_that_have_not_converged_are_refused(monkeypatch):
    monkeypatch.setattr(sam, "eigsh", partial(sam.eigsh, maxiter=1))
    w = nn.Parameter(torch.ones(400).double())
    close = 1 + torch.linspace(0, 0.01, 400).double()
    with pytest.raises(RuntimeError, match="of 5 eigenvalues have converged"):
        sam.top_eigenvalues((close * w**2).sum(), [w], k=5)


def test_the_parts_of_a_batch_are_its_examples_in_order():
    images, labels = torch.arange(14.0).view(7, 2), torch.arange(7)
    parts = sam.in_parts(lambda x, y: (x, y), images, labels, 3)
    sizes = [len(part()[1]) for part in parts]
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(torch.cat([part()[0] for part in parts]), images)
    torch.testing.assert_close(torch.cat([part()[1] for part in parts]), labels)
    assert len(sam.in_parts(lambda x, y: x, images, labels, 100)) == 1
    with pytest.raises(ValueError, match="choose 1 or more"):
        sam.in_parts(lambda x, y: x, images, labels, 0)


@pytest.mark.parametrize("eigenvalues", [[3.0, 1.0, -2.0], [1.0, 0.5, -5.0], [-1.0, -2.0, -3.0]])
def test_top_is_the_largest_not_the_largest_in_size(eigenvalues):
    w = nn.Parameter(double([0.3, 0.2, 0.1]))
    # A rotation that is one to float32 only would shift the eigenvalues by as much as is allowed.
    square = torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    rotation = torch.linalg.qr(square)[0]
    H = rotation @ torch.diag(double(eigenvalues)) @ rotation.T
    (value,) = sam.top_eigenvalues(0.5 * w @ H @ w, [w])
    assert value == pytest.approx(max(eigenvalues), rel=1e-12)
    both = torch.block_diag(H, -torch.eye(30).double() / 2)  # large enough for ARPACK
    w = nn.Parameter(torch.ones(33).double())
    (value,) = sam.top_eigenvalues(0.5 * w @ both @ w, [w])
    assert value == pytest.approx(max(*eigenvalues, -0.5), rel=1e-6)


def test_a_linear_loss_and_an_unused_parameter_have_no_curvature():
    w, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    assert sam.top_eigenvalues(w.sum(), [w]).tolist() == [0]
    found = sam.top_eigenvalues(2 * (w**2).sum(), [w, unused], k=5)
    assert found.tolist() == pytest.approx([4, 4, 4, 0, 0])


def test_top_eigenvalues_of_a_vit_need_attention_in_plain_mathematics():
    """The fast kernel of attention has no second derivative: a raw error of torch."""
    torch.manual_seed(0)
    model = vit.ViT(image_size=4, patch_size=2, dim=4, depth=1, heads=2, num_classes=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    x, y = torch.randn(5, 3, 4, 4).double(), torch.randint(3, (5,))
    with pytest.raises(ValueError, match=r"SDPBackend\.MATH"):
        sam.top_eigenvalues(cross_entropy(model(x), y), model.parameters())
    names, weights = zip(*model.named_parameters(), strict=True)

    def loss_of(*values):
        state = dict(zip(names, values, strict=True))
        return cross_entropy(torch.func.functional_call(model, state, x), y)

    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        blocks = torch.autograd.functional.hessian(loss_of, weights)
        loss = loss_of(*weights)
    rows = [
        torch.cat([b.reshape(w.numel(), -1) for b in row], 1)
        for w, row in zip(weights, blocks, strict=True)
    ]
    top = float(torch.linalg.eigvalsh(torch.cat(rows))[-1])
    generator = torch.Generator().manual_seed(0)
    (value,) = sam.top_eigenvalues(loss, weights, generator=generator)
    assert float(value) == pytest.approx(top, rel=1e-6)


# Bad input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": -0.1}, "rho=-0.1 is no radius"),
        ({"rho": math.nan}, "rho=nan is no radius"),
        ({"p": 0.5}, "p >= 1"),
        ({"inner_steps": 0}, "inner_steps >= 1"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=message):
        sam.SAM([w], SGD, lr=0.1, **change)


def test_what_would_end_in_a_distant_traceback_is_refused():
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="give its class"):
        sam.SAM([w], SGD([w], lr=0.1))
    with pytest.raises(ValueError, match="rho=-1 is no radius"):
        sam.SAM([{"params": [w], "rho": -1}], SGD, lr=0.1)
    for nothing in (None, []):
        with pytest.raises(ValueError, match="needs two gradients"):
            sam.SAM([w], SGD, lr=0.1).step(nothing)
    with pytest.raises(ValueError, match="gives no norm"):
        sam.dual_norm_step(torch.ones(2), 1.0, 0.9)
    for loss, k in ((w, 1), (mse_loss(w, w), 0), (mse_loss(w, w), 3), (torch.tensor(1.0), 1)):
        with pytest.raises(ValueError, match="Expected a scalar loss"):
            sam.top_eigenvalues(loss, [w], k=k)


def test_defaults_are_those_of_the_papers():
    """rho = 0.05 and p = 2 (section 4.1); ASAM's eta = 0.01 (its section 5)."""
    expected = {"rho": 0.05, "adaptive": False, "p": 2.0, "inner_steps": 1}
    assert defaults(sam.SAM) == expected
    assert sam.ETA == 0.01
