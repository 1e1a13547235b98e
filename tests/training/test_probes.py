"""k nearest neighbours and the linear probe against scikit-learn, on features and on pixels."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mini import data
from mini.training import probes

BOTH = [probes.knn_accuracy, probes.linear_probe]


def clouds(seed: int = 0, n: int = 300, dims: int = 6, classes: int = 4, spread: float = 1.5):
    """Train and test rows of Gaussian clouds that overlap, in columns of very different scale."""
    draw = torch.Generator().manual_seed(seed)
    options = {"generator": draw, "dtype": torch.float64}
    centres = torch.randn(classes, dims, **options)
    scales = 10.0 ** torch.arange(-2, dims - 2, dtype=torch.float64)
    parts = []
    for _ in range(2):
        labels = torch.randint(classes, (n,), generator=draw)
        rows = centres[labels] + spread * torch.randn(n, dims, **options)
        parts += [7 + rows * scales, labels]
    return parts


def test_linear_probe_equals_scikit_learn():
    for seed, c in ((0, 1.0), (1, 0.01), (2, 1e-4)):
        x, y, x_test, y_test = clouds(seed)
        reference = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
        expected = reference.fit(x.numpy(), y.numpy()).score(x_test.numpy(), y_test.numpy())
        found = probes.linear_probe(x, y, x_test, y_test, c=c)
        assert isinstance(found, float)
        assert found == pytest.approx(expected, abs=1e-12)
        assert 0.3 < found < 0.95


def test_linear_probe_minimises_its_formula():
    """Against the objective written out and minimised by torch's own L-BFGS."""
    x, y, x_test, y_test = clouds(3, n=150)
    z, z_test = (x - x.mean(0)) / x.std(0, False), (x_test - x.mean(0)) / x.std(0, False)
    w = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([w, b], max_iter=500, line_search_fn="strong_wolfe")
    c = 0.05

    def objective():
        solver.zero_grad()
        losses = torch.nn.functional.cross_entropy(z @ w.T + b, y, reduction="sum")
        value = losses + w.square().sum() / (2 * c)
        value.backward()
        return value

    solver.step(objective)
    logits = (z_test @ w.T + b).detach()
    expected = float((logits.argmax(1) == y_test).double().mean())
    # Both stop within a small gradient; a row on the border may fall either way.
    assert probes.linear_probe(x, y, x_test, y_test, c=c) == pytest.approx(expected, abs=1.01 / 150)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_linear_probe_does_not_see_scale_or_origin_of_a_feature(seed):
    x, y, x_test, y_test = clouds(seed, n=120)
    moved = probes.linear_probe(x * 3.0 - 5, y, x_test * 3.0 - 5, y_test)
    # Equal but for rounding, which may move one row over a border.
    assert moved == pytest.approx(probes.linear_probe(x, y, x_test, y_test), abs=1.01 / 120)


def test_linear_probe_learns_on_train_rows_alone():
    x, y, x_test, y_test = clouds()
    more = torch.cat([x_test, 1e6 * x_test[:1]]), torch.cat([y_test, y_test[:1]])
    right = probes.linear_probe(x, y, x_test, y_test) * len(y_test)
    assert probes.linear_probe(x, y, *more) * len(more[1]) - right in (
        pytest.approx(0),
        pytest.approx(1),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.uint8])
def test_linear_probe_takes_other_types_and_constant_columns(dtype):
    x, y, x_test, y_test = clouds()
    x, x_test = ((rows[:, 2:4].clamp(0, 200)).to(dtype) for rows in (x, x_test))
    expected = probes.linear_probe(x.double(), y, x_test.double(), y_test)
    assert probes.linear_probe(x, y, x_test, y_test) == pytest.approx(expected, abs=1.01 / 300)
    constant = [torch.cat([rows, torch.full_like(rows, 3)], 1) for rows in (x, x_test)]
    again = probes.linear_probe(constant[0], y, constant[1], y_test)
    assert again == pytest.approx(expected, abs=1.01 / 300)


def test_linear_probe_takes_features_that_carry_a_gradient():
    x, y, x_test, y_test = clouds()
    found = probes.linear_probe(x.clone().requires_grad_(), y, x_test, y_test)
    assert found == probes.linear_probe(x, y, x_test, y_test)


def test_one_label_in_the_train_rows_only_counts_as_it_is():
    x, y, x_test, y_test = clouds()
    known = y < 3
    for probe in BOTH:
        found = probe(x[known], y[known], x_test, y_test)
        assert found <= (y_test < 3).double().mean()


# What is refused.


@pytest.mark.parametrize("probe", BOTH)
def test_probes_want_one_label_a_row(probe):
    x, y, x_test, y_test = clouds()
    for train, test in ((y[:, None], y_test), (y, y_test[:, None]), (y[:-1], y_test), (y, y[:1])):
        with pytest.raises(ValueError, match="one label a row"):
            probe(x, train, x_test, test)
    with pytest.raises(ValueError, match="one label a row"):
        probe(x[:, 0], y, x_test, y_test)
    with pytest.raises(ValueError, match="one label a row"):
        probe(x, y, x_test[:0], y_test[:0])


@pytest.mark.parametrize("probe", BOTH)
def test_features_that_do_not_fit_or_are_no_numbers_are_refused(probe):
    x, y, x_test, y_test = clouds()
    with pytest.raises(ValueError, match="Train rows have 6 features, test rows 5"):
        probe(x, y, x_test[:, 1:], y_test)
    for part in (0, 1):
        rows = [x.clone(), x_test.clone()]
        rows[part][3, 2] = float("nan")
        with pytest.raises(ValueError, match="not finite"):
            probe(rows[0], y, rows[1], y_test)


@pytest.mark.parametrize("k", [0, 301, -1])
def test_as_many_neighbours_as_there_are_rows(k):
    with pytest.raises(ValueError, match=f"k={k}: expected 1 to 300"):
        probes.knn_accuracy(*clouds(), k=k)


# On pixels.


def digits() -> data.Dataset:
    """Digits of which one pixel, in a corner, never changes."""
    loaded = data.load("digits", n_train=300, n_test=130)
    for split in (loaded.train, loaded.test):
        split.images[:, :, 0, 0] = 9
    return loaded


def pixels(split: data.Split) -> np.ndarray:
    return split.images.flatten(1).double().numpy()


def test_pixels_read_by_both_probes_equal_scikit_learn():
    loaded = digits()
    x, y = pixels(loaded.train), loaded.train.labels.numpy()
    validation = data.Split(loaded.test.images[:60], loaded.test.labels[:60])

    def vote(distances):
        return np.exp((1 - distances) / 0.07)

    neighbours = KNeighborsClassifier(20, metric="cosine", weights=vote, algorithm="brute")
    regression = LogisticRegression(C=1e-3, max_iter=1000)
    for split, used in ((None, loaded.test), (validation, validation)):
        found = probes.pixel_accuracies(loaded, split)
        assert list(found) == ["knn", "linear"]
        for name, model in (("knn", neighbours), ("linear", regression)):
            reference = make_pipeline(StandardScaler(), model).fit(x, y)
            expected = reference.score(pixels(used), used.labels.numpy())
            # Ours in float32: a row or two whose votes are as good as equal may differ.
            assert found[name] == pytest.approx(expected, abs=1.01 / len(used.labels)), name
            assert found[name] > 0.2, name


def test_pixels_are_read_alike_every_time_and_left_as_they_were():
    loaded = digits()
    before = [part.clone() for part in (*loaded.train, *loaded.test)]
    assert probes.pixel_accuracies(loaded) == probes.pixel_accuracies(loaded)
    after = (*loaded.train, *loaded.test)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_slow_half_can_be_left_out():
    loaded = digits()
    both = probes.pixel_accuracies(loaded)
    assert probes.pixel_accuracies(loaded, linear=False) == {"knn": both["knn"]}


def test_pixels_of_shuffled_labels_say_nothing():
    loaded = digits()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    wrong = replace(loaded, train=data.Split(loaded.train.images, loaded.train.labels[order]))
    # A share of 0.1 has a deviation of 0.026 over 130 images.
    assert all(value < 0.1 + 5 * 0.026 for value in probes.pixel_accuracies(wrong).values())


def test_importing_the_probes_does_not_load_scikit_learn():
    code = "import sys, mini.training.probes; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("probe", BOTH)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_whole_type_probe_the_same(probe, dtype):
    x, y, x_test, y_test = clouds()
    assert probe(x, y.to(dtype), x_test, y_test.to(dtype)) == probe(x, y, x_test, y_test)


@pytest.mark.parametrize("probe", BOTH)
def test_labels_that_are_no_whole_numbers_are_refused(probe):
    x, y, x_test, y_test = clouds()
    for train, test in ((y.float(), y_test), (y, y_test.float()), (y > 0, y_test)):
        with pytest.raises(ValueError, match="give whole numbers"):
            probe(x, train, x_test, test)


def test_neighbours_of_no_class_are_refused_and_test_rows_of_none_count_as_wrong():
    x, y, x_test, y_test = clouds()
    with pytest.raises(ValueError, match="A train label is -1"):
        probes.knn_accuracy(x, y - 1, x_test, y_test)
    unknown = torch.where(y_test < 2, y_test, -1)
    alone = probes.knn_accuracy(x, y, x_test[y_test < 2], y_test[y_test < 2])
    share = (y_test < 2).double().mean()
    assert probes.knn_accuracy(x, y, x_test, unknown) == pytest.approx(float(alone * share))
