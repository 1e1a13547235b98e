"""The scale `check`: how often it is wrong, and what it catches."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from mini import training
from mini.course import check, notebook, records
from mini.course.experiment import Results
from tests.course.test_notebook import course, printed
from tests.planted import Bug, planted

N = 1000  # test images
MEASURES = 20_000
SHAPES = {
    "normal": lambda draw, size: draw.normal(size=size),
    "t5": lambda draw, size: draw.standard_t(5, size),
    "lognormal": lambda draw, size: np.exp(draw.normal(size=size)),
    "beta 50, 1": lambda draw, size: draw.beta(50, 1, size),
    "share of images": lambda draw, size: draw.binomial(N, draw.beta(50, 1, size)) / N,
    "share near one": lambda draw, size: draw.binomial(N, 0.999, size) / N,
    "laplace": lambda draw, size: draw.laplace(size=size),
    "exponential": lambda draw, size: draw.exponential(size=size),
    "uniform": lambda draw, size: draw.uniform(size=size),
}


def alarms(values: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """For measures `[M, 23]`: is seed 20 an alarm, with 21 and 22, given what 0 to 19 found?

    Those that no scale suits are not compared, as in a notebook. `shift` is added to the last.
    """
    kinds, found = check.kinds_of(values[:, :20], N), np.zeros(len(values), dtype=bool)
    for index, kind in enumerate(check.KINDS):
        here = kinds == index
        ends = check.limits(values[here, :20], check.Scale(kind, N))
        sides = np.stack([check.beyond(values[here, 20 + k] + shift, ends) for k in range(3)])
        found[here] = abs(sides.sum(axis=0)) == 3
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_in_a_run_of_300_measures_a_false_alarm_has_at_most_18_in_a_thousand(shape):
    share = alarms(SHAPES[shape](np.random.default_rng(0), (MEASURES, 23))).mean()
    assert 1 - (1 - share) ** 300 <= 0.018


@pytest.mark.parametrize(("shift", "caught"), [(4, 0.22), (5, 0.60), (6, 0.89)])
def test_a_shift_is_caught_as_often_as_the_design_says(shift, caught):
    values = np.random.default_rng(1).normal(size=(MEASURES, 23))
    compared = check.kinds_of(values[:, :20], N) >= 0
    assert alarms(values, shift)[compared].mean() == pytest.approx(caught, abs=0.015)


def test_the_limits_are_the_prediction_interval_of_the_textbook():
    values = np.random.default_rng(2).normal(3.0, 0.5, 20)
    low, high = check.limits(values, check.Scale("plain", N))
    factor = stats.t.ppf(1 - 5e-4, 19) * math.sqrt(1 + 1 / 20)
    assert factor == pytest.approx(3.98, abs=0.005)
    assert (low, high) == pytest.approx(
        (
            values.mean() - factor * values.std(ddof=1),
            values.mean() + factor * values.std(ddof=1),
        )
    )


@pytest.mark.parametrize("kind", check.KINDS)
def test_scales_go_forth_and_back(kind):
    scale, x = check.Scale(kind, N), np.array([0.0, 0.001, 0.5, 0.999, 1.0])
    np.testing.assert_allclose(scale.back(scale.forth(x)), x, atol=1e-12)
    assert np.isfinite(scale.forth(x)).all()


def test_a_share_is_a_logit_and_stays_a_share():
    assert check.Scale("share", N).forth(0.5) == 0.0
    assert check.Scale("share", 9).forth(1 / 9) == pytest.approx(math.log(1.5 / 8.5))
    low, high = check.limits(np.linspace(0.9, 0.99, 20), check.Scale("share", N))
    assert 0 < low < 0.9
    assert 0.99 < high < 1.001


@pytest.mark.parametrize(
    ("kind", "half"), [("share", 2 / N), ("positive", 2 / N), ("plain", 2 / N)]
)
def test_limits_are_never_narrower_than_two_images_or_the_printed_digit(kind, half):
    low, high = check.limits(np.full(20, 0.25), check.Scale(kind, N))
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half))
    assert check.beyond(0.25 + 0.9 * half, (low, high)) == 0
    assert check.beyond(0.25 + 1.1 * half, (low, high)) == 1
    assert check.beyond(float("nan"), (low, high)) != 0
    if kind != "share":  # no share: the printed digit
        low, high = check.limits(np.full(20, 2.5), check.Scale(kind, N))
        assert (low, high) == pytest.approx((2.5 - 1e-3, 2.5 + 1e-3))


def test_a_measure_is_transformed_or_dropped_by_its_own_seeds():
    draw = np.random.default_rng(3)
    skewed = np.exp(2 * draw.normal(size=20))
    one_far_off = np.append(draw.normal(size=19), 50.0)
    experiments = {
        "train": {
            "arm": {
                "accuracy": draw.binomial(N, 0.9, 20) / N,
                "loss": skewed,
                "near one": 1 - np.array([0] * 9 + [1] * 6 + [2] * 3 + [4, 7]) / N,
                "difference": draw.normal(size=20),
                "odd": one_far_off,
                "curve": draw.normal(size=(20, 3)) * [1, 1, -1],
                "map": draw.normal(size=(20, 3, 3)),
                "seconds a step": one_far_off,
                "name": np.array(["x"] * 20),
                "undefined": np.full(20, np.nan),
            }
        }
    }
    kinds, dropped = check.gates(experiments, N)
    assert kinds == {
        "train": {
            "arm": {"accuracy": "plain", "loss": "positive", "difference": "plain"}
            | {"curve, end": "plain", "near one": "share"}
        }
    }
    assert dropped == ["train / arm / odd"]


def results(seed: int, **measures: float) -> Results:
    return Results({"arm": [{name: np.asarray(value) for name, value in measures.items()}]}, [seed])


def test_of_a_curve_the_end_is_compared():
    found = check.scalars({"curve": np.arange(6).reshape(2, 3), "column": np.ones((2, 1))})
    assert {name: values.tolist() for name, values in found.items()} == {"curve, end": [2, 5]}


RECORDED = {"arm": {"loss": np.linspace(1.0, 2.0, 20), "accuracy": np.linspace(0.5, 0.6, 20)}}
KINDS = {"arm": {"loss": "plain", "accuracy": "share"}}
SOUND = {"loss": 1.5, "accuracy": 0.55}


def compare(first: dict, *more: dict) -> tuple[int, list[str], list[int]]:
    """Compared measures, findings, and the further seeds that were run."""
    asked = []

    def run(seed: int, arms: list[str]) -> Results:
        assert arms == ["arm"]
        asked.append(seed)
        return results(seed, **more[len(asked) - 1])

    return *check.compare(results(20, **first), RECORDED, KINDS, N, run=run), asked


def test_what_lies_within_needs_no_further_seed():
    assert compare(SOUND) == (2, [], [])


def test_an_alarm_is_one_only_if_all_three_seeds_lie_beyond_on_one_side():
    high, low = SOUND | {"loss": 9.0}, SOUND | {"loss": -9.0}
    assert compare(high, SOUND) == (2, [], [21])
    assert compare(high, high, SOUND) == (2, [], [21, 22])
    assert compare(high, low) == (2, [], [21])
    count, findings, asked = compare(high, high, high)
    assert (count, len(findings), asked) == (2, 1, [21, 22])
    assert findings[0].startswith("arm / loss: 9, 9, 9 with seeds 20, 21 and 22, above ")
    assert "below" in compare(low, low, low)[1][0]


def test_a_better_number_is_as_wrong_as_a_worse_one():
    better = {"loss": 1.5, "accuracy": 0.95}
    assert "arm / accuracy: 0.95" in compare(better, better, better)[1][0]


def test_a_measure_that_the_record_lacks_or_that_is_gone_is_a_finding():
    (finding,) = compare(SOUND | {"new": 1.0})[1]
    assert finding == "arm / new: is not in the record of twenty seeds"
    (finding,) = compare({"loss": 1.5})[1]
    assert finding == "arm / accuracy: is in the record of twenty seeds, but was not measured"


# In a notebook.

SETTINGS = {"seeds": 3, "n_train": 100, "n_test": 100, "epochs": 3}


def begin() -> notebook.Run:
    run = notebook.start("90_test", paper="A paper", quick=SETTINGS, full=SETTINGS)
    run.workers = 1
    return run


def experiment_of(run: notebook.Run):
    """A linear classifier of digits; most of what it finds can be improved by a bug."""

    def train(seed: int) -> dict:
        generator, data = notebook.seeded(seed), run.data_of(seed)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        training.fit(
            model,
            data,
            epochs=run.config.epochs,
            lr=0.01,
            pad=0,
            generator=generator,
            progress=False,
        )
        return {"accuracy": training.accuracy(model, data), "curve": np.arange(3.0) + seed}

    return train


LEAK = Bug(
    "mini.training.loop",
    "split = data.test if split is None",
    "split = data.train if split is None",
    "accuracy is that on the training images",
    lambda: None,
)


@pytest.fixture
def recorded():
    """The root of a course that holds the record of twenty seeds."""
    with course(MINI_SEEDS="20", MINI_RESULTS="results") as root:
        run = begin()
        found = run.experiment(experiment_of(run), {"linear": {}})
        found["linear"]["derived"] = found["linear"]["accuracy"] ** 2  # kept, but not compared
        printed(run.finish)
        yield root


def run_check() -> str:
    """One fresh seed; what `finish` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINI_SCALE", "check")
        patch.delenv("MINI_SEEDS")
        run = begin()
        assert list(run.seeds) == [20]
        run.experiment(experiment_of(run), {"linear": {}})
        return printed(run.finish)


def test_a_fresh_seed_of_the_same_code_passes_and_writes_nothing(recorded):
    before = sorted(recorded.rglob("*"))
    assert "; 2 measures are within what twenty seeds gave" in run_check()
    assert sorted(recorded.rglob("*")) == before


def test_a_bug_that_improves_a_number_is_caught(recorded):
    values = records.load("90_test", "digits", "quick-20seeds", folder=recorded / "results")
    with planted(LEAK), pytest.raises(AssertionError, match=r"linear / accuracy: .* above "):
        run_check()
    assert values["linear"]["accuracy"].max() < 0.5


def test_a_record_of_other_settings_is_no_record(recorded, monkeypatch):
    monkeypatch.setitem(SETTINGS, "epochs", 4)
    with pytest.raises(ValueError, match="settings of 90_test have changed"):
        run_check()


def test_without_twenty_seeds_there_is_no_check(recorded):
    (recorded / "results" / "90_test" / "digits-quick-20seeds.json").unlink()
    with pytest.raises(ValueError, match=r"is recorded: .*MINI_SEEDS=20 MINI_RESULTS=results make"):
        run_check()


def test_the_record_of_twenty_seeds_names_the_scale_of_each_measure(recorded):
    path = recorded / "results" / "90_test" / "digits-quick-20seeds.json"
    record = json.loads(path.read_text())
    assert record["gates"] == {"train": {"linear": {"accuracy": "share", "curve, end": "plain"}}}
    assert record["dropped"] == []
    assert record["images"] == 100
