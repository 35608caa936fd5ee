"""A folder of images: what in it is a class, and which images train, validate and are held out.

Where the folder does not say which images validate or are held out, they are chosen here, by their names alone: whoever
reads the folder, with whatever seed, makes the same split, and images that are added later leave the others where they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np

from nasattn.errors import TaskError
from nasattn.tasks.images import Images
from nasattn.tasks.split import SHARE, cut
from nasattn.tasks.walk import Walked, folders_in, has_images, natural_key, some, walk

# the folders in which a split is looked for, in this order, whatever their case
SPLITS = {"train": ("train", "training"), "val": ("validation", "val", "valid", "eval", "evaluation"), "test": ("test", "testing")}
NAMES = frozenset(name for names in SPLITS.values() for name in names)


@dataclass(frozen=True)
class ImageFolder:
    """A folder's images, cut in three.

    Attributes:
        classes: Their names, in label order.
        splits: The images of ``train``, ``val`` and ``test``.
        rule: How the splits came about, in a few words.
        notes: A line for everything in the folder that is left out, and for what is odd.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Images]
    rule: str
    notes: tuple[str, ...] = ()


def read_folder(folder: str) -> ImageFolder:
    """Find the images of *folder*: ``train/CLASS/*`` with ``val/`` and ``test/`` beside it or without, or ``CLASS/*`` alone.

    A class is a folder that holds images, whatever folders it lies in. Where such folders have the same name, or lie in each
    other, the uppermost folders are the classes.

    Raises:
        TaskError: No images, fewer than two classes, classes that training images lack, or too few images to hold some out.
    """
    root = _unwrapped(Path(folder))
    places = {kind: place for kind, names in SPLITS.items() if (place := _find(root, names)) is not None}
    if single := "train" not in places or _is_class(root, places["train"]):
        _check_single(folder, root, places)
        places = {"train": root}
    train = walk(places["train"])
    by_leaf = _leaves_are_classes(train)
    labels = {name: label for label, name in enumerate(sorted({_class_of(p, by_leaf) for p in train.images}, key=natural_key))}
    _check_classes(folder, train, labels, single)
    found = {"train": train}
    notes = [] if single else _beside(root, list(places.values()))
    for kind, place in places.items():
        if kind == "train":
            continue
        walked = walk(place)
        if kind == "test" and walked.images and all("/" not in path for path in walked.images):
            notes.append(f"{place.name}/ has {len(walked.images):,} images without classes, which are left out")
            continue
        _check_split(folder, walked, by_leaf, labels)
        found[kind] = walked
    splits = {kind: _images(walked, by_leaf, labels) for kind, walked in found.items()}
    rule = _complete(folder, splits)
    notes += [note for walked in found.values() for note in walked.notes()]
    return ImageFolder(tuple(labels), splits, rule, (*notes, *_lacking(splits, tuple(labels))))


@dataclass(frozen=True)
class _Reader:
    """What :class:`Images` asks of timm's readers: the files of a split.

    Attributes:
        root: The folder of the split.
        samples: ``(file, label)`` of each image.
    """

    root: str
    samples: list[tuple[str, int]]

    def filename(self, index: int, absolute: bool = False) -> str:
        """The file of an image."""
        path = self.samples[index][0]
        return path if absolute else os.path.relpath(path, self.root)


def _unwrapped(root: Path) -> Path:
    """The folder in which *root* has all that it has, as archives unpack: ``photos/photos/train``."""
    while (
        len(inner := folders_in(root)) == 1
        and inner[0].name.lower() not in NAMES
        and not has_images(root)
        and not has_images(inner[0])
        and folders_in(inner[0])
    ):
        root = inner[0]
    return root


def _find(root: Path, names: Sequence[str]) -> Path | None:
    folders = {place.name.lower(): place for place in reversed(folders_in(root))}
    return next((folders[name] for name in names if name in folders), None)


def _is_class(root: Path, train: Path) -> bool:
    """Whether *train* is a class that happens to be called so: images lie in it, as in folders of other names beside it."""
    others = [place for place in folders_in(root) if place.name.lower() not in NAMES]
    return not folders_in(train) and any(map(has_images, others))


def _check_single(folder: str, root: Path, places: Mapping[str, Path]) -> None:
    """Where there is no train/, a folder called as a split is a class, unless classes lie in it or nothing lies beside it."""
    for place in places.values():
        if folders_in(place) or len(folders_in(root)) == len(places):
            raise TaskError(
                f"task folder {folder}: no folder train/ beside {place.name}/; put the images that train into {root}/train/CLASS/, or all into {root}/CLASS/"
            )


def _leaves_are_classes(walked: Walked) -> bool:
    """Whether the folders that hold images have different names and do not lie in each other."""
    folders = {PurePosixPath(path).parent for path in walked.images}
    nested = any(above in folders for f in folders for above in f.parents if above != PurePosixPath("."))
    return not nested and len({f.name for f in folders}) == len(folders)


def _class_of(path: str, by_leaf: bool) -> str:
    """The class of the image at *path*; empty where it lies in no folder."""
    *folders, _ = path.split("/")
    return folders[-1 if by_leaf else 0] if folders else ""


def _check_classes(folder: str, train: Walked, labels: Mapping[str, int], single: bool) -> None:
    where = folder if single else f"{folder}: {train.root.name}/"
    if not train.images:
        raise TaskError(f"task folder {where} has no images; put them into {folder}/{'' if single else 'train/'}CLASS/")
    if "" in labels:
        raise TaskError(f"task folder {train.root}: images lie in it without a class; put them into {train.root}/CLASS/")
    if len(labels) < 2:
        raise TaskError(f"task folder {where} has 1 class folder with images, {next(iter(labels))}; at least 2 are needed")


def _check_split(folder: str, walked: Walked, by_leaf: bool, labels: Mapping[str, int]) -> None:
    name = walked.root.name
    if not walked.images:
        raise TaskError(f"task folder {folder}: {name}/ has no images; put them into {folder}/{name}/CLASS/, or remove {name}/")
    classes = {_class_of(path, by_leaf) for path in walked.images}
    if "" in classes:
        raise TaskError(f"task folder {walked.root}: images lie in it without a class; put them into {walked.root}/CLASS/")
    if unknown := sorted(classes - set(labels), key=natural_key):
        raise TaskError(
            f"task folder {folder}: {name}/ has classes that train/ lacks: {some(unknown)}; add them to train/ or remove them from {name}/"
        )


def _images(walked: Walked, by_leaf: bool, labels: Mapping[str, int]) -> Images:
    own = [labels[_class_of(path, by_leaf)] for path in walked.images]
    samples = [(os.path.join(walked.root, path), label) for path, label in zip(walked.images, own, strict=True)]
    dataset = SimpleNamespace(reader=_Reader(str(walked.root), samples))
    return Images(dataset, np.arange(len(own)), np.array(own, np.int64))


def _complete(folder: str, splits: dict[str, Images]) -> str:
    """Make the splits that are missing from those that are there. Returns how."""
    percent = f"{SHARE:.0%}".replace("%", " %")
    if "val" not in splits and "test" not in splits:
        splits["train"], splits["val"], splits["test"] = _parts(splits["train"], SHARE, SHARE)
        rule = f"split by file names: {percent} of each class validate, {percent} are held out"
    elif "val" not in splits:
        splits["train"], splits["val"] = _parts(splits["train"], SHARE)
        rule = f"by file names {percent} of each class in train/ validate"
    elif "test" not in splits:
        whole = splits["val"]
        splits["val"], splits["test"] = _parts(whole, 0.5)
        rule = "by file names half of each class in val/ is held out"
        if not len(splits["test"]):
            splits["train"], splits["test"] = _parts(splits["train"], SHARE)
            rule = f"by file names {percent} of each class in train/ are held out"
    else:
        rule = "as they lie in train/, val/ and test/"
    for kind, what in (("val", "validates"), ("test", "is held out")):
        if not len(splits[kind]):
            raise TaskError(
                f"task folder {folder}: too few images: no class has enough of them that one {what} beside those that train; at least 3 in a class are needed"
            )
    return rule


def _parts(images: Images, *shares: float) -> list[Images]:
    root, files = images.paths() or ("", [])
    names = [Path(os.path.relpath(file, root)).as_posix() for file in files]
    return [images.take(rows) for rows in cut(names, images.labels, *shares)]


def _lacking(splits: Mapping[str, Images], classes: Sequence[str]) -> list[str]:
    """Classes of which a split has no image."""
    found = []
    for kind, what in (("val", "validates"), ("test", "is held out")):
        present = set(splits[kind].labels.tolist())
        if lacking := [name for label, name in enumerate(classes) if label not in present]:
            found.append(f"no image of {some(lacking)} {what}")
    return found


def _beside(root: Path, read: Sequence[Path]) -> list[str]:
    others = [place.name for place in folders_in(root) if place not in read]
    return [f"left out, beside {read[0].name}/: {some([f'{name}/' for name in others])}"] if others else []
