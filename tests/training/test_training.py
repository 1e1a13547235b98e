"""The training loop against steps done by hand, and the measures against scikit-learn."""

import math
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from mini import data, training
from mini.training import metrics, models, precision, probes
from tests.planted import defaults

SGD = torch.optim.SGD


def dataset(n: int = 10, classes: int = 3, seed: int = 0) -> data.Dataset:
    """Noise images with labels that go round the classes."""
    draw = np.random.default_rng(seed)
    images = torch.from_numpy(draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8))
    split = data.Split(images, torch.arange(n) % classes)
    names = tuple("abcdefghij"[:classes])
    third = torch.full((3,), 1 / 3)
    return data.Dataset("noise", "noise", split, split, names, third, third, mirror=False)


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - 1 / 3) * 3


class InFloat64(nn.Module):
    def forward(self, images):
        return images.double()


def linear_in_float64(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(3 * 32 * 32, classes, dtype=torch.float64)
    return nn.Sequential(InFloat64(), nn.Flatten(), layer)


def test_full_batch_steps_equal_gradient_descent_by_hand():
    noise, model = dataset(), linear_in_float64()
    weight, bias = (p.detach().numpy().copy() for p in model.parameters())
    lr, decay, smoothing, epochs, warmup = 0.02, 0.3, 0.1, 3, 0.4
    training.fit(
        model,
        noise,
        epochs=epochs,
        lr=lr,
        batch_size=64,
        optimizer=SGD,
        weight_decay=decay,
        warmup=warmup,
        label_smoothing=smoothing,
        clip=None,
        pad=0,
        progress=False,
    )
    x = normalised(noise.train.images).flatten(1).double().numpy()
    target = np.eye(3)[noise.train.labels] * (1 - smoothing) + smoothing / 3
    # Middles of the three steps: 1/6 is on the ramp, 1/2 and 5/6 on the cosine.
    factors = [1 / 6 / 0.4] + [
        (1 + math.cos(math.pi * (t - 0.4) / 0.6)) / 2 for t in (1 / 2, 5 / 6)
    ]
    for factor in factors:
        error = (softmax(x @ weight.T + bias, axis=1) - target) / len(x)
        weight, bias = (
            weight - lr * factor * (error.T @ x + decay * weight),
            bias - lr * factor * error.sum(axis=0),
        )
    np.testing.assert_allclose(model[2].weight.detach(), weight, atol=1e-9)
    np.testing.assert_allclose(model[2].bias.detach(), bias, atol=1e-9)


def test_clipping_bounds_the_step():
    noise, model = dataset(), linear_in_float64()
    before = [p.detach().clone() for p in model.parameters()]
    options = {"optimizer": SGD, "weight_decay": 0.0, "warmup": 0.0, "progress": False}
    training.fit(model, noise, epochs=1, lr=8.0, batch_size=64, clip=0.01, **options)
    change = [p.detach() - q for p, q in zip(model.parameters(), before, strict=True)]
    # One step in the middle of the schedule, at half the learning rate.
    assert math.sqrt(sum(float(c.square().sum()) for c in change)) == pytest.approx(0.04, rel=1e-4)


def test_schedule_is_a_ramp_then_half_a_cosine():
    values = [training.schedule(step, steps=10, warmup=0.2) for step in range(10)]
    expected = [0.25, 0.75] + [(1 + math.cos(math.pi * (k + 0.5) / 8)) / 2 for k in range(8)]
    assert values == pytest.approx(expected)
    assert training.schedule(0, steps=1, warmup=0) == pytest.approx(0.5)


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.99))
@settings(max_examples=50)
def test_schedule_rises_then_falls_within_bounds(steps, warmup):
    values = [training.schedule(step, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    turn = sum((step + 0.5) / steps < warmup for step in range(steps))
    assert values[:turn] == sorted(values[:turn])
    assert values[turn:] == sorted(values[turn:], reverse=True)


def test_history_has_a_row_per_epoch_with_what_was_measured():
    noise, seen = dataset(), []

    def measure(model: nn.Module) -> dict[str, float]:
        model.eval()
        seen.append(len(seen))
        return {"seen": len(seen)}

    def loss(model, images, labels):
        assert model.training, "measure left the model in evaluation mode"
        return model(images).square().mean()

    history = training.fit(
        linear_in_float64(), noise, epochs=3, lr=1e-3, batch_size=4, loss=loss, measure=measure
    )
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["seen"] for row in history] == [1, 2, 3]
    assert all(row["seconds"] > 0 for row in history)
    last_steps = [training.schedule(s, steps=9, warmup=0.1) for s in (2, 5, 8)]
    assert [row["lr"] for row in history] == pytest.approx([1e-3 * f for f in last_steps])


def test_every_image_counts_once_also_in_a_last_small_batch():
    noise, batches = dataset(10), []

    def loss(model, images, labels):
        batches.append(labels.tolist())
        return labels.double().mean() + 0 * model(images).sum()

    history = training.fit(
        linear_in_float64(), noise, epochs=2, lr=1e-3, batch_size=4, loss=loss, progress=False
    )
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    for epoch in (batches[:3], batches[3:]):
        assert sorted(chain(*epoch)) == sorted(noise.train.labels.tolist())
    mean = noise.train.labels.double().mean()
    assert [row["train_loss"] for row in history] == pytest.approx([float(mean)] * 2)


def test_an_optimizer_may_ask_for_the_gradient_twice():
    noise, calls = dataset(), []

    class Twice(SGD):
        def step(self, closure):
            closure()
            return super().step(closure)

    def loss(model, images, labels):
        calls.append(len(labels))
        return model(images).square().mean()

    model, twin = linear_in_float64(), linear_in_float64()
    options = {"epochs": 1, "lr": 1e-3, "batch_size": 64, "loss": loss, "pad": 0}
    training.fit(model, noise, optimizer=Twice, clip=None, **options)
    training.fit(twin, noise, optimizer=SGD, clip=None, **options)
    assert len(calls) == 3
    # The second request starts from a fresh gradient, not from the sum of both.
    torch.testing.assert_close(model[2].weight, twin[2].weight)


def trained(generator_seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = models.SmallResNet(4, num_classes=3)
    generator = torch.Generator().manual_seed(generator_seed)
    options = {"epochs": 2, "lr": 0.01, "batch_size": 8, "mirror": True, "progress": False}
    training.fit(model, dataset(20), generator=generator, **options)
    return model.state_dict()


def test_same_generator_and_weights_give_the_same_bits():
    with one_thread():
        first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def small_network() -> nn.Module:
    """Convolution, batch norm and dropout: everything that draws or keeps a state."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(256, 3),
    )


@contextmanager
def one_thread():
    """With several, sums may be taken in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def epochs_as_they_were(model: nn.Module, noise: data.Dataset, epochs: int, lr: float) -> list:
    """`fit(epochs=)` as it was before it knew steps and seconds, written out: losses and rates."""
    generator, batch_size, n = torch.Generator().manual_seed(7), 4, len(noise.train.labels)
    batches = data.Batches(
        noise.train,
        batch_size,
        mean=noise.mean,
        std=noise.std,
        pad=2,
        mirror=True,
        generator=generator,
    )
    weights = [p for name, p in model.named_parameters() if name in ("0.weight", "5.weight")]
    others = [p for name, p in model.named_parameters() if name not in ("0.weight", "5.weight")]
    groups = [
        {"params": weights, "weight_decay": 0.05},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer, rows, step = torch.optim.AdamW(groups, lr=lr, fused=True), [], 0
    for _ in range(epochs):
        total = 0.0
        model.train()
        for images, labels in batches:
            t = (step + 0.5) / (epochs * math.ceil(n / batch_size))
            factor = t / 0.1 if t < 0.1 else 0.5 * (1 + math.cos(math.pi * (t - 0.1) / (1 - 0.1)))
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.detach() * len(labels)
            step += 1
        rows.append((float(total) / n, lr * factor))
    return rows


def fitted(noise: data.Dataset, **length) -> tuple[nn.Module, training.History]:
    model, generator = small_network(), torch.Generator().manual_seed(7)
    options = {"lr": 0.03, "batch_size": 4, "mirror": True, "label_smoothing": 0.1}
    history = training.fit(model, noise, generator=generator, progress=False, **options, **length)
    return model, history


def equal(model: nn.Module, twin: nn.Module) -> bool:
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_epochs_give_the_bits_that_they_always_gave():
    noise, reference = dataset(10), small_network()
    with one_thread():
        rows = epochs_as_they_were(reference, noise, epochs=3, lr=0.03)
        model, history = fitted(noise, epochs=3)
    assert equal(model, reference)
    assert not equal(model, small_network())
    assert [(row["train_loss"], row["lr"]) for row in history] == rows


def test_steps_of_whole_epochs_are_epochs():
    noise = dataset(10)
    with one_thread():
        (model, history), (twin, rows) = fitted(noise, epochs=2), fitted(noise, steps=6)
    assert equal(model, twin)
    assert [row | {"seconds": 0} for row in history] == [row | {"seconds": 0} for row in rows]


def test_steps_end_where_they_say_and_the_schedule_with_them():
    noise, losses, measured = dataset(10), [], []

    def loss(model, images, labels):
        value = model(images).square().mean() + 0 * labels.sum()
        losses.append((float(value.detach()), len(labels)))
        return value

    def measure(model):
        measured.append(len(losses))
        return {"seen": len(losses)}

    history = training.fit(
        linear_in_float64(), noise, steps=5, lr=0.01, batch_size=4, loss=loss, measure=measure
    )
    # Ten images are batches of 4, 4, 2: one epoch, and two steps of the next.
    assert [size for _, size in losses] == [4, 4, 2, 4, 4]
    assert measured == [3, 5]
    assert [(row["epoch"], row["steps"], row["seen"]) for row in history] == [(1, 3, 3), (2, 5, 5)]
    last = training.schedule(4, steps=5, warmup=0.1)
    assert history[-1]["lr"] == pytest.approx(0.01 * last)
    for row, part in zip(history, (losses[:3], losses[3:]), strict=True):
        mean = sum(value * size for value, size in part) / sum(size for _, size in part)
        assert row["train_loss"] == pytest.approx(mean)


def test_measure_is_not_called_twice_where_steps_end_with_an_epoch():
    calls = []
    options = {"lr": 0.01, "batch_size": 4, "measure": lambda model: calls.append(1) or {}}
    history = training.fit(linear_in_float64(), dataset(10), steps=6, **options)
    assert len(history) == len(calls) == 2


class Clock:
    """Stands in for `perf_counter`: time passes only where a test lets it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def trained_by_the_clock(patch: pytest.MonkeyPatch, step_seconds, seconds: float, warmup: float):
    """Rates of all steps, and the history, when step k takes `step_seconds(k)`, measuring 50 s."""
    clock, rates = Clock(), []
    patch.setattr("mini.training.loop.perf_counter", clock)

    class Watched(SGD):
        def step(self, closure):
            rates.append(self.param_groups[0]["lr"])
            assert len(rates) < 1000, "no end is in sight"
            clock.now += step_seconds(len(rates) - 1)
            return super().step(closure)

    def measure(model):
        clock.now += 50
        return {}

    history = training.fit(
        linear_in_float64(),
        dataset(10),
        seconds=seconds,
        lr=1.0,
        batch_size=4,
        optimizer=Watched,
        warmup=warmup,
        measure=measure,
        loss=lambda model, images, labels: 1e-9 * model(images).square().mean(),
        progress=False,
    )
    return rates, history


def test_seconds_end_within_a_step_and_the_schedule_with_them():
    with pytest.MonkeyPatch.context() as patch:
        rates, history = trained_by_the_clock(patch, lambda step: 1.0, seconds=7.5, warmup=0.2)
    # Steps begin after 0, 1, ..., 7 of 7.5 s; measuring takes none of them.
    shares = [step / 7.5 for step in range(8)]
    expected = [
        t / 0.2 if t < 0.2 else (1 + math.cos(math.pi * (t - 0.2) / 0.8)) / 2 for t in shares
    ]
    assert rates == pytest.approx(expected)
    assert [(row["epoch"], row["steps"]) for row in history] == [(1, 3), (2, 6), (3, 8)]
    assert [row["seconds"] for row in history] == [3.0, 3.0, 2.0]


def test_a_machine_that_slows_down_still_ends_in_time(monkeypatch):
    # Twice as slow after 5 s: an estimate made at the start would end after 15 s.
    rates, history = trained_by_the_clock(
        monkeypatch, lambda step: 0.1 if step < 50 else 0.2, seconds=10.01, warmup=0.1
    )
    assert sum(row["seconds"] for row in history) == pytest.approx(10.2)
    assert history[-1]["steps"] == len(rates) == 76
    assert rates[-1] < 1e-2


def test_seconds_of_a_real_clock_are_met():
    history = training.fit(small_network(), dataset(40), seconds=0.3, lr=1e-3, progress=False)
    # One step of a millisecond more; a second or two where the machine stands still.
    assert 0.3 <= sum(row["seconds"] for row in history) < 3


def test_only_weights_of_linear_and_convolutional_layers_decay():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "norm": nn.BatchNorm2d(4),
            "layernorm": nn.LayerNorm(4),
            "linear": nn.Linear(4, 2),
            "frozen": nn.Linear(2, 2),
        }
    )
    model.register_parameter("token", nn.Parameter(torch.zeros(1, 1, 4)))
    model["frozen"].requires_grad_(False)
    decayed, rest = training.parameter_groups(model, 0.3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"conv.weight", "linear.weight"}
    others = {"conv.bias", "linear.bias", "token"}
    others |= {f"{norm}.{kind}" for norm in ("norm", "layernorm") for kind in ("weight", "bias")}
    assert {names[id(p)] for p in rest["params"]} == others
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)


def test_frozen_weights_stay():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Linear(8, 3))
    model[1].requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    training.fit(model, dataset(), epochs=1, lr=0.1, progress=False)
    same = [torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert same == [True, True, False, False]


def test_nothing_to_train_is_said_clearly():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        training.fit(model, dataset(), epochs=1, lr=0.1)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"lr": -1.0}, {"warmup": 1.0}, {"warmup": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"not .*{next(iter(wrong))}={next(iter(wrong.values()))}"):
        training.fit(linear_in_float64(), dataset(), **({"epochs": 1, "lr": 0.1} | wrong))


@pytest.mark.parametrize(
    ("length", "what_is_said"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"seconds": math.nan}, "seconds=nan"),
        ({"seconds": math.inf}, "seconds=inf"),
        ({}, "Give one of epochs, steps and seconds"),
        ({"epochs": 1, "steps": 3}, "Give one of .*epochs=1, steps=3"),
        ({"steps": 3, "seconds": 1.0}, "Give one of .*steps=3, seconds=1.0"),
    ],
)
def test_exactly_one_possible_length_is_wanted(length, what_is_said):
    with pytest.raises(ValueError, match=what_is_said):
        training.fit(linear_in_float64(), dataset(), lr=0.1, **length)


def test_a_loss_that_is_no_number_stops_the_run():
    def loss(model, images, labels):
        return model(images).mean() * float("nan")

    with pytest.raises(FloatingPointError, match=r"Loss nan in epoch 1: lower lr=0\.1"):
        training.fit(linear_in_float64(), dataset(), epochs=2, lr=0.1, loss=loss, progress=False)


def test_nothing_is_printed_when_bars_are_off(capfd):
    training.fit(linear_in_float64(), dataset(), epochs=1, lr=0.1)
    assert capfd.readouterr() == ("", "")


def test_predict_uses_running_statistics_and_restores_the_mode():
    torch.manual_seed(0)
    noise, model = dataset(10), nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3072, 3))
    model[0].running_mean.fill_(0.5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.eval()(normalised(noise.test.images)).detach()
    for mode in (True, False):
        model.train(mode)
        # Neither the order nor the batches matter.
        logits = training.predict(model, noise.test, noise, batch_size=4)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        assert model.training is mode
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_part_that_is_frozen_stays_so_while_a_model_predicts_and_where_it_fails():
    noise, model = dataset(6), nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3072, 3))
    model.train()[0].eval()
    training.predict(model, noise.test, noise)
    assert [module.training for module in model.modules()] == [True, False, True, True]
    model[2] = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes"):
        training.predict(model, noise.test, noise)
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_logits_that_were_predicted_can_be_trained_on():
    """Those of inference mode could not: a raw error of autograd."""
    noise, model = dataset(6), linear_in_float64()
    logits = training.predict(model, noise.test, noise)
    assert not logits.requires_grad
    temperature = torch.ones((), requires_grad=True)
    nn.functional.cross_entropy(logits / temperature, noise.test.labels).backward()
    assert temperature.grad.isfinite()
    with torch.enable_grad():  # it is the caller's setting that comes back
        training.predict(model, noise.test, noise)
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("mirrored", [True, False])
def test_images_are_mirrored_where_the_data_allows_it_unless_told_otherwise(mirrored):
    """By default as `data.mirror` says, which the other value would contradict."""

    def weights(allowed: bool, **options) -> torch.Tensor:
        model, generator = linear_in_float64(), torch.Generator().manual_seed(0)
        part = replace(dataset(20), mirror=allowed)
        options |= {"generator": generator, "pad": 0, "progress": False}
        training.fit(model, part, epochs=1, lr=0.01, batch_size=10, **options)
        return model[2].weight.detach()

    assert torch.equal(weights(mirrored), weights(mirrored, mirror=mirrored))
    assert torch.equal(weights(mirrored), weights(not mirrored, mirror=mirrored))
    assert not torch.equal(weights(mirrored), weights(mirrored, mirror=not mirrored))


def test_predict_can_average_with_the_mirror_image():
    noise, model = dataset(6), linear_in_float64()
    flipped = data.Split(noise.test.images.flip(3), noise.test.labels)
    both = [training.predict(model, split, noise) for split in (noise.test, flipped)]
    logits = training.predict(model, noise.test, noise, mirror=True)
    torch.testing.assert_close(logits, (both[0] + both[1]) / 2)


def test_accuracy_takes_the_test_set_unless_told_otherwise():
    noise, model = dataset(10), linear_in_float64()
    part = data.Split(noise.train.images[:4], noise.train.labels[:4])
    for split, used in ((None, noise.test), (part, part)):
        logits = training.predict(model, used, noise)
        assert training.accuracy(model, noise, split) == metrics.accuracy(logits, used.labels)


# The measures.


def some_logits(seed: int, n: int = 200, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=draw, dtype=torch.float64) * 2
    return logits, torch.randint(classes, (n,), generator=draw)


def test_accuracy_and_nll_equal_scikit_learn():
    logits, labels = some_logits(0)
    probabilities = logits.softmax(1).numpy()
    assert metrics.accuracy(logits, labels) == pytest.approx(
        accuracy_score(labels, logits.argmax(1))
    )
    assert metrics.nll(logits, labels) == pytest.approx(log_loss(labels, probabilities))


MEASURES = [metrics.accuracy, metrics.nll, metrics.calibration_error]
MEASURES += [metrics.rms_calibration_error, metrics.temperature]


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_want_one_label_a_row(measure):
    logits, labels = some_logits(0)
    for wrong in (labels[:, None], labels[:1], labels[0], logits.softmax(1)):
        with pytest.raises(ValueError, match="one label a row"):
            measure(logits, wrong)
    with pytest.raises(ValueError, match="one label a row"):
        measure(logits[:0], labels[:0])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_whole_type_measure_the_same(measure, dtype):
    logits, labels = some_logits(0)
    assert measure(logits, labels.to(dtype)) == measure(logits, labels)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_refuse_labels_that_are_no_class_and_logits_that_are_no_number(measure):
    logits, labels = some_logits(0)
    for other in (labels.float(), labels > 0):
        with pytest.raises(ValueError, match="give whole numbers"):
            measure(logits, other)
    for other, reach in ((labels - 1, "from -1 to 3"), (labels + 1, "from 1 to 5")):
        with pytest.raises(ValueError, match=f"{reach}, but .* classes 0 to 4"):
            measure(logits, other)
    for some in (slice(3, 4), slice(None)):  # one row was worth 0.09, all of them 0.2
        broken = logits.clone()
        broken[some, 1] = math.nan
        with pytest.raises(ValueError, match="not a number"):
            measure(broken, labels)


def test_a_logit_of_minus_infinity_is_no_chance_and_one_of_plus_infinity_is_refused():
    logits, labels = some_logits(0)
    excluded = logits.clone()
    excluded[:, 0] = -math.inf
    low = logits.clone()
    low[:, 0] = -1e4  # as little: exp of it is 0
    rest = labels.clamp(min=1)
    for measure in MEASURES:
        assert measure(excluded, rest) == measure(low, rest)
    assert metrics.nll(excluded, labels) == math.inf
    for measure in (metrics.calibration_error, metrics.rms_calibration_error):
        with pytest.raises(ValueError, match="has no softmax"):
            measure(-excluded, labels)


@given(seed=st.integers(0, 10_000), bins=st.integers(1, 20))
@settings(max_examples=20)
def test_calibration_error_equals_its_definition(seed, bins):
    logits, labels = some_logits(seed)
    confidence, choice = logits.softmax(1).max(1)
    right = (choice == labels).double()
    gap = 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            share = inside.double().mean()
            gap += float(share * (right[inside].mean() - confidence[inside].mean()).abs())
    assert metrics.calibration_error(logits, labels, bins=bins) == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_rms_calibration_error_is_that_of_scikit_learns_quantiles(bins):
    """Independent: scikit-learn parts the answers at quantiles of their confidence."""
    generator = torch.Generator().manual_seed(bins)
    logits = 2 * torch.randn(60 * bins, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (60 * bins,), generator=generator)
    confidence, answer = logits.softmax(1).max(1)
    right, sure = calibration_curve(answer == labels, confidence, n_bins=bins, strategy="quantile")
    expected = np.sqrt(np.mean((right - sure) ** 2))
    found = metrics.rms_calibration_error(logits, labels, bins=bins)
    assert found == pytest.approx(expected, rel=1e-9)


def test_rms_calibration_error_weighs_bins_by_their_count_and_wants_an_answer_in_each():
    sure = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.6]).double()
    logits, labels = torch.stack([sure, 1 - sure], 1).log(), torch.tensor([0, 1, 0, 0, 0])
    # In order .6, .6, .7 (all right) and .8 (wrong), .9 (right): gaps -1.1 / 3 and .7 / 2.
    expected = math.sqrt((3 * (1.1 / 3) ** 2 + 2 * 0.35**2) / 5)
    assert metrics.rms_calibration_error(logits, labels, bins=2) == pytest.approx(expected)
    with pytest.raises(ValueError, match="5 answers do not fill 15 bins: take fewer"):
        metrics.rms_calibration_error(logits, labels)
    with pytest.raises(ValueError, match="bins must be a whole number of at least 1"):
        metrics.rms_calibration_error(logits, labels, bins=0)


def test_temperature_undoes_a_factor_and_is_the_minimum_that_scipy_finds():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1000, 5, generator=generator)
    labels = (logits / 1.7).softmax(1).multinomial(1, generator=generator)[:, 0]
    T = metrics.temperature(logits, labels)
    assert 1.5 < T < 2
    found = minimize_scalar(
        lambda t: metrics.nll(logits.double() / 10**t, labels), bounds=(-1, 1), method="bounded"
    )
    assert abs(math.log10(T) - found.x) <= 0.005 + 1e-4  # half of a step of the grid
    for steps in (-20, 30):
        factor = 10 ** (steps / 100)
        assert metrics.temperature(factor * logits, labels) == pytest.approx(factor * T)


def test_defaults_are_the_recipe_that_the_records_were_made_by():
    recipe = {"batch_size": 128, "weight_decay": 0.05, "warmup": 0.1, "label_smoothing": 0.0}
    recipe |= {"clip": 1.0, "pad": 2, "mirror": None, "precision": "float32", "loss": None}
    assert recipe.items() <= defaults(training.fit).items()
    assert training.fit.__kwdefaults__["optimizer"] is training.ADAMW
    assert training.ADAMW.keywords == {"fused": True}
    assert defaults(metrics.calibration_error) == {"bins": 15}
    assert defaults(metrics.rms_calibration_error) == {"bins": 15}
    assert defaults(probes.knn_accuracy) == {"k": 20, "temperature": 0.07}
    assert defaults(probes.linear_probe) == {"c": 1.0, "steps": 1000}
    assert (probes.PIXELS_C, precision.GAIN) == (1e-3, 0.9)
