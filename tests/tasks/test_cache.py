"""Decoded folders are kept on disk: decoded once, anew when the folder changes, and never believed when broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import Split, TaskRequest, load_task
from nasattn.tasks.cache import most_left_out, reserve
from nasattn.tasks.images import Images
from tests.image_folders import fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, 6 images to train on, 2 to validate on and 2 held out."""
    return fill(tmp_path / "photos", images=3)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each image that is decoded."""
    seen: list[int] = []
    pixels = Images.pixels
    monkeypatch.setattr(Images, "pixels", lambda self, row, resolution: (seen.append(row), pixels(self, row, resolution))[1])
    return seen


def train(folder: Path, resolution: int = 12, **asked: int) -> Split:
    split = load_task(str(folder), TaskRequest(resolution, **asked)).train
    assert isinstance(split, Split)
    return split


def test_a_folder_is_decoded_once(folder: Path, cache: Path, decodings: list[int]) -> None:
    first = train(folder)
    assert len(decodings) == 8
    assert torch.equal(train(folder).images, first.images)
    assert torch.equal(train(folder, seed=1).images, first.images)  # all of them: every seed shares the file
    assert len(decodings) == 8
    assert len(list(cache.glob("*.npy"))) == 2 and not list(cache.glob("*.part"))
    first.images[0] = 0  # what one process writes stays in it
    assert train(folder).images[0].any()


def test_what_is_asked_for_otherwise_is_decoded(folder: Path, decodings: list[int]) -> None:
    train(folder)
    assert train(folder, resolution=10).images.shape == (6, 3, 10, 10)
    assert len(decodings) == 16
    few = train(folder, samples=3, seed=5)
    assert len(few) == 3 and len(decodings) == 19
    assert ((few.images[:, 0, 0, 0] >= 200).long() == few.labels).all()


def test_a_changed_folder_is_decoded_anew(folder: Path, decodings: list[int]) -> None:
    train(folder)
    file = folder / "train/cat/0.png"
    Image.new("RGB", (20, 16), (99, 0, 0)).save(file)
    assert (train(folder).images[:, 0, 0, 0] == 99).any()
    times = file.stat()
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    decodings.clear()
    train(folder)
    assert len(decodings) == 6
    (folder / "train/dog/2.png").unlink()
    assert len(train(folder)) == 5


@pytest.mark.parametrize("content", [b"", b"nothing", "half", "other shape"])
def test_a_broken_file_is_replaced(folder: Path, cache: Path, content: bytes | str) -> None:
    good = train(folder).images.clone()
    for file in cache.glob("*.npy"):
        whole = file.read_bytes()
        other = whole.replace(b"12, 12)", b"6, 24) ")
        assert other != whole
        file.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2] if content == "half" else other)
    assert torch.equal(train(folder).images, good)
    assert torch.equal(train(folder).images, good)


def test_a_broken_image_leaves_nothing_behind(folder: Path, cache: Path) -> None:
    for name in ("cat", "dog"):
        (folder / f"train/{name}/0.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(TaskError, match="cannot be decoded: 2 of 6, at most 1 may be left out"):
            train(folder)
    assert not [file for file in cache.iterdir() if file.suffix != ".lock"]


@pytest.mark.parametrize("samples", [None, 5, 4, 3])
def test_a_broken_image_is_left_out_by_all_and_read_once(
    folder: Path, cache: Path, decodings: list[int], monkeypatch: pytest.MonkeyPatch, samples: int | None
) -> None:
    """Whoever maps the cached pixels knows which image is missing among them, and that its label goes too."""
    broken = folder / "train/dog/1.png"
    broken.write_bytes(b"no image")
    tasks = [load_task(str(folder), TaskRequest(12, samples)) for _ in range(2)]
    assert len(decodings) <= 8
    monkeypatch.setenv("NASATTN_CACHE", "/dev/null")
    with pytest.warns(UserWarning, match="decoded images cannot be kept"):
        tasks.append(load_task(str(folder), TaskRequest(12, samples)))
    for task in tasks:
        assert isinstance(task.train, Split)
        assert len(task.train) == (samples or 5)
        assert task.skipped in ((), (str(broken),)) and task.skipped == tasks[0].skipped
        assert ((task.train.images[:, 0, 0, 0] >= 200).long() == task.train.labels).all()
        assert torch.equal(task.train.images, tasks[0].train.images)  # type: ignore[union-attr]
        assert 201 not in task.train.images[:, 0, 0, 0]


@pytest.mark.parametrize(
    "content",
    [None, "", "{}", "[]", '{"looked_at": 6, "broken": [7]}', '{"looked_at": 6, "broken": [true]}', '{"looked_at": 6, "broken": []}'],
)
def test_pixels_without_their_list_are_not_believed(folder: Path, cache: Path, content: str | None) -> None:
    (folder / "train/dog/1.png").write_bytes(b"no image")
    good = train(folder)
    for file in cache.glob("*.json"):
        file.unlink() if content is None else file.write_text(content)
    again = train(folder)
    assert torch.equal(again.images, good.images) and torch.equal(again.labels, good.labels)


def test_who_asks_for_what_was_found_gets_the_same(folder: Path, decodings: list[int]) -> None:
    """A study that found one image broken records how many it has; with that number its workers and its next run come."""
    (folder / "train/dog/1.png").write_bytes(b"no image")
    for seed in (0, 3):
        found = train(folder, seed=seed)
        again = train(folder, samples=len(found), seed=seed)
        assert torch.equal(found.images, again.images) and torch.equal(found.labels, again.labels)
    assert len(decodings) == 8


def test_enough_are_at_hand_to_replace_the_broken_ones() -> None:
    """Of one in a hundred broken images, as many sound ones are found as are wanted."""
    for wanted in (1, 2, 50, 99, 100, 101, 150, 8_000, 50_000):
        at_hand = wanted + reserve(wanted)
        assert at_hand - most_left_out(at_hand) >= wanted
    assert [most_left_out(n) for n in (0, 1, 2, 199, 200, 1_000)] == [0, 0, 1, 1, 2, 10]


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="decoded images cannot be kept in .*file .*; set NASATTN_CACHE to a folder that can be written"):
        assert len(train(folder)) == 6


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from nasattn.tasks.cache import cache_folder

    monkeypatch.delenv("NASATTN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path.home() / ".cache/nasattn"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/nasattn")


WORKER = """
import sys
from nasattn.tasks import TaskRequest, load_task
from nasattn.tasks.images import Images
decoded, pixels = [], Images.pixels
Images.pixels = lambda self, row, resolution: (decoded.append(row), pixels(self, row, resolution))[1]
print("ready", flush=True)
sys.stdin.readline()
load_task(sys.argv[1], TaskRequest(12))
print(len(decoded))
"""


def test_workers_that_start_together_decode_once(folder: Path) -> None:
    command, env = [sys.executable, "-c", WORKER, str(folder)], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert sum(int(worker.communicate()[0]) for worker in workers) == 8
