"""The committed results: of the right form, every gated verdict backed by twenty seeds."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from mini.course.claims import EVIDENCE as SEEDS
from mini.course.claims import HELD, Claim, Judgement, distance, judge, safe
from mini.course.claims import SAFE_DISTANCE as DISTANCE
from mini.course.records import load
from mini.course.records import paths as record_paths
from tools.environment import RESULTS

FIELDS = {
    "notebook": str,
    "paper": str,
    "dataset": str,
    "dataset_title": str,
    "scale": str,
    "seeds": list,
    "config": dict,
    "seconds": float,
    "date": str,
    "machine": dict,
    "versions": dict,
    "claims": list,
}
# Records of before the measures were kept have none of these.
MEASURED = {
    "images": int,
    "precision": str,
    "sittings": list,
    "fingerprints": dict,
    "passed_on": dict,
    "options": dict,
    "returned": dict,
    "experiments": dict,
    "measures": str,
    "left_out": list,
}
GATES = {"gates": dict, "dropped": list}  # of records of twenty seeds
# Fields that older claims lack.
LATER = ("role", "family", "needs", "share", "bounds", "denies", "full")
CLAIM_FIELDS = [field.name for field in dataclasses.fields(Claim)]


def read(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"{path.name} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def label(path: Path) -> str:
    """A record's name: <notebook>/<data>-<scale>.json."""
    return f"{path.parent.name}/{path.name}"


# The form.


def form_problems(name: str, record: dict) -> list[str]:
    """What is wrong with a run's record in the file `name`: its fields, its name, its verdicts."""
    fields = FIELDS
    if record.keys() & MEASURED.keys():
        fields = FIELDS | MEASURED
        fields |= GATES if len(record.get("seeds", [])) >= SEEDS else {}
    problems = [
        f"{field}: expected a {kind.__name__}"
        for field, kind in fields.items()
        if not isinstance(record.get(field), kind)
    ]
    if problems:
        return problems
    if extra := record.keys() - fields.keys():
        problems.append(f"unknown fields: {sorted(extra)}")
    n = len(record["seeds"])
    sittings = [seed for sitting in record.get("sittings", []) for seed in sitting["seeds"]]
    if "sittings" in record and sittings != record["seeds"]:
        problems.append(f"sittings of seeds {sittings}, not {record['seeds']}")
    plain = f"{record['notebook']}/{record['dataset']}-{record['scale']}"
    if name not in (f"{plain}.json", f"{plain}-{n}seeds.json"):
        problems.append(f"it should be called {plain}.json or {plain}-{n}seeds.json")
    if record["scale"] not in ("quick", "full"):
        problems.append(f"scale {record['scale']!r}")
    if record["seeds"] != list(range(n)) or n < 2:
        problems.append(f"seeds {record['seeds']}")
    if not record["seconds"] > 0:
        problems.append(f"seconds {record['seconds']}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"]) or not is_date(record["date"]):
        problems.append(f"date {record['date']!r}")
    if {"processor", "cores", "device"} - record["machine"].keys():
        problems.append(f"machine: {record['machine']}")
    if {"python", "torch", "torchvision", "numpy", "scipy"} - record["versions"].keys():
        problems.append(f"versions: {record['versions']}")
    ids = [claim.get("id") for claim in record["claims"]]
    if not ids or len(ids) != len(set(ids)):
        problems.append(f"claims must be there, each once: {ids}")
    held = {claim.get("id") for claim in record["claims"] if claim.get("verdict") in HELD}
    images = record.get("images")
    for claim in record["claims"]:
        failed = set(claim.get("needs", ())) - held
        found = claim_problems(claim, n, images=images, failed=failed)
        problems += [f"{claim.get('id')}: {problem}" for problem in found]
    return problems


def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text) is not None
    except ValueError:
        return False


def claim_problems(stored: dict, seeds: int, **how) -> list[str]:
    """What is wrong with one claim: its fields, or numbers that its values do not give."""
    needed = {*CLAIM_FIELDS, "verdict", "mean", "low", "high", "n", "values"} - {*LATER}
    if missing := needed - stored.keys():
        return [f"without {sorted(missing)}"]
    try:
        claim = Judgement.from_dict(stored).claim
        values, low = stored["values"], stored["low"]
        # A record holds differences of shares; below 0, they can be nothing else.
        is_difference = claim.share and min(*values, values[0] if low is None else low) < 0
        again = judge(claim, values, [0.0] * len(values) if is_difference else None, **how)
    except ValueError as error:
        return [str(error)]
    if stored["kind"] != "exact" and stored["n"] != seeds:
        return [f"{stored['n']} values for {seeds} seeds"]
    return [
        f"{key} is {stored[key]}, but the values give {value}"
        for key, value in again.as_dict().items()
        if key not in CLAIM_FIELDS and not same(stored.get(key, ""), value)
    ]


def same(stored: object, given: object) -> bool:
    if isinstance(given, str):
        return stored == given
    # Another scipy may differ in the last digits of the interval.
    return np.allclose(stored, given, rtol=1e-6, atol=1e-12)


# The gates.


def gate_problems(folder: Path) -> list[str]:
    """The gated claims of `folder`'s quick runs on digits that have no evidence, or a weak one.

    The evidence of <notebook>/digits-quick.json is <notebook>/digits-quick-<N>seeds.json, N at
    least 20: the same claim with the same settings, and safe by `mini.course.claims.safe`.
    """
    problems = []
    for path in sorted(folder.glob("*/*digits-quick.json")):
        record = read(path)
        gated = [claim for claim in record["claims"] if claim["gated"] and claim["kind"] != "exact"]
        pattern = re.compile(rf"{re.escape(path.stem)}-(\d+)seeds\.json")
        matches = [
            match for file in path.parent.iterdir() if (match := pattern.fullmatch(file.name))
        ]
        matches = [match for match in matches if int(match[1]) >= SEEDS]
        if gated and not matches:
            ids = ", ".join(claim["id"] for claim in gated)
            problems.append(f"{label(path)}: no {path.stem}-{SEEDS}seeds.json to support {ids}")
        for match in matches:
            evidence = read(path.parent / match[0])
            if gated and evidence["config"] != record["config"]:
                problems.append(f"{path.parent.name}/{match[0]}: another config than {path.name}")
            by_id = {claim["id"]: claim for claim in evidence["claims"]}
            for claim in gated:
                problem = gate_problem(claim, by_id.get(claim["id"]))
                if problem:
                    problems.append(f"{path.parent.name}/{match[0]}: {claim['id']} {problem}")
    return problems


def gate_problem(claim: dict, evidence: dict | None) -> str:
    """Why `evidence` does not support gating `claim`; nothing if it does."""
    if evidence is None:
        return "is missing"
    for field in ("kind", "line", "margin", "measure"):
        if claim[field] != evidence[field]:
            return f"has another {field}: {evidence[field]!r}, not {claim[field]!r}"
    if len(evidence["values"]) < SEEDS:
        return f"has {len(evidence['values'])} values, not {SEEDS}"
    far = distance(Judgement.from_dict(evidence))
    if far < DISTANCE:
        return (
            f"is {far:.1f} standard errors of a three-seed mean from its line, not the {DISTANCE} "
            "that a gate needs: take gated=True off it and execute the notebook again"
        )
    if claim["verdict"] != "reproduced":
        return f"came out {claim['verdict']} in the quick run: a gated verdict must be reproduced"
    return ""


# What is committed.


def test_results_have_the_right_form():
    paths = record_paths(RESULTS)
    if not paths:
        pytest.skip("results/ holds no run yet")
    problems = {label(path): form_problems(label(path), read(path)) for path in paths}
    assert not {name: found for name, found in problems.items() if found}


def key_problems(folder: Path) -> list[str]:
    """Records that judge a claim as another one than the quick run on digits does: they are void.

    A record of before roles were kept is compared by what it has. What only the full run judges,
    the quick one does not have.
    """
    problems = []
    for path in sorted(folder.glob("[0-9][0-9]_*/*digits-quick.json")):
        committed = keys(read(path))
        for other in record_paths(folder):
            if other.parent == path.parent:
                rows = read(other)
                alone = {row["id"] for row in rows["claims"] if row.get("full")} - committed.keys()
                differing = [
                    id
                    for id, key in keys(rows).items()
                    if id not in alone and committed.get(id) != key
                ]
                if differing:
                    problems.append(f"{label(other)} is void: {', '.join(differing)} changed")
    return problems


def keys(record: dict) -> dict[str, tuple]:
    return {row["id"]: Judgement.from_dict(row).claim.key for row in record["claims"]}


def test_all_records_of_a_notebook_judge_the_same_claims():
    assert not key_problems(RESULTS)


def test_measures_belong_to_their_records():
    for path in record_paths(RESULTS):
        record = read(path)
        for experiment, arms in record.get("experiments", {}).items():
            where = (path.parent.name, record["dataset"])
            scale = path.stem.removeprefix(f"{record['dataset']}-")
            assert list(load(*where, scale, experiment)) == arms
        assert not list(path.parent.glob("*.npz")) or path.with_suffix(".npz").exists() == (
            "measures" in record
        )


def test_gated_claims_have_their_evidence():
    if not record_paths(RESULTS):
        pytest.skip("results/ holds no run yet")
    assert not gate_problems(RESULTS)


# The rules themselves, on records made for them.

# Twenty values of mean 0 and standard deviation 1.
NORMAL = np.random.default_rng(0).normal(size=20)
NORMAL = (NORMAL - NORMAL.mean()) / NORMAL.std(ddof=1)
REACH = DISTANCE / math.sqrt(3)
LINE = Claim("C1", "a beats b", "Table 1", "a less b", line=0.5, gated=True)
SAME = Claim("C1", "a is b", "Table 1", "a less b", "equivalent", line=0.5, margin=6.0, gated=True)
EXACT = Claim("E1", "a is b", "Eq. 1", "error", kind="exact", margin=1e-6, gated=True)


def record(*judged: tuple[Claim, object], seeds: int = 3, **changes) -> dict:
    """A sound record of these claims and their values."""
    claims = [judge(claim, np.asarray(values)).as_dict() for claim, values in judged]
    content = {
        "notebook": "01_vit",
        "paper": "ViT",
        "dataset": "digits",
        "dataset_title": "digits on photographs",
        "scale": "quick",
        "seeds": list(range(seeds)),
        "config": {"epochs": 2},
        "seconds": 61.2,
        "date": "2026-01-31",
        "machine": {"processor": "One", "cores": 2, "device": "cpu"},
        "versions": dict.fromkeys(("python", "torch", "torchvision", "numpy", "scipy"), "1.0"),
        "claims": claims,
    }
    return json.loads(json.dumps(content | changes))


def write(folder: Path, content: dict, n: int | None = None) -> None:
    seeds = f"-{n}seeds" if n else ""
    (folder / "01_vit").mkdir(exist_ok=True)
    (folder / "01_vit" / f"digits-quick{seeds}.json").write_text(json.dumps(content))


QUICK = (LINE, [9.0, 9.1, 9.2])
NAME = "01_vit/digits-quick.json"


def test_a_sound_record_has_no_problem():
    assert form_problems(NAME, record(QUICK, (EXACT, [0.0, 1e-9]))) == []
    many = record((LINE, 9 + NORMAL), seeds=20)
    assert form_problems("01_vit/digits-quick-20seeds.json", many) == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda r: r.pop("machine"), "machine: expected a dict"),
        (lambda r: r.update(seconds="61"), "seconds: expected a float"),
        (lambda r: r.update(more=1), "unknown fields: ['more']"),
        (lambda r: r.update(scale="fast"), "it should be called 01_vit/digits-fast.json"),
        (lambda r: r.update(dataset="cifar10"), "it should be called 01_vit/cifar10-quick.json"),
        (lambda r: r.update(seeds=[0, 1]), "C1: 3 values for 2 seeds"),
        (lambda r: r.update(seeds=[1, 2, 3]), "seeds [1, 2, 3]"),
        (lambda r: r.update(seconds=0.0), "seconds 0.0"),
        (lambda r: r.update(date="2026-02-30"), "date '2026-02-30'"),
        (lambda r: r["machine"].pop("cores"), "machine: "),
        (lambda r: r["versions"].pop("torch"), "versions: "),
        (lambda r: r.update(claims=[]), "claims must be there"),
        (lambda r: r["claims"].append(r["claims"][0]), "claims must be there, each once"),
        (lambda r: r["claims"][0].pop("measure"), "C1: without ['measure']"),
        (lambda r: r["claims"][0].update(kind="more"), "C1: C1: kind='more'"),
        (lambda r: r["claims"][0].update(verdict="inconclusive"), "C1: verdict is inconclusive"),
        (lambda r: r["claims"][0].update(mean=9.2), "C1: mean is 9.2"),
        (lambda r: r["claims"][0].update(high=9.2), "C1: high is 9.2"),
        (lambda r: r["claims"][0].update(line=9.5), "C1: verdict is reproduced"),
    ],
)
def test_every_flaw_of_a_record_is_found(spoil: Callable[[dict], object], problem: str):
    content = record(QUICK)
    spoil(content)
    assert any(found.startswith(problem) for found in form_problems(NAME, content))


def test_what_is_no_number_is_refused(tmp_path):
    write(tmp_path, record(QUICK) | {"seconds": math.nan})
    with pytest.raises(ValueError, match="holds NaN"):
        read(tmp_path / NAME)


def less(claim: Claim) -> Claim:
    return dataclasses.replace(claim, kind="less")


@pytest.mark.parametrize(
    ("claim", "quick", "strong", "weak"),
    [
        (LINE, 9.0, 0.5 + 1.01 * REACH, 0.5 + 0.99 * REACH),
        (LINE, 9.0, 9.0, -9.0),
        (less(LINE), -9.0, 0.5 - 1.01 * REACH, 0.5 - 0.99 * REACH),
        (less(LINE), -9.0, -9.0, 9.0),
        (SAME, 0.5, 0.5 + 0.99 * (6 - REACH), 0.5 + 1.01 * (6 - REACH)),
        (SAME, 0.5, 0.5 - 0.99 * (6 - REACH), 0.5 - 1.01 * (6 - REACH)),
    ],
)
def test_weak_evidence_is_found(claim, quick, strong, weak, tmp_path):
    write(tmp_path, record((claim, [quick - 0.1, quick, quick + 0.1])))
    write(tmp_path, record((claim, strong + NORMAL), seeds=20), n=20)
    assert gate_problems(tmp_path) == []
    assert safe([judge(claim, strong + NORMAL)]) == ["C1"]
    assert safe([judge(claim, strong + NORMAL[:19])]) == safe([judge(claim, weak + NORMAL)]) == []
    write(tmp_path, record((claim, weak + NORMAL), seeds=20), n=20)
    (problem,) = gate_problems(tmp_path)
    assert f"not the {DISTANCE} that a gate needs" in problem


def test_a_gated_claim_without_evidence_is_found(tmp_path):
    write(tmp_path, record(QUICK))
    (problem,) = gate_problems(tmp_path)
    assert problem == f"{NAME}: no digits-quick-20seeds.json to support C1"
    write(tmp_path, record((LINE, 9 + NORMAL[:10]), seeds=10), n=10)
    assert gate_problems(tmp_path) == [problem]
    write(tmp_path, record((LINE, 9 + NORMAL), seeds=20), n=20)
    assert gate_problems(tmp_path) == []


def test_exact_and_shown_claims_need_no_evidence(tmp_path):
    shown = dataclasses.replace(LINE, gated=False)
    write(tmp_path, record((shown, [0.1, 0.9, 0.2]), (EXACT, [0.0])))
    assert gate_problems(tmp_path) == []


def test_other_data_and_scales_are_not_gated(tmp_path):
    (tmp_path / "01_vit").mkdir()
    for name in ("cifar10-full.json", "digits-full.json"):
        (tmp_path / "01_vit" / name).write_text(json.dumps(record(QUICK)))
    assert gate_problems(tmp_path) == []


def test_another_notebook_is_no_evidence(tmp_path):
    write(tmp_path, record(QUICK))
    other = json.dumps(record((LINE, 9 + NORMAL), seeds=20))
    (tmp_path / "02_dino").mkdir()
    (tmp_path / "02_dino" / "digits-quick-20seeds.json").write_text(other)
    assert len(gate_problems(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "less"}, "another kind"),
        ({"line": 0.0}, "another line"),
        ({"margin": 1.0}, "another margin"),
        ({"measure": "b less a"}, "another measure"),
        ({"id": "C2"}, "C1 is missing"),
    ],
)
def test_evidence_for_another_claim_is_found(change, problem, tmp_path):
    write(tmp_path, record(QUICK))
    other = dataclasses.replace(LINE, **change)
    write(tmp_path, record((other, 9 + NORMAL), seeds=20), n=20)
    assert any(problem in found for found in gate_problems(tmp_path))


def test_evidence_from_other_settings_or_too_few_values_is_found(tmp_path):
    write(tmp_path, record(QUICK))
    write(tmp_path, record((LINE, 9 + NORMAL), seeds=20, config={"epochs": 9}), n=20)
    assert any("another config" in found for found in gate_problems(tmp_path))
    write(tmp_path, record((LINE, 9 + NORMAL[:10]), seeds=20), n=20)
    assert any("C1 has 10 values" in found for found in gate_problems(tmp_path))


def test_a_gated_verdict_that_the_quick_run_does_not_reach_is_found(tmp_path):
    write(tmp_path, record((LINE, [9.0, -9.0, 9.0])))
    write(tmp_path, record((LINE, 9 + NORMAL), seeds=20), n=20)
    (problem,) = gate_problems(tmp_path)
    assert "C1 came out inconclusive in the quick run" in problem


MORE = {
    "images": 2000,
    "precision": "float32",
    "sittings": [{"seeds": [0, 1, 2], "date": "2026-01-31", "machine": {}}],
    "fingerprints": {},
    "passed_on": {},
    "options": {},
    "returned": {},
    "experiments": {"train_one": ["a", "b"]},
    "measures": "0" * 64,
    "left_out": [],
}


def test_a_record_with_measures_has_all_that_belongs_to_them():
    content = record(QUICK, **MORE)
    assert form_problems(NAME, content) == []
    del content["images"]
    assert form_problems(NAME, content) == ["images: expected a int"]
    content = record(QUICK, **MORE | {"sittings": []})
    assert form_problems(NAME, content) == ["sittings of seeds [], not [0, 1, 2]"]
    many = [{"seeds": list(range(20)), "date": "2026-01-31", "machine": {}}]
    content = record((LINE, 9 + NORMAL), seeds=20, **MORE | {"sittings": many})
    name = "01_vit/digits-quick-20seeds.json"
    assert form_problems(name, content) == ["gates: expected a dict", "dropped: expected a list"]
    assert form_problems(name, content | {"gates": {}, "dropped": []}) == []


def test_a_verdict_whose_control_failed_must_be_void():
    control = Claim("K1", "it learns", "ours", "accuracy", role="control")
    claim = dataclasses.replace(LINE, needs=("K1",))
    content = record((control, [1.0, -1.0, 0.5]), (claim, [9.0, 9.1, 9.2]))
    (problem,) = [p for p in form_problems(NAME, content) if "verdict" in p]
    assert problem == "C1: verdict is reproduced, but the values give void"
    content["claims"][1] |= {"verdict": "void", "why": "needs K1"}
    assert form_problems(NAME, content) == []


def test_a_record_of_another_claim_is_void(tmp_path):
    write(tmp_path, record(QUICK))
    write(tmp_path, record((LINE, 9 + NORMAL), seeds=20), n=20)
    assert key_problems(tmp_path) == []
    for change in ({"line": 0.4}, {"role": "control"}, {"kind": "less"}):
        other = dataclasses.replace(LINE, **change)
        write(tmp_path, record((other, 9 + NORMAL), seeds=20), n=20)
        (problem,) = key_problems(tmp_path)
        assert problem == "01_vit/digits-quick-20seeds.json is void: C1 changed"


def test_a_claim_that_only_the_full_run_judges_voids_nothing(tmp_path):
    write(tmp_path, record(QUICK))
    alone = dataclasses.replace(LINE, id="F1", full=True)
    write(tmp_path, record((LINE, 9 + NORMAL), (alone, 9 + NORMAL), seeds=20), n=20)
    assert key_problems(tmp_path) == []
    write(
        tmp_path,
        record((LINE, 9 + NORMAL), (dataclasses.replace(alone, full=False), 9 + NORMAL), seeds=20),
        n=20,
    )
    assert key_problems(tmp_path) == ["01_vit/digits-quick-20seeds.json is void: F1 changed"]


def test_differences_of_shares_are_judged_as_such():
    share = dataclasses.replace(LINE, line=-0.5, share=True)
    values = [-0.1, 0.02, 0.03]
    judged = judge(share, values, [0.0] * 3, images=500)
    content = record(QUICK, **MORE)
    content["claims"] = [judged.as_dict()]
    assert form_problems(NAME, content) == []
    content["claims"][0]["low"] -= 0.01
    (problem,) = form_problems(NAME, content)
    assert problem.startswith("C1: low is ")
