"""Where a folder does not say which images validate and which are held out, their names do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nasattn.errors import TaskError
from nasattn.tasks import Task, TaskRequest, load_task
from nasattn.tasks.folder import read_folder
from nasattn.tasks.split import SHARE, cut
from tests.image_folders import fill, fill_classes, picture, save


def names(folder: Path) -> dict[str, set[str]]:
    """The files of each split, as they lie in *folder*."""
    splits = read_folder(str(folder)).splits
    return {kind: {str(Path(name).relative_to(folder)) for name in images.names()} for kind, images in splits.items()}


def load(folder: Path, **asked: object) -> Task:
    return load_task(str(folder), TaskRequest(12, **asked))  # type: ignore[arg-type]


def test_class_folders_alone(tmp_path: Path) -> None:
    task = load(fill_classes(tmp_path, cat=20, dog=20))
    held_out = load(tmp_path, held_out=True)
    assert task.classes == ("cat", "dog") and sum(task.counts.values()) == 40
    assert (len(task.train), len(task.val), len(held_out.val)) == tuple(task.counts[kind] for kind in ("train", "val", "test"))
    assert task.rule == "split by file names: 15 % of each class validate, 15 % are held out"
    for split in (task.val, held_out.val):
        assert (torch.bincount(split.labels) >= 2).all()
    found = names(tmp_path)
    assert set.union(*found.values()) == {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)}
    assert sum(map(len, found.values())) == 40  # no image is in two splits


def test_the_split_is_the_same_for_every_seed_and_place(tmp_path: Path) -> None:
    fill_classes(tmp_path / "photos", cat=12, dog=9)
    shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    assert names(tmp_path / "photos") == names(tmp_path / "moved")
    one, other = load(tmp_path / "photos"), load(tmp_path / "moved", seed=5)
    assert sorted(one.val.sample(99)[:, 0, 0, 0].tolist()) == sorted(other.val.sample(99)[:, 0, 0, 0].tolist())
    assert one.fingerprint == other.fingerprint and one.fingerprint["split"] == one.rule
    assert set(one.fingerprint["parts"]) == {f"{kind}/{name}" for kind in ("train", "val", "test") for name in ("cat", "dog")}


def test_more_images_leave_the_others_where_they_are(tmp_path: Path) -> None:
    fill_classes(tmp_path, cat=150, dog=150)
    before = names(tmp_path)
    for i in range(100):
        save(picture(i), tmp_path, "cat", f"new{i}.png")
    after = names(tmp_path)
    assert all(before[kind] <= after[kind] for kind in before)
    assert after["val"] - before["val"] and after["test"] - before["test"]


def test_every_class_has_its_share(tmp_path: Path) -> None:
    """Of 300 classes of 3 to 40 images none has less than half or more than twice its share, and none lacks a split."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), rng.integers(3, 41, 300))
    files = [f"{label}/{i}.jpg" for i, label in enumerate(labels)]
    parts = cut(files, labels, SHARE, SHARE)
    counts = np.stack([np.bincount(labels[rows], minlength=300) for rows in parts])
    assert (counts.sum(0) == np.bincount(labels)).all() and (counts > 0).all()
    share = counts[1:] / counts.sum(0)
    large = counts.sum(0) >= 14
    assert (share[:, large] >= SHARE / 2).all() and (share[:, large] <= 2 * SHARE).all()
    assert abs(len(parts[1]) / len(labels) - SHARE) < 0.02 and abs(len(parts[2]) / len(labels) - SHARE) < 0.02


def test_small_classes(tmp_path: Path) -> None:
    """A single image trains, the second of two validates, the third of three is held out."""
    task = load(fill_classes(tmp_path, ant=1, bee=2, cat=3, dog=10))
    held_out = load(tmp_path, held_out=True)
    assert torch.bincount(task.train.labels, minlength=4).tolist()[:3] == [1, 1, 1]
    assert torch.bincount(task.val.labels, minlength=4).tolist()[:3] == [0, 1, 1]
    assert torch.bincount(held_out.val.labels, minlength=4).tolist()[:3] == [0, 0, 1]
    assert task.notes == ("no image of ant validates", "no image of ant, bee is held out")
    shutil.rmtree(tmp_path / "dog")
    shutil.rmtree(tmp_path / "cat")
    with pytest.raises(
        TaskError, match="too few images: no class has enough of them that one is held out beside those that train; at least 3"
    ):
        load(tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_half_of_val_is_held_out(tmp_path: Path, name: str) -> None:
    fill(tmp_path, val=name, val_images=12)
    found = names(tmp_path)
    assert len(found["train"]) == 8 and all(file.startswith("train/") for file in found["train"])
    assert found["val"] | found["test"] == {f"{name}/{c}/{i}.png" for c in ("cat", "dog") for i in range(12)}
    assert 6 <= len(found["test"]) <= 18 and load(tmp_path).rule == "by file names half of each class in val/ is held out"


def test_where_val_cannot_be_halved_training_images_are_held_out(tmp_path: Path) -> None:
    fill(tmp_path, val_images=1, images=10)
    found, task = names(tmp_path), load(tmp_path)
    assert found["val"] == {"val/cat/0.png", "val/dog/0.png"}
    assert all(file.startswith("train/") for file in found["test"]) and task.counts["test"] >= 2
    assert task.rule == "by file names 15 % of each class in train/ are held out"


def test_train_and_test_alone(tmp_path: Path) -> None:
    """What lies in test/ is seen by no search; some of the training images validate."""
    fill(tmp_path, val="test", images=10)
    found = names(tmp_path)
    assert found["test"] == {f"test/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)}
    assert all(file.startswith("train/") for file in found["val"]) and len(found["train"]) + len(found["val"]) == 20
    assert load(tmp_path).rule == "by file names 15 % of each class in train/ validate"


def test_train_alone(tmp_path: Path) -> None:
    fill(tmp_path, val="train", images=10)
    found = names(tmp_path)
    assert set.union(*found.values()) == {f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(10)}
    assert all(found.values())


def test_test_images_without_classes_are_left_out(tmp_path: Path) -> None:
    """As competitions give them."""
    fill(tmp_path, images=10)
    for i in range(3):
        save(picture(1), tmp_path, "test", f"{i}.png")
    task = load(tmp_path)
    assert task.notes == ("test/ has 3 images without classes, which are left out",)
    assert "half of each class in val/" in task.rule


def test_an_archive_unpacked_into_a_folder_of_its_name(tmp_path: Path) -> None:
    fill(tmp_path / "photos/photos/data")
    assert load(tmp_path / "photos").counts["train"] == 8
    fill_classes(tmp_path / "animals/animals", cat=5, dog=5)
    assert load(tmp_path / "animals").classes == ("cat", "dog")


def test_a_class_called_train_among_class_folders(tmp_path: Path) -> None:
    task = load(fill_classes(tmp_path, car=5, plane=5, train=5, test=5))
    assert task.classes == ("car", "plane", "test", "train")


def test_images_beside_class_folders(tmp_path: Path) -> None:
    save(picture(1), fill_classes(tmp_path, cat=5, dog=5), "overview.png")
    with pytest.raises(TaskError, match=f"task folder {tmp_path}: images lie in it without a class; put them into {tmp_path}/CLASS/"):
        load(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_classes(tmp_path, cat=5, dog=5)
    with pytest.raises(TaskError, match="gone cannot be read: No such file or directory; mend that"):
        read_folder(str(tmp_path / "gone"))
