"""Scripts that write folders: nothing is emptied or overwritten that they did not make."""

import nbformat
import pytest

from tests.data.sample_data import complains, left_in
from tests.notebooks.sample_notebook import code, markdown, notebook_of
from tools import slides, vendor, website
from tools.environment import read_notebook
from tools.output import NAMES, Output


@pytest.fixture
def light(monkeypatch, tmp_path):
    """Pages and decks in no time, and without what has to be fetched."""
    monkeypatch.setattr(vendor, "require", lambda: None)
    monkeypatch.setattr(vendor, "read", lambda name: "")
    monkeypatch.setattr(website, "notebook_page", lambda path: "<p>page</p>")
    monkeypatch.setattr(slides, "deck", lambda node, folder=None: "<title>deck</title>")
    monkeypatch.setattr(website, "RESULTS", tmp_path / "results")
    (tmp_path / "results" / "01_vit").mkdir(parents=True)
    (tmp_path / "results" / "01_vit" / "one.json").write_text("{}")
    return tmp_path / "out"


MAKERS = {
    "website": lambda out: website.main(["--out", str(out)]),
    "slides": lambda out: slides.main(["build", "01_vit", "--out", str(out)]),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_not_ours_is_neither_emptied_nor_overwritten(light, make, capsys):
    for name in ("index.html", "01_vit.html", "thesis.tex"):
        light.mkdir(exist_ok=True)
        (light / name).write_text("mine")
        assert make(light) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert str(light) in told
        assert "name an empty or a new folder" in told
        assert left_in(light) == [name]
        assert (light / name).read_text() == "mine"
        (light / name).unlink()
    assert make(light) == 0  # empty
    (light / "thesis.tex").write_text("mine")
    first = left_in(light)
    assert make(light) == 0  # ours: made anew, beside what is not
    assert left_in(light) == first
    assert (light / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_stranger_s_file_in_our_folder_is_not_overwritten(light, make, capsys):
    assert make(light) == 0
    ours = Output(light)
    ours.clear("index.html")
    (light / "index.html").write_text("mine")
    assert make(light) == 2
    assert "index.html was not written by this script" in capsys.readouterr().err
    assert (light / "index.html").read_text() == "mine"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_out_may_be_a_file_or_below_a_home(light, make, capsys, monkeypatch):
    light.write_text("mine")
    for out in (light, light / "below", "~nobody-of-this-name/x"):
        assert make(out) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert light.read_text() == "mine"
    monkeypatch.setenv("HOME", str(light.parent))
    assert make("~/site") == 0
    assert (light.parent / "site" / "index.html").is_file()


def test_the_checkout_itself_is_refused(light, capsys, monkeypatch):
    (light / ".git").mkdir(parents=True)
    (light / ".git" / "HEAD").write_text("ref")
    monkeypatch.chdir(light)
    assert website.main(["--out", "."]) == 2
    assert (light / ".git" / "HEAD").read_text() == "ref"


def test_a_site_leaves_nothing_of_an_earlier_one(light):
    assert website.main(["--out", str(light)]) == 0
    old = Output(light).write("notebooks/99_gone.html", b"old")
    assert website.main(["--out", str(light)]) == 0
    assert not old.exists()
    assert (light / "results" / "01_vit" / "one.json").exists()


def test_the_usual_folder_is_ours_from_before_there_were_lists(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("old")
    with complains(str(folder), "name an empty or a new folder"):
        Output(folder)
    Output(folder, usual=folder).clear()
    assert left_in(folder) == []


def test_a_list_that_leads_out_of_the_folder_removes_nothing_there(tmp_path):
    (tmp_path / "mine").write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / NAMES).write_text("../mine\n")
    Output(folder).clear()
    assert (tmp_path / "mine").read_text() == "mine"


# Notebooks of the reader's own as slides.


def test_a_broken_notebook_is_named(light, tmp_path, capsys):
    path = tmp_path / "mine.ipynb"
    for content in ("", "<<<<<<< HEAD", "[]", '{"cells": 3}', '{"nbformat": 4}'):
        path.write_text(content)
        with complains(str(path), "cannot be read"):
            read_notebook(path)
    assert slides.main(["build", str(path), "--out", str(light)]) == 2
    assert str(path) in capsys.readouterr().err


def test_names_with_marks_of_html_and_of_addresses_are_linked(light, tmp_path):
    stem = """a "b" #1 <c> 50% & 'd'"""
    path = tmp_path / f"{stem}.ipynb"
    nbformat.write(notebook_of(markdown("# Mine"), code("1")), path)
    assert slides.main(["build", str(path), "--out", str(light)]) == 0
    assert (light / f"{stem}.html").is_file()
    page = (light / "index.html").read_text()
    assert 'href="a%20%22b%22%20%231%20%3Cc%3E%2050%25%20%26%20%27d%27.html"' in page


def test_pictures_beside_the_notebook_go_into_the_deck(tmp_path):
    (tmp_path / "in here").mkdir()
    for name in ("x.png", "in here/y.svg"):
        (tmp_path / name).write_bytes(b"bytes")
    body = (
        '<img src="x.png"><img alt="a" src="in%20here/y.svg?v=1">'
        """<script>f('<img src="${x}">')</script>"""
        '<img src="data:image/png;base64,AAAA"><img src="https://a.org/x.png"><a href="x.png">x</a>'
    )
    found = slides.embedded(body, tmp_path)
    assert found == body.replace('src="x.png"', 'src="data:image/png;base64,Ynl0ZXM="').replace(
        'src="in%20here/y.svg?v=1"', 'src="data:image/svg+xml;base64,Ynl0ZXM="'
    )


def test_a_picture_that_is_not_there_is_named_with_its_notebook(light, tmp_path, monkeypatch):
    monkeypatch.setattr(
        slides, "deck", lambda node, folder: slides.embedded('<img src="x.png">', folder)
    )
    path = tmp_path / "mine.ipynb"
    nbformat.write(notebook_of(markdown("# Mine ![](x.png)")), path)
    with complains(str(path), str(tmp_path / "x.png"), "not there"):
        slides.build([path], light)
