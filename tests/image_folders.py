"""Folders of small images for the tests of tasks and searches."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def picture(grey: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    return Image.new("RGB", size, (grey, grey, grey))


def save(image: Image.Image, *path: str | Path) -> Path:
    """Write *image* to that file; its folder is made."""
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def fill(folder: Path, train: str = "train", val: str = "val", images: int = 4, val_images: int = 2) -> Path:
    """Cats are dark, dogs are bright, each image a little brighter than the one before."""
    for split, count in ((train, images), (val, val_images)):
        for name, grey in (("cat", 10), ("dog", 200)):
            for i in range(count):
                save(picture(grey + i), folder, split, name, f"{i}.png")
    return folder


def fill_classes(folder: Path, **classes: int) -> Path:
    """So many images of each class, and no folders for splits."""
    for number, (name, count) in enumerate(classes.items()):
        for i in range(count):
            save(picture(60 * number + i % 60), folder, name, f"{i}.png")
    return folder
