"""The scoreboard counts what the records say, and the README shows it."""

import base64
import json
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from mini.course import scoreboard
from tests.data.sample_data import complains
from tools.scoreboard import README, brought_up_to_date, filled, pictures

BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
TEXT = f"# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def record(verdicts: str = "", **changes) -> dict:
    """A run's record, as far as the scoreboard reads it; one claim for each word of `verdicts`."""
    return {
        "notebook": "01_vit",
        "paper": "ViT",
        "dataset": "digits",
        "dataset_title": "digits on photographs",
        "scale": "quick",
        "seeds": [0, 1, 2],
        "seconds": 75.0,
        "machine": {"processor": "One", "cores": 2, "device": "cpu"},
        "claims": [{"id": f"C{i}", "verdict": word} for i, word in enumerate(verdicts.split())],
    } | changes


def write(folder: Path, name: str, **changes) -> None:
    (folder / f"{name}.json").write_text(json.dumps(record(**changes)))


def test_records_are_those_of_notebooks_in_order(tmp_path):
    assert scoreboard.records(tmp_path) == []
    assert scoreboard.records(tmp_path / "missing") == []
    write(tmp_path, "02_dino-digits-quick", notebook="02_dino")
    write(tmp_path, "01_vit-digits-quick", dataset="digits")
    write(tmp_path, "01_vit-cifar10-full", dataset="cifar10", scale="full")
    write(tmp_path, "01_vit-digits-quick-20seeds", seeds=list(range(20)))
    (tmp_path / "times.json").write_text("[]")
    (tmp_path / ".01_vit-digits-quick.json.host.1.2.tmp").write_text('{"half')
    found = [
        (run["notebook"], run["dataset"], run["scale"]) for run in scoreboard.records(tmp_path)
    ]
    assert found == [
        ("01_vit", "cifar10", "full"),
        ("01_vit", "digits", "quick"),
        ("02_dino", "digits", "quick"),
    ]


def test_a_row_counts_verdicts_and_says_what_they_cost():
    gpu = {"processor": "One", "cores": 16, "device": "cuda"}
    runs = [
        record("exact exact reproduced inconclusive"),
        record("contradicted " * 12, dataset_title="CIFAR-10", machine=gpu, seconds=1799.0),
    ]
    head, rule, first, second = scoreboard.table(runs).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (first, second)]
    names = [name.strip() for name in head.strip("|").split("|")]
    assert [len(row) for row in cells] == [len(names)] * 2 == [len(rule.strip("|").split("|"))] * 2
    one, other = (dict(zip(names, row, strict=True)) for row in cells)
    why = "notebooks/01_vit.ipynb#What-did-not-reproduce,-and-why"
    assert one == {
        "paper": "[01 ViT](notebooks/01_vit.ipynb)",
        "data": "digits on photographs",
        "scale": "quick",
        "exact": "2",
        "reproduced": "1",
        "inconclusive": f"[1]({why})",
        "contradicted": "–",
        "seeds": "3",
        "minutes": "1.2",
        "on": "2 cores",
    }
    assert (other["contradicted"], other["exact"]) == (f"[12]({why})", "–")
    assert (other["data"], other["minutes"], other["on"]) == ("CIFAR-10", "30.0", "cuda")


def test_no_run_gives_an_empty_table():
    assert len(scoreboard.table([]).splitlines()) == 2


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
