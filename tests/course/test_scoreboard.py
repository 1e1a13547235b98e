"""The scoreboard counts what the records say, and the README shows it."""

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from mini.course import scoreboard
from tests.data.sample_data import complains
from tools.scoreboard import README, brought_up_to_date, filled, pictures

BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
TEXT = f"# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def claims_of(*verdicts: str, role: str = "paper", family: str = "") -> list[dict]:
    """One stored claim for each verdict."""
    return [
        {
            "id": f"{role[0]}{number}",
            "text": "a beats b",
            "paper": "table 1",
            "measure": "accuracy",
            "kind": "exact" if verdict == "exact" else "greater",
            "line": 0.0,
            "margin": 1e-6 if verdict == "exact" else None,
            "role": role,
            "family": family,
            "verdict": verdict,
            "mean": 0.0,
            "low": 0.0,
            "high": 0.0,
            "values": [0.0, 0.0],
        }
        for number, verdict in enumerate(verdicts)
    ]


def record(*claims: dict, **changes) -> dict:
    """A run's record, as far as the scoreboard reads it."""
    return {
        "notebook": "01_vit",
        "paper": "ViT",
        "dataset": "digits",
        "scale": "quick",
        "seeds": [0, 1, 2],
        "claims": list(claims),
    } | changes


def write(folder: Path, name: str, **changes) -> None:
    path = folder / changes.get("notebook", "01_vit") / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record(**changes)))


def test_the_strongest_record_of_each_kind_of_data_is_shown(tmp_path):
    def shown() -> list[tuple]:
        runs = scoreboard.strongest(tmp_path)
        return [(r["notebook"], r["dataset"], r["scale"], len(r["seeds"])) for r in runs]

    assert shown() == []
    assert scoreboard.strongest(tmp_path / "missing") == []
    write(tmp_path, "digits-quick", notebook="02_dino")
    write(tmp_path, "digits-quick")
    assert shown() == [("01_vit", "digits", "quick", 3), ("02_dino", "digits", "quick", 3)]
    write(tmp_path, "digits-quick-20seeds", seeds=list(range(20)))
    assert shown()[0] == ("01_vit", "digits", "quick", 20)
    write(tmp_path, "digits-full", scale="full")
    assert shown()[0] == ("01_vit", "digits", "full", 3)
    copy, real = {"dataset": "cifar10-jpeg"}, {"dataset": "cifar10"}
    write(tmp_path, "cifar10-quick", **real)
    assert shown()[0] == ("01_vit", "cifar10", "quick", 3)
    write(tmp_path, "cifar10-jpeg-full-2seeds", scale="full", seeds=[0, 1], **copy)
    assert shown()[0] == ("01_vit", "cifar10", "quick", 3)
    write(tmp_path, "cifar10-jpeg-full", scale="full", **copy)
    assert shown()[0] == ("01_vit", "cifar10-jpeg", "full", 3)
    write(tmp_path, "cifar10-full", scale="full", **real)
    assert shown()[0] == ("01_vit", "cifar10", "full", 3)
    (tmp_path / "01_vit" / "cells-digits-4000.json").write_text("[]")
    assert len(shown()) == 3


def cells_of(line: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", line)


def test_a_row_counts_families_by_role_on_each_kind_of_data():
    why = "notebooks/01_vit.ipynb#What-did-not-reproduce,-and-why"
    family = [{**claim, "id": id, "family": "p0"} for id in "xyz" for claim in claims_of("void")]
    digits = record(
        *claims_of("reproduced", "reproduced", "contradicted", "void"),
        *family,
        *claims_of("reproduced", role="control"),
        *claims_of("exact", "exact", role="explanation"),
    )
    cifar = record(
        *claims_of("inconclusive", role="explanation"),
        dataset="cifar10-jpeg",
        scale="full",
        seeds=[0, 1, 2, 3, 4],
    )
    other = record(*claims_of("reproduced"), notebook="02_dino", paper="DINO & co")
    lines = scoreboard.table([digits, cifar, other]).splitlines()
    first, second = (cells_of(line) for line in lines if line.startswith("<tr><td>"))
    assert first == [
        '<a href="notebooks/01_vit.ipynb">01 ViT</a>',
        "2",
        f'<a href="{why}">2 / 0 / 1, 1 void</a>',
        "–",
        "1 / 0 / 0",
        "3",
        "–",
        f'<a href="{why}">0 / 1 / 0</a>',
        "–",
        "5, copy",
    ]
    assert second[0] == '<a href="notebooks/02_dino.ipynb">02 DINO &amp; co</a>'
    assert second[1:] == ["–", "1 / 0 / 0", "–", "–", "3", "–", "–", "–", "–"]
    head = "".join(lines[: lines.index("</thead>")])
    assert head.count("<th>") + head.count("rowspan") == len(first)
    assert '<th colspan="4">digits</th>' in head


def test_chance_is_told():
    run = record(*claims_of(*["reproduced"] * 40, "void", "exact"))
    assert scoreboard.caption([run, run]).startswith("80 verdicts stand behind this table.")
    assert "2.0 of them would be expected to say *reproduced*" in scoreboard.caption([run, run])


def test_no_run_gives_an_empty_table():
    assert "<td>" not in scoreboard.table([])


def benchmark(**changes) -> dict:
    row = {"what": "loss", "unit": "ms", "ours": 15.1, "peer": "lightly", "theirs": 40.9}
    return {
        "date": "2026-01-31",
        "machine": {"processor": "One", "cores": 2, "device": "cpu"},
        "threads": 1,
        "versions": {"python": "3.11", "lightly": "1.6"},
        "rows": [row | {"times": 2.713}],
    } | changes


def test_a_benchmark_shows_ours_beside_its_peer_and_where():
    fast = {"what": "views", "unit": "images/s", "ours": 4544.4, "peer": "v2", "theirs": 441.0}
    other = benchmark(rows=[fast | {"times": 10.3}], versions={"python": "3.11", "torch": "2.9"})
    lines = scoreboard.speed_table([benchmark(), other]).splitlines()
    assert lines[2:4] == [
        "| loss | 15.1 ms | lightly | 40.9 ms | 2.71 |",
        "| views | 4,544 images/s | v2 | 441 images/s | 10.30 |",
    ]
    where = "2026-01-31, One, cpu, 1 thread(s)"
    assert lines[-1] == f"Measured {where}; python 3.11, lightly 1.6, torch 2.9."


def test_benchmarks_are_those_that_compare(tmp_path):
    assert scoreboard.benchmarks(tmp_path) == []
    (tmp_path / "dino_loss.json").write_text(json.dumps(benchmark()))
    (tmp_path / "seconds-cifar10.json").write_text('{"results": []}')
    assert scoreboard.benchmarks(tmp_path) == [benchmark()]


def test_filling_changes_what_is_between_the_markers_only():
    once = filled(TEXT, "scoreboard", "| new |\n|-|")
    assert once == f"# Title\n\nbefore\n\n{BEGIN}\n| new |\n|-|\n{END}\n\nafter\n"
    assert filled(once, "scoreboard", "| new |\n|-|") == once
    assert filled(once, "scoreboard", "old") == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        TEXT.replace(BEGIN, ""),
        TEXT.replace(END, ""),
        TEXT + BEGIN,
        TEXT + END,
        TEXT + TEXT,
        f"{END}\nold\n{BEGIN}\n",
    ],
)
def test_markers_that_are_missing_doubled_or_swapped_are_refused(text):
    with complains(BEGIN, END):
        filled(text, "scoreboard", "new")


def test_pictures_are_those_of_the_tagged_cells(tmp_path):
    def cell(picture: bytes, *tags: str) -> nbformat.NotebookNode:
        png = {"image/png": base64.b64encode(picture).decode(), "text/plain": "<Figure>"}
        outputs = [
            v4.new_output("stream", name="stdout", text="printed\n"),
            v4.new_output("display_data", data=png),
            v4.new_output("display_data", data={"text/plain": "2"}),
        ]
        return v4.new_code_cell("draw()", outputs=outputs, metadata={"tags": list(tags)})

    cells = [v4.new_markdown_cell("# Title"), cell(b"one"), cell(b"two", "readme")]
    path = tmp_path / "01_vit.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    assert pictures(path) == [b"two"]


def test_the_readme_shows_what_the_results_say():
    if not README.exists():
        pytest.skip("there is no README.md yet")
    text = README.read_text(encoding="utf-8")
    assert text == brought_up_to_date(text), "README.md is behind results/: run make scoreboard"
