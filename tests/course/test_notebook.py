"""A notebook's run: its settings, its claims' order, experiments that resume, and its JSON."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import linecache
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from mini import files, training
from mini.course import keys, notebook, records
from mini.course.claims import Claim
from tests.data.sample_data import complains, make_folder, scratch

QUICK = {"seeds": 3, "n_train": 20, "n_test": 10, "epochs": 1}
FULL = {"seeds": 4, "n_train": 30, "n_test": 10, "epochs": 2}
GREATER = Claim("C1", "a beats b", "Table 1: 3 points", "a less b, accuracy")
EXACT = Claim("E1", "a is b", "Eq. 1", "largest difference", kind="exact", margin=1e-6)
ARMS = {"narrow": {"width": 2}, "wide": {"width": 3}}


@contextlib.contextmanager
def course(**settings: str) -> Iterator[Path]:
    """An empty folder in the repository's place, digits, and no `MINI_` setting but `settings`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        mpl.rc_context(),
    ):
        for name in ("MINI_SCALE", "MINI_SEEDS", "MINI_DEVICE", "MINI_DATA", "MINI_RESULTS"):
            patch.delenv(name, raising=False)
        for name, value in ({"MINI_DEVICE": "cpu", "MINI_DATA": "digits"} | settings).items():
            patch.setenv(name, value)
        root = Path(folder).resolve()
        patch.setattr(notebook, "ROOT", root)
        patch.setattr(keys, "ROOT", root)
        patch.setattr(files, "_given_in", lambda: root)  # where the command was given
        yield root


def begin(workers: int = 1) -> notebook.Run:
    run = notebook.start("90_test", paper="A paper", quick=QUICK, full=FULL)
    run.workers = workers
    return run


def printed(function: Callable[[], object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        function()
    return out.getvalue()


def finished(run: notebook.Run, root: Path) -> tuple[Path, dict]:
    """The JSON that `finish` writes, which must be alone with its measures under the folder."""
    run.finish()
    files = [path for path in root.rglob("*") if path.is_file() and "progress" not in path.parts]
    path, measures = sorted(files)
    assert measures == path.with_suffix(".npz")
    return path, json.loads(path.read_text())


# Settings.


def test_settings_come_from_the_environment():
    with course():
        run = begin()
        assert (run.scale, run.label, list(run.seeds)) == ("quick", "quick", [0, 1, 2])
        assert vars(run.config) == {"n_train": 20, "n_test": 10, "epochs": 1}
        assert run.data.name == "digits"
        assert (len(run.data.train.labels), len(run.data.test.labels)) == (20, 10)
        assert run.device == torch.device("cpu")
    with course(MINI_SCALE="full", MINI_SEEDS="5"):
        run = begin()
        assert (run.scale, run.label, list(run.seeds)) == ("full", "full-5seeds", [0, 1, 2, 3, 4])
        assert vars(run.config) == {"n_train": 30, "n_test": 10, "epochs": 2}
    with course(MINI_SEEDS="03"):
        assert begin().label == "quick"
    assert QUICK["seeds"] == 3  # the caller's columns are left alone


@pytest.mark.parametrize(("scale", "data"), [("quick", "digits"), ("full", "plain-digits")])
def test_without_a_name_the_data_are_the_notebooks(scale, data):
    with course(MINI_SCALE=scale, MINI_DATA=""):
        run = notebook.start(
            "90_test", paper="A paper", quick=QUICK, full=FULL, full_on=("plain-digits", "digits")
        )
        assert (run.scale, run.data.name) == (scale, data)


def test_an_empty_setting_is_no_setting():
    names = ("MINI_SCALE", "MINI_SEEDS", "MINI_DEVICE", "MINI_DATA", "MINI_RESULTS")
    with course(**dict.fromkeys(names, "")) as root:
        run = begin()
        assert (run.label, run.data.name) == ("quick", "digits")
        assert finished(run, root)[0].parent == root / "build" / "results" / "90_test"


def test_the_first_line_says_what_will_run():
    with course():
        line = printed(lambda: notebook.start("90_test", paper="A paper", quick=QUICK, full=FULL))
        assert "20 training and 10 test images; scale quick, 3 seeds, on cpu" in line
        assert line.count("\n") == 1


def begin_on(count: int, n: int, mirror: str = "", **needs: object) -> tuple[str, notebook.Run]:
    """What the first cell prints, and its run, on a folder of `n` images of each class."""
    with scratch() as root, course(MINI_MIRROR=mirror), pytest.MonkeyPatch.context() as patch:
        names = tuple(f"class {i}" for i in range(count))
        patch.setenv("MINI_DATA", str(make_folder(root / "pets", classes=names, n=n)))
        run = []
        start = functools.partial(notebook.start, "90_test", paper="", quick=QUICK, full=FULL)
        text = printed(lambda: run.append(start(**needs)))
        assert run[0].data  # still of these settings
        return text, run[0]


def test_a_folder_says_that_its_images_are_mirrored_and_a_setting_turns_it_off():
    text, run = begin_on(2, 10)
    assert "half of the images are mirrored in training: MINI_MIRROR=no" in text
    assert run.data.mirror
    text, run = begin_on(2, 10, mirror="no")
    assert "no image is mirrored in training, as MINI_MIRROR=no" in text
    assert not run.data.mirror
    with complains("MINI_MIRROR='false'", "'yes' or 'no'"):
        begin_on(2, 10, mirror="false")


def test_data_of_other_classes_or_too_few_images_gets_one_sentence():
    begin_on(3, 10, classes=(3, 3), a_class=3)
    with complains("90_test needs 3 classes, and pets has 2", "MINI_DATA"):
        begin_on(2, 10, classes=(3, 3))
    with complains("90_test needs 1 to 2 classes, and pets has 3"):
        begin_on(3, 10, classes=(1, 2))
    with complains("90_test needs 2 or more classes, and pets has 1"):
        begin_on(1, 30)
    with complains("90_test needs 4 test images of each class at scale quick", "it takes 3 of"):
        begin_on(3, 10, a_class=4)
    with complains("n_train is 20, but there are only 18 images", "by its first cell"):
        begin_on(2, 9)


def test_the_device_is_the_best_one_here_unless_it_is_set():
    with course(MINI_DEVICE="cpu"):
        assert notebook.device() == torch.device("cpu")
    with course(MINI_DEVICE=""), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert notebook.device() == torch.device("mps")
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert notebook.device() == torch.device("cuda")
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setenv("MINI_DEVICE", "cuda:1")
        assert notebook.device() == torch.device("cuda:1")
        patch.setenv("MINI_DEVICE", "cuda:2")
        with complains("MINI_DEVICE='cuda:2'", "cpu, cuda, cuda:0, cuda:1, mps"):
            notebook.device()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("MINI_SCALE", "fast", "'quick', 'full' or 'check'"),
        ("MINI_SEEDS", "0", "at least 1"),
        ("MINI_SEEDS", "-3", "at least 1"),
        ("MINI_SEEDS", "2.5", "at least 1"),
        ("MINI_SEEDS", "three", "at least 1"),
        ("MINI_DEVICE", "tpu", "cpu"),
        ("MINI_DEVICE", "cpu:x", "cpu"),
        ("MINI_DATA", "no-such-data", "digits"),
    ],
)
def test_a_bad_setting_gets_one_sentence(name, value, wanted):
    with course(**{name: value}), complains(value, wanted):
        begin()


@pytest.mark.parametrize("full", [QUICK | {"lr": 0.1}, {"seeds": 4}])
def test_both_columns_must_have_the_same_keys(full):
    with course(), complains("the same keys", "seeds"):
        notebook.start("90_test", paper="A paper", quick=QUICK, full=full)
    with course(), complains("the same keys", "seeds"):
        notebook.start("90_test", paper="A paper", quick={"epochs": 1}, full={"epochs": 2})


def test_seeded_is_reproducible_and_seeds_the_weights_too():
    def draws(seed: int) -> torch.Tensor:
        generator = notebook.seeded(seed)
        return torch.cat([torch.randn(3), torch.randn(3, generator=generator)])

    assert torch.equal(draws(1), draws(1))
    # From another seed, each of the two streams differs.
    assert (draws(1) != draws(2)).all()


# Claims.


def test_a_claim_is_announced_once_before_it_is_judged():
    with course():
        run = begin()
        assert printed(lambda: run.announce(GREATER, EXACT)).splitlines() == [
            "C1   a beats b",
            "E1   a is b",
        ]
        run.announce(GREATER)  # the same cell, run again
        with complains("C1 is announced already"):
            run.announce(dataclasses.replace(GREATER, text="something else"))
        with complains("'C2' was not announced", "C1, E1"):
            run.judge("C2", [1.0, 2.0, 3.0])
        judgement = run.judge("C1", [0.9, 0.8, 0.7], [0.8, 0.7, 0.6])
        assert judgement.claim is GREATER
        assert judgement.mean == pytest.approx(0.1)
        run.announce(GREATER)  # the cell, run again: its verdict is open again
        assert not run.judgements
        twice = dataclasses.replace(GREATER, id="C3"), dataclasses.replace(EXACT, id="C3")
        with complains("C3 is announced already"):
            run.announce(*twice)
        with complains("C1: values of shape (2,) for 3 seed(s)"):
            run.judge("C1", [0.9, 0.8])
        run.experiment(train, ARMS)
        with complains("C4 comes after an experiment"):
            run.announce(dataclasses.replace(GREATER, id="C4"))
        run.announce(dataclasses.replace(EXACT, id="E4"))


def test_finish_refuses_a_claim_that_nobody_judged():
    with course() as root:
        run = begin()
        run.announce(GREATER, EXACT)
        run.judge("C1", [1.0, 1.0, 1.0])
        with complains("never judged: E1"):
            run.finish()
        assert not list(root.rglob("*.json"))
        run.exact("E1", 0.0)
        run.finish()
        assert list(root.rglob("*.json"))


def test_exact_stops_at_an_error_that_is_too_large():
    with course():
        run = begin()
        run.announce(EXACT)
        assert printed(lambda: run.exact("E1", 0.0, -1e-7)) == "E1 holds to 1e-06: a is b\n"
        with pytest.raises(AssertionError, match="E1: error 1e-05 exceeds 1e-06"):
            run.exact("E1", 0.0, -1e-5)
        assert run.judgements["E1"].verdict == "contradicted"


def test_only_exact_and_gated_verdicts_are_printed():
    with course():
        run = begin()
        gated = dataclasses.replace(GREATER, id="C2", gated=True)
        run.announce(GREATER, gated, EXACT)
        for id in ("C1", "C2"):
            run.judge(id, [0.9, 0.8, 0.7])
        run.exact("E1", 0.0)
        assert printed(run.verdicts) == "C2   reproduced\nE1   exact\n"
        assert run.table("C1").data.count("\n") == 2
        assert run.table().data.count("\n") == 4


# The record.


def test_finish_writes_the_record():
    with course() as root:
        run = begin()
        run.announce(GREATER, EXACT)
        run.exact("E1", 1e-9)
        run.judge("C1", [0.9, 0.8, 0.75])
        path, record = finished(run, root)
        assert path == root / "build" / "results" / "90_test" / "digits-quick.json"
    assert record["notebook"] == "90_test"
    assert record["paper"] == "A paper"
    assert (record["dataset"], record["dataset_title"]) == ("digits", run.data.title)
    assert (record["scale"], record["seeds"]) == ("quick", [0, 1, 2])
    assert record["config"] == {"n_train": 20, "n_test": 10, "epochs": 1}
    assert 0 <= record["seconds"] < 60
    assert record["machine"]["device"] == "cpu"
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    exact, claim = record["claims"]
    assert exact["verdict"] == "exact"
    assert claim == json.loads(json.dumps(dataclasses.asdict(GREATER))) | {
        "verdict": "reproduced",
        "mean": pytest.approx(0.81667, abs=1e-5),
        "low": pytest.approx(run.judgements["C1"].low),
        "high": pytest.approx(run.judgements["C1"].high),
        "n": 3,
        "values": [0.9, 0.8, 0.75],
        "why": "",
    }


def test_the_name_tells_of_another_number_of_seeds():
    with course(MINI_SEEDS="20", MINI_RESULTS="elsewhere") as root:
        path, record = finished(begin(), root)
        assert path == root / "elsewhere" / "90_test" / "digits-quick-20seeds.json"
        assert (record["scale"], len(record["seeds"])) == ("quick", 20)
    with course(MINI_SCALE="full") as root:
        assert finished(begin(), root)[0] == root / "results" / "90_test" / "digits-full.json"


def test_a_record_is_replaced_as_a_whole_or_not_at_all():
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    with course() as root, pytest.MonkeyPatch.context() as patch:
        path, _ = finished(begin(), root)
        path.write_text("old")
        patch.setattr(os, "fsync", full_disk)
        with complains(str(path.parent), "No space left"):
            begin().finish()
        assert path.read_text() == "old"
        assert {found.stem for found in path.parent.iterdir()} == {path.stem}


def test_a_results_folder_that_cannot_be_written_gets_one_sentence():
    with course(MINI_RESULTS="file/results") as root:
        (root / "file").write_text("a file, not a folder")
        with complains(str(root / "file"), "cannot be written"):
            begin()  # not after the whole run
    with course(MINI_SCALE="full") as root:
        (root / "build").write_text("a file, where what is finished would be kept")
        with complains(str(root / "build" / "progress"), "cannot be written"):
            begin()
    with course(MINI_SCALE="check", MINI_RESULTS="file") as root:
        (root / "file").touch()
        begin()  # writes nothing


# Experiments.


def train(seed: int, *, width: int) -> dict:
    """A training in small: weights from one stream, data from another, a few steps."""
    generator = notebook.seeded(seed)
    model = torch.nn.Linear(width, 1)
    x = torch.randn(64, width, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"loss": losses[-1], "losses": losses, "seed": seed, "width": width}


def test_results_come_by_arm_and_measure_in_the_order_of_the_seeds():
    with course():
        results = begin().experiment(train, ARMS)
    assert list(results) == ["narrow", "wide"]
    for arm, measured in results.items():
        assert measured["seed"].tolist() == [0, 1, 2]
        assert measured["width"].tolist() == [ARMS[arm]["width"]] * 3
        assert measured["losses"].shape == (3, 5)
        for seed in range(3):
            assert measured["loss"][seed] == train(seed, **ARMS[arm])["loss"]


def test_worker_processes_load_only_what_training_needs():
    """With matplotlib, torchvision and scipy.stats, two at once start 1.4 times as slowly."""
    top = Path(notebook.__file__).parent.parent
    paths = (path.relative_to(top.parent).with_suffix("") for path in top.rglob("*.py"))
    modules = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    # Figures and the making of data are the kernel's; open-world recognition fits an SVM.
    kernel = ("mini.course.plots", "mini.data.archives", "mini.data.digits", "mini.data.folders")
    modules = {m for m in modules if not m.startswith("mini.openset") and m not in kernel}
    heavy = {"matplotlib", "scipy.stats", "sklearn", "torchvision", "torchmetrics"}
    assert {"mini.course.notebook", "mini.training", "mini.augmix.mixing"} <= modules
    code = f"import sys, {', '.join(sorted(modules))}"
    code += f"; print({heavy} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_two_workers_give_the_numbers_of_one():
    here = os.getpid()

    def measure(seed: int, *, width: int) -> dict:
        if here != os.getpid() and (seed, width) == (0, 2):
            # The other worker is in its third call, so it has delivered its first before this one.
            while len(list(ended.iterdir())) < 2:
                time.sleep(0.01)
        row = train(seed, width=width) | {"process": os.getpid()}
        if here != os.getpid():
            (ended / f"{seed} {width}").touch()
        return row

    with course() as root:
        ended = root / "ended"
        ended.mkdir()
        alone = begin(workers=1).experiment(measure, ARMS)
        together = begin(workers=2).experiment(measure, ARMS)
    for arm in ARMS:
        assert (alone[arm].pop("process") == here).all()
        assert (together[arm].pop("process") != here).all()
        assert alone[arm].keys() == together[arm].keys()
        for key, values in alone[arm].items():
            np.testing.assert_array_equal(values, together[arm][key])


def test_results_stand_in_the_order_of_the_seeds_whichever_is_ready_first():
    later = threading.Event()

    def measure(seed: int, *, width: int) -> dict:
        if (seed, width) == (0, 2):
            assert later.wait(60)
        elif (seed, width) == (1, 2):
            later.set()
        return {"seed": seed, "width": width}

    with course(), joblib.parallel_config(backend="threading"):
        results = begin(workers=2).experiment(measure, ARMS)
    for arm, options in ARMS.items():
        assert results[arm]["seed"].tolist() == [0, 1, 2]
        assert results[arm]["width"].tolist() == [options["width"]] * 3


def test_a_call_has_one_thread_and_gives_the_others_back():
    def threads(seed: int) -> dict:
        return {"threads": torch.get_num_threads()}

    def failing(seed: int) -> dict:
        raise RuntimeError("stopped")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with course():
            results = begin().experiment(threads, {"arm": {}})
            assert results["arm"]["threads"].tolist() == [1, 1, 1]
            assert torch.get_num_threads() == 2
            with pytest.raises(RuntimeError, match="stopped"):
                begin().experiment(failing, {"arm": {}})
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Counted:
    """A function to measure with, of the same source each time, that remembers its calls."""

    def __init__(self):
        self.calls: list[tuple] = []

    def function(self) -> Callable[..., dict]:
        def measure(seed: int, **options) -> dict:
            self.calls.append((seed, *options.values()))
            # Names that the stored file itself could claim.
            return {"seconds": seed + 0.5, "values": list(options.values())}

        return measure

    def made(self, run: notebook.Run, arms: dict, function: Callable | None = None) -> list[tuple]:
        """The calls that `experiment` makes; its results must be right, made or kept."""
        self.calls.clear()
        results = run.experiment(function or self.function(), arms)
        for arm, options in arms.items():
            assert results[arm]["seconds"].tolist() == [seed + 0.5 for seed in run.seeds]
            assert results[arm]["values"].tolist() == [list(options.values())] * len(run.seeds)
        return list(self.calls)


def test_at_full_scale_a_call_is_made_once():
    counted = Counted()
    with course(MINI_SCALE="full") as root:
        assert counted.made(begin(), ARMS) == [(s, w) for s in range(4) for w in (2, 3)]
        assert counted.made(begin(), ARMS) == []
        progress = root / "build" / "progress" / "90_test" / "digits"
        assert len(list(progress.iterdir())) == 8
        # One arm's options, or one seed more, cost their own calls only.
        changed = ARMS | {"wide": {"width": 5}}
        assert counted.made(begin(), changed) == [(s, 5) for s in range(4)]
        assert counted.made(begin(), ARMS | {"a/b": {"width": 2}}) == [(s, 2) for s in range(4)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINI_SEEDS", "5")
            assert counted.made(begin(), ARMS) == [(4, 2), (4, 3)]


def test_what_a_result_depends_on_makes_a_new_call():
    counted, arms = Counted(), {"arm": {"width": 2}}

    def measure(seed: int, **options) -> dict:
        counted.calls.append((seed, *options.values()))
        return {"seconds": 0.5 + seed, "values": list(options.values())}

    def is_new(change: Callable[[notebook.Run], None], **how) -> bool:
        run = begin()
        change(run)
        made = counted.made(run, arms, **how)
        assert len(made) in (0, 4)
        again = begin()
        change(again)
        assert not counted.made(again, arms, **how)
        return bool(made)

    with course(MINI_SCALE="full") as root:
        assert is_new(lambda run: None)
        assert not is_new(lambda run: None)
        assert is_new(lambda run: None, function=measure)
        assert is_new(lambda run: setattr(run.config, "epochs", 7))
        drawn = begin().data
        labels = drawn.train.labels.clone()
        labels[0] = (labels[0] + 1) % 10
        changes = (
            {"name": "others"},
            {"train": drawn.train._replace(labels=labels)},
            {"test": drawn.test._replace(images=255 - drawn.test.images)},
            {"test": drawn.test._replace(labels=9 - drawn.test.labels)},
            {"validation": drawn.test},
            {"validation": drawn.test._replace(labels=9 - drawn.test.labels)},
            {"classes": drawn.classes[::-1]},
            {"mean": drawn.mean + 1e-6},
        )
        for change in changes:
            changed = dataclasses.replace(drawn, **change)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(notebook, "_drawn", lambda *_, changed=changed: changed)
                assert is_new(lambda run: None)
        drawing = root / "mini" / "data" / "__init__.py"
        drawing.parent.mkdir(parents=True)
        drawing.write_text("from mini import files")
        assert is_new(lambda run: None)
        drawing.write_text("from mini import files  # where they are")
        assert not is_new(lambda run: None)
        (root / "mini" / "files.py").write_text("width = 1")
        assert is_new(lambda run: None)
        (root / "mini" / "model.py").write_text("width = 1")  # which nobody uses
        assert not is_new(lambda run: None)


def measured(seed: int) -> dict:
    return {"value": seed}


def test_every_image_and_label_of_a_folder_counts_and_how_it_is_written_does_not():
    """Of a folder of which seed 0 draws ten images; each change is one it may not draw."""
    with scratch() as outside, course(MINI_SCALE="full", MINI_DATA=str(outside / "pets")) as root:
        pets = make_folder(outside / "pets", classes=tuple("abcde"), n=8)

        def key(**settings: str) -> str:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in settings.items():
                    patch.setenv(name, value)
                notebook._drawn.cache_clear()
                return begin()._fingerprint(measured)

        seen = {key()}
        assert key(MINI_DATA=f"{pets}/") in seen
        assert key(MINI_DATA=f"{pets.parent}/./pets//") in seen
        for name in (pets / "train" / "a", pets / "train", pets):
            os.utime(name, (1, 1))  # touched, no more
        assert key() in seen
        for part in ("train", "test"):
            labels = sorted((pets / part).iterdir())
            changes = (
                lambda a, b: (a / "007.png").rename(b / "008.png"),  # moved to another class
                lambda a, b: shutil.copy(a / "006.png", a / "009.png"),  # one more
                lambda a, b: (a / "005.png").unlink(),
                lambda a, b: Image.new("RGB", (32, 32)).save(a / "004.png"),
            )
            for change in changes:
                change(labels[1], labels[3])
                assert key() not in seen
                seen.add(key())
        assert not list(root.iterdir())


def test_seconds_of_kept_calls_are_shared_by_the_workers():
    """Four calls that took 100 s each are 400 s of one worker and 200 s of two."""

    def spent(workers: int) -> float:
        run = begin()
        run.workers = workers
        run.experiment(measured, {"arm": {}})
        return run._saved_seconds

    with course(MINI_SCALE="full") as root:
        assert spent(1) == 0
        for path in (root / "build" / "progress" / "90_test" / "digits").glob("*.npz"):
            with np.load(path) as stored:
                content = dict(stored) | {"seconds spent": np.array(100.0)}
            np.savez(path, **content)
        assert spent(1) == pytest.approx(400)
        with joblib.parallel_config(backend="threading"):  # nothing is run: no processes to start
            assert spent(2) == pytest.approx(200)


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def damaged_kept_result(harm: Callable[[Path, Path], None]) -> None:
    """What is damaged is made again, by that call alone, and is whole afterwards."""
    counted = Counted()
    with course(MINI_SCALE="full") as root:
        counted.made(begin(), ARMS)
        (path,) = (root / "build" / "progress" / "90_test" / "digits").glob("wide-2-*.npz")
        harm(path, root)
        assert counted.made(begin(), ARMS) == [(2, 3)]
        assert not (root / "made by unpickling").exists()
        assert counted.made(begin(), ARMS) == []


def test_a_kept_result_runs_no_code():
    def harm(path: Path, root: Path) -> None:
        values = np.array([Touches(root / "made by unpickling")], dtype=object)
        with path.open("wb") as file:
            np.savez(file, **{"seconds spent": 1.0, "seconds": 2.5, "values": values})

    damaged_kept_result(harm)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path, _: path.write_bytes(b""),
        lambda path, _: path.write_bytes(path.read_bytes()[:200]),
        lambda path, _: path.write_text("<<<<<<< HEAD"),
        lambda path, _: np.savez(path, seconds=2.5, values=[3]),  # without its time
    ],
)
def test_a_damaged_kept_result_is_made_again(harm):
    damaged_kept_result(harm)


def test_a_change_in_a_function_beside_it_makes_a_new_call(tmp_path):
    """As in a notebook, whose experiment calls functions of other cells."""

    def module(width: int) -> Callable[..., dict]:
        path = tmp_path / "beside.py"
        path.write_text(
            f"def build():\n    return deeper() + 1\n\ndef deeper():\n    return {width}\n\n"
            "def measure(seed):\n    return {'width': build()}\n"
        )
        linecache.checkcache()
        spec = importlib.util.spec_from_file_location("beside", path)
        beside = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(beside)
        return beside.measure

    with course(MINI_SCALE="full"):
        same = begin()._fingerprint(module(2))
        assert begin()._fingerprint(module(2)) == same
        assert begin()._fingerprint(module(3)) != same


def test_at_quick_scale_nothing_is_kept():
    counted, arms = Counted(), {"arm": {"width": 2}}
    with course() as root:
        assert len(counted.made(begin(), arms)) == 3
        assert len(counted.made(begin(), arms)) == 3
        assert not list(root.iterdir())


def test_the_record_counts_the_time_of_kept_calls():
    def measure(seed: int) -> dict:
        time.sleep(0.1)
        return {"value": seed}

    with course(MINI_SCALE="full") as root:
        begin().experiment(measure, {"arm": {}})
        run = begin()
        start = time.perf_counter()
        run.experiment(measure, {"arm": {}})
        assert time.perf_counter() - start < 0.3
        assert finished(run, root)[1]["seconds"] >= 0.4


def test_a_function_without_a_source_is_refused_only_where_its_source_matters():
    namespace = {}
    exec("def measure(seed):\n    return {'value': seed}", namespace)
    partial = functools.partial(namespace["measure"])
    for function in (namespace["measure"], partial):
        with course():
            results = begin().experiment(function, {"arm": {}})
            assert results["arm"]["value"].tolist() == [0, 1, 2]
        with course(MINI_SCALE="full"), complains("source", "measure", "with def"):
            begin().experiment(function, {"arm": {}})


CELL = """
import os, sys, time
from pathlib import Path
from mini import files, training
from mini.course import keys, notebook, records

notebook.ROOT = keys.ROOT = Path({root!r})
run = notebook.start("90_test", paper="A paper", quick={quick!r}, full={full!r})
run.workers = 1


def measure(seed):
    calls.append(seed)
    return {{"value": [seed, seed * seed]}}


calls, writes = [], []


def stuck(file):
    writes.append(file)
    if len(writes) == 3:
        os.ftruncate(file, 40)
        print("half written", flush=True)
        time.sleep(60)


if {stuck}:
    os.fsync = stuck
results = run.experiment(measure, {{"arm": {{}}}})
"""
SHELL = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell(user_ns={"__name__": "__main__"})
shell.history_manager.enabled = False
shell.run_cell(open(CELL).read()).raise_error()
"""


def test_a_killed_run_resumes_with_what_was_whole():
    with course(MINI_SCALE="full") as root:
        cell = CELL.format(root=str(root), quick=QUICK, full=FULL, stuck=True)
        (root / "cell.txt").write_text(cell)
        program = SHELL.replace("CELL", repr(str(root / "cell.txt")))
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as shell:
            lines = []
            for line in shell.stdout:
                lines.append(line)
                if line == "half written\n":
                    break
            shell.send_signal(signal.SIGKILL)
        assert lines[-1] == "half written\n", lines
        progress = root / "build" / "progress" / "90_test" / "digits"
        names = [path.name for path in progress.iterdir()]
        assert len(names) == 3
        assert len([name for name in names if name.endswith(".npz")]) == 2

        # The same cell in a file: the source of its function is the same.
        module = root / "resumed.py"
        module.write_text(CELL.format(root=str(root), quick=QUICK, full=FULL, stuck=False))
        namespace = {"__name__": "resumed", "__file__": str(module)}
        exec(compile(module.read_text(), str(module), "exec"), namespace)
    assert namespace["calls"] == [2, 3]
    assert namespace["results"]["arm"]["value"].tolist() == [[s, s * s] for s in range(4)]


# Families and controls, in a run.


def claim_of(id: str, **more) -> Claim:
    return Claim(id, "a beats b", "Table 1", "a less b, accuracy", **more)


def test_controls_are_announced_and_judged_before_what_needs_them():
    with course():
        run = begin()
        control = claim_of("K1", role="control")
        with complains("C1 needs 'K1'", "announce that control"):
            run.announce(claim_of("C1", needs=("K1",)))
        with complains("C1 needs 'C2'"):
            run.announce(claim_of("C1", needs=("C2",)), claim_of("C2"))
        assert not run.claims
        run.announce(claim_of("C1", needs=("K1",)), control)
        with complains("C1 needs K1", "judge controls first"):
            run.judge("C1", [0.3, 0.2, 0.25])
        assert run.judge("K1", [0.3, -0.2, 0.1]).verdict == "inconclusive"
        assert run.judge("C1", [0.3, 0.2, 0.25]).verdict == "void"
        run.judge("K1", [0.3, 0.2, 0.25])
        assert "C1" not in run.judgements  # what rests on a control is judged after it
        assert run.judge("C1", [0.3, 0.2, 0.25]).verdict == "reproduced"


def test_a_family_names_its_headline_before_the_run():
    with course():
        run = begin()
        for headline in ([], [claim_of("H", family="G"), claim_of("G")]):
            with complains("C1 is of the family 'H'", "headline"):
                run.announce(claim_of("C1", family="H"), *headline)
        with complains("in the same role"):
            run.announce(claim_of("C1", family="H"), claim_of("H", role="control"))
        run.announce(claim_of("H"), claim_of("C1", family="H"))
        run.announce(claim_of("C2", family="H"))
        assert list(run.claims) == ["H", "C1", "C2"]


def test_a_share_is_one_of_the_test_images():
    with course():
        run = begin()
        run.announce(claim_of("C1", share=True))
        judged = run.judge("C1", [0.5, 0.5, 0.5])
        assert (judged.low, judged.high) == pytest.approx((0.45, 0.55))  # of ten


# Each seed's data, stages, sittings, one seed.


@pytest.mark.parametrize("workers", [1, 2])
def test_a_seed_draws_its_data_in_the_worker(workers):
    def measure(seed: int) -> dict:
        mine = run.data_of(seed)
        return {
            "labels": mine.train.labels,
            "brightness": mine.test.images.float().mean(),
            "shared": run.data.train.images.float().mean(),
        }

    with course():
        run = begin(workers)
        found = run.experiment(measure, {"arm": {}})["arm"]
        first = run.data_of(0)
    assert torch.equal(first.train.images, run.data.train.images)
    assert found["labels"].shape == (3, 20)
    assert len({tuple(row) for row in found["labels"].tolist()}) == 3
    assert len(set(found["brightness"].tolist())) == 3
    assert len(set(found["shared"].tolist())) == 1
    assert found["brightness"][0] == first.test.images.float().mean()


def test_a_run_is_sent_to_workers_without_data_and_results():
    with course():
        run = begin()
        run.announce(GREATER)
        run.experiment(train, ARMS)
        assert len(pickle.dumps(run)) < 2000
        again = pickle.loads(pickle.dumps(run))
        assert torch.equal(again.data.train.images, run.data.train.images)
        assert (again.config, again.device) == (run.config, run.device)


def teach(seed: int, *, width: int) -> dict:
    notebook.seeded(seed)
    teacher = torch.nn.Linear(width, 1)
    return {"bias": teacher.bias[0], "_weights": teacher.state_dict(), "_note": "from the teacher"}


def learn(seed: int, *, given: dict, of: str) -> dict:
    width = given[of]["_weights"]["weight"].shape[1]
    student = torch.nn.Linear(width, 1)
    student.load_state_dict(given[of]["_weights"])
    assert given[of]["_note"] == "from the teacher"
    assert student.bias.item() == given[of]["bias"]
    return {"bias": student.bias[0], "seed": seed}


@pytest.mark.parametrize("scale", ["quick", "full"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_is_handed_what_the_earlier_one_found_with_its_seed(scale, workers):
    students = {"of wide": {"of": "wide"}, "of narrow": {"of": "narrow"}}
    with course(MINI_SCALE=scale) as root:
        for _ in range(2):  # at full scale the second time from what is kept
            run = begin(workers)
            teachers = run.experiment(teach, ARMS)
            found = run.experiment(learn, students, given=teachers)
            for arm, of in (("of wide", "wide"), ("of narrow", "narrow")):
                np.testing.assert_array_equal(found[arm]["bias"], teachers[of]["bias"])
                assert found[arm]["seed"].tolist() == list(run.seeds)
        # What is only passed on is neither a result nor in the record.
        assert all(list(measures) == ["bias"] for measures in teachers.values())
        run.finish()
        folder = root / ("results" if scale == "full" else "build/results")
        kept = records.load("90_test", "digits", scale, "teach", folder=folder)
        assert {tuple(measures) for measures in kept.values()} == {("bias",)}


def test_a_stage_needs_the_seeds_of_the_earlier_one():
    with course():
        teachers = begin().experiment(teach, ARMS)
        run = begin()
        run.seeds = range(5)
        with complains("No earlier stage was run with seed 3"):
            run.experiment(learn, {"a": {"of": "wide"}}, given=teachers)


@pytest.mark.parametrize(
    ("row", "problem"),
    [({"weights": {"a": 1}}, "'_weights'"), ({"loss": object()}, "numbers, arrays or text")],
)
def test_a_measure_is_a_number_an_array_or_text(row, problem):
    with course(), complains(problem):
        begin().experiment(lambda seed: row, {"arm": {}})


def test_a_record_may_be_made_over_several_sittings():
    """Two seeds, recorded; what is kept in build/ is lost; then all four."""
    calls = []

    def measure(seed: int, *, width: int) -> dict:
        calls.append((seed, width))
        return {"value": 10 * seed + width, "map": np.full(2000, seed)}

    def made(arms: dict = ARMS) -> tuple[notebook.Run, dict]:
        calls.clear()
        run = begin()
        return run, run.experiment(measure, arms)

    with course(MINI_SCALE="full", MINI_SEEDS="2") as root, pytest.MonkeyPatch.context() as patch:
        run, found = made()
        assert calls == [(s, w) for s in range(2) for w in (2, 3)]
        found["wide"]["derived"] = found["wide"]["value"] ** 2
        run.finish()
        shutil.rmtree(root / "build")
        patch.delenv("MINI_SEEDS")
        run, found = made()
        assert calls == [(s, w) for s in range(2, 4) for w in (2, 3)]
        assert found["wide"]["value"].tolist() == [3, 13, 23, 33]
        # Large arrays of later seeds are not in a record: only the first seed has one.
        assert found["wide"]["map"].tolist() == [[0] * 2000]
        run.finish()
        record = json.loads((root / "results" / "90_test" / "digits-full.json").read_text())
        assert [sitting["seeds"] for sitting in record["sittings"]] == [[0, 1], [2, 3]]
        assert all(sitting["machine"]["processor"] for sitting in record["sittings"])
        assert record["seeds"] == [0, 1, 2, 3]
        # An arm with other options is another one.
        shutil.rmtree(root / "build")
        _, found = made(ARMS | {"wide": {"width": 7}})
        assert found["wide"]["value"].tolist() == [7, 17, 27, 37]
        # A finished record is not taken for a fresh run.
        shutil.rmtree(root / "build")
        (root / "results" / "90_test" / "digits-full-2seeds.json").unlink()
        made()
        assert len(calls) == 8


def test_another_code_takes_nothing_over():
    counted = Counted()
    with course(MINI_SCALE="full", MINI_SEEDS="2") as root, pytest.MonkeyPatch.context() as patch:
        run = begin()
        counted.made(run, ARMS)
        run.finish()
        shutil.rmtree(root / "build")
        patch.delenv("MINI_SEEDS")
        (root / "mini" / "data").mkdir(parents=True)
        (root / "mini" / "data" / "batches.py").write_text("width = 1")
        assert len(counted.made(begin(), ARMS)) == 8


def test_the_course_s_own_machinery_changes_no_number():
    counted = Counted()
    with course(MINI_SCALE="full") as root:
        counted.made(begin(), ARMS)
        (root / "mini" / "course").mkdir(parents=True)
        (root / "mini" / "course" / "plots.py").write_text("width = 1")
        assert counted.made(begin(), ARMS) == []


def test_one_seed_is_enough_to_try():
    with course(MINI_SEEDS="1") as root:
        run = begin()
        run.announce(GREATER)
        found = run.experiment(train, ARMS)
        assert run.judge("C1", found["wide"]["loss"], found["narrow"]["loss"]).n == 1
        path, record = finished(run, root)
    assert path.name == "digits-quick-1seeds.json"
    assert record["claims"][0]["low"] is None


def test_check_shows_the_recorded_verdicts_and_holds_one_seed_against_the_gates():
    gated = dataclasses.replace(GREATER, gated=True)

    def judged(values: list[float], claim: Claim = gated) -> notebook.Run:
        run = begin()
        run.announce(claim)
        run.judge("C1", values)
        return run

    with course(MINI_RESULTS="results") as root, pytest.MonkeyPatch.context() as patch:
        judged([0.2, 0.21, 0.22]).finish()
        patch.setenv("MINI_SCALE", "check")
        run = judged([0.05])
        assert run.judgements["C1"].values == (0.2, 0.21, 0.22)
        assert printed(run.verdicts) == "C1   reproduced\n"
        assert printed(run.finish).endswith("; 0 measures are within what twenty seeds gave\n")
        with pytest.raises(AssertionError, match=r"C1 is gated, but with seed 20 .* is -0.05"):
            judged([-0.05])
        with pytest.raises(AssertionError, match="C1 is not the claim that was recorded"):
            judged([0.5], dataclasses.replace(gated, line=0.01))
        (root / "results" / "90_test" / "digits-quick.json").unlink()
        with complains("is recorded", "make notebooks NB=90_test"):
            judged([0.05])


def test_the_precision_is_chosen_at_full_scale_once_and_is_on_record(monkeypatch):
    monkeypatch.setattr(training, "precision_for", lambda *_: "bfloat16")
    counted, network = Counted(), torch.nn.Linear(2, 1)
    for scale, expected in (("quick", "float32"), ("full", "bfloat16")):
        with course(MINI_SCALE=scale) as root:
            if scale == "full":
                counted.made(begin(), ARMS)
            run = begin()
            chosen = printed(lambda run=run: run.choose_precision(network, torch.zeros(1, 2)))
            assert chosen == f"networks are trained in {expected}\n"
            assert pickle.loads(pickle.dumps(run)).precision == expected
            # What was computed in another precision is not taken for this one's.
            assert len(counted.made(run, ARMS)) == 2 * len(run.seeds)
            assert finished(run, root)[1]["precision"] == expected


def test_evidence_is_the_full_record_and_a_full_run_is_its_own():
    data = notebook.data.load("digits", n_train=30, n_test=10)
    with course() as root:
        with complains("No run of 90_test on cifar10 at scale full is recorded"):
            begin().evidence()
        with complains("No run of 90_test on plain-digits at scale full is recorded"):
            notebook.start(
                "90_test", paper="A paper", quick=QUICK, full=FULL, full_on=("plain-digits",)
            ).evidence()
        os.environ["MINI_SCALE"] = "full"
        for name, seeds in (("cifar10-jpeg", 4), ("cifar10", 3)):
            named = dataclasses.replace(data, name=name, title=name.upper())
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(notebook, "_drawn", lambda *_, named=named: named)
                patch.setenv("MINI_SEEDS", str(seeds))
                patch.setenv("MINI_RESULTS", "results")
                run = begin()
                found = run.experiment(train, ARMS)
                assert run.evidence()["wide"] is found["wide"]
                run.finish()
                made = root / "results" / "90_test"
                for path in made.glob(f"{name}-full-*seeds.*"):
                    path.rename(made / f"{name}-full{path.suffix}")
            os.environ["MINI_SCALE"] = "quick"
            shown = printed(lambda: begin().evidence())
            assert f"{name.upper()}, {seeds} seeds" in shown
            assert begin().evidence()["wide"]["loss"].shape == (seeds,)
            os.environ["MINI_SCALE"] = "full"


def noted(seed: int, *, given: dict, of: str) -> dict:
    return {"bias": given[of]["bias"]}


def test_a_change_in_an_earlier_stage_reaches_what_is_kept_of_a_later_one():
    with course(MINI_SCALE="full"):
        for width in (3, 5, 3):
            run = begin()
            teachers = run.experiment(teach, {"wide": {"width": width}})
            found = run.experiment(noted, {"a": {"of": "wide"}}, given=teachers)
            np.testing.assert_array_equal(found["a"]["bias"], teachers["wide"]["bias"])


def test_what_a_record_does_not_keep_is_missed_with_a_sentence():
    """Two seeds of both stages, recorded; then, from the record, a new arm of the second stage."""
    students = {"a": {"of": "wide"}}
    with course(MINI_SCALE="full", MINI_SEEDS="2") as root, pytest.MonkeyPatch.context() as patch:
        run = begin()
        run.experiment(noted, students, given=run.experiment(teach, ARMS))
        run.finish()
        shutil.rmtree(root / "build")
        patch.delenv("MINI_SEEDS")
        run = begin()
        teachers = run.experiment(teach, ARMS)
        found = run.experiment(noted, students, given=teachers)
        np.testing.assert_array_equal(found["a"]["bias"], teachers["wide"]["bias"])
        with complains("Seed 0 of 'narrow' comes from a record", "_note, _weights", "'b' needs it"):
            run.experiment(learn, {"b": {"of": "wide"}}, given=teachers, name="more")


def test_a_measure_that_a_seed_lacks_is_refused():
    def measure(seed: int) -> dict:
        return {"a": seed} | ({"b": seed} if seed != 1 else {})

    with course(), complains("Some seeds did not return the measure 'b'"):
        begin().experiment(measure, {"arm": {}})


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_one_name_for_two_experiments_is_refused_but_where_cells_are_run_again(scale):
    with course(MINI_SCALE=scale):
        run = begin()
        run.experiment(train, ARMS)
        run.experiment(train, ARMS)
        run.experiment(train, {"other": {"width": 5}})
        other = {"wide": {"width": 9}}
        if scale == "full":
            with complains("'train' was run with 'wide' before", "name="):
                run.experiment(train, other)
        else:
            run.experiment(train, other)
        run.experiment(train, other, name="wider")
        assert set(run.experiments) == {"train", "wider"}


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda run: run.experiment(train, {}), "no arm"),
        (lambda run: run.experiment(train, ARMS, given={}), "given="),
        (lambda run: run.experiment(lambda seed: seed, {"a": {}}), "returned int"),
        (lambda run: run.experiment(lambda seed: {"a//b": 1}, {"a": {}}), "'a//b'"),
    ],
)
def test_an_experiment_of_the_wrong_kind_gets_one_sentence(call, problem):
    with course(), complains(problem):
        call(begin())


def test_constants_and_classes_beside_a_function_count(tmp_path):
    def module(constant: int, width: int) -> Callable[..., dict]:
        path = tmp_path / f"constants_{constant}_{width}.py"
        path.write_text(
            f"RATE = {constant}\n\n\nclass Net:\n    width = {width}\n\n\n"
            "def measure(seed):\n    return {'width': Net.width * RATE}\n"
        )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        beside = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = beside
        spec.loader.exec_module(beside)
        return beside.measure

    with course(MINI_SCALE="full"):
        same = begin()._fingerprint(module(1, 2))
        assert begin()._fingerprint(module(1, 2)) == same
        assert begin()._fingerprint(module(3, 2)) != same
        assert begin()._fingerprint(module(1, 3)) != same


def test_an_arm_that_the_record_has_must_be_run():
    with course(MINI_SEEDS="20", MINI_RESULTS="results"):
        run = begin()
        run.experiment(train, ARMS)
        run.finish()
        os.environ["MINI_SCALE"] = "check"
        del os.environ["MINI_SEEDS"]
        run = begin()
        run.experiment(train, {"wide": ARMS["wide"]})
        with pytest.raises(AssertionError, match="twenty seeds have narrow"):
            run.finish()


def test_a_claim_for_the_full_run_shows_its_recorded_verdict():
    """Announced at every scale, judged at full; elsewhere the record speaks, and says so."""
    claim = claim_of("F1", full=True)
    data = dataclasses.replace(notebook.data.load("digits", n_train=30, n_test=10))
    named = dataclasses.replace(data, name="cifar10-jpeg", title="the copy")
    with course(MINI_SCALE="full") as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook, "_drawn", lambda *_: named)
        run = begin()
        run.announce(claim)
        with complains("never judged: F1"):
            run.finish()
        run.judge("F1", [0.2, 0.21, 0.22, 0.23])
        run.finish()
        os.environ["MINI_SCALE"] = "quick"
        run = begin()
        run.announce(claim, GREATER)
        run.judge("C1", [0.2, 0.21, 0.22])
        assert "**reproduced**<br>(recorded: the copy)" in run.table().data
        assert "recorded" not in run.table("C1").data
        run.finish()
        quick = root / "build" / "results" / "90_test" / "cifar10-jpeg-quick.json"
        assert [row["id"] for row in json.loads(quick.read_text())["claims"]] == ["C1"]
        run = begin()
        run.announce(dataclasses.replace(claim, line=0.1))
        assert "**void**<br>(changed since its full record)" in run.table().data
        run = begin()
        run.announce(claim_of("F2", full=True))
        with complains("F2 is not in the full record"):
            run.table()


def test_verdicts_here_stand_beside_those_of_the_record(monkeypatch):
    """One table of both runs, in the order of the claims; a full run has none beside it."""
    data = dataclasses.replace(notebook.data.load("digits", n_train=30, n_test=10))
    named = dataclasses.replace(data, name="cifar10-jpeg", title="the copy")
    exact = Claim("E1", "exact", "ours", "error", kind="exact", margin=1e-6)
    both = (exact, claim_of("F1", full=True), claim_of("K1", role="control"))
    monkeypatch.setattr(notebook, "_drawn", lambda *_: named)
    with course(MINI_SCALE="full"):
        run = begin()
        run.announce(*both)
        run.exact("E1", 0.0)
        run.judge("F1", [0.2, 0.21, 0.22, 0.23])
        run.judge("K1", [-0.2, -0.21, -0.22, -0.23])
        run.finish()
        alone = run.beside_the_record().data.splitlines()
        assert alone[0].endswith("| the copy, 4 seeds |")
        os.environ["MINI_SCALE"] = "quick"
        run = begin()
        run.announce(*both)
        run.judge("K1", [0.2, 0.21, 0.22])
        shown = run.beside_the_record().data.splitlines()
        assert shown[0].endswith("| the copy, 3 seeds | the copy, 4 seeds |")
        assert [line.split(" | ")[0] for line in shown[2:]] == ["| F1", "| K1"]
        assert "| – | **reproduced** +0.215 [" in shown[2]
        assert "*control:*" in shown[3]
        assert "**reproduced** +0.210 [" in shown[3]
        assert "**contradicted** -0.215 [" in shown[3]
        assert len(run.beside_the_record("K1").data.splitlines()) == 3
        run = begin()
        run.announce(dataclasses.replace(both[1], line=0.1))
        assert "**void** +0.215" in run.beside_the_record().data.splitlines()[2]
