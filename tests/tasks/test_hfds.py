"""Hugging Face datasets, read by timm: real ones on disk, as folders of images and as parquet files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import Split, StreamedSplit, Task, TaskRequest, load_task

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASATTN_DATA", str(tmp_path / "kept"))
    return tmp_path


def write(folder: Path, **splits: int) -> Path:
    """A parquet file for each split, with so many images of each of two classes: every image is a grey of its own."""
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["cat", "dog"])})
    grey = 0
    for split, count in splits.items():
        rows: dict[str, list[object]] = {"img": [], "fine_label": []}
        for label in (0, 1):
            for _ in range(count):
                rows["img"].append(Image.new("RGB", (15, 12), (grey, label * 200, 0)))
                rows["fine_label"].append(label)
                grey += 1
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def load(folder: Path, held_out: bool = False, **asked: int) -> Task:
    return load_task(f"hfds/{folder}", TaskRequest(12, held_out=held_out, **asked))


def greys(split: Split | StreamedSplit) -> set[int]:
    images = split.sample(len(split))
    assert torch.equal((images[:, 1, 0, 0] > 0).long(), split.labels)
    return set(images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        ({"train": 20, "validation": 3, "test": 4}, (40, 6, 8)),
        ({"train": 20, "validation": 4}, (40, 4, 4)),
        ({"train": 20, "test": 4}, (36, 4, 8)),
        ({"train": 20}, (32, 4, 4)),
    ],
)
def test_a_dataset_of_parquet_files(data: Path, splits: dict[str, int], sizes: tuple[int, int, int]) -> None:
    folder = write(data / "pets", **splits)
    task, held_out, other_seed = load(folder), load(folder, held_out=True), load(folder, seed=4)
    assert (task.name, task.classes, task.in_chans) == (f"hfds/{folder}", ("cat", "dog"), 3)
    parts = greys(task.train), greys(task.val), greys(held_out.val)
    assert tuple(map(len, parts)) == sizes
    assert len(parts[0] | parts[1] | parts[2]) == sum(sizes)
    assert greys(held_out.train) == greys(other_seed.train) == parts[0] and greys(other_seed.val) == parts[1]
    if "test" in splits:
        assert parts[2] == set(range(2 * sum(splits.values()) - 2 * splits["test"], 2 * sum(splits.values())))
    assert torch.equal(load(folder, samples=5).train.labels, load(folder, samples=5).train.labels)


def test_a_folder_of_images(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for name, green in (("cat", 0), ("dog", 200)):
            for i in range(count):
                file = data / "photos" / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 11), (i, green, 0)).save(file)
    resident = load(data / "photos")
    assert (resident.classes, len(resident.train), len(resident.val)) == (("cat", "dog"), 4, 2)
    assert list(cache.glob("*.npy"))
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    streamed = load(data / "photos")
    assert isinstance(streamed.train, StreamedSplit)
    assert torch.equal(streamed.train.sample(4), resident.train.sample(4))


def test_a_broken_image_is_named(data: Path) -> None:
    folder = data / "photos"
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (9, 11)).save(folder / "train" / name / f"{i}.png")
    load(folder)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(TaskError, match=f"images {folder}/train/.*png cannot be decoded: 3 of 3, at most 1 may be left out"):
        load(folder, samples=2)


def test_what_cannot_be_used(data: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(TaskError) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "the dataset cannot be loaded: " in refused(data / "nowhere")
    assert "no split train, only validation; choose a dataset with one" in refused(write(data / "val", validation=2))
    (data / "text").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(str(data / "text/train.parquet"))
    assert "it needs a column of images and one of classes, got text, label" in refused(data / "text")
    (data / "words").mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {"image": [Image.new("RGB", (4, 4))], "label": ["cat"]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(data / "words/train.parquet"))
    assert "a label of the dataset is no number" in refused(data / "words")


def test_offline(data: Path) -> None:
    """The package reads HF_HUB_OFFLINE when it is imported. Nothing is asked of the network, and one line says what to do."""
    code = "from nasattn.tasks import load_task\ntry: load_task('hfds/no-such/dataset')\nexcept Exception as error: print(type(error).__name__, error)"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == (
        f"TaskError task hfds/no-such/dataset: it is not in {data / 'kept'} and the Hugging Face hub cannot be reached;"
        " go online once, unset HF_HUB_OFFLINE, or put it there\n"
    )


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError) as caught:
        load_task("hfds/mnist")
    assert str(caught.value) == "task hfds/mnist needs the package datasets, which is not installed: pip install nasattn[hf]"
