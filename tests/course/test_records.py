"""Records: what was measured comes back, is small, and belongs to its verdicts."""

import json

import numpy as np
import pytest

from mini.course import records, scoreboard
from tests.data.sample_data import complains

CURVES = np.linspace(0, 1, 3 * 40).reshape(3, 40)
LARGE = np.random.default_rng(0).normal(size=(3, 50, 30))
FOUND = {
    "train_one": {
        "{0,1,2}": {"accuracy": np.array([0.1, 0.2, 0.3]), "curve": CURVES, "map": LARGE},
        "a/b, c": {"name": np.array(["x", "ü", ""]), "count": np.array([1, 2, 3])},
    },
    "again": {"": {"wide": np.full((3, 2000), 1e6), "pixels": np.full((3, 2000), 200, np.uint8)}},
}
BASE = {"notebook": "01_vit", "date": "2026-01-31"}


def saved(folder, found=FOUND) -> dict:
    return records.save(folder / "01_vit" / "digits-quick.json", BASE, found)


def load(folder, *which):
    return records.load("01_vit", "digits", "quick", *which, folder=folder)


def test_what_was_measured_comes_back_in_the_shape_of_results(tmp_path):
    record = saved(tmp_path)
    found = load(tmp_path, "train_one")
    assert list(found) == ["{0,1,2}", "a/b, c"]
    first, second = found.values()
    assert first["accuracy"].tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(first["curve"], CURVES, atol=1e-7)
    assert second["name"].tolist() == ["x", "ü", ""]
    assert second["count"].tolist() == [1, 2, 3]
    assert record["left_out"] == []
    assert record == json.loads((tmp_path / "01_vit" / "digits-quick.json").read_text())
    assert records.read("01_vit", "digits", "quick", folder=tmp_path) == record


def test_of_large_arrays_the_first_seed_is_kept_in_half_precision(tmp_path):
    saved(tmp_path)
    kept = load(tmp_path, "train_one")["{0,1,2}"]["map"]
    assert kept.shape == (1, 50, 30)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept[0], LARGE[0], rtol=2**-11, atol=2**-24)
    other = load(tmp_path, "again")[""]
    assert (other["wide"] == 1e6).all()  # too large for half precision
    assert (other["pixels"] == 200).all()
    assert other["pixels"].dtype == np.uint8


def test_a_record_stays_below_a_megabyte_and_says_what_it_left_out(tmp_path):
    noise = np.random.default_rng(0).normal(size=(2, 600_000))
    arms = {"arm": {"huge": noise, "map": LARGE, "accuracy": np.array([0.1, 0.2])}}
    record = saved(tmp_path, {"train": arms})
    assert record["left_out"] == ["train / arm / huge"]
    assert (tmp_path / "01_vit" / "digits-quick.npz").stat().st_size <= records.MAX_BYTES
    assert set(load(tmp_path)["arm"]) == {"map", "accuracy"}


def test_the_same_measures_give_the_same_bytes(tmp_path):
    paths = [tmp_path / name / "01_vit" / "digits-quick.npz" for name in "ab"]
    for path in paths:
        saved(path.parent.parent)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_one_experiment_needs_no_name_and_of_several_one_is_named(tmp_path):
    saved(tmp_path)
    with complains("experiment=None", "train_one, again"):
        load(tmp_path)
    with complains("experiment='other'", "train_one, again"):
        load(tmp_path, "other")


def test_measures_of_another_run_are_refused(tmp_path):
    saved(tmp_path)
    measures = tmp_path / "01_vit" / "digits-quick.npz"
    mine = measures.read_bytes()
    saved(tmp_path, {"train_one": {"arm": {"accuracy": np.array([0.5])}}})
    measures.write_bytes(mine)
    with complains("digits-quick.npz", "not of the same run"):
        load(tmp_path)
    measures.unlink()
    with complains("digits-quick.npz", "missing"):
        load(tmp_path)


def test_an_older_record_says_that_it_kept_no_measures(tmp_path):
    saved(tmp_path)
    path = tmp_path / "01_vit" / "digits-quick.json"
    path.write_text(json.dumps(BASE))
    with complains("of 2026-01-31 kept no measures", "run it again"):
        load(tmp_path)


def test_what_is_not_there_or_broken_gets_one_sentence(tmp_path):
    with complains("No run of 01_vit on digits at scale quick is recorded"):
        load(tmp_path)
    saved(tmp_path)
    path = tmp_path / "01_vit" / "digits-quick.json"
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    with complains(str(path), "cannot be read", "version control"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", "Expecting value"),
        ("", "Expecting value"),
        ("[]", "holds a list"),
        ("null", "holds a NoneType"),
        ('{"seeds": 3}', "'seeds' is a int"),
        ('{"claims": {}}', "'claims' is a dict"),
        ('{"claims": []}', "'notebook' is missing"),
    ],
)
def test_a_record_of_another_form_is_named_wherever_it_is_read(tmp_path, content, why):
    path = tmp_path / "01_vit" / "digits-quick.json"
    path.parent.mkdir()
    path.write_text(content)
    for read in (
        lambda: records.parse(path, scoreboard.NEEDED),
        lambda: records.read("01_vit", "digits", "quick", folder=tmp_path, needs=scoreboard.NEEDED),
        lambda: scoreboard.strongest(tmp_path),
    ):
        with complains(str(path), why, "version control"):
            read()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "one.json").write_text("<<<<<<< HEAD")
    with complains("one.json", "version control"):
        scoreboard.benchmarks(tmp_path / "benchmarks")


@pytest.mark.parametrize("claim", ["C1", {}, {"id": "C1"}, {"id": "C1", "kind": "more"}])
def test_a_claim_of_another_form_is_found_with_its_record(tmp_path, claim):
    path = tmp_path / "digits-quick.json"
    path.write_text(json.dumps({"claims": [claim]}))
    with complains(str(path), "version control"):
        records.parse(path, ["claims"])


def test_a_copy_is_a_record_too(tmp_path):
    saved(tmp_path / "a")
    path = "01_vit/digits-quick.json"
    records.copy(tmp_path / "a" / path, tmp_path / "b" / path)
    assert load(tmp_path / "b", "train_one").keys() == FOUND["train_one"].keys()


@pytest.mark.parametrize(
    ("name", "is_record"),
    [
        ("digits-quick.json", True),
        ("cifar10-jpeg-full.json", True),
        ("digits-quick-20seeds.json", True),
        ("cells-digits-4000.json", False),
        ("digits-quick.npz", False),
    ],
)
def test_paths_are_those_of_records(tmp_path, name, is_record):
    (tmp_path / "06_darts").mkdir()
    (tmp_path / "06_darts" / name).touch()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / name).touch()
    assert [path.name for path in records.paths(tmp_path)] == [name] * is_record
