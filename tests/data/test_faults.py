"""Kills, full disks, damaged caches, many processes: nothing half-written is ever read."""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mini import data, files
from mini.data import archives, folders
from tests.data.sample_data import (
    KILLS,
    complains,
    damage,
    forget_images,
    left_in,
    make_folder,
    official,
    pixels_of,
    scratch,
    served,
)


def no_decoding(*_: object) -> None:
    raise AssertionError("an image was decoded although it is in the cache")


def run_python(script: str, *arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"TQDM_DISABLE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_load_reads_the_cache_even_in_a_read_only_folder():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        folder = make_folder(root / "pets")
        first = data.load(str(folder))
        assert len(left_in(root / "cache")) == 1
        patch.setattr(folders, "read_image", no_decoding)
        patch.setattr(files, "write_atomically", no_decoding)
        patch.setattr(files, "temporary_folder", no_decoding)
        forget_images()
        second = data.load(str(folder))
        assert first.train.images.equal(second.train.images)
        assert first.test.labels.equal(second.test.labels)
        assert first.classes == second.classes


def test_a_changed_image_makes_a_new_cache_and_removes_the_old_one():
    with scratch() as root:
        folder, other = make_folder(root / "pets"), make_folder(root / "other" / "pets")
        first = data.load(str(folder))
        data.load(str(other))
        before = left_in(root / "cache")
        assert len(before) == 2
        path = folder / "train" / "dog" / "001.png"
        size = path.stat().st_size
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path, compress_level=0)
        os.utime(path, ns=(1, 1))
        assert path.stat().st_size == size
        second = data.load(str(folder))
        changed = (first.train.images != second.train.images).flatten(1).any(1)
        assert changed.tolist() == [False] * 4 + [True, False]
        after = left_in(root / "cache")
        assert len(after) == 2
        assert len(set(after) & set(before)) == 1
        # An image moved from one class to another is a change as well.
        path.rename(folder / "train" / "cat" / "003.png")
        assert data.load(str(folder)).train.labels.tolist() == [0, 0, 0, 0, 1, 1]


def no_reading(*_: object, **__: object) -> None:
    raise AssertionError("a file was read although its images are in memory")


def test_a_rewritten_cache_is_read_again():
    with scratch() as root:
        folder = make_folder(root / "pets")
        images = data.load(str(folder)).train.images
        (cache,) = (root / "cache").iterdir()
        with np.load(cache) as stored:
            arrays = dict(stored)
        np.savez(cache, **(arrays | {"train_images": 255 - arrays["train_images"]}))
        assert data.load(str(folder)).train.images.equal(255 - images)


def test_the_images_in_memory_cannot_be_changed():
    with scratch() as root:
        arrays = folders.load(make_folder(root / "pets"))
        for array in arrays.values():
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[1]


def test_a_process_reads_its_images_once_and_gives_copies():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        folder, other = make_folder(root / "pets"), make_folder(root / "other", n=4)
        first = data.load(str(folder))
        sound = first.train.images.clone()
        patch.setattr(np, "load", no_reading)
        for sizes in ({}, {"n_train": 2}, {"n_validation": 2}):
            dataset = data.load(str(folder), **sizes)
            for split in (dataset.train, dataset.test, dataset.validation or dataset.test):
                split.images.zero_()
                split.labels.zero_()
        again = data.load(str(folder))
        assert again.train.images.equal(sound)
        assert again.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        patch.undo()
        patch.setenv("MINI_CACHE", str(root / "cache"))
        assert len(data.load(str(other)).train.labels) == 8
        assert data.load(str(folder)).train.images.equal(sound)


def pickled(path: Path) -> None:
    np.savez(path, **{key: np.array([{}]) for key in ("train_images", "classes")})


def cut_short(path: Path) -> None:
    """Sound, but with a label missing."""
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | {"train_labels": arrays["train_labels"][:-1]}))


@pytest.mark.parametrize(
    "harm",
    [
        functools.partial(damage, kind="truncated"),
        functools.partial(damage, kind="empty"),
        pickled,
        cut_short,
    ],
)
def test_a_damaged_cache_is_rebuilt(harm):
    check_damaged_cache(harm)


def test_a_changed_byte_in_a_cache_is_noticed():
    check_damaged_cache(functools.partial(damage, kind="a byte changed"))


def check_damaged_cache(harm: Callable[[Path], None]) -> None:
    with scratch() as root:
        folder = make_folder(root / "pets")
        first = data.load(str(folder))
        (cache,) = (root / "cache").iterdir()
        sound = cache.read_bytes()
        harm(cache)
        assert cache.read_bytes() != sound
        second = data.load(str(folder))
        assert first.train.images.equal(second.train.images)
        assert first.train.labels.equal(second.train.labels)
        with np.load(cache, allow_pickle=False) as stored:
            np.testing.assert_array_equal(stored["train_images"], first.train.images)


def test_a_cache_folder_that_cannot_be_written_is_named_before_the_work():
    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        folder = make_folder(root / "pets")
        (root / "file").write_text("a file, not a folder")
        patch.setenv("MINI_CACHE", str(root / "file" / "cache"))
        patch.setattr(folders, "read_image", no_decoding)
        for name in (str(folder), "cifar10"):
            with complains(str(root / "file" / "cache"), "cannot be written", "MINI_CACHE"):
                data.load(name)
        with complains(str(root / "file"), "cannot be written"):
            files.write_atomically(root / "file" / "x", lambda file: None)


def test_a_write_is_whole_or_absent():
    def full_disk(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    def interrupted(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with scratch() as root, pytest.MonkeyPatch.context() as patch:
        path = root / "new" / "file"
        files.write_atomically(path, lambda file: file.write(b"old"))
        with complains(str(path.parent), "No space left", "MINI_CACHE"):
            files.write_atomically(path, full_disk)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomically(path, interrupted)
        with pytest.raises(ZeroDivisionError):
            files.write_atomically(path, lambda file: 1 / 0)
        patch.setattr(os, "replace", refused)
        with complains(str(path.parent), "Permission denied"):
            files.write_atomically(path, lambda file: file.write(b"new"))
        assert path.read_bytes() == b"old"
        assert left_in(path.parent) == ["file"]


def test_what_dead_runs_left_is_removed_and_what_live_ones_use_is_not():
    with scratch() as root:
        folder = make_folder(root / "pets")
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        cache = root / "cache"
        cache.mkdir()
        own, dead_pid = f".{os.getpid()}.", f".{dead.pid}."
        with files.temporary_folder(cache) as mine:
            old_folder = cache / mine.name.replace(own, dead_pid)
            old_folder.mkdir()
            (old_folder / "cifar-10-python.tar.gz").write_bytes(b"half")
            old_file = cache / f".x.npz.{files.HOST}{dead_pid}abc.tmp"
            old_file.write_bytes(b"half")
            elsewhere = cache / f".x.npz.another-host{dead_pid}abc.tmp"
            elsewhere.write_bytes(b"a run on another machine writes here")
            ancient = cache / f".y.npz.another-host{dead_pid}abc.tmp"
            ancient.write_bytes(b"half")
            os.utime(ancient, (0, 0))
            (cache / ".unrelated.tmp").write_bytes(b"somebody else's")
            data.load(str(folder))
            assert not old_folder.exists()
            assert not old_file.exists()
            assert not ancient.exists()
            assert mine.exists()
            assert elsewhere.exists()
            assert (cache / ".unrelated.tmp").exists()
        assert not mine.exists()


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from mini import files
from mini.data import folders
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before renaming":
    os.replace = kill
elif sys.argv[2] == "half-way":
    files.np.savez = lambda file, **arrays: (file.write(b"PK" * 1000), file.flush(), kill())
elif sys.argv[2] == "decoding":
    folders._decode = kill
folders.load(Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("when", ["before renaming", "half-way", "decoding"])
def test_a_kill_while_a_cache_is_made_leaves_nothing_that_is_read(when):
    with scratch() as root:
        folder = make_folder(root / "pets")
        process = run_python(KILLED_WHILE_WRITING, folder, when)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert list((root / "cache").glob("*.npz")) == []
        dataset = data.load(str(folder))
        path = folder / "train" / "cat" / "000.png"
        np.testing.assert_array_equal(dataset.train.images[0], pixels_of(path))
        assert [name.endswith(".npz") for name in left_in(root / "cache")] == [True]


LOADERS = """
import json, os, sys
from mini import data
from mini.data import archives
for name, value in json.loads(sys.argv[1]).items():
    setattr(archives.SOURCES["cifar10"], name, value)
for _ in sys.stdin:
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if not pids[-1]:
            data.load("cifar10")
            os._exit(0)
    print(*pids, flush=True)
    print(*(os.waitpid(pid, 0)[1] for pid in pids), flush=True)
"""


def source_of(url: str) -> str:
    """What a new process must be told to take the archive of `official` at `url` for CIFAR-10."""
    source = archives.SOURCES["cifar10"]
    checksums = ("train_list", "test_list", "meta", "tgz_md5")
    return json.dumps({name: getattr(source, name) for name in checksums} | {"url": url})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and SIGKILL")
def test_downloads_killed_at_random_moments_leave_nothing_that_is_read():
    """Two load the same data at once; one is killed (MINI_KILLS times), the other gets it whole.

    By turns it is killed while it downloads, for 1 s, and about when it unpacks, stores and ends.
    """
    moments = random.Random(0)
    with scratch() as root, served(root, seconds=1) as address:
        archive, cache = root / "cifar-10-python.tar.gz", root / "cache"
        with official("cifar10", archive) as stored:
            command = [sys.executable, "-c", LOADERS, source_of(f"{address}/{archive.name}")]
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            ) as loaders:
                for count in range(KILLS):
                    is_early = count % 2 == 0
                    loaders.stdin.write("\n")
                    killed, _ = map(int, loaders.stdout.readline().split())
                    time.sleep(moments.uniform(0, 0.5) if is_early else moments.uniform(0.9, 1.4))
                    with contextlib.suppress(ProcessLookupError):  # it was quicker
                        os.kill(killed, signal.SIGKILL)
                    status, spared = map(int, loaders.stdout.readline().split())
                    assert spared == 0
                    assert status == signal.SIGKILL or (status == 0 and not is_early)
                    dataset = data.load("cifar10")
                    np.testing.assert_array_equal(dataset.train.images, stored["train"][0])
                    np.testing.assert_array_equal(dataset.test.labels, stored["test"][1])
                    (cache / "cifar10.npz").unlink()
                    files.remove_stale(cache)
                    assert left_in(cache) == []
                loaders.stdin.close()


def test_two_processes_may_prepare_the_same_folder_at_once():
    script = """
import sys, time
from pathlib import Path
from mini.data import folders
decode = folders._decode
Path(sys.argv[2]).touch()
def together(*arguments):
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
    return decode(*arguments)
folders._decode = together
arrays = folders.load(Path(sys.argv[1]))
assert arrays["train_images"].shape == (20, 3, 32, 32)
"""
    with scratch() as root:
        folder = make_folder(root / "pets", n=10)
        flags = [root / "first is ready", root / "second is ready"]
        processes = [run_python(script, folder, *order) for order in (flags, flags[::-1])]
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert errors == ""  # TQDM_DISABLE=1 silences the progress bar
        assert [name.endswith(".npz") for name in left_in(root / "cache")] == [True]
        assert data.load(str(folder)).train.images.shape == (20, 3, 32, 32)


ON_A_SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from mini import data, files
from mini.data import archives, pool
root, sizes = Path(sys.argv[1]), range(100, 2200, 100)
for name, value in json.loads(sys.argv[2]).items():
    setattr(archives.SOURCES["cifar10"], name, value)
disk = root / "disk"
cache = disk / "cache"
os.environ["MINI_CACHE"] = str(cache)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sizes[-1]}k", "tmpfs", disk], check=True)
ballast, outcomes = disk / "ballast", {}
for name in ("cifar10", str(root / "pets")):
    for size in sizes:  # kilobytes left
        ballast.write_bytes(bytes(1024 * (sizes[-1] - size)))
        try:
            data.load(name)
            outcome = "loaded"
        except ValueError as error:
            outcome = str(error)
        left = [path.name for path in cache.iterdir()] if cache.exists() else []
        outcomes.setdefault(name, []).append([outcome, left])
        ballast.unlink()
        for path in left:
            (cache / path).unlink()

record = disk / "results" / "old.json"
files.write_atomically(record, lambda file: file.write(b"old"))
with ballast.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(1024)):
            pass
    except OSError:
        pass
try:
    files.write_atomically(record, lambda file: file.write(bytes(100_000)))
except ValueError as error:
    outcomes["record"] = [[str(error), [record.read_text(), *os.listdir(record.parent)]]]
ballast.unlink()

data.load("cifar10")
pool._kept.clear()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
outcomes["read-only"] = []
for name in ("cifar10", str(root / "pets")):
    try:
        outcomes["read-only"].append([data.load(name).name, []])
    except ValueError as error:
        outcomes["read-only"].append([str(error), []])
print(json.dumps(outcomes))
"""


def may_mount() -> bool:
    """May this user have a small disk of his own? (Linux, where user namespaces are allowed.)"""
    if not (shutil.which("unshare") and shutil.which("mount")):
        return False
    own = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(own, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="unshare -rm mount")
def test_a_disk_that_is_full_at_any_moment_or_read_only_is_named():
    with scratch() as root, served(root) as address:
        archive = root / "cifar-10-python.tar.gz"
        (root / "disk").mkdir()
        make_folder(root / "pets", n=30)
        with official("cifar10", archive):
            script = [sys.executable, "-c", ON_A_SMALL_DISK, root]
            done = subprocess.run(
                ["unshare", "-rm", *script, source_of(f"{address}/{archive.name}")],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
    outcomes = json.loads(done.stdout.splitlines()[-1])
    disk = str(root / "disk")
    for name, cache in (("cifar10", "cifar10.npz"), (str(root / "pets"), "pets")):
        found = outcomes[name]
        assert found[0][0] != "loaded"
        assert found[-1][0] == "loaded"
        for outcome, left in found:
            if outcome == "loaded":
                assert len(left) == 1
                assert left[0].startswith(cache)
            else:
                assert left == []
                assert "No space left" in outcome
                assert disk in outcome
                assert "\n" not in outcome
                assert any(way in outcome for way in ("MINI_CACHE", "MINI_DATA", "disk full"))
    ((outcome, record),) = outcomes["record"]
    assert record == ["old", "old.json"]
    assert "No space left" in outcome
    assert "MINI_RESULTS" in outcome
    (cached, _), (outcome, _) = outcomes["read-only"]
    assert cached == "cifar10"
    assert f"{disk}/cache cannot be written (Read-only file system)" in outcome
