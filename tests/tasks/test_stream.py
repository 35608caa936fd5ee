"""Folders that do not fit into memory: the same pixels as from memory, decoded on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import Split, StreamedSplit, Task, TaskRequest, load_task
from nasattn.tasks import stream as stream_module
from nasattn.tasks.images import Images
from nasattn.tasks.stream import memory_limit

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine of one processor


@pytest.fixture(params=[1, 3], ids=["in this process", "by workers"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """JPEGs of noise, of several sizes: 30 to train on, 8 in val/, half of which are held out."""
    monkeypatch.setattr(stream_module, "cpus", lambda: request.param)
    rng = np.random.default_rng(0)
    for split, count in (("train", 15), ("val", 4)):
        for name in ("cat", "dog"):
            for i in range(count):
                file = tmp_path / "photos" / split / name / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20 + i, 31, 3), np.uint8)).save(file)
    return tmp_path / "photos"


def both(folder: Path, monkeypatch: pytest.MonkeyPatch, **asked: int) -> tuple[Task, Task]:
    resident = load_task(str(folder), TaskRequest(12, **asked))
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    return resident, load_task(str(folder), TaskRequest(12, **asked))


def test_the_same_images_in_the_given_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident, streamed = both(folder, monkeypatch, samples=25, seed=3)
    assert isinstance(streamed.train, StreamedSplit) and isinstance(streamed.val, StreamedSplit)
    assert isinstance(resident.train, Split)
    assert (len(streamed.train), len(streamed.val), streamed.in_chans, streamed.classes) == (25, 4, 3, ("cat", "dog"))
    assert torch.equal(streamed.train.labels, resident.train.labels)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    for split in ("train", "val"):
        a, b = getattr(resident, split), getattr(streamed, split)
        chosen = order if split == "train" else torch.arange(4)
        batches = list(zip(a.batches(chosen, 10), b.to("cpu").batches(chosen, 10), strict=True))
        assert [len(labels) for (_, labels), _ in batches] == ([10, 10, 5] if split == "train" else [4])
        for (images, labels), (streamed_images, streamed_labels) in batches:
            assert streamed_images.dtype == torch.uint8 and streamed_labels.dtype == torch.int64
            assert torch.equal(images, streamed_images) and torch.equal(labels, streamed_labels)
    assert torch.equal(streamed.train.sample(7), resident.train.sample(7))
    assert torch.equal(streamed.train.sample(100), resident.train.sample(100))


def test_no_pixels_are_kept_on_disk(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    load_task(str(folder), TaskRequest(12)).train.sample(3)
    assert {file.suffix for file in cache.iterdir()} == {".json", ".lock"}
    assert sum(file.stat().st_size for file in cache.iterdir()) < 200


def test_the_same_broken_images_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by decoding each image once; the next worker reads the list of them."""
    broken = folder / "train/dog/7.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    resident, streamed = both(folder, monkeypatch)
    assert resident.skipped == streamed.skipped == (str(broken),)
    assert len(streamed.train) == len(resident.train) == 29
    assert torch.equal(streamed.train.sample(29), resident.train.sample(29)) and torch.equal(streamed.train.labels, resident.train.labels)
    monkeypatch.setattr(Images, "check", lambda self, row: pytest.fail("decoded again"))
    assert load_task(str(folder), TaskRequest(12)).skipped == (str(broken),)


def test_too_many_broken_images_end_it_before_it_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    for i in range(5):
        (folder / f"train/dog/{i}.jpg").write_bytes(b"no image")
    with pytest.raises(TaskError, match=r"images .*, .*, .* and 2 more cannot be decoded: 5 of 30, at most 1 may be left out"):
        load_task(str(folder), TaskRequest(12))


def test_an_image_that_breaks_later_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own dataset would take the next image; and a worker's traceback is not for users."""
    monkeypatch.setenv("NASATTN_TASK_MEMORY", "1KB")
    file = folder / "train/dog/7.jpg"
    split = load_task(str(folder), TaskRequest(12)).train
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TaskError) as caught:
        list(split.batches(torch.arange(30), 10))
    assert str(caught.value).startswith(f"image {file} cannot be decoded") and "\n" not in str(caught.value)
    with pytest.raises(TaskError, match="cannot be decoded"):
        split.sample(30)


def test_what_fits_stays_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """34 images of 432 bytes are 14.7 kB; the four validation images alone are 1.7 kB."""
    for limit, kinds in (("14688", (Split, Split)), ("14687", (StreamedSplit, Split)), ("1.7KB", (StreamedSplit, StreamedSplit))):
        monkeypatch.setenv("NASATTN_TASK_MEMORY", limit)
        task = load_task(str(folder), TaskRequest(12))
        assert (type(task.train), type(task.val)) == kinds


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("500 mb", 500 * 10**6), ("1.5GiB", 3 * 2**29), ("1000", 1000), ("2k", 2000), ("8B", 8)]
)
def test_sizes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_TASK_MEMORY", text)
    assert memory_limit() == size


@pytest.mark.parametrize("text", ["lots", "4 GB RAM", "-1GB", "GB", "4XB"])
def test_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_TASK_MEMORY", text)
    with pytest.raises(TaskError, match=f"NASATTN_TASK_MEMORY must be a size such as 4GB or 500MB, got '{text}'; set one or unset it"):
        memory_limit()


def test_by_default_a_quarter_of_the_memory() -> None:
    assert 10**8 < memory_limit() < 10**13
