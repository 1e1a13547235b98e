"""Measures of neighbours: the paper's toy table, all orders counted, parity, chance, bad input.

pytorch-metric-learning computes in float32, and takes the first of a sorted row for the query
itself. Up to 25 rows torch.cdist computes as ours does, so that the neighbours are the same.
"""

import itertools
import math
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor

from mini import metric_learning
from mini.metric_learning import Retrieval, measures, retrieval
from tests.metric_learning.test_triplets import seeded

MEASURES = ("precision_at_1", "r_precision", "map_at_r")
THEIRS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
seeds = st.integers(0, 2**32)
same = {"rtol": 0, "atol": 1e-12}


def labelled(n: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings in float32, drawn with labels 0 .. classes-1, of unequal counts, some of one."""
    labels = torch.randint(classes, (n,), generator=seeded(seed + 1))
    labels[:2] = 0
    return torch.randn(n, dim, generator=seeded(seed)), labels


def means(embeddings: Tensor, labels: Tensor) -> tuple[float, ...]:
    return tuple(getattr(metric_learning, name)(embeddings, labels) for name in MEASURES)


def of_ranks(ranks: set[int], R: int = 10) -> tuple[float, ...]:
    """The measures of a query whose hits among the R nearest have these ranks, 1 .. R.

    It stands at 0 and the others to the right of it, those of its class that are not among the R
    nearest behind all of them. Strangers are of many classes.
    """
    is_hit = [i in ranks for i in range(1, R + 1)] + [True] * (R - len(ranks))
    labels = torch.tensor([0] + [0 if hit else 1 + i for i, hit in enumerate(is_hit)])
    found = retrieval(torch.arange(len(labels)).double()[:, None], labels)
    assert found.query[0] == 0
    return tuple(float(values[0]) for values in found[1:])


def test_the_toy_table():
    for ranks, expected in (
        ({1}, (1, 0.1, 0.1)),
        ({1, 10}, (1, 0.2, 0.12)),
        ({1, 2}, (1, 0.2, 0.2)),
        (set(range(1, 11)), (1, 1, 1)),
        (set(), (0, 0, 0)),
        ({10}, (0, 0.1, 0.01)),
    ):
        assert of_ranks(ranks) == pytest.approx(expected, rel=0, abs=1e-12)


@given(st.sets(st.integers(1, 12)))
@settings(max_examples=60)
def test_map_at_r_is_the_sum_written_out(ranks):
    at_1, r_precision, map_at_r = of_ranks(ranks, 12)
    precisions = [sum(j <= i for j in ranks) / i for i in ranks]
    assert at_1 == (1 in ranks)
    assert r_precision == pytest.approx(len(ranks) / 12, rel=0, abs=1e-12)
    assert map_at_r == pytest.approx(sum(precisions) / 12, rel=0, abs=1e-12)
    all_come_first = ranks == set(range(1, len(ranks) + 1))
    assert (r_precision - map_at_r < 1e-12) == all_come_first


@given(st.integers(3, 40), st.integers(1, 4), st.integers(1, 12), seeds)
@settings(max_examples=60)
def test_the_order_of_the_measures(n, dim, classes, seed):
    found = retrieval(*labelled(n, dim, classes, seed))
    assert (found.map_at_r >= 0).all()
    assert (found.map_at_r <= found.r_precision + 1e-12).all()
    assert (found.r_precision <= 1).all()
    assert all(values.dtype == torch.float64 for values in found[1:])


def test_with_one_other_the_measures_are_one():
    labels = torch.arange(30) % 15
    embeddings = torch.randn(30, 2, generator=seeded()) + labels[:, None]
    found = retrieval(embeddings, labels)
    assert torch.equal(found.r_precision, found.precision_at_1)
    assert torch.equal(found.map_at_r, found.precision_at_1)
    assert 0 < found.map_at_r.mean() < 1


# All orders of what is equally far


def over_all_orders(embeddings: Tensor, labels: Tensor) -> list[tuple[float, ...]]:
    """The measures of each query, each the mean over all orders of its neighbours by distance."""
    rows = []
    for q in range(len(labels)):
        others = [i for i in range(len(labels)) if i != q]
        R = sum(int(labels[i] == labels[q]) for i in others)
        if not R:
            continue
        d = {i: float((embeddings[i] - embeddings[q]).norm()) for i in others}
        found = []
        for order in itertools.permutations(others):
            if any(d[i] > d[j] for i, j in itertools.pairwise(order)):
                continue
            hits = [int(labels[i] == labels[q]) for i in order[:R]]
            ap = sum(hit * sum(hits[:i]) / i for i, hit in enumerate(hits, start=1)) / R
            found.append((hits[0], sum(hits) / R, ap))
        rows.append(tuple(map(fmean, zip(*found, strict=True))))
    return rows


def compare_with_all_orders(places: list[int], labels: list[int]) -> None:
    embeddings, labels = torch.tensor(places).double()[:, None], torch.tensor(labels)
    found = torch.stack(retrieval(embeddings, labels)[1:], dim=1)
    expected = torch.tensor(over_all_orders(embeddings, labels), dtype=torch.float64)
    torch.testing.assert_close(found, expected, **same)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=3, max_size=6))
@settings(max_examples=60)
def test_of_equally_far_ones_all_orders_count_alike(points):
    places, labels = map(list, zip(*points, strict=True))
    labels[1] = labels[0]
    compare_with_all_orders(places, labels)


def test_equally_far_ones_here():
    compare_with_all_orders([0, 0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 0, 1, 0])
    compare_with_all_orders([0, 1, 1, 1, 1, 2], [0, 1, 0, 0, 1, 1])  # a group beyond R
    compare_with_all_orders([0, 0, 1, 1, 1, 9], [0, 0, 0, 1, 1, 0])


def test_a_collapsed_network_is_at_chance_in_any_order_of_its_rows():
    labels = torch.arange(60) % 3
    for rows in (labels, labels.sort().values):
        at_1, r_precision, map_at_r = means(torch.full((60, 4), 0.1), rows)
        assert at_1 == pytest.approx(19 / 59, rel=0, abs=1e-12)
        assert r_precision == pytest.approx(19 / 59, rel=0, abs=1e-12)
        precisions = [(1 + (i - 1) * 18 / 58) / i for i in range(1, 20)]
        assert map_at_r == pytest.approx(19 / 59 * fmean(precisions), rel=0, abs=1e-12)


def test_a_twin_of_another_class_is_not_the_query_itself():
    """Each image has a twin, which is its nearest: all are wrong, or half where there are two."""
    places = torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0, 3.0])[:, None]
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    assert metric_learning.precision_at_1(places, labels) == 0
    assert metric_learning.precision_at_1(places, torch.tensor([0, 0, 1, 1, 2, 2])) == 1


def test_rows_and_names_of_classes_may_be_in_any_order():
    embeddings, labels = labelled(40, 3, 5)
    expected = means(embeddings, labels)
    order = torch.randperm(40, generator=seeded(3))
    assert means(embeddings[order], labels[order]) == pytest.approx(expected, rel=0, abs=1e-12)
    names = torch.tensor([7, -2, 100, 3, 0])
    assert means(embeddings, names[labels]) == expected
    assert means(embeddings, labels.to(torch.uint8)) == expected


# Parity


def compare_with_a_library(n: int, dim: int, classes: int, seed: int) -> None:
    embeddings, labels = labelled(n, dim, classes, seed)
    calculator = AccuracyCalculator(
        include=THEIRS,
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
        kmeans_func=lambda *_: None,
    )
    theirs = calculator.get_accuracy(embeddings, labels)
    ours = dict(zip(THEIRS, means(embeddings, labels), strict=True))
    assert ours == pytest.approx(theirs, rel=0, abs=1e-12)


@given(st.integers(4, 25), st.integers(2, 6), st.integers(2, 8), seeds)
@settings(max_examples=40)
def test_the_measures_are_those_of_pytorch_metric_learning(n, dim, classes, seed):
    compare_with_a_library(n, dim, classes, seed)


def test_the_measures_of_a_library_here():
    compare_with_a_library(25, 3, 4, 0)


def clumps(each: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two classes of 100 points, in `each` clumps a class, which alternate on a line."""
    which = torch.arange(200) % (2 * each)
    noise = 0.08 * torch.randn(200, 2, generator=seeded(seed), dtype=torch.float64)
    noise[:, 0] += which
    return noise, which % 2


def test_precision_at_1_sees_nothing_where_map_at_r_orders_all():
    for each, expected in ((10, (1, 0.495, 0.289)), (2, (1, 0.495, 0.495)), (1, (1, 1, 1))):
        for seed in range(3):
            assert means(*clumps(each, seed)) == pytest.approx(expected, rel=0, abs=1e-3)


def test_a_class_of_one_is_no_query_but_a_wrong_answer():
    places, labels = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 1, 0, 0])
    found = retrieval(places, labels)
    assert isinstance(found, Retrieval)
    assert found.query.tolist() == [0, 2, 3]
    assert found.precision_at_1.tolist() == [0, 0, 1]
    assert found.r_precision.tolist() == [0.5, 0.5, 0.5]
    assert found.map_at_r.tolist() == [0.25, 0.25, 0.5]
    assert metric_learning.map_at_r(places, labels) == pytest.approx(1 / 3)


def test_blocks_of_queries_change_nothing():
    embeddings, labels = labelled(50, 3, 30)
    before, expected = measures.BLOCK, retrieval(embeddings, labels)
    try:
        for measures.BLOCK in (1, 170):
            for values, theirs in zip(retrieval(embeddings, labels), expected, strict=True):
                assert torch.equal(values, theirs)
    finally:
        measures.BLOCK = before


def test_no_gradient_is_kept():
    embeddings, labels = labelled(10, 3, 2)
    assert not any(v.requires_grad for v in retrieval(embeddings.requires_grad_(), labels))


@pytest.mark.parametrize("name", MEASURES)
def test_bad_input_is_refused(name):
    measure = getattr(metric_learning, name)
    embeddings, labels = labelled(10, 3, 2)
    for bad, complaint in (
        ((embeddings, torch.arange(10)), "No class has two images: there is nothing to find"),
        ((embeddings, labels[:9]), r"Labels \[9\] for rows \[10, 3\]: give one label a row"),
        ((embeddings, labels.float()), "give whole numbers"),
        ((embeddings[:0], labels[:0]), "give one label a row"),
        ((embeddings.long(), labels), r"give floats \[N, D\]"),
        ((embeddings.where(labels[:, None] > 0, math.inf), labels), "some are not finite"),
    ):
        with pytest.raises(ValueError, match=complaint):
            measure(*bad)
