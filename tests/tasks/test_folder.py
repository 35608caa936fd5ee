"""A folder of images: real files of every kind, and what a folder that is wrong is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import TaskRequest, load_task
from tests.image_folders import fill, picture, save


def in_mode(grey: int, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.full((16, 20), grey * 257, np.uint16))
    return picture(grey).quantize(4) if mode == "P" else picture(grey).convert(mode)


def greys(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def refused(folder: Path) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(str(folder), TaskRequest(resolution=12))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder(tmp_path: Path) -> None:
    task = load_task(str(fill(tmp_path)), TaskRequest(resolution=12))
    assert (task.name, task.classes) == (str(tmp_path), ("cat", "dog"))
    assert task.train.images.shape == (8, 3, 12, 12)
    assert sorted(greys(task.train.images)) == [10, 11, 12, 13, 200, 201, 202, 203]
    assert len(task.val) == 2  # the other half is held out
    for split in (task.train, task.val):
        assert [int(g >= 200) for g in greys(split.images)] == split.labels.tolist()


@pytest.mark.parametrize(("train", "val"), [("training", "validation"), ("train", "valid"), ("train", "eval"), ("Train", "Valid")])
def test_other_names_of_the_splits(tmp_path: Path, train: str, val: str) -> None:
    task = load_task(str(fill(tmp_path, train, val)), TaskRequest(resolution=12))
    assert (len(task.train), len(task.val)) == (8, 2)
    save(picture(0), tmp_path, val, "cow", "0.png")
    assert f"{val}/ has classes that train/ lacks: cow" in refused(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path)
    for split in ("train", "val"):
        for name in ("train", "val", "test"):
            save(picture(100), tmp_path, split, name, "0.png")
    assert load_task(str(tmp_path)).classes == ("cat", "dog", "test", "train", "val")


def test_classes_in_folders_of_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            save(picture(1 + i), tmp_path, split, "animals", "cat", f"{i}.png")
            save(picture(5 + i), tmp_path, split, "things", "cup", f"{i}.png")
    assert load_task(str(tmp_path)).classes == ("cat", "cup")


@pytest.mark.parametrize("inner", [("images",), ("red", "blue"), (".",), ("a/b", "a")])
def test_the_uppermost_folder_is_the_class_where_the_innermost_cannot_be(tmp_path: Path, inner: tuple[str, ...]) -> None:
    """Of Tiny ImageNet every class has its images in a folder `images`."""
    for split in ("train", "val"):
        for name in ("cat", "dog", "cow"):
            for place in inner:
                for i in range(2):
                    save(picture(1 + i), tmp_path, split, name, place, f"{i}.png")
    task = load_task(str(tmp_path), TaskRequest(12))
    assert (task.classes, len(task.train)) == (("cat", "cow", "dog"), 6 * len(inner))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    """Whatever the file holds becomes RGB of the same brightness."""
    fill(tmp_path)
    grey = 255 if mode == "1" else 90
    file = save(in_mode(grey, mode), tmp_path, "train", "cow", "0.jpg" if mode == "CMYK" else "0.png")
    with Image.open(file) as back:
        assert back.mode == mode
    task = load_task(str(tmp_path), TaskRequest(resolution=12))
    cow = task.train.images[task.train.labels == task.classes.index("cow")]
    assert (cow.int() - grey).abs().max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (12, 12), (13, 12), (301, 77)])
def test_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    fill(tmp_path)
    save(picture(90, size), tmp_path, "train", "cow", "0.jpg")
    task = load_task(str(tmp_path), TaskRequest(resolution=12))
    cow = task.train.images[task.train.labels == task.classes.index("cow")]
    assert cow.shape == (1, 3, 12, 12)
    assert (cow.int() - 90).abs().max() <= 2


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    """A wide image with bright ends: at the height's resolution its dark middle remains."""
    fill(tmp_path)
    pixels = np.full((10, 50, 3), 250, np.uint8)
    pixels[:, 15:35] = 20
    save(Image.fromarray(pixels), tmp_path, "train", "cow", "0.png")
    task = load_task(str(tmp_path), TaskRequest(resolution=10))
    assert (task.train.images[task.train.labels == task.classes.index("cow")] == 20).all()


def test_the_subset_is_seeded(tmp_path: Path) -> None:
    fill(tmp_path, images=20)
    one, again, other = (load_task(str(tmp_path), TaskRequest(12, samples=10, val_samples=1, seed=s)) for s in (0, 0, 1))
    assert (len(one.train), len(one.val)) == (10, 1)
    assert torch.equal(one.train.images, again.train.images) and torch.equal(one.val.labels, again.val.labels)
    assert set(greys(one.train.images)) != set(greys(other.train.images))


def test_held_out_images_lie_in_test(tmp_path: Path) -> None:
    """A search does not open them: what is broken there shows only when they are asked for. Classes that are wrong show at once."""
    fill(tmp_path)
    for name, grey in (("cat", 50), ("dog", 150)):
        save(picture(grey), tmp_path, "test", name, "0.png")
    plain, held_out = (load_task(str(tmp_path), TaskRequest(12, held_out=h)) for h in (False, True))
    assert sorted(greys(plain.val.images)) == [10, 11, 200, 201]
    assert sorted(zip(greys(held_out.val.images), held_out.val.labels.tolist(), strict=True)) == [(50, 0), (150, 1)]
    assert torch.equal(plain.train.images, held_out.train.images) and torch.equal(plain.train.labels, held_out.train.labels)
    assert plain.counts == held_out.counts == {"train": 8, "val": 4, "test": 2}

    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    assert len(load_task(str(tmp_path), TaskRequest(12)).val) == 4
    with pytest.raises(TaskError, match=f"images {tmp_path}/test/.*png cannot be decoded: 2 of 2, at most 1 may be left out"):
        load_task(str(tmp_path), TaskRequest(12, held_out=True))
    save(picture(1), tmp_path, "test", "cow", "0.png")
    assert "test/ has classes that train/ lacks: cow; add them to train/ or remove them from test/" in refused(tmp_path)


def test_a_missing_split(tmp_path: Path) -> None:
    assert f"task folder {tmp_path} has no images; put them into {tmp_path}/CLASS/" in refused(tmp_path)
    save(picture(1), tmp_path, "train", "cat", "0.png")
    assert f"task folder {tmp_path}: train/ has 1 class folder with images, cat; at least 2 are needed" in refused(tmp_path)


@pytest.mark.parametrize("alone", ["val", "test"])
def test_no_images_to_train_on(tmp_path: Path, alone: str) -> None:
    fill(tmp_path, train=alone, val=alone)
    assert f"task folder {tmp_path}: no folder train/ beside {alone}/; put the images that train into {tmp_path}/train/CLASS/" in refused(
        tmp_path
    )
    for name in ("cat", "dog"):
        save(picture(1), tmp_path, name, "0.png")
    assert f"no folder train/ beside {alone}/" in refused(tmp_path)


def test_classes_that_are_wrong(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "val/cow").mkdir()
    (tmp_path / "train/cow").mkdir()
    task = load_task(str(tmp_path))
    assert task.classes == ("cat", "dog")  # an empty folder is no class
    assert task.notes == ("no class, for want of images: train/cow", "no class, for want of images: val/cow")
    save(picture(1), tmp_path, "val", "cow", "0.png")
    save(picture(1), tmp_path, "val", "ant", "0.png")
    message = f"task folder {tmp_path}: val/ has classes that train/ lacks: ant, cow; add them to train/ or remove them from val/"
    assert refused(tmp_path) == message


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    save(picture(1), tmp_path, "train", "cat", "0.png")
    save(picture(1), tmp_path, "val", "cat", "0.png")
    (tmp_path / "train/dog").mkdir()
    (tmp_path / "train/dog/notes.txt").write_text("no image yet")
    assert "train/ has 1 class folder with images, cat; at least 2 are needed" in refused(tmp_path)


def test_no_images_at_all(tmp_path: Path) -> None:
    fill(tmp_path)
    for file in (tmp_path / "val").rglob("*.png"):
        file.unlink()
    assert refused(tmp_path) == f"task folder {tmp_path}: val/ has no images; put them into {tmp_path}/val/CLASS/, or remove val/"


def test_images_outside_of_class_folders(tmp_path: Path) -> None:
    fill(tmp_path)
    save(picture(1), tmp_path, "train", "stray.png")
    message = f"task folder {tmp_path}/train: images lie in it without a class; put them into {tmp_path}/train/CLASS/"
    assert refused(tmp_path) == message


def test_what_is_no_image_is_left_out_and_told(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("a.txt", "b.TXT", "photo.heic", "noending", ".hidden.png", "._0.png", "Thumbs.db"):
        (tmp_path / "train/cat" / name).write_bytes(b"x")
    save(picture(1), tmp_path, "train", ".thumbnails", "0.png")
    save(picture(1), tmp_path, "extra", "0.png")
    task = load_task(str(tmp_path), TaskRequest(12))
    assert (len(task.train), task.skipped) == (8, ())
    assert task.notes == (
        "left out, beside train/: extra/",
        "left out of train/ is what is no image by its name: .txt (2), .heic (1), without an ending (1)",
    )


@pytest.mark.parametrize("kind", ["webp", "bmp", "tif", "gif", "JPG", "ppm", "jp2"])
def test_files_of_all_kinds_are_found(tmp_path: Path, kind: str) -> None:
    fill(tmp_path)
    save(picture(90), tmp_path, "train", "cow", f"0.{kind}")
    assert load_task(str(tmp_path), TaskRequest(12)).classes == ("cat", "cow", "dog")


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "a2", "A10", "²", "٣"):
        for i in range(3):
            save(picture(i), tmp_path, name, f"{i}.png")
    assert load_task(str(tmp_path), TaskRequest(12)).classes == ("9", "10", "a2", "A10", "²", "٣")


def test_links(tmp_path: Path) -> None:
    """A linked class counts, and a link to what it lies in is no endless way."""
    fill(tmp_path / "photos")
    save(picture(50), tmp_path, "elsewhere", "0.png")
    (tmp_path / "photos/train/cow").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "photos/train")
    task = load_task(str(tmp_path / "photos"), TaskRequest(12))
    assert (task.classes, len(task.train)) == (("cat", "cow", "dog"), 9)
    assert "no image of cow validates" in task.notes
