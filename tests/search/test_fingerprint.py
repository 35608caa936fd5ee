"""A study goes on only with the images that it was begun with; what changed is said, and a copy is no change."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nasattn.errors import StudyError
from nasattn.search.driver import run_search
from nasattn.search.events import Event, SearchNoted, SearchStarted
from nasattn.search.fingerprint import check_unchanged, with_data
from nasattn.search.study import StudyConfig, make_config
from nasattn.store import StudyRecord
from nasattn.tasks import Task, TaskRequest, load_task
from nasattn.tasks import fingerprint as fingerprint_module
from tests.image_folders import fill


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes with 4 images to train on and 2 to validate on."""
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path / "cache"))
    return fill(tmp_path / "photos")


def load(folder: Path, **asked: Any) -> Task:
    task = load_task(str(folder), TaskRequest(12, **asked))
    assert task.fingerprint["parts"]  # as the folder is now
    return task


def stored(task: Task) -> dict[str, Any]:
    return {"data": task.fingerprint}


def change(before: Task, folder: Path) -> str:
    with pytest.raises(StudyError) as caught:
        check_unchanged(stored(before), load(folder))
    message = str(caught.value)
    assert message.startswith(f"the images of task {folder} are not those that the study was begun with (")
    assert message.endswith("): restore them, or begin another study with --study NAME or --fresh") and "\n" not in message
    return message.partition("(")[2].rpartition(")")[0]


def test_what_changed_is_said(images: Path) -> None:
    before = load(images)
    check_unchanged(stored(before), load(images))
    Image.new("RGB", (20, 16), (99, 0, 0)).save(images / "train/dog/new.png")
    assert change(before, images) == "train/dog: 4 images -> 5"
    (images / "val/cat/0.png").unlink()
    assert change(before, images) == "test/cat: 1 images -> 0; train/dog: 4 images -> 5; val/cat: other files, still 1"
    shutil.copy(images / "train/dog/0.png", images / "val/cat/0.png")
    (images / "train/dog/new.png").unlink()
    assert change(before, images) in ("test/cat: other files, still 1", "val/cat: other files, still 1")
    shutil.copy(images / "val/cat/1.png", images / "val/cat/0.png")
    for name in "abcdef":
        (images / "train" / name).mkdir()
        shutil.copy(images / "train/dog/0.png", images / "train" / name)
    assert change(before, images).endswith("train/d: 0 images -> 1; train/e: 0 images -> 1; and 2 more")


@pytest.mark.parametrize("limit", [fingerprint_module.MOST_HASHED, 0], ids=["contents", "names and sizes"])
def test_a_copy_is_no_change(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(fingerprint_module, "MOST_HASHED", limit)
    before = load(images)
    for file in images.rglob("*.png"):
        os.utime(file, (1, 1))
    shutil.copytree(images, tmp_path / "elsewhere")
    check_unchanged(stored(before), load(images))
    assert load(tmp_path / "elsewhere").fingerprint == before.fingerprint
    assert load(images, samples=3, seed=5).fingerprint == before.fingerprint  # whatever the request draws from it
    (images / "train/dog/0.png").rename(images / "train/dog/zero.png")
    assert change(before, images) == "train/dog: other files, still 4"


def test_another_content_of_the_same_size(images: Path) -> None:
    """A bitmap is as large as any other of its size; the file is told apart by its bytes."""
    file = images / "train/dog/0.png"
    Image.new("RGB", (20, 16), (1, 2, 3)).save(file, "BMP")
    before, size = load(images), file.stat().st_size
    Image.new("RGB", (20, 16), (3, 2, 1)).save(file, "BMP")
    assert file.stat().st_size == size
    assert change(before, images) == "train/dog: other files, still 4"


def test_many_folders_are_told_by_their_split(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_module, "MOST_PARTS", 1)
    before = load(images)
    assert set(before.fingerprint["parts"]) == {"train", "val", "test"}
    (images / "train/dog/0.png").unlink()
    assert change(before, images) == "train: 8 images -> 7"


def test_generated_images_are_told_by_their_version() -> None:
    task = load_task("digits", TaskRequest(8, 4, 4))
    assert task.fingerprint == {"generator": 1}
    check_unchanged({"data": {"generator": 1}}, task)
    with pytest.raises(
        StudyError, match=r"task digits makes other images \(generator 2\) than those .* \(generator 1\): use the nasattn that began it"
    ):
        check_unchanged({"data": {"generator": 1}}, replace(task, version=2))


def configure(space_file: str, **settings: Any) -> StudyConfig:
    fidelity = {"resolution": 24, "epochs": 1, "rungs": 1}
    return make_config(
        {"space": space_file, "study": "s", "sampler": "random", "trials": 1, "workers": 1, "fidelity": fidelity, **settings}
    )


def test_studies_of_earlier_releases_go_on(images: Path, space_file: str) -> None:
    config, task = configure(space_file, task=str(images)), load(images)
    record = StudyRecord("s", config.to_dict(), {}, 0)
    assert "data" not in record.config
    assert with_data(config, task, record).to_dict() == config.to_dict()
    new = with_data(config, task, None)
    assert new.to_dict()["data"] == task.fingerprint and new.identity() == config.identity()
    assert with_data(config, task, StudyRecord("s", new.to_dict(), {}, 0)) == new


def test_a_training_on_other_images_is_another(images: Path, space_file: str) -> None:
    """A fresh study on the changed folder is not told what was learned on the old one; generated images are as they always were."""
    config = configure(space_file, task=str(images))
    first = with_data(config, load(images), None).evaluation_identity("none,none,none,none")
    (images / "train/dog/0.png").unlink()
    assert with_data(config, load(images), None).evaluation_identity("none,none,none,none") != first
    digits = configure(space_file, task="digits")
    identity = digits.evaluation_identity("none,none,none,none")
    assert replace(digits, data={"generator": 1}).evaluation_identity("none,none,none,none") == identity
    assert replace(digits, data={"generator": 2}).evaluation_identity("none,none,none,none") != identity


class Enough(Exception):
    """The search has come to where workers would begin."""


def test_a_search_tells_of_broken_images_once_and_refuses_changed_ones(
    images: Path, space_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nasattn.search import driver

    def end(*args: Any) -> bool:
        raise Enough

    monkeypatch.setattr(driver, "_train", end)
    (images / "train/dog/2.png").write_bytes(b"no image")
    url, config = f"sqlite:///{tmp_path / 'studies.db'}", configure(space_file, task=str(images))

    def run(fresh: bool = False) -> list[Event]:
        events: list[Event] = []
        with pytest.raises(Enough):
            run_search(config, url, fresh=fresh, listener=events.append)
        return events

    for _ in range(2):
        started, *noted = run()
        assert isinstance(started, SearchStarted)
        assert noted == [
            SearchNoted(
                "images of photos: 2 classes, 8 images to train on, 2 to validate, 2 held out (by file names half of each class in val/ is held out)"
            ),
            SearchNoted("fewer images than the 8,000 that the fidelity asks for: all are trained on"),
            SearchNoted(f"1 image could not be decoded and is left out: {images}/train/dog/2.png"),
        ]
    (images / "train/cat/0.png").unlink()
    with pytest.raises(StudyError, match=r"\(train/cat: 4 images -> 3\): restore them"):
        run_search(config, url)
    started, *_ = run(fresh=True)
    assert isinstance(started, SearchStarted) and started.study == "s-2"
