"""Toy embeddings: the paper's table, clumps by hand, bad input."""

import pytest

from mini.metric_learning import precision_at_1, retrieval
from mini.metric_learning.toys import clumps, on_a_line
from tests.metric_learning.test_triplets import seeded


@pytest.mark.parametrize(
    ("right", "known"),
    [
        ([1], (1, 0.1, 0.1)),
        ([1, 10], (1, 0.2, 0.12)),
        ([1, 2], (1, 0.2, 0.2)),
        ([*range(1, 11)], (1, 1, 1)),
        ([], (0, 0, 0)),
    ],
)
def test_ranks_are_those_asked_for(right, known):
    places, labels = on_a_line(right)
    assert places.shape == (21, 1)
    assert int((labels == labels[0]).sum()) == 11
    found = [float(values[0]) for values in retrieval(places, labels)[1:]]
    assert found == pytest.approx(known, rel=0, abs=1e-12)


def test_clumps_lie_in_turn_and_the_nearest_is_right():
    for each in (1, 2, 10):
        places, labels = clumps(each, generator=seeded())
        assert places.shape == (200, 2)
        assert labels.bincount().tolist() == [100, 100]
        assert labels[:: 100 // each].tolist() == [0, 1] * each
        assert precision_at_1(places, labels) == 1


@pytest.mark.parametrize("right", [[0], [11], [2, 2], [1.5]])
def test_ranks_that_cannot_be_are_refused(right):
    with pytest.raises(ValueError, match=r"rank|Ranks"):
        on_a_line(right)


@pytest.mark.parametrize("each", [0, 3])
def test_clumps_that_cannot_be_are_refused(each):
    with pytest.raises(ValueError, match="each"):
        clumps(each, generator=seeded())
