"""A folder of images: what in it is a class, and which images train, validate and are held out.

Where the folder does not say which images validate or are held out, they are chosen here, by their names alone: whoever
reads the folder, with whatever seed, makes the same split, and images that are added later leave the others where they are.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np

from nasattn.errors import TaskError
from nasattn.tasks.images import Images, Ints

# the folders in which a split is looked for, in this order, whatever their case
SPLITS = {"train": ("train", "training"), "val": ("validation", "val", "valid", "eval", "evaluation"), "test": ("test", "testing")}
NAMES = frozenset(name for names in SPLITS.values() for name in names)
KINDS = (  # of image files, by the ends of their names
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".jp2", ".j2k", ".avif", ".tga", ".ico", ".sgi", ".pcx", ".dds", ".qoi"),
)
SHARE = 0.15  # of each class's images, to validate on, and the same to hold out
SPLIT_SEED = 0  # the same for all studies: else a trial with another seed would be scored on what the search has seen
SHOWN = 5  # names that a note tells


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
    train = _walk(places["train"])
    by_leaf = _leaves_are_classes(train)
    labels = {name: label for label, name in enumerate(sorted({_class_of(p, by_leaf) for p in train.images}, key=natural_key))}
    _check_classes(folder, train, labels, single)
    found = {"train": train}
    notes = [] if single else _beside(root, list(places.values()))
    for kind, place in places.items():
        if kind == "train":
            continue
        walked = _walk(place)
        if kind == "test" and walked.images and all("/" not in path for path in walked.images):
            notes.append(f"{place.name}/ has {len(walked.images):,} images without classes, which are left out")
            continue
        _check_split(folder, walked, by_leaf, labels)
        found[kind] = walked
    splits = {kind: _images(walked, by_leaf, labels) for kind, walked in found.items()}
    rule = _complete(folder, splits)
    notes += [note for walked in found.values() for note in walked.notes()]
    return ImageFolder(tuple(labels), splits, rule, (*notes, *_lacking(splits, tuple(labels))))


def natural_key(text: str) -> tuple[list[Any], str]:
    """Sorts ``2`` before ``10``, as timm does."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", text.lower())], text


def cut(names: Sequence[str], labels: Ints, *shares: float) -> list[Ints]:
    """Cut images in parts by their *names*: what stays, and of each class one part a share.

    A name's hash says to which part it belongs. So the parts of a class have about their shares; one is made larger or smaller where it
    has less than half or more than twice its share, or no image at all. The first part is served first; a class keeps an image at least.

    Args:
        names: Of the images, as they lie in the folder.
        labels: ``(N,)``.
        *shares: Of all images, each 0 to 1.

    Returns:
        The rows of what stays, then those of each part, in order.
    """
    places = np.array([_place(name) for name in names])
    order = np.lexsort((places, labels))
    part = np.zeros(len(names), np.int64)
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        first, below = 0, 0.0
        for number, share in enumerate(shares, start=1):
            below += share
            least, most = max(1, math.ceil(len(rows) * share / 2)), max(1, int(len(rows) * share * 2))
            wanted = int(np.searchsorted(places[rows], below)) - first
            taken = max(0, min(max(wanted, least), most, len(rows) - 1 - first))
            part[rows[first : first + taken]] = number
            first += taken
    return [np.flatnonzero(part == number) for number in range(len(shares) + 1)]


def _place(name: str) -> float:
    """Where *name* lies between 0 and 1, at random but always there."""
    digest = hashlib.sha256(f"{SPLIT_SEED}\0{name}".encode(errors="surrogateescape")).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)


@dataclass(frozen=True)
class _Walked:
    """What lies below a folder.

    Attributes:
        root: The folder.
        images: Their paths in it, with slashes, in natural order.
        others: How many other files there are, by the ends of their names.
        empty: Folders without anything to read.
    """

    root: Path
    images: list[str]
    others: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What of it is left out."""
        found = []
        if self.others:
            kinds = ", ".join(f"{kind} ({count:,})" for kind, count in self.others.most_common(SHOWN))
            more = f" and {len(self.others) - SHOWN} other kinds" if len(self.others) > SHOWN else ""
            found.append(f"left out of {self.root.name}/ is what is no image by its name: {kinds}{more}")
        if self.empty:
            found.append(f"no class, for want of images: {_some([f'{self.root.name}/{name}' for name in self.empty])}")
        return found


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


def _walk(root: Path) -> _Walked:
    """All images below *root*; hidden files and folders do not count. A folder is entered once, whatever links lead to it."""

    def refuse(error: OSError) -> None:
        raise TaskError(f"task folder {error.filename} cannot be read: {error.strerror}; mend that and run the same again") from None

    images: list[str] = []
    others: Counter[str] = Counter()
    filled: set[str] = set()
    folders: list[str] = []
    entered: set[str] = set()
    for place, below, files in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(place)) in entered:
            below.clear()
            continue
        entered.add(real)
        below[:] = [name for name in below if not _is_hidden(name)]
        relative = Path(os.path.relpath(place, root)).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        folders += [relative] if prefix else []
        for name in files:
            if _is_hidden(name):
                continue
            kind = os.path.splitext(name)[1].lower()
            if kind in KINDS:
                images.append(prefix + name)
                filled.update(map(str, PurePosixPath(prefix + name).parents) if relative not in filled else ())
            else:
                others[kind or "without an ending"] += 1
    empty = [name for name in folders if name not in filled and not any(other.startswith(f"{name}/") for other in folders)]
    return _Walked(root, sorted(images, key=natural_key), others, sorted(empty, key=natural_key))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(entry for entry in place.iterdir() if not _is_hidden(entry.name))
    except OSError as error:
        raise TaskError(f"task folder {place} cannot be read: {error.strerror}; mend that and run the same again") from None


def _folders(place: Path) -> list[Path]:
    return [entry for entry in _entries(place) if entry.is_dir()]


def _has_images(place: Path) -> bool:
    """Whether images lie in *place* itself."""
    return any(entry.suffix.lower() in KINDS and not entry.is_dir() for entry in _entries(place))


def _unwrapped(root: Path) -> Path:
    """The folder in which *root* has all that it has, as archives unpack: ``photos/photos/train``."""
    while (
        len(inner := _folders(root)) == 1
        and inner[0].name.lower() not in NAMES
        and not _has_images(root)
        and not _has_images(inner[0])
        and _folders(inner[0])
    ):
        root = inner[0]
    return root


def _find(root: Path, names: Sequence[str]) -> Path | None:
    folders = {place.name.lower(): place for place in reversed(_folders(root))}
    return next((folders[name] for name in names if name in folders), None)


def _is_class(root: Path, train: Path) -> bool:
    """Whether *train* is a class that happens to be called so: images lie in it, as in folders of other names beside it."""
    others = [place for place in _folders(root) if place.name.lower() not in NAMES]
    return not _folders(train) and any(map(_has_images, others))


def _check_single(folder: str, root: Path, places: Mapping[str, Path]) -> None:
    """Where there is no train/, a folder called as a split is a class, unless classes lie in it or nothing lies beside it."""
    for place in places.values():
        if _folders(place) or len(_folders(root)) == len(places):
            raise TaskError(
                f"task folder {folder}: no folder train/ beside {place.name}/; put the images that train into {root}/train/CLASS/, or all into {root}/CLASS/"
            )


def _leaves_are_classes(walked: _Walked) -> bool:
    """Whether the folders that hold images have different names and do not lie in each other."""
    folders = {PurePosixPath(path).parent for path in walked.images}
    nested = any(above in folders for f in folders for above in f.parents if above != PurePosixPath("."))
    return not nested and len({f.name for f in folders}) == len(folders)


def _class_of(path: str, by_leaf: bool) -> str:
    """The class of the image at *path*; empty where it lies in no folder."""
    *folders, _ = path.split("/")
    return folders[-1 if by_leaf else 0] if folders else ""


def _check_classes(folder: str, train: _Walked, labels: Mapping[str, int], single: bool) -> None:
    where = folder if single else f"{folder}: {train.root.name}/"
    if not train.images:
        raise TaskError(f"task folder {where} has no images; put them into {folder}/{'' if single else 'train/'}CLASS/")
    if "" in labels:
        raise TaskError(f"task folder {train.root}: images lie in it without a class; put them into {train.root}/CLASS/")
    if len(labels) < 2:
        raise TaskError(f"task folder {where} has 1 class folder with images, {next(iter(labels))}; at least 2 are needed")


def _check_split(folder: str, walked: _Walked, by_leaf: bool, labels: Mapping[str, int]) -> None:
    name = walked.root.name
    if not walked.images:
        raise TaskError(f"task folder {folder}: {name}/ has no images; put them into {folder}/{name}/CLASS/, or remove {name}/")
    classes = {_class_of(path, by_leaf) for path in walked.images}
    if "" in classes:
        raise TaskError(f"task folder {walked.root}: images lie in it without a class; put them into {walked.root}/CLASS/")
    if unknown := sorted(classes - set(labels), key=natural_key):
        raise TaskError(
            f"task folder {folder}: {name}/ has classes that train/ lacks: {_some(unknown)}; add them to train/ or remove them from {name}/"
        )


def _images(walked: _Walked, by_leaf: bool, labels: Mapping[str, int]) -> Images:
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
            found.append(f"no image of {_some(lacking)} {what}")
    return found


def _beside(root: Path, read: Sequence[Path]) -> list[str]:
    others = [place.name for place in _folders(root) if place not in read]
    return [f"left out, beside {read[0].name}/: {_some([f'{name}/' for name in others])}"] if others else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
