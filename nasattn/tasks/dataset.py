"""Images from a folder, a torchvision dataset or the Hugging Face hub, the last two read by timm's `create_dataset`.

Each is cut in three: images to train on, images to validate on, and images that are held out. Validation images choose
the placements of a search, so its accuracies flatter them; the held-out ones are read only when a request asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nasattn.errors import TaskError
from nasattn.tasks.cache import checked, decoded, most_left_out, reserve
from nasattn.tasks.folder import SPLITS, read_folder
from nasattn.tasks.images import Images
from nasattn.tasks.stream import StreamedSplit, memory_limit
from nasattn.tasks.task import Split, Task, TaskRequest

TRAIN, VAL, TEST = SPLITS.values()
VAL_SHARE = 0.1  # of the training images, where there are test images but none for validation
FOLDERS = ("torch/image_folder", "torch/folder")  # torchvision's names for folders


def folder_task(folder: str, request: TaskRequest, name: str | None = None) -> Task:
    """A folder of images (see :func:`nasattn.tasks.folder.read_folder`), called *name*, else as the folder.

    Raises:
        TaskError: The folder is not laid out as it should be, or holds more broken images than may be left out.
    """
    found = read_folder(folder)
    scored = found.splits["test" if request.held_out else "val"]
    task = _task(name or folder, found.classes, found.splits["train"], scored, request, found.splits)
    return replace(task, counts={kind: len(images) for kind, images in found.splits.items()}, rule=found.rule, notes=found.notes)


def torchvision_task(name: str, request: TaskRequest) -> Task:
    """A torchvision dataset by timm's name, ``torch/cifar100``, from the folder NASATTN_DATA (default ``data``). Nothing is downloaded.

    Torchvision's test set (for ImageNet and others its validation set) is held out; a tenth of the training images of each class
    validates and is not trained on. ``torch/image_folder`` is read as any folder.

    Raises:
        TaskError: timm does not know the name, or the data are not in the folder.
    """
    root = os.environ.get("NASATTN_DATA", "data")
    if name.lower() in FOLDERS:
        if not os.path.isdir(root):
            raise TaskError(f"task {name}: no folder {root}; say where your images are: --task FOLDER, or NASATTN_DATA=FOLDER")
        return folder_task(root, request, name)
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
    counts = {"train": len(train), "test" if request.held_out else "val": len(val)}
    return Task(name, classes, train_split, val_split, skipped + val_skipped, sources, counts=counts)


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
