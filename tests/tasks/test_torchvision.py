"""torchvision's datasets, read by timm from the folder NASATTN_DATA: real files in their own formats."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import TaskRequest, load_task


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASATTN_DATA", str(tmp_path))
    return tmp_path


def write_idx(path: Path, values: np.ndarray) -> None:
    """The format of MNIST's files: a magic number with the type and the number of axes, their lengths, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{values.ndim + 1}I", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes())


def write_mnist(folder: Path, train: int = 40, val: int = 20) -> None:
    """Image i is grey i, its label i modulo 10."""
    for name, count in (("train", train), ("t10k", val)):
        numbers = np.arange(count)
        write_idx(folder / f"raw/{name}-images-idx3-ubyte", np.broadcast_to(numbers[:, None, None], (count, 28, 28)))
        write_idx(folder / f"raw/{name}-labels-idx1-ubyte", numbers % 10)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_greys_of_28_pixels(data: Path, name: str, folder: str) -> None:
    write_mnist(data / folder)
    task = load_task(f"torch/{name}", TaskRequest(resolution=14))
    assert (task.name, len(task.classes), task.in_chans) == (f"torch/{name}", 10, 3)
    assert (task.train.images.shape, task.val.images.shape) == ((40, 3, 14, 14), (20, 3, 14, 14))
    for split in (task.train, task.val):
        numbers = split.images[:, 0, 0, 0].long()
        assert sorted(numbers.tolist()) == list(range(len(split)))
        assert torch.equal(numbers % 10, split.labels)


def test_subsets_are_seeded(data: Path) -> None:
    write_mnist(data / "MNIST")
    one, again, other = (load_task("torch/mnist", TaskRequest(28, samples=9, val_samples=5, seed=s)) for s in (3, 3, 4))
    assert (len(one.train), len(one.val)) == (9, 5)
    assert torch.equal(one.train.images, again.train.images)
    assert not torch.equal(one.train.images, other.train.images)


def test_an_image_folder(data: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        for name, colour in (("red", (200, 0, 0)), ("green", (0, 200, 0))):
            (data / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (9, 11), colour).save(data / split / name / f"{i}.png")
    task = load_task("torch/image_folder", TaskRequest(resolution=8))
    assert (task.classes, len(task.train), len(task.val)) == (("green", "red"), 6, 2)
    assert torch.equal((task.train.images[:, 0, 0, 0] == 200).long(), task.train.labels)

    (data / "val/red").rename(data / "val/blue")
    with pytest.raises(TaskError, match="train has the classes .*'red'.*validation .*'blue'.*both need the same"):
        load_task("torch/image_folder")
    (data / "val/blue").rename(data / "val/red")
    (data / "val/red/0.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match=r"image number 1 .*cannot be decoded"):
        load_task("torch/image_folder")


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
