"""The verdicts: right on data where the truth is known, as often as the theory says."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mini.course import claims
from mini.course.claims import (
    Claim,
    Judgement,
    expected_false,
    headlines,
    judge,
    on_claimed_side,
    table,
)

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


def test_a_contrast_that_is_read_off_is_paired(capsys):
    claims.read_off("method - baseline", [0.5, 0.75, 1.0], [0.25, 0.5, 1.0])
    claims.read_off("method", np.full(3, 0.25))
    low, high = claims.interval(np.array([0.25, 0.25, 0.0]))
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("baseline")[1].split() == ["+0.167", f"[{low:+.3f},", f"{high:+.3f}]"]
    assert second.endswith(" +0.250 [+0.250, +0.250]")


@pytest.mark.parametrize(("ours", "other"), [([[0.5, 0.5]], 0), ([0.5, 0.5], [[0.5], [0.5]])])
def test_only_one_number_a_seed_is_read_off(ours, other):
    with pytest.raises(ValueError, match="expected one number a seed"):
        claims.read_off("a contrast", ours, other)


@pytest.mark.parametrize(
    ("values", "baseline", "complaint"),
    [
        ([], None, "at least one"),
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


# Roles, families, controls, bounds.


def claim_of(id: str, **more) -> Claim:
    return Claim(id, "a beats b", more.pop("paper", "table 1"), "accuracy", **more)


def test_a_role_is_stated_or_read_off_the_source():
    assert claim_of("C1").role == "paper"
    assert claim_of("C1", paper="(ours)").role == "explanation"
    assert claim_of("C1", paper="(ours)", role="control").role == "control"
    with pytest.raises(ValueError, match=r"role='guess', expected one of paper"):
        claim_of("C1", role="guess")


def test_a_claim_is_void_where_a_control_that_it_needs_failed():
    claim = claim_of("C1", needs=("K1", "K2"))
    values = [0.5, 0.6, 0.7]
    assert judge(claim, values).verdict == "reproduced"
    assert judge(claim, values, failed=["K3"]).verdict == "reproduced"
    void = judge(claim, values, failed=["K2", "K3"])
    assert (void.verdict, void.why) == ("void", "needs K2")
    assert void.values == (0.5, 0.6, 0.7)
    assert "**void**<br>(needs K2)" in table([void])
    assert Judgement.from_dict(json.loads(json.dumps(void.as_dict()))) == void


def test_a_claim_cannot_need_itself():
    with pytest.raises(ValueError, match="C1 cannot need itself"):
        claim_of("C1", needs=("C1",))


def test_of_a_family_the_headline_counts():
    judged = [
        judge(claim_of("40b"), [0.1, 0.2]),
        judge(claim_of("40a", family="40b"), [0.1, 0.2]),
        judge(claim_of("E1", kind="exact", margin=1e-6), [0.0]),
        judge(claim_of("C2"), [0.1, 0.2]),
    ]
    assert [j.claim.id for j in headlines(judged)] == ["40b", "C2"]
    assert "(family 40b)" in table(judged)


def test_a_false_reproduced_is_to_be_expected_once_in_forty_verdicts():
    judged = [judge(claim_of(f"C{i}"), [0.1, 0.2]) for i in range(40)]
    judged += [judge(claim_of("E1", kind="exact", margin=1e-6), [0.0])]
    judged += [judge(claim_of("C41", needs=("K1",)), [0.1, 0.2], failed=["K1"])]
    assert expected_false(judged) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "baseline", "interval"),
    [
        ([0.99, 1.0, 0.95], None, (None, 1.0)),
        ([0.0, 0.01, 0.0], None, (0.0, None)),
        ([1.0, 1.0, 0.9], [0.0, 0.1, 0.0], (None, 1.0)),
        ([0.5, 0.5, 0.5], None, (0.4995, 0.5005)),
        ([0.5, 0.6], [0.5, 0.6], (-0.0005, 0.0005)),
        ([1.0, 1.0], None, (0.999, 1.0)),
        ([0.0, 0.0], None, (0.0, 0.001)),
    ],
)
def test_a_share_stays_in_its_bounds_and_is_no_finer_than_one_image(values, baseline, interval):
    judged = judge(claim_of("C1", share=True), values, baseline, images=1000)
    assert judged.high - judged.low >= 0.001 - 1e-12
    for end, expected in zip((judged.low, judged.high), interval, strict=True):
        if expected is not None:
            assert end == pytest.approx(expected)
    floor = 0 if baseline is None else -1
    assert floor <= judged.low <= judged.mean <= judged.high <= 1


def test_other_measures_have_the_bounds_that_they_state():
    judged = judge(claim_of("C1", bounds=(-1, 1)), [0.9, 1.0, 0.5])
    assert judged.high == 1.0
    assert judge(claim_of("C1"), [0.9, 1.0, 0.5]).high > 1
    with pytest.raises(ValueError, match="not all within"):
        judge(claim_of("C1", bounds=(-1, 1)), [0.9, 1.1])
    with pytest.raises(ValueError, match="not all within"):
        judge(claim_of("C1", share=True), [-0.1, 0.5], images=10)
    with pytest.raises(ValueError, match="say of how many"):
        judge(claim_of("C1", share=True), [0.1, 0.5])
    for bounds in ((1, 1), (2, 1)):
        with pytest.raises(ValueError, match="smallest, largest"):
            claim_of("C1", bounds=bounds)
    with pytest.raises(ValueError, match="none for a share"):
        claim_of("C1", share=True, bounds=(0, 1))


def test_an_equivalence_denies_twice_its_margin_or_more():
    assert claim_of("C1", kind="equivalent", margin=0.01, denies=-0.02).margin == 0.01
    with pytest.raises(ValueError, match="more than half of the effect"):
        claim_of("C1", kind="equivalent", margin=0.011, denies=0.02)
    with pytest.raises(ValueError, match="only an equivalence denies"):
        claim_of("C1", denies=0.02)


def test_one_seed_has_a_value_and_no_interval():
    judged = judge(claim_of("C1"), [0.5])
    assert (judged.verdict, judged.mean) == ("inconclusive", 0.5)
    assert (judged.low, judged.high) == (None, None)
    assert "+0.500 one seed" in table([judged])


@pytest.mark.parametrize(
    "change",
    [
        {"line": 0.1},
        {"kind": "less"},
        {"role": "control"},
        {"family": "C2"},
        {"needs": ("K1",)},
        {"kind": "equivalent", "margin": 0.1},
    ],
)
def test_what_the_verdict_is_about_belongs_to_the_key(change):
    assert claim_of("C1", **change).key != claim_of("C1").key
    assert claim_of("C1", gated=True).key == claim_of("C1").key


def test_one_value_lies_on_the_claimed_side_or_not():
    assert on_claimed_side(claim_of("C1", line=0.5), 0.6)
    assert not on_claimed_side(claim_of("C1", line=0.5), 0.5)
    assert on_claimed_side(claim_of("C1", kind="less"), -0.1)
    assert on_claimed_side(claim_of("C1", kind="equivalent", margin=0.1), 0.05)
    assert not on_claimed_side(claim_of("C1", kind="equivalent", margin=0.1), 0.15)


def test_a_record_of_older_claims_is_read_with_defaults():
    row = judge(claim_of("C1"), [0.1, 0.2]).as_dict()
    old = {k: v for k, v in row.items() if k not in ("role", "family", "needs", "why", "share")}
    assert Judgement.from_dict(old) == Judgement.from_dict(row)


@pytest.mark.parametrize(
    ("claim", "shown"),
    [
        (claim_of("C1"), "| a beats b |"),
        (claim_of("C1", paper="ours"), "| a beats b | ours |"),
        (claim_of("C1", role="explanation"), "| *explanation:* a beats b |"),
        (claim_of("C1", paper="ours", role="control"), "| *control:* a beats b |"),
    ],
)
def test_a_table_says_which_claims_are_not_the_paper_s(claim, shown):
    assert shown in table([judge(claim, [0.1, 0.2])])
