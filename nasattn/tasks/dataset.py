"""Images from a folder, a torchvision dataset or the Hugging Face hub, read by timm's `create_dataset`.

Each is cut in three: images to train on, images to validate on, and images that are held out. Validation images choose
the placements of a search, so its accuracies flatter them; the held-out ones are read only when a request asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasattn.errors import TaskError
from nasattn.tasks.cache import checked, decoded, most_left_out, reserve
from nasattn.tasks.images import Images
from nasattn.tasks.stream import StreamedSplit, memory_limit
from nasattn.tasks.task import Split, Task, TaskRequest

# the folders in which timm looks for a split, in its order
TRAIN, VAL, TEST = ("train", "training"), ("validation", "val", "valid", "eval", "evaluation"), ("test",)
VAL_SHARE = 0.1  # of the training images, where there are test images but none for validation
FOLDERS = ("torch/image_folder", "torch/folder")  # torchvision's reader of folders


def folder_task(folder: str, request: TaskRequest) -> Task:
    """A folder with ``train/CLASS/*`` and ``val/CLASS/*`` (or timm's synonyms, such as ``validation``).

    Held out are the images in ``test/`` beside ``val/``. Where there is one of the two folders, half of the images of each of
    its classes are held out and the other half validates.

    Raises:
        TaskError: No train or val folder, no image in it, classes that differ, or more broken images than may be left out.
    """
    train_folder, (val_folder, halved) = _folder_of(folder, "train", TRAIN), _scored_folder(folder, request.held_out)
    train = _open("", train_folder, "train", search_split=False)
    class_to_idx = _classes(train, train_folder)
    if len(class_to_idx) < 2:
        raise TaskError(f"task folder {folder}: train/ has {len(class_to_idx)} class folder with images; at least 2 are needed")
    unknown = set(_classes(_open("", val_folder, "validation", search_split=False), val_folder)) - set(class_to_idx)
    if unknown:
        name = "test" if Path(val_folder).name in TEST else "val"
        raise TaskError(
            f"task folder {folder}: {name}/ has classes that train/ lacks: {', '.join(sorted(unknown))}; add them to train/ or remove them"
        )
    val = Images.of(_open("", val_folder, "validation", search_split=False, class_map=class_to_idx))
    trained = Images.of(train)
    sources = {"train": trained, "val": val}
    return _task(folder, tuple(class_to_idx), trained, _half(folder, val, request) if halved else val, request, sources)


def torchvision_task(name: str, request: TaskRequest) -> Task:
    """A torchvision dataset by timm's name, ``torch/cifar100``, from the folder NASATTN_DATA (default ``data``). Nothing is downloaded.

    Torchvision's test set (for ImageNet and others its validation set) is held out; a tenth of the training images of each class
    validates and is not trained on. ``torch/image_folder`` is cut as any folder.

    Raises:
        TaskError: timm does not know the name, or the data are not in the folder.
    """
    root = os.environ.get("NASATTN_DATA", "data")
    if name.lower() in FOLDERS:
        if _find(root, TRAIN) is None:
            raise TaskError(
                f"task {name}: no folder train/ in {root}; say where your images are: --task FOLDER, or NASATTN_DATA=FOLDER, "
                "with train/CLASS/ and val/CLASS/ in it"
            )
        train_folder, (val_folder, halved) = _folder_of(root, "train", TRAIN), _scored_folder(root, request.held_out)
        train, val = (
            _open(name, folder, split, search_split=False) for folder, split in ((train_folder, "train"), (val_folder, "validation"))
        )
        _require_same_classes(name, train, val)
        trained, scored = Images.of(train), Images.of(val)
        sources = {"train": trained, "val": scored}
        return _task(name, tuple(train.classes), trained, _half(name, scored, request) if halved else scored, request, sources)
    train = _open(name, root, "train")
    images = Images.of(train)
    sources = {"train": images}
    trained, scored = images.part(VAL_SHARE)
    if request.held_out:
        test = _open(name, root, "validation")
        _require_same_classes(name, train, test)
        scored = sources["test"] = Images.of(test)
    classes = getattr(train, "classes", None) or np.unique(images.labels).tolist()
    return _task(name, tuple(map(str, classes)), trained, scored, request, sources)


def hfds_task(name: str, request: TaskRequest) -> Task:
    """A dataset of the Hugging Face hub or on disk by timm's name, ``hfds/timm/mini-imagenet`` or ``hfds/./folder``.

    It is kept in the folder NASATTN_DATA, else in Hugging Face's own cache; what is not there is downloaded, unless
    HF_HUB_OFFLINE is set. The image column is the first of that type, the label column the first of classes. Its splits
    validation and test are used as such; without a test split half of validation is held out; without a validation split a
    tenth of the training images validates, and with neither another tenth is held out.

    Raises:
        TaskError: The package `datasets` is missing, the dataset cannot be had, or it has no images with classes.
    """
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise TaskError(f"task {name} needs the package datasets, which is not installed: pip install nasattn[hf]") from None
    root = os.environ.get("NASATTN_DATA")
    found = _load_hub(name, root)
    splits = {kind: next((s for s in names if s in found), None) for kind, names in (("train", TRAIN), ("val", VAL), ("test", TEST))}
    if splits["train"] is None:
        raise TaskError(f"task {name}: no split train, only {', '.join(found)}; choose a dataset with one")
    image_key, label_key, classes = _columns(name, found[splits["train"]].features)

    sources: dict[str, Images] = {}

    def images(kind: str) -> Images:
        sources[kind] = Images.of(_open(name, root, str(splits[kind]), input_key=image_key, target_key=label_key))
        return sources[kind]

    trained = images("train")
    if splits["val"] and splits["test"]:
        scored = images("test" if request.held_out else "val")
    elif splits["val"]:
        scored = _half(name, images("val"), request)
    elif splits["test"]:
        trained, scored = trained.part(VAL_SHARE)
        scored = images("test") if request.held_out else scored
    else:
        trained, others = trained.part(2 * VAL_SHARE)
        scored = _half(name, others, request)
    return _task(name, classes or tuple(map(str, np.unique(trained.labels).tolist())), trained, scored, request, sources)


def _load_hub(name: str, root: str | None) -> Any:
    """The splits of a Hugging Face dataset by name."""
    import datasets

    try:
        return datasets.load_dataset(name.split("/", 1)[1], cache_dir=root)
    except ConnectionError:
        where = root or "the Hugging Face cache"
        raise TaskError(
            f"task {name}: it is not in {where} and the Hugging Face hub cannot be reached; go online once, unset HF_HUB_OFFLINE, or put it there"
        ) from None
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise TaskError(
            f"task {name}: the dataset cannot be loaded: {_first_line(error)}; write hfds/OWNER/NAME or hfds/./FOLDER"
        ) from None


def _columns(name: str, features: Any) -> tuple[str, str, tuple[str, ...]]:
    """The names of the image column and of the label column, and the classes, if they have names."""
    import datasets

    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    named = {key: tuple(kind.names) for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    label = "label" if "label" in features else next(iter(named), None)
    if image is None or label is None:
        raise TaskError(f"task {name}: it needs a column of images and one of classes, got {', '.join(features)}; choose another dataset")
    return image, label, named.get(label, ())


def _folder_of(folder: str, split: str, names: tuple[str, ...]) -> str:
    found = _find(folder, names)
    if found is None:
        raise TaskError(f"task folder {folder}: no folder {split}/ in it; put images into {folder}/train/CLASS/ and {folder}/val/CLASS/")
    return found


def _find(folder: str, names: tuple[str, ...]) -> str | None:
    return next((str(Path(folder) / name) for name in names if (Path(folder) / name).is_dir()), None)


def _scored_folder(folder: str, held_out: bool) -> tuple[str, bool]:
    """The folder to score on, and whether the held-out images lie in it too."""
    val, test = _find(folder, VAL), _find(folder, TEST)
    if val and test:
        return (test if held_out else val), False
    return _folder_of(folder, "val", (*VAL, *TEST)), True


def _half(name: str, images: Images, request: TaskRequest) -> Images:
    """The half of *images* that validates, or the one that is held out."""
    val, held_out = images.part(0.5)
    if request.held_out and not len(held_out):
        raise TaskError(f"task {name}: no images to hold out: each class has one validation image; put others into test/")
    return held_out if request.held_out else val


def _require_same_classes(name: str, train: Any, val: Any) -> None:
    """torchvision numbers the classes of each folder by itself."""
    if getattr(val, "classes", None) != getattr(train, "classes", None):
        raise TaskError(f"task {name}: train has the classes {train.classes}, validation {val.classes}; both need the same")


def _classes(dataset: Any, folder: str) -> dict[str, int]:
    classes: dict[str, int] = dataset.reader.class_to_idx
    if "" in classes:  # timm's name for the class of images that lie in the folder itself
        raise TaskError(f"task folder {folder}: images lie in it without a class; put them into {folder}/CLASS/")
    return classes


def _open(name: str, root: str | None, split: str, **kwargs: Any) -> Any:
    from timm.data import create_dataset

    try:
        dataset = create_dataset(name, root=root, split=split, **kwargs)
        empty = len(dataset) == 0
    except (OSError, RuntimeError, ValueError, AssertionError, KeyError) as error:
        remedy = "put the data there or set NASATTN_DATA to their folder" if name else "put images into CLASS folders there"
        raise TaskError(f"task {name or root}: the {split} images cannot be read from {root}: {_first_line(error)}; {remedy}") from None
    if empty:
        raise TaskError(f"task {name or root}: no {split} images in {root}; put images into CLASS folders there")
    return dataset


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True)
class _Chosen:
    """The images of a split that a request asks for.

    Attributes:
        images: In an order; more than asked for, in case that some are broken.
        read: So many of them are needed, the first that can be decoded.
        kept: So many of these the split holds.
    """

    images: Images
    read: int
    kept: int


def _task(name: str, classes: tuple[str, ...], train: Images, val: Images, request: TaskRequest, sources: Mapping[str, Images]) -> Task:
    chosen = _choose(train, request.samples, request.seed, 0), _choose(val, request.val_samples, request.seed, 1)
    train_bytes, val_bytes = (c.kept * 3 * request.resolution**2 for c in chosen)
    limit = memory_limit()
    streamed = train_bytes + val_bytes > limit
    train_split, skipped = _split(chosen[0], request.resolution, streamed)
    val_split, val_skipped = _split(chosen[1], request.resolution, streamed and val_bytes > limit)
    return Task(name=name, classes=classes, train=train_split, val=val_split, skipped=skipped + val_skipped, sources=sources)


def _choose(images: Images, samples: int | None, seed: int, key: int) -> _Chosen:
    """The seed's subset; all images lie in the same order for every seed, so that the decoded ones are shared.

    Who asks for as many as can be decoded gets the same as who asks for all: a study that found some broken goes on so.
    """
    count = len(images)
    kept = count if samples is None else min(samples, count)
    whole = kept + most_left_out(count) >= count
    order = np.random.default_rng((0 if whole else seed, key)).permutation(count)
    return _Chosen(images.take(order), count, kept) if whole else _Chosen(images.take(order[: kept + reserve(kept)]), kept, kept)


def _split(chosen: _Chosen, resolution: int, streamed: bool) -> tuple[Split | StreamedSplit, tuple[str, ...]]:
    """The split, and the names of images that are left out of it since they cannot be decoded."""
    if streamed:
        found = checked(chosen.images, chosen.read)
        return StreamedSplit(found.images.take(slice(chosen.kept)), resolution), found.broken.names()
    found = decoded(chosen.images, resolution, chosen.read)
    assert found.pixels is not None
    labels = found.images.labels[: chosen.kept]
    return Split(torch.from_numpy(found.pixels[: chosen.kept]), torch.from_numpy(labels)), found.broken.names()
