"""Images from a folder or a torchvision dataset, read by timm's `create_dataset`, decoded once into memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from nasattn.errors import TaskError
from nasattn.tasks.task import Split, Task, TaskRequest

# the folders in which timm looks for a split, in its order; `test` stands in for the validation images where there are no others
SPLITS = {"train": ("train", "training"), "val": ("validation", "val", "valid", "eval", "evaluation", "test")}


def folder_task(folder: str, request: TaskRequest) -> Task:
    """A folder with ``train/CLASS/*`` and ``val/CLASS/*`` (or timm's synonyms, such as ``validation``).

    Raises:
        TaskError: No train or val folder, no image in it, classes that differ, or an image that cannot be decoded.
    """
    train_folder, val_folder = (_split_folder(folder, split) for split in SPLITS)
    train = _open("", train_folder, "train", search_split=False)
    class_to_idx = _classes(train, train_folder)
    if len(class_to_idx) < 2:
        raise TaskError(f"task folder {folder}: train/ has {len(class_to_idx)} class folder with images; at least 2 are needed")
    unknown = set(_classes(_open("", val_folder, "validation", search_split=False), val_folder)) - set(class_to_idx)
    if unknown:
        raise TaskError(
            f"task folder {folder}: val/ has classes that train/ lacks: {', '.join(sorted(unknown))}; add them to train/ or remove them"
        )
    val = _open("", val_folder, "validation", search_split=False, class_map=class_to_idx)
    return _task(folder, tuple(class_to_idx), train, val, request)


def torchvision_task(name: str, request: TaskRequest) -> Task:
    """A torchvision dataset by timm's name, ``torch/cifar100``, from the folder NASATTN_DATA (default ``data``). Nothing is downloaded.

    Raises:
        TaskError: timm does not know the name, or the data are not in the folder.
    """
    root = os.environ.get("NASATTN_DATA", "data")
    train, val = _open(name, root, "train"), _open(name, root, "validation")
    if getattr(val, "classes", None) != getattr(train, "classes", None):  # torch/image_folder numbers the classes of each folder by itself
        raise TaskError(f"task {name}: train has the classes {train.classes}, validation {val.classes}; both need the same")
    classes = getattr(train, "classes", None) or sorted({int(train[i][1]) for i in range(len(train))})
    return _task(name, tuple(map(str, classes)), train, val, request)


def _split_folder(folder: str, split: str) -> str:
    found = next((Path(folder) / name for name in SPLITS[split] if (Path(folder) / name).is_dir()), None)
    if found is None:
        raise TaskError(f"task folder {folder}: no folder {split}/ in it; put images into {folder}/train/CLASS/ and {folder}/val/CLASS/")
    return str(found)


def _classes(dataset: Any, folder: str) -> dict[str, int]:
    classes: dict[str, int] = dataset.reader.class_to_idx
    if "" in classes:  # timm's name for the class of images that lie in the folder itself
        raise TaskError(f"task folder {folder}: images lie in it without a class; put them into {folder}/CLASS/")
    return classes


def _open(name: str, root: str, split: str, **kwargs: Any) -> Any:
    from timm.data import create_dataset

    try:
        dataset = create_dataset(name, root=root, split=split, **kwargs)
        empty = len(dataset) == 0
    except (OSError, RuntimeError, ValueError, AssertionError, KeyError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "put the data there or set NASATTN_DATA to their folder" if name else "put images into CLASS folders there"
        raise TaskError(f"task {name or root}: the {split} images cannot be read from {root}: {what}; {remedy}") from None
    if empty:
        raise TaskError(f"task {name or root}: no {split} images in {root}; put images into CLASS folders there")
    return dataset


def _task(name: str, classes: tuple[str, ...], train: Any, val: Any, request: TaskRequest) -> Task:
    return Task(
        name=name,
        classes=classes,
        train=_decode(train, request.samples, request, key=0),
        val=_decode(val, request.val_samples, request, key=1),
    )


def _decode(dataset: Any, samples: int | None, request: TaskRequest, key: int) -> Split:
    """The chosen images at the request's resolution: the shorter side resized to it, the centre cut out."""
    order = np.random.default_rng((request.seed, key)).permutation(len(dataset))[:samples]
    images = np.empty((len(order), request.resolution, request.resolution, 3), np.uint8)
    labels = np.empty(len(order), np.int64)
    for row, index in enumerate(order):
        image, labels[row] = _read(dataset, int(index))
        images[row] = np.asarray(_fit(image, request.resolution))
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))


def _read(dataset: Any, index: int) -> tuple[Image.Image, int]:
    """Image *index* as RGB and its label. timm's own ``dataset[index]`` would silently take the next image for a broken one."""
    reader = getattr(dataset, "reader", None)
    try:
        if reader is None:
            image, label = dataset[index]
            return _rgb(image), int(label)
        file, label = reader[index]
        with file, Image.open(file) as image:
            return _rgb(image), int(label)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        path = reader.filename(index, absolute=True) if reader else f"number {index}"
        raise TaskError(f"image {path} cannot be decoded ({type(error).__name__}); repair or remove it") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit greys at 255, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _fit(image: Image.Image, resolution: int) -> Image.Image:
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR) if image.size != (width, height) else image
    return resized.crop((left, top, left + resolution, top + resolution))
