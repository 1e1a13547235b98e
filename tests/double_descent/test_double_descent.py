"""Double descent: parity with numpy, scipy and scikit-learn, formulas against draws, bad input.

Where a solution is compared, the tolerance is that of least squares: eps times the square of the
condition number, times 100 for sums over up to a few hundred terms. Where p and n differ by 1 or
less a risk has no mean, and where they differ by little a mean of draws is that of the worst few:
there, medians are looked at, never means.
"""

import math
import statistics
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
import torch._dynamo  # an optimizer's first step does, and it sets a variable
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from mini import data, double_descent, training
from mini.data import Split
from tests.planted import defaults

N, R2, S2 = 40, 1.0, 0.25
EPS = torch.finfo(torch.float64).eps
sizes = st.integers(1, 25)
seeds = st.integers(0, 2**32)
positive = st.floats(0.01, 100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(n: int, p: int, k: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """X [n, p] and y [n] or [n, k], standard normal."""
    generator = seeded(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    y = torch.randn(n, *([] if k is None else [k]), generator=generator, dtype=torch.float64)
    return X, y


def spread(d: int, r2: float = R2) -> Tensor:
    """d coefficients that are alike, with |b|^2 = r2."""
    return torch.full((d,), math.sqrt(r2 / d), dtype=torch.float64)


def compare(found: Tensor, expected: np.ndarray, X: Tensor) -> None:
    """Two solutions for X, as near as rounding lets them be."""
    S = torch.linalg.svdvals(X)
    rtol = 100 * EPS * float(S[0] / S[-1]) ** 2
    scale = np.linalg.norm(expected) + 1
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=rtol * scale)


# The fit


def compare_with_numpy_and_scipy(n: int, p: int, k: int | None, seed: int) -> None:
    X, y = problem(n, p, k, seed)
    found = double_descent.min_norm(X, y)
    compare(found, np.linalg.lstsq(X.numpy(), y.numpy(), rcond=1e-10)[0], X)
    theirs = scipy.linalg.lstsq(X.numpy(), y.numpy(), cond=1e-10, lapack_driver="gelsd")[0]
    compare(found, theirs, X)


@given(sizes, sizes, st.none() | st.integers(1, 3), seeds)
@settings(max_examples=60)
def test_min_norm_is_that_of_numpy_and_scipy(n, p, k, seed):
    compare_with_numpy_and_scipy(n, p, k, seed)


@pytest.mark.parametrize(("n", "p"), [(40, 10), (40, 39), (40, 40), (40, 41), (40, 160)])
def test_min_norm_here(n, p):
    compare_with_numpy_and_scipy(n, p, 2, 0)


def with_singular_values(*values: float) -> Tensor:
    size = len(values)
    U, V = (torch.linalg.qr(problem(size, size, seed=seed)[0])[0] for seed in (1, 2))
    return U @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ V.mT


def test_a_direction_counts_down_to_the_cutoff_and_not_below():
    """With y = X b the least-norm fit is b less its part in the directions that are left out."""
    b = torch.arange(1.0, 5.0).double()
    for last, rank in ((1e-9, 4), (1e-12, 3), (1e-14, 3)):
        X = with_singular_values(1.0, 0.1, 1e-3, last)
        V = torch.linalg.svd(X).Vh[:rank]
        found = double_descent.min_norm(X, X @ b)
        # The smallest direction is known to rounding over its value.
        torch.testing.assert_close(found, V.mT @ (V @ b), rtol=0, atol=1e-5)
    X = with_singular_values(1.0, 0.1, 1e-3, 1e-9)
    coarse = double_descent.min_norm(X, X @ b, cutoff=0.01)
    V = torch.linalg.svd(X).Vh[:2]
    torch.testing.assert_close(coarse, V.mT @ (V @ b), rtol=0, atol=1e-9)
    assert defaults(double_descent.min_norm) == {"cutoff": double_descent.CUTOFF}
    assert 1e-13 < double_descent.CUTOFF < 1e-8


def test_a_cutoff_is_a_share_of_the_largest():
    X, y = problem(4, 6)
    for unit in (1e-12, 1e12):
        found = unit * double_descent.min_norm(unit * X, y)
        torch.testing.assert_close(found, double_descent.min_norm(X, y), rtol=0, atol=1e-12)


def test_rows_that_repeat_count_once_above_p_equal_n():
    X, y = problem(6, 20)
    twice = double_descent.min_norm(torch.cat([X, X[:4]]), torch.cat([y, y[:4]]))
    torch.testing.assert_close(twice, double_descent.min_norm(X, y), rtol=0, atol=1e-12)


@given(sizes, sizes, seeds)
@settings(max_examples=60)
def test_it_fits_best_and_then_is_the_shortest(n, p, seed):
    X, y = problem(n, p, seed=seed)
    b = double_descent.min_norm(X, y)
    S = torch.linalg.svdvals(X)
    slack = 1000 * EPS * float(S[0] / S[-1]) * (1 + b.norm()) * S[0]
    assert (X.mT @ (y - X @ b)).norm() <= slack * S[0]  # the normal equations
    if p > n:
        assert (X @ b - y).norm() <= slack
        null = torch.linalg.svd(X).Vh[n:]  # directions that change no answer
        assert (null @ b).norm() <= slack / S[-1]


def test_many_columns_are_as_many_problems():
    X, y = problem(8, 12, 3)
    for fit in (double_descent.min_norm, partial(double_descent.ridge, penalty=0.3)):
        together = fit(X, y)
        for i in range(3):
            torch.testing.assert_close(together[:, i], fit(X, y[:, i]), rtol=0, atol=1e-12)


# What it costs


def by_the_sheet(p: int, n: int, r2: float, s2: float) -> float:
    """Both branches written out."""
    if p <= n - 2:
        return s2 * p / (n - p - 1)
    return r2 * (1 - n / p) + s2 * n / (p - n - 1)


def sheet_of_weak_features(p: int, n: int, inside: float, outside: float, s2: float) -> float:
    if p <= n - 2:
        return (outside + s2) * (1 + p / (n - p - 1))
    return inside * (1 - n / p) + (outside + s2) * (1 + n / (p - n - 1))


def compare_with_the_sheet(p: int, n: int, r2: float, outside: float, s2: float) -> None:
    risk = double_descent.excess_risk(p, n, r2=r2, s2=s2)
    weak = double_descent.weak_features_risk(p, n, inside=r2, outside=outside, s2=s2)
    if abs(p - n) <= 1:
        assert risk == weak == math.inf
        return
    assert risk == pytest.approx(by_the_sheet(p, n, r2, s2), rel=1e-12)
    assert weak == pytest.approx(sheet_of_weak_features(p, n, r2, outside, s2), rel=1e-12)


@given(st.integers(1, 200), st.integers(1, 200), positive, positive, positive)
@settings(max_examples=100)
def test_the_risks_are_those_written_out(p, n, r2, outside, s2):
    compare_with_the_sheet(p, n, r2, outside, s2)


@pytest.mark.parametrize("p", [10, 38, 39, 40, 41, 42, 160])
def test_the_risks_here(p):
    compare_with_the_sheet(p, N, R2, 0.7, S2)


def test_without_noise_nothing_explodes():
    for p in (1, 20, 38, 39, 40):
        assert double_descent.excess_risk(p, N, r2=R2, s2=0) == 0
    for p in (41, 42, 80):
        assert double_descent.excess_risk(p, N, r2=R2, s2=0) == pytest.approx(1 - N / p)
    for p in (39, 40, 41):
        assert double_descent.weak_features_risk(p, N, inside=1, outside=0.1, s2=0) == math.inf
    assert double_descent.asymptotic_risk(1, r2=R2, s2=0) == 0
    assert double_descent.asymptotic_risk(1, r2=R2, s2=S2) == math.inf
    X, _ = problem(N, N)
    b = spread(N)
    torch.testing.assert_close(double_descent.min_norm(X, X @ b), b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 1.2, 2.0, 10.0])
def test_the_limit_is_reached_as_one_over_n(ratio):
    limit = double_descent.asymptotic_risk(ratio, r2=R2, s2=S2)
    above = R2 * (1 - 1 / ratio) + S2 / (ratio - 1)
    assert limit == pytest.approx(S2 * ratio / (1 - ratio) if ratio < 1 else above, rel=1e-12)
    misses = [
        n * (double_descent.excess_risk(round(ratio * n), n, r2=R2, s2=S2) - limit)
        for n in (1000, 10_000, 100_000)
    ]
    # p / (n - p - 1) - p / (n - p) is p / (n - p)^2 and less, in the limit g / (1 - g)^2 / n.
    expected = S2 * min(ratio, 1) / (1 - ratio) ** 2
    assert misses[-1] == pytest.approx(expected, rel=0.01)
    assert abs(misses[-1] - expected) < abs(misses[0] - expected)


def test_more_data_hurts_below_p():
    """At 40 features, with ever more examples: down, up to infinity at 40, and down to 0."""
    risks = [double_descent.excess_risk(N, n, r2=R2, s2=S2) for n in range(1, 200)]
    dip = risks.index(min(risks[:38])) + 1
    assert 1 < dip < 38
    assert risks[dip - 1 : 38] == sorted(risks[dip - 1 : 38])
    assert risks[38] == risks[39] == risks[40] == math.inf
    assert risks[41:] == sorted(risks[41:], reverse=True)


def test_of_one_member_an_ensemble_is_a_fit_and_of_many_their_mean():
    for p in (5, 20, 38, 42, 80):
        options = {"r2": 2.0, "s2": 0.3}
        alone = double_descent.excess_risk(p, N, **options)
        assert double_descent.ensemble_risk(p, N, 1, **options) == pytest.approx(alone, rel=1e-12)
        for members in (2, 7):
            found = double_descent.ensemble_risk(p, N, members, **options)
            if p < N:
                expected = 0.3 * p / (N - p - 1) / members
            else:
                r, variance = N / p, 0.3 * N / (p - N - 1)
                expected = 2 * (1 - r) ** 2 + (2 * r * (1 - r) + variance) / members
            assert found == pytest.approx(expected, rel=1e-12)
    assert double_descent.ensemble_risk(N, N, 9, r2=R2, s2=S2) == math.inf


# Against draws


def four_errors(draws: Tensor, expected: float) -> None:
    """The mean of the draws is within four of its standard errors, and these are small."""
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean()) - expected) < 4 * error
    assert error < 0.1 * expected


@pytest.mark.parametrize("p", [10, 30, 50, 80, 160])
def test_the_risk_is_that_of_draws(p):
    options = {"b": spread(p), "s2": S2, "draws": 200, "generator": seeded(p)}
    risks = double_descent.simulate(p, N, **options)
    assert risks.shape == (200,)
    four_errors(risks, double_descent.excess_risk(p, N, r2=R2, s2=S2))


def test_near_p_equal_n_medians_peak():
    middle = {
        p: float(
            double_descent.simulate(
                p, N, b=spread(p), s2=S2, draws=100, generator=seeded(p)
            ).median()
        )
        for p in (20, 39, 40, 41, 80)
    }
    assert min(middle[39], middle[40], middle[41]) > 4 * max(middle[20], middle[80])


@pytest.mark.parametrize("p", [10, 30, 60, 100])
def test_weak_features_are_those_of_draws(p):
    b = spread(100)
    inside = float(b[:p].square().sum())
    options = {"b": b, "s2": 0.04, "draws": 200, "generator": seeded(p)}
    errors = double_descent.simulate(p, N, **options) + 0.04
    expected = double_descent.weak_features_risk(p, N, inside=inside, outside=1 - inside, s2=0.04)
    four_errors(errors, expected)


def test_weak_features_that_are_not_alike():
    """What counts is the signal that is left out, not how many features: here it is little."""
    b = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.2], dtype=torch.float64)
    errors = double_descent.simulate(2, 20, b=b, s2=0.1, draws=400, generator=seeded()) + 0.1
    expected = double_descent.weak_features_risk(2, 20, inside=0.82, outside=0.38, s2=0.1)
    four_errors(errors, expected)


@pytest.mark.parametrize("p", [20, 80])
def test_ensembles_are_those_of_draws(p):
    options = {"b": spread(p), "s2": S2, "draws": 60, "generator": seeded(p), "members": 4}
    risks = double_descent.simulate(p, N, **options)
    four_errors(risks, double_descent.ensemble_risk(p, N, 4, r2=R2, s2=S2))


def test_a_seed_decides_and_fewer_draws_are_the_first():
    options = {"b": spread(5), "s2": S2}
    first = double_descent.simulate(5, 9, draws=6, generator=seeded(3), **options)
    again = double_descent.simulate(5, 9, draws=4, generator=seeded(3), **options)
    assert torch.equal(first[:4], again)
    assert len(first.unique()) == 6
    exact = double_descent.simulate(5, 9, b=spread(5), s2=0, draws=3, generator=seeded())
    assert exact.max() < 1e-20
    zero = double_descent.simulate(
        3, 9, b=spread(5), s2=S2, draws=2, generator=seeded(), fit=lambda X, y: 0 * X[0]
    )
    torch.testing.assert_close(zero, torch.ones(2).double())


# Ridge


def compare_with_sklearn(n: int, p: int, k: int | None, penalty: float, seed: int) -> None:
    X, y = problem(n, p, k, seed)
    theirs = Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(X.numpy(), y.numpy())
    found = double_descent.ridge(X, y, penalty)
    expected = theirs.coef_.T.reshape(found.shape)
    atol = 100 * EPS * float(torch.linalg.svdvals(X)[0]) ** 2 / penalty
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol * (1 + y.norm()))


@given(sizes, sizes, st.none() | st.integers(1, 3), positive, seeds)
@settings(max_examples=60)
def test_ridge_is_that_of_scikit_learn(n, p, k, penalty, seed):
    compare_with_sklearn(n, p, k, penalty, seed)


@pytest.mark.parametrize(("n", "p"), [(40, 10), (40, 40), (40, 80)])
def test_ridge_here(n, p):
    compare_with_sklearn(n, p, None, 2.5, 0)


def test_ridge_tends_to_the_least_norm_and_to_zero():
    for n, p in ((9, 4), (4, 9)):
        X, y = problem(n, p)
        least = double_descent.min_norm(X, y)
        torch.testing.assert_close(double_descent.ridge(X, y, 1e-12), least, rtol=0, atol=1e-10)
        norms = [double_descent.ridge(X, y, 10.0**i).norm() for i in range(-6, 7)]
        assert norms == sorted(norms, reverse=True)
        assert norms[-1] < 1e-4


def risk_given(X: Tensor, penalty: float) -> float:
    """Mean of |b_hat - b|^2 over noise and directions of b, exact for this X.

    With b_hat = A y it is r2 |A X - 1|^2 / p + s2 |A|^2.
    """
    n, p = X.shape
    A = double_descent.ridge(X, torch.eye(n, dtype=X.dtype), penalty)
    bias = (A @ X - torch.eye(p, dtype=X.dtype)).square().sum() / p
    return float(R2 * bias + S2 * A.square().sum())


@pytest.mark.parametrize("p", [10, 40, 80])
def test_the_optimal_penalty_is_the_best(p):
    X, _ = problem(N, p)
    best = double_descent.optimal_penalty(p, r2=R2, s2=S2)
    assert best == p * S2 / R2
    least = risk_given(X, best)
    inverse = torch.linalg.inv(X.mT @ X + best * torch.eye(p, dtype=X.dtype))
    assert least == pytest.approx(S2 * float(inverse.trace()), rel=1e-10)  # the posterior variance
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert risk_given(X, factor * best) > least * (1 + 1e-6)


def test_with_the_optimal_penalty_there_is_no_peak():
    """In p at a fixed n it only rises, in n at a fixed p it only falls."""

    def risk(p: int, n: int) -> float:
        best = double_descent.optimal_penalty(p, r2=R2, s2=S2)
        return statistics.mean(risk_given(problem(n, p, seed=i)[0], best) for i in range(20))

    by_width = [risk(p, N) for p in (10, 20, 30, 40, 50, 80, 160)]
    assert by_width == sorted(by_width)
    assert by_width[3] < 0.5
    by_size = [risk(N, n) for n in (10, 20, 30, 40, 50, 80, 160)]
    assert by_size == sorted(by_size, reverse=True)


def test_drawn_ridge_is_the_exact_one():
    fit = partial(double_descent.ridge, penalty=double_descent.optimal_penalty(40, r2=R2, s2=S2))
    options = {"b": spread(40), "s2": S2, "draws": 100, "generator": seeded(), "fit": fit}
    expected = statistics.mean(risk_given(problem(N, 40, seed=i)[0], 10.0) for i in range(100))
    four_errors(double_descent.simulate(40, N, **options), expected)


# Bagging


def test_a_bag_is_the_mean_over_bootstrap_samples():
    X, y = problem(12, 5, 2)
    seen = []

    def fit(X_here: Tensor, y_here: Tensor) -> Tensor:
        seen.append((X_here, y_here))
        return torch.full((5, 2), float(len(seen)), dtype=torch.float64)

    found = double_descent.bagged(X, y, 3, generator=seeded(), fit=fit)
    assert torch.equal(found, torch.full((5, 2), 2.0, dtype=torch.float64))
    rows = {tuple(row.tolist()): i for i, row in enumerate(X)}
    samples = []
    for X_here, y_here in seen:
        index = [rows[tuple(row.tolist())] for row in X_here]
        assert len(index) == 12
        assert torch.equal(y_here, y[index])  # each row with its own target
        samples.append(index)
    assert len({tuple(sorted(index)) for index in samples}) == 3
    assert all(len(set(index)) < 12 for index in samples)


def test_above_p_equal_n_a_row_counts_once_in_a_sample():
    """Rows that repeat leave singular values of rounding size, which must not be divided by."""
    X, y = problem(40, 60)
    found = double_descent.bagged(X, y, 5, generator=seeded())
    source, expected = seeded(), 0.0
    for _ in range(5):
        rows = torch.randint(40, (40,), generator=source).unique()
        expected = expected + np.linalg.lstsq(X[rows].numpy(), y[rows].numpy(), rcond=None)[0] / 5
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


# Random features


def images_of(n: int = 6, seed: int = 0, low: int = 0, size: int = 32) -> Tensor:
    return torch.randint(low, 256, (n, 3, size, size), generator=seeded(seed)).to(torch.uint8)


def by_numpy(sets: list[Tensor], n: int, seed: int) -> list[np.ndarray]:
    colour = sets[0].numpy().mean(axis=(0, 2, 3), keepdims=True) / 255
    W = torch.randn(n, 192, generator=seeded(seed), dtype=torch.float64).numpy()
    found = []
    for each in sets:
        blocks = (each.numpy() / 255 - colour).reshape(len(each), 3, 8, 4, 8, 4)
        v = blocks.mean(axis=(3, 5)).reshape(len(each), 192)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        found.append(np.maximum(v @ W.T, 0))
    return found


def test_random_features_are_those_of_numpy():
    sets = [images_of(), images_of(4, seed=1, low=100)]
    found = double_descent.random_features(sets, 50, generator=seeded(5))
    for ours, theirs in zip(found, by_numpy(sets, 50, 5), strict=True):
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-12)


def test_an_image_has_the_same_features_in_each_set():
    train = images_of(8)
    test = torch.cat([train[2:5], images_of(3, seed=1)])
    first, second = double_descent.random_features((train, test), 30, generator=seeded())
    torch.testing.assert_close(first[2:5], second[:3], rtol=0, atol=1e-13)
    alone, _ = double_descent.random_features((train, test[:0]), 30, generator=seeded())
    torch.testing.assert_close(alone, first, rtol=0, atol=1e-13)  # test images change nothing


def test_features_have_unit_scale_and_half_are_off():
    """An image is of unit length, so each w v is standard normal."""
    (X,) = double_descent.random_features([images_of(20)], 4000, generator=seeded())
    assert float((X > 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(X.square().mean()) == pytest.approx(0.5, abs=0.02)


def test_other_sizes_and_an_image_of_one_colour():
    for size in (8, 16, 20):
        (X,) = double_descent.random_features([images_of(3, size=size)], 10, generator=seeded())
        assert X.shape == (3, 10)
    plain = torch.full((2, 3, 32, 32), 7, dtype=torch.uint8)
    (X,) = double_descent.random_features([plain], 10, generator=seeded())
    assert not X.any()


def digits(seed: int = 100) -> tuple[Split, Split]:
    drawn = data.load("digits", n_train=600, n_test=100, n_validation=600, seed=seed)
    two = data.select_classes(drawn, (0, 1))
    return Split(two.train.images[:60], two.train.labels[:60]), two.validation


def sweep(widths: list[int], fit: double_descent.Fit, seed: int) -> double_descent.Curve:
    train, test = digits()
    X, X_test = double_descent.random_features(
        (train.images, test.images), max(widths), generator=seeded(seed)
    )
    y, y_test = (double_descent.signs(part.labels) for part in (train, test))
    return double_descent.by_width((X, y), (X_test, y_test), widths, fit=fit)


def test_on_images_the_error_peaks_and_ridge_flattens_it():
    widths = [6, 60, 600]
    plain = double_descent.median(
        [sweep(widths, double_descent.min_norm, seed) for seed in range(3)]
    )
    assert plain.test_mse[1] > 10 * max(plain.test_mse[0], plain.test_mse[2])
    assert plain.test_error[1] > plain.test_error[2]
    assert plain.train_mse[0] > 0.1
    assert plain.train_mse[1:].max() < 1e-15
    assert plain.norm[1] > plain.norm[2]
    damped = sweep(widths, partial(double_descent.ridge, penalty=1.0), 0)
    assert damped.test_mse.max() < 2


def test_by_width_measures_each_column():
    X, y = problem(8, 12, 2)
    X_test, y_test = problem(101, 12, seed=1)
    y, y_test = y.sign(), y_test.sign()
    found = double_descent.by_width((X, y), (X_test, y_test), [3, 12])
    assert all(one.shape == (2, 2) for one in found)
    for i in range(2):
        alone = double_descent.by_width((X, y[:, i]), (X_test, y_test), [3, 12])
        for one, both in zip(alone, found, strict=True):
            torch.testing.assert_close(one, both[:, i], rtol=0, atol=1e-12)
    for row, p in enumerate((3, 12)):
        for i in range(2):
            b = np.linalg.lstsq(X[:, :p].numpy(), y[:, i].numpy(), rcond=None)[0]
            answers = X_test[:, :p].numpy() @ b
            expected = [
                np.mean((X[:, :p].numpy() @ b - y[:, i].numpy()) ** 2),
                np.mean((answers - y_test.numpy()) ** 2),
                np.mean(np.sign(answers) != y_test.numpy()),
                np.linalg.norm(b),
            ]
            values = [float(one[row, i]) for one in found]
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-11)


def test_the_median_is_over_draws():
    draws = [
        double_descent.Curve(*(torch.tensor([value, 10.0 * i]) for i in range(4)))
        for value in (1.0, 2.0, 1e9)
    ]
    found = double_descent.median(draws)
    assert [one.tolist() for one in found] == [[2.0, 10.0 * i] for i in range(4)]


def test_signs_of_labels():
    labels = torch.tensor([0, 1, 1], dtype=torch.uint8)
    assert torch.equal(double_descent.signs(labels), torch.tensor([-1.0, 1.0, 1.0]).double())
    with pytest.raises(ValueError, match="take two classes"):
        double_descent.signs(torch.tensor([0, 2]))


# Networks


def small(n: int = 40, classes: int = 10) -> data.Dataset:
    return data.select_classes(data.load("digits", n_train=10 * n, n_test=100), range(classes))


def test_exactly_the_share_is_wrong_and_only_in_training():
    clean = small()
    for share, wrong in ((0.2, 80), (0.0, 0), (1.0, 400)):
        noisy = double_descent.with_noise(clean, share, generator=seeded())
        assert int((noisy.train.labels != clean.train.labels).sum()) == wrong
        assert torch.equal(noisy.train.images, clean.train.images)
        assert torch.equal(noisy.test.labels, clean.test.labels)
    two = small(classes=2)
    flipped = double_descent.with_noise(two, 0.2, generator=seeded())
    assert int((flipped.train.labels != two.train.labels).sum()) == 16


class Linear(nn.Module):
    """A linear network on pixels, and a weight that no answer depends on."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.head = nn.Linear(3072, 10)
        self.idle = nn.Parameter(torch.ones(3))
        self.modes = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.head(images.flatten(1)) + 0 * self.idle.sum()


def test_wrong_labels_are_learned_by_heart_since_they_stay():
    """100 images in 3,072 dimensions: whatever the labels, a hyperplane fits."""
    noisy = double_descent.with_noise(small(10), 0.4, generator=seeded())
    found = double_descent.train(Linear(), noisy, epochs=30, batch_size=50, generator=seeded(1))
    assert len(found.train_error) == len(found.test_error) == 30
    assert found.train_error[0] > 0.3
    assert found.train_error[-1] == 0
    assert found.test_error[-1] > 0.3


def test_a_weight_without_a_gradient_stays():
    network = Linear()
    before = network.head.weight.clone()
    double_descent.train(network, small(10), epochs=2, batch_size=50, generator=seeded())
    assert torch.equal(network.idle, torch.ones(3))
    assert not torch.equal(network.head.weight, before)


def test_every_epoch_trains_in_training_mode():
    """And looks at train and test images in evaluation mode: in an epoch there are two batches."""
    network = Linear().eval()
    double_descent.train(network, small(10), epochs=2, batch_size=50, generator=seeded())
    assert network.modes == 2 * [True, True, False, False]


def test_errors_are_measured_at_the_epochs_that_are_named():
    drawn, network = small(10), Linear()
    drawn = replace(drawn, validation=data.Split(drawn.test.images[:7], drawn.test.labels[:7]))
    found = double_descent.train(network, drawn, epochs=4, at=(4, 2), generator=seeded())
    assert found.at == [2, 4]
    assert network.modes == [True, True, False, False, False] * 2
    for split, errors in (
        (drawn.train, found.train_error),
        (drawn.validation, found.validation_error),
        (drawn.test, found.test_error),
    ):
        assert len(errors) == 2
        assert errors[-1] == 1 - training.accuracy(network, drawn, split)
    assert double_descent.train(Linear(), small(10), epochs=2).validation_error == []


@pytest.mark.parametrize("at", [(0,), (5,), (1.5,)])
def test_epochs_that_are_not_trained_are_refused(at):
    with pytest.raises(ValueError, match="at "):
        double_descent.train(Linear(), small(10), epochs=4, at=at)


def test_the_learning_rate_is_constant_and_the_order_seeded():
    usual = defaults(double_descent.train)
    assert (usual["lr"], usual["batch_size"], usual["precision"]) == (1e-3, 128, "float32")
    networks = [Linear(), Linear(), Linear()]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        double_descent.train(network, small(10), epochs=1, batch_size=30, generator=seeded(seed))
    first, again, other = (network.head.weight for network in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_steps_are_those_of_adam():
    """Two epochs of one batch, written out with torch's loss and step, on pixels as they are."""
    drawn, network, theirs = small(10), Linear(), Linear()
    double_descent.train(network, drawn, epochs=2, batch_size=100, lr=0.01, generator=seeded())
    mean, std = (v.view(3, 1, 1) for v in (drawn.mean, drawn.std))
    images = (drawn.train.images.float() / 255 - mean) / std
    stepper = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for _ in range(2):
        stepper.zero_grad()
        nn.functional.cross_entropy(theirs(images), drawn.train.labels).backward()
        stepper.step()
    # Adam's first steps are lr times a sign: where a gradient is rounding, signs may differ.
    near = (network.head.weight - theirs.head.weight).abs() < 1e-4
    assert near.double().mean() > 0.99


# Bad input


@pytest.mark.parametrize(
    ("X", "y"),
    [((4, 3), (5,)), ((4,), (4,)), ((4, 3), (4, 2, 1)), ((0, 3), (0,)), ((4, 0), (4,))],
)
def test_shapes_that_do_not_fit_are_refused(X, y):
    X, y = torch.zeros(X).double(), torch.zeros(y).double()
    for fit in (double_descent.min_norm, partial(double_descent.ridge, penalty=1.0)):
        with pytest.raises(ValueError, match=r"give \[n, p\], and \[n\] or \[n, k\]"):
            fit(X, y)


def test_float32_is_refused():
    X, y = problem(4, 3)
    for pair in ((X.float(), y), (X, y.float()), (X.float(), y.float())):
        with pytest.raises(ValueError, match="give float64"):
            double_descent.min_norm(*pair)


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_numbers_out_of_range_are_refused(value):
    X, y = problem(4, 3)
    with pytest.raises(ValueError, match=f"penalty={value}: expected a finite number above 0"):
        double_descent.ridge(X, y, value)
    with pytest.raises(ValueError, match="a share of the largest singular value"):
        double_descent.min_norm(X, y, cutoff=value)
    for name in ("r2", "s2"):
        options = {"r2": 1.0, "s2": 1.0} | {name: value}
        message = f"{name}={value}: expected a finite number >= 0"
        with pytest.raises(ValueError, match=message):
            double_descent.excess_risk(3, 9, **options)
        with pytest.raises(ValueError, match=message):
            double_descent.asymptotic_risk(0.5, **options)
        with pytest.raises(ValueError, match=message):
            double_descent.ensemble_risk(3, 9, 2, **options)
        with pytest.raises(ValueError, match="expected finite numbers above 0"):
            double_descent.optimal_penalty(3, **options)
    for name in ("inside", "outside", "s2"):
        options = {"inside": 1.0, "outside": 1.0, "s2": 1.0} | {name: value}
        with pytest.raises(ValueError, match=f"{name}={value}"):
            double_descent.weak_features_risk(3, 9, **options)
    with pytest.raises(ValueError, match=f"ratio={value}"):
        double_descent.asymptotic_risk(value, r2=1, s2=1)
    with pytest.raises(ValueError, match=f"s2={value}"):
        double_descent.simulate(3, 9, b=spread(3), s2=value, draws=1, generator=seeded())


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_counts_that_are_none_are_refused(value):
    X, y = problem(4, 3)
    options = {"r2": 1.0, "s2": 1.0}
    draw = {"p": 3, "n": 9, "draws": 1, "members": 1}
    calls = {
        "p": [
            lambda: double_descent.noise_factor(value, 4),
            lambda: double_descent.excess_risk(value, 4, **options),
            lambda: double_descent.optimal_penalty(value, **options),
        ],
        "n": [
            lambda: double_descent.noise_factor(4, value),
            lambda: double_descent.random_features([images_of()], value, generator=seeded()),
        ],
        "members": [
            lambda: double_descent.ensemble_risk(3, 9, value, **options),
            lambda: double_descent.bagged(X, y, value, generator=seeded()),
        ],
        "A width": [lambda: double_descent.by_width((X, y), (X, y), [value])],
        "epochs": [lambda: double_descent.train(Linear(), small(10), epochs=value)],
    }
    for name in draw:
        changed = draw | {name: value}
        calls.setdefault(name, []).append(
            partial(double_descent.simulate, **changed, b=spread(3), s2=1.0, generator=seeded())
        )
    for name, attempts in calls.items():
        for attempt in attempts:
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
                attempt()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"give float64 \[D\], of D >= p=4"):
        double_descent.simulate(4, 9, b=spread(3), s2=1.0, draws=1, generator=seeded())
    for sets in (images_of(), []):
        with pytest.raises(ValueError, match="Give the sets together"):
            double_descent.random_features(sets, 3, generator=seeded())
    with pytest.raises(ValueError, match="give uint8 ones"):
        double_descent.random_features([images_of().float()], 3, generator=seeded())
    X, y = problem(4, 3)
    with pytest.raises(ValueError, match="A width of 4: expected one of 1 to 3 features"):
        double_descent.by_width((X, y), (X, y), [3, 4])
