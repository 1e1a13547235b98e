"""Which precision is chosen, and what runs in it: clocks and processors are stood in for."""

import copy
import itertools
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mini import data, training
from mini.training import models, precision
from tests.training.test_training import SGD, Clock, dataset


def in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu")


class Timed(nn.Module):
    """A network whose forward pass takes `float32` or `bfloat16` seconds, the first two 50 more.

    Those at the places `slow_at` take 50 more as well; `calls` says how each was called.
    """

    def __init__(self, clock: Clock, *, float32: float = 1.0, bfloat16: float = 1.0):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.ones(3)), nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)
        self.clock, self.seconds = clock, {False: float32, True: bfloat16}
        self.calls, self.slow_at = [], ()

    def __deepcopy__(self, memo):
        """The clock and the list of calls are shared with copies."""
        twin = Timed(self.clock)
        twin.load_state_dict(self.state_dict())
        twin.seconds, twin.calls, twin.slow_at = self.seconds, self.calls, self.slow_at
        return twin

    def forward(self, rows):
        self.clock.now += self.seconds[in_bfloat16()]
        self.clock.now += 50 if len(self.calls) in (0, 1, *self.slow_at) else 0
        self.calls.append((in_bfloat16(), self.training, torch.get_num_threads()))
        return self.dropout(self.norm(rows) * self.weight)


ROWS = torch.arange(12.0).view(4, 3)


def test_the_ratio_of_steps_is_a_median_of_turns_after_two_to_warm_up():
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr("mini.training.precision.perf_counter", clock)
        fast = Timed(clock, float32=1.0, bfloat16=0.5)
        assert precision.step_ratio(fast, ROWS) == pytest.approx(0.5)
        # Of several networks the seconds add up: (0.5 + 6) / (1 + 3).
        slow = Timed(clock, float32=3.0, bfloat16=6.0)
        both = [Timed(clock, float32=1.0, bfloat16=0.5), slow]
        assert precision.step_ratio(both, ROWS) == pytest.approx(6.5 / 4)
        # Quick steps are repeated until 3 s are over.
        quick = Timed(clock, float32=1 / 8, bfloat16=1 / 16)
        quick.calls += [None, None]
        assert precision.step_ratio(quick, ROWS) == pytest.approx(0.5)
        assert len(quick.calls) - 2 == 2 * 3 / (1 / 8 + 1 / 16)
        # A few slow moments change nothing.
        disturbed = Timed(clock, float32=1.0, bfloat16=0.5)
        disturbed.slow_at = (6, 11, 15)
        assert precision.step_ratio(disturbed, ROWS) == pytest.approx(0.5)


def test_a_measurement_leaves_networks_and_random_state_as_they_were():
    clock = Clock()
    network = Timed(clock, bfloat16=0.5).eval()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    threads = torch.get_num_threads()
    precision.step_ratio(network, ROWS, rounds=3, at_least=0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert torch.get_num_threads() == threads
    # Turns of both formats, in training mode, on one thread.
    assert network.calls == [(False, True, 1), (True, True, 1)] * 5


def test_threads_come_back_when_a_network_fails():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            precision.step_ratio(nn.Linear(2, 2), ROWS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_real_network_can_be_measured():
    ratio = precision.step_ratio(
        models.SmallResNet(4), torch.randn(4, 3, 32, 32), rounds=1, at_least=0
    )
    assert 0 < ratio < math.inf


def test_the_choice_needs_a_gain_of_a_tenth():
    network, asked = models.SmallResNet(2), []
    ratios = {0.5: "bfloat16", 0.89: "bfloat16", 0.91: "float32", 2.0: "float32"}
    answers = iter([*ratios, 0.5])

    def step_ratio(networks, *inputs):
        asked.append((networks, inputs))
        return next(answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "step_ratio", step_ratio)
        patch.setattr(precision, "has_fast_bfloat16", lambda device: device.type == "cpu")
        choices = [precision.precision_for(network, ROWS) for _ in ratios]
        precision.precision_for([network, network], ROWS, ROWS)
    assert choices == list(ratios.values())
    assert asked[0] == ([network], (ROWS,))
    assert asked[-1] == ([network, network], (ROWS, ROWS))


def test_float32_where_the_processor_lacks_bfloat16():
    def step_ratio(*_):
        raise AssertionError("nothing is to be timed where the processor has no bfloat16")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "step_ratio", step_ratio)
        patch.setattr(precision, "_processor_units", lambda: {"avx2", "avx512_f", "amx_tile"})
        assert precision.precision_for(models.SmallResNet(2), ROWS) == "float32"


def check_what_torch_tells(unit: str = "avx512_bf16"):
    for has_it in (True, False):
        told = {"avx2": True, unit: has_it, "architecture": "bf16", "l2_cache_size": 1}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cpu, "get_capabilities", lambda told=told: told, raising=False)
            assert precision.has_fast_bfloat16() is has_it
            assert precision.has_fast_bfloat16(torch.device("cpu")) is has_it


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "bf16"])
def test_torch_tells_what_the_processor_has(unit):
    check_what_torch_tells(unit)


CPUINFO = {
    "flags\t\t: fpu avx512f avx512_bf16 vaes\n": True,
    "flags\t\t: fpu amx_bf16 avx512_fp16 amx_tile\n": True,
    "Features\t: fp asimd i8mm bf16\n": True,
    "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\n": False,
}


@pytest.mark.parametrize(("text", "has_it"), CPUINFO.items())
def test_where_torch_is_too_old_linux_tells(monkeypatch, text, has_it):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    assert precision.has_fast_bfloat16() is has_it


def test_where_nobody_tells_there_is_none(monkeypatch):
    def unreadable(self, **_):
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert not precision.has_fast_bfloat16()


def test_other_devices_are_asked_themselves(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or True
    )
    assert precision.has_fast_bfloat16("cuda:0")
    assert asked == [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not precision.has_fast_bfloat16("cuda")
    assert not precision.has_fast_bfloat16("mps")


@pytest.mark.parametrize("wrong", ["float16", "bf16", "", True])
def test_unknown_precisions_are_refused(wrong):
    said = "expected one of float32, bfloat16"
    with pytest.raises(ValueError, match=said):
        training.autocast(wrong)
    with pytest.raises(ValueError, match=said):
        training.fit(models.SmallResNet(2), dataset(), epochs=1, lr=0.1, precision=wrong)


# In the loop.


def test_the_network_runs_in_bfloat16_and_nothing_else_does():
    torch.manual_seed(0)
    noise, seen = dataset(), []
    inner = nn.Linear(3 * 32 * 32, 3)
    model = nn.Sequential(nn.Flatten(), inner)
    inner.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))

    def loss(network, images, labels):
        assert network is model
        logits = network(images)
        similar = logits @ logits.T  # a loss of products keeps its digits
        seen.extend([logits.dtype, similar.dtype])
        return similar.mean()

    def measure(network):
        logits = training.predict(network, noise.test, noise)
        seen.append(logits.dtype)
        return {}

    for name in training.PRECISIONS:
        seen.clear()
        options = {"loss": loss, "measure": measure, "precision": name, "progress": False}
        training.fit(model, noise, epochs=1, lr=1e-3, **options)
        inside = getattr(torch, name)
        # One step, and one evaluation: that is in float32 whatever the training was in.
        f32 = torch.float32
        assert seen == [inside, f32, f32, f32, f32]
        assert inner.weight.dtype == inner.weight.grad.dtype == f32
        assert "forward" not in vars(model)


def test_predictions_are_float32_after_training_in_bfloat16():
    torch.manual_seed(0)
    noise, model = dataset(), models.SmallResNet(4, num_classes=3)
    training.fit(model, noise, epochs=1, lr=1e-3, precision="bfloat16", progress=False)
    logits = training.predict(model, noise.test, noise)
    assert not torch.equal(logits, logits.bfloat16().float())


def test_a_forward_pass_that_fails_leaves_the_model_as_it_was():
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), precision.forward_in("bfloat16", model):
        model(torch.ones(1, 3))
    assert "forward" not in vars(model)
    assert model(torch.ones(1, 2)).dtype == torch.float32
    assert not in_bfloat16()


def test_layers_that_would_stay_in_float32_are_no_bfloat16():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))

    def loss(network, images, labels):
        return network[1](network[0](images)).square().mean()

    for name, outcome in (
        ("float32", nullcontext()),
        ("bfloat16", pytest.raises(ValueError, match="does not call the model as a whole")),
    ):
        with outcome:
            training.fit(
                model, dataset(), epochs=1, lr=0.1, loss=loss, precision=name, progress=False
            )


def test_a_loss_curve_in_bfloat16_is_near_that_in_float32():
    """Gradient descent on 100 digits, 30 steps, small enough that rounding errors do not grow.

    A bfloat16 has 8 significant bits: a rounding changes a value by at most its 2^-9th part. On the
    way to the logits lie 26 (the image, stem and gelu; 7 layers a stage; mean and head), either way
    with equal chance, so that they add up like their root: logits, below `top` in size, are off by
    sqrt(26) * 2^-9 * top, and their cross-entropy by at most twice that; gradients by that share of
    themselves, and so what descending along them gains.
    """
    digits = data.load("digits", n_train=100, n_test=10)
    curves, top = {}, 0.0

    def loss(model, images, labels):
        nonlocal top
        logits = model(images)
        top = max(top, float(logits.detach().abs().max()))
        return cross_entropy(logits, labels)

    for name in training.PRECISIONS:
        torch.manual_seed(0)
        history = training.fit(
            models.SmallResNet(8),
            digits,
            epochs=30,
            lr=0.01,
            batch_size=100,
            optimizer=SGD,
            pad=0,
            precision=name,
            loss=loss,
            generator=torch.Generator().manual_seed(0),
            progress=False,
        )
        curves[name] = [row["train_loss"] for row in history]
    share = math.sqrt(26) * 2**-9
    first, last = curves["float32"][0], curves["float32"][-1]
    tolerance = share * (2 * top + first - last)
    gaps = [abs(a - b) for a, b in zip(*curves.values(), strict=True)]
    assert max(gaps) < tolerance
    assert first - last > 3 * tolerance  # it says something: much more is learned than may differ
    assert min(gaps[1:]) > 0  # and bfloat16 was there
    assert all(b < a for a, b in itertools.pairwise(curves["bfloat16"][::5]))
