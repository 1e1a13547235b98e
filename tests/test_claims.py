"""The verdicts: right on data where the truth is known, as often as the theory says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mini import claims
from mini.claims import Claim

SIMULATIONS = 10_000
GREATER = Claim("C", "a > b", "Table 1", "difference")


def verdicts(effect: float, n: int, claim: Claim = GREATER, seed: int = 0) -> list[str]:
    """The verdicts of `SIMULATIONS` experiments of `n` seeds, each with noise of deviation 1."""
    values = np.random.default_rng(seed).normal(effect, 1.0, (SIMULATIONS, n))
    fast = [claims.verdict_of(claim, *ends) for ends in zip(*claims.interval(values), strict=True)]
    assert fast[:100] == [claims.judge(claim, row).verdict for row in values[:100]]
    return fast


def share_reproduced(effect: float, n: int, claim: Claim = GREATER) -> float:
    return verdicts(effect, n, claim).count("reproduced") / SIMULATIONS


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("kind", ["greater", "less"])
def test_no_effect_is_reproduced_in_one_run_of_forty(n, kind):
    share = share_reproduced(0.0, n, Claim("C", "", "", "", kind=kind))
    # The number of false alarms is binomial: 2.5 %, give or take.
    low, high = stats.binom.interval(0.999, SIMULATIONS, 0.025)
    assert low <= share * SIMULATIONS <= high


@pytest.mark.parametrize(("n", "effect"), [(3, 2.0), (3, 5.0), (5, 1.5), (10, 1.0)])
def test_an_effect_is_reproduced_as_often_as_the_power_calculation_says(n, effect):
    # Power of a one-sided t test at 2.5 %: the noncentral t beyond the critical value.
    critical = stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(critical, n - 1, effect * np.sqrt(n))
    low, high = stats.binom.interval(0.999, SIMULATIONS, power)
    assert low <= share_reproduced(effect, n) * SIMULATIONS <= high


def test_an_effect_on_the_other_side_is_contradicted_not_inconclusive():
    found = verdicts(-3.0, 5)
    power = stats.nct.sf(stats.t.ppf(0.975, 4), 4, 3.0 * np.sqrt(5))
    low, high = stats.binom.interval(0.999, SIMULATIONS, power)
    assert low <= found.count("contradicted") <= high
    assert found.count("reproduced") == 0


@pytest.mark.parametrize("kind", ["greater", "less"])
@pytest.mark.parametrize("line", [-2.0, 0.0, 2.0])
def test_verdicts_by_kind_and_line(kind, line):
    claim = Claim("C", "", "", "", kind=kind, line=line)
    side = 1 if kind == "greater" else -1
    for shift, verdict in {
        3.0: "reproduced",
        0.5: "inconclusive",
        -0.5: "inconclusive",
        -3.0: "contradicted",
    }.items():
        around = line + side * shift + np.array([-1.0, 0.0, 1.0])  # the interval is +-2.48
        assert claims.judge(claim, around).verdict == verdict


def test_equivalence_at_its_margin_is_reproduced_in_at_most_one_run_of_forty():
    claim = Claim("C", "a = b", "", "", kind="equivalent", margin=1.0)
    assert share_reproduced(1.0, 5, claim) <= 0.03
    assert share_reproduced(0.0, 30, claim) > 0.99
    far = np.random.default_rng(2).normal(5.0, 0.1, 5)
    assert claims.judge(claim, far).verdict == "contradicted"
    wide = np.random.default_rng(2).normal(0.0, 5.0, 5)
    assert claims.judge(claim, wide).verdict == "inconclusive"


def test_the_interval_is_the_textbook_one():
    values = np.array([0.1, 0.4, 0.3, 0.7])
    half = stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2
    judgement = claims.judge(GREATER, values)
    np.testing.assert_allclose(
        [judgement.low, judgement.mean, judgement.high],
        [values.mean() - half, values.mean(), values.mean() + half],
    )


def test_seeds_are_paired():
    ours, baseline = [0.90, 0.70, 0.50], [0.88, 0.69, 0.48]  # +2, +1, +2 points on a wide spread
    assert claims.judge(GREATER, ours, baseline).verdict == "reproduced"
    assert claims.judge(GREATER, ours, baseline[::-1]).verdict == "inconclusive"


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=8),
    st.floats(-5, 5),
)
def test_claiming_the_opposite_of_opposite_values_gives_the_same_verdict(values, line):
    less = Claim("C", "", "", "", kind="less", line=-line)
    greater = Claim("C", "", "", "", kind="greater", line=line)
    mirrored = [-value for value in values]
    assert claims.judge(greater, values).verdict == claims.judge(less, mirrored).verdict


@given(st.integers(-100, 100), st.integers(2, 5))
def test_seeds_that_all_agree_have_an_interval_of_width_zero(value, n):
    judgement = claims.judge(GREATER, [float(value)] * n)
    assert (judgement.low, judgement.high) == (value, value)
    assert judgement.verdict == (
        "reproduced" if value > 0 else "contradicted" if value < 0 else "inconclusive"
    )


def test_an_exact_claim_is_judged_by_its_largest_error():
    claim = Claim("E", "", "", "", kind="exact", margin=1e-6)
    assert claims.judge(claim, [0.0, 1e-7]).verdict == "exact"
    assert claims.judge(claim, [0.0, -1e-5]).verdict == "contradicted"
    assert claims.judge(claim, [0.0, -1e-5]).mean == 1e-5


@pytest.mark.parametrize(
    ("values", "baseline", "complaint"),
    [
        ([0.1], None, "at least 2"),
        ([0.1, 0.2], [0.1], "pair them"),
        ([0.1, float("nan")], None, "finite"),
        ([[0.1, 0.2]], None, "list of at least"),
    ],
)
def test_bad_values_get_one_clear_sentence(values, baseline, complaint):
    with pytest.raises(ValueError, match=complaint):
        claims.judge(GREATER, values, baseline)


def test_a_claim_must_say_what_it_claims():
    with pytest.raises(ValueError, match="kind="):
        Claim("C", "", "", "", kind="better")
    with pytest.raises(ValueError, match="margin"):
        Claim("C", "", "", "", kind="equivalent")


def test_the_table_shows_every_claim_with_its_numbers():
    judged = [
        claims.judge(Claim("C1", "one", "Table 1", "gap", line=0.1), [0.2, 0.3, 0.25]),
        claims.judge(Claim("E1", "two", "Eq. 1", "error", kind="exact", margin=1e-6), [1e-9]),
    ]
    lines = claims.table(judged).splitlines()
    assert len(lines) == 4
    assert "+0.250 [+0.126, +0.374], n = 3" in lines[2]
    assert "**reproduced**" in lines[2]
    assert "**exact**" in lines[3]


def test_a_verdict_is_safe_where_fresh_seeds_find_it_again():
    """Simulated: at the distance asked for, 96 of 100 three-seed runs come out reproduced."""
    values = np.random.default_rng(0).normal(size=20)
    values = (values - values.mean()) / values.std(ddof=1)  # mean 0, deviation 1
    effect = claims.SAFE_DISTANCE / np.sqrt(3)
    assert share_reproduced(effect, 3) == pytest.approx(0.96, abs=0.01)
    for kind, side, margin in (("greater", 1, None), ("less", -1, None), ("equivalent", 0, 9.0)):
        claim = Claim("C", "a, b", "Table 1", "difference", kind, line=5.0, margin=margin)
        reach = 9.0 - effect if kind == "equivalent" else -effect  # of the farthest safe mean
        for toward in (-1, 1) if kind == "equivalent" else (-side,):
            mean = 5.0 + toward * reach
            inside = claims.judge(claim, values + mean - 0.01 * toward)
            outside = claims.judge(claim, values + mean + 0.01 * toward)
            assert claims.distance(inside) == pytest.approx(claims.SAFE_DISTANCE, abs=0.02)
            assert claims.safe([inside, outside]) == ["C"]
    few = claims.judge(GREATER, values[:19] + 100)
    assert claims.safe([few, claims.judge(GREATER, values + 100)]) == ["C"]
    same = claims.judge(GREATER, [1.0] * 20)
    assert claims.distance(same) == np.inf
    assert claims.distance(claims.judge(GREATER, [-1.0] * 20)) == -np.inf
