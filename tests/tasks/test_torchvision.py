"""torchvision's datasets, read by timm from the folder NASATTN_DATA: real files in their own formats."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import Split, StreamedSplit, TaskRequest, load_task


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASATTN_DATA", str(tmp_path))
    return tmp_path


def write_idx(path: Path, values: np.ndarray) -> None:
    """The format of MNIST's files: a magic number with the type and the number of axes, their lengths, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{values.ndim + 1}I", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes())


def write_mnist(folder: Path, train: int = 40, val: int = 20) -> None:
    """Training image i is grey i, a test image brighter by 100; the label is i modulo 10."""
    for name, count, first in (("train", train, 0), ("t10k", val, 100)):
        numbers = np.arange(first, first + count)
        write_idx(folder / f"raw/{name}-images-idx3-ubyte", np.broadcast_to(numbers[:, None, None], (count, 28, 28)))
        write_idx(folder / f"raw/{name}-labels-idx1-ubyte", numbers % 10)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_greys_of_28_pixels(data: Path, name: str, folder: str) -> None:
    write_mnist(data / folder)
    task, held_out = (load_task(f"torch/{name}", TaskRequest(resolution=14, held_out=h)) for h in (False, True))
    assert (task.name, len(task.classes), task.in_chans) == (f"torch/{name}", 10, 3)
    assert (task.train.images.shape, task.val.images.shape) == ((30, 3, 14, 14), (10, 3, 14, 14))
    for split in (task.train, task.val, held_out.val):
        assert torch.equal(split.images[:, 0, 0, 0].long() % 10, split.labels)
    assert sorted(greys(task.train) + greys(task.val)) == list(range(40))
    assert sorted(task.val.labels.tolist()) == list(range(10))  # of each class
    assert sorted(greys(held_out.val)) == list(range(100, 120))
    assert torch.equal(task.train.images, held_out.train.images)


def greys(split: Split | StreamedSplit) -> list[int]:
    assert isinstance(split, Split)
    return split.images[:, 0, 0, 0].tolist()


def test_validation_images_are_the_same_for_every_seed_and_test_images_stay_unread(data: Path) -> None:
    write_mnist(data / "MNIST")
    (data / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"broken")
    one, other = (load_task("torch/mnist", TaskRequest(14, seed=s)) for s in (0, 1))
    assert sorted(greys(one.val)) == sorted(greys(other.val))
    assert not set(greys(one.train)) & set(greys(other.val))
    with pytest.raises(TaskError, match="task torch/mnist: the validation images cannot be read"):
        load_task("torch/mnist", TaskRequest(14, held_out=True))


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of pickled rows, 3 x 32 x 32: image i of the training batches is grey i, of the test batch brighter by 100."""
    folder.mkdir(parents=True)
    sums = {}
    for name, first in [(f"data_batch_{b}", 20 * b - 20) for b in range(1, 6)] + [("test_batch", 100)]:
        numbers = np.arange(first, first + 20)
        rows = np.broadcast_to(numbers[:, None], (20, 3072)).astype(np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": (numbers % 10).tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    for file in folder.iterdir():
        sums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[f"data_batch_{b}", sums[f"data_batch_{b}"]] for b in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})


def test_cifar10(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(data / "cifar-10-batches-py", monkeypatch)
    task, held_out = (load_task("torch/cifar10", TaskRequest(32, held_out=h)) for h in (False, True))
    assert task.classes == tuple(f"class{i}" for i in range(10))
    assert (len(task.train), len(task.val), len(held_out.val)) == (90, 10, 20)
    assert sorted(greys(task.train) + greys(task.val)) == list(range(100))
    assert sorted(greys(held_out.val)) == list(range(100, 120))


def test_subsets_are_seeded(data: Path) -> None:
    write_mnist(data / "MNIST")
    one, again, other = (load_task("torch/mnist", TaskRequest(28, samples=9, val_samples=5, seed=s)) for s in (3, 3, 4))
    assert (len(one.train), len(one.val)) == (9, 5)
    assert torch.equal(one.train.images, again.train.images)
    assert not torch.equal(one.train.images, other.train.images)


def test_an_image_folder(data: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0))):
            (data / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (9, 11), colour).save(data / split / name / f"{i}.png")
    task, held_out = (load_task("torch/image_folder", TaskRequest(resolution=8, held_out=h)) for h in (False, True))
    assert (task.classes, len(task.train), len(task.val), len(held_out.val)) == (("green", "red"), 6, 2, 2)
    assert torch.equal((task.train.images[:, 0, 0, 0] == 200).long(), task.train.labels)

    (data / "val/red").rename(data / "val/blue")
    with pytest.raises(TaskError, match="val/ has classes that train/ lacks: blue"):
        load_task("torch/image_folder")
    (data / "val/blue").rename(data / "val/red")
    for i in range(2):
        (data / f"val/red/{i}.png").write_bytes(b"no image")
    (skipped,) = load_task("torch/image_folder").skipped
    assert skipped in {f"{data}/val/red/{i}.png" for i in range(2)}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("torch/cifar10", "Dataset not found or corrupted"),
        ("torch/mnist", "Dataset not found"),
        ("torch/cifar11", "Unknown torchvision dataset cifar11"),
    ],
)
def test_data_that_are_not_there(data: Path, name: str, cause: str) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(name)
    message = str(caught.value)
    assert message.startswith(f"task {name}: the train images cannot be read from {data}: {cause}")
    assert message.endswith("put the data there or set NASATTN_DATA to their folder")
    assert "\n" not in message


def test_nothing_is_downloaded(data: Path) -> None:
    with pytest.raises(TaskError):
        load_task("torch/cifar100")
    assert not list(data.iterdir())
