"""What people and machines put into image folders: every kind of file is either decoded, or named and left out."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasattn.errors import TaskError
from nasattn.tasks import Split, Task, TaskRequest, load_task
from nasattn.tasks.images import LONGEST, MOST_PIXELS, BrokenImage, Images
from tests.image_folders import fill, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos")


def load(folder: Path) -> Task:
    return load_task(str(folder), TaskRequest(12))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
BROKEN = {
    "empty": b"",
    "text": b"not found\n",
    "a page": b"<!DOCTYPE html><html><body>404</body></html>",
    "half a png": encoded(NOISE, "PNG")[:2000],
    "half a jpeg": encoded(NOISE, "JPEG")[:900],
    "a header only": encoded(NOISE, "PNG")[:33],
    "a wrong checksum": encoded(picture(90), "PNG")[:40] + b"\0\0\0\0" + encoded(picture(90), "PNG")[44:],
    "zeros": bytes(5_000),
    "a bomb": claiming(100_000, 100_000),
    "a bomb of which Pillow only warns": claiming(MOST_PIXELS // 10_000 + 1, 10_000),
    "a bomb just beyond Pillow's limit": claiming(2 * MOST_PIXELS // 10_000 + 1, 10_000),
    "a wide bomb": claiming(2**31 - 1, 1),
    "no pixels": claiming(0, 16),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_left_out(folder: Path, kind: str, recwarn: pytest.WarningsRecorder) -> None:
    """timm would take the next image in its place, with the wrong label in the best case unnoticed."""
    file = folder / "train/dog/2.png"
    file.write_bytes(BROKEN[kind])
    task = load(folder)
    assert task.skipped == (str(file),)
    assert isinstance(task.train, Split)
    assert sorted(task.train.images[:, 0, 0, 0].tolist()) == [10, 11, 12, 13, 200, 201, 203]
    assert [int(g >= 200) for g in task.train.images[:, 0, 0, 0]] == task.train.labels.tolist()
    assert not [w for w in recwarn if "bomb" in str(w.message)]


@pytest.mark.parametrize("kind", [name for name in BROKEN if "bomb" in name])
def test_a_bomb_is_refused_by_its_header(folder: Path, kind: str) -> None:
    file = folder / "train/dog/2.png"
    file.write_bytes(BROKEN[kind])
    images = Images.of(one_split(folder))
    row = images.names().index(str(file))
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(BrokenImage, match="DecompressionBomb|ValueError"):
        images.pixels(row, 12)
    assert time.perf_counter() - begun < 2
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def one_split(folder: Path) -> object:
    from timm.data import create_dataset

    return create_dataset("", root=str(folder / "train"), split="train", search_split=False)


def animation(kind: str) -> bytes:
    return encoded(picture(90), kind, save_all=True, append_images=[picture(10), picture(200)], duration=10)


SOUND = {
    "one pixel": encoded(picture(90, size=(1, 1)), "PNG"),
    "CMYK": encoded(picture(90).convert("CMYK"), "JPEG", quality=100),
    "grey": encoded(picture(90).convert("L"), "JPEG", quality=100),
    "grey and alpha": encoded(picture(90).convert("LA"), "PNG"),
    "a palette with a transparent colour": encoded(picture(90).quantize(4), "PNG", transparency=0),
    "a palette with transparencies": encoded(picture(90).quantize(4), "PNG", transparency=bytes([0, 128, 255, 255])),
    "16 bits of grey": encoded(Image.fromarray(np.full((16, 20), 90 * 257, np.uint16)), "PNG"),
    "an animated GIF": animation("GIF"),
    "an animated PNG": animation("PNG"),
    "a WebP": encoded(picture(90), "WEBP", lossless=True),
    "16 bits of grey in a TIFF": encoded(Image.fromarray(np.full((16, 20), 90 * 257, np.uint16)), "TIFF"),
    "32 bits of grey": encoded(Image.fromarray(np.full((16, 20), 90 * 257, np.int32)), "TIFF"),
    "floats": encoded(Image.fromarray(np.full((16, 20), 90 / 255, np.float32)), "TIFF"),
    "floats of bytes": encoded(Image.fromarray(np.full((16, 20), 90, np.float32)), "TIFF"),
    "broken EXIF": encoded(picture(90), "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "a progressive JPEG": encoded(picture(90), "JPEG", progressive=True, quality=100),
}


@pytest.mark.parametrize("kind", SOUND)
def test_what_can_be_decoded_is(folder: Path, kind: str, recwarn: pytest.WarningsRecorder) -> None:
    """Of an animation the first frame, whatever the file is called; and transparency is no colour."""
    file = folder / "train/cow/0.jpg"
    file.parent.mkdir()
    file.write_bytes(SOUND[kind])
    task = load(folder)
    assert isinstance(task.train, Split) and task.skipped == ()
    cow = task.train.images[task.train.labels == task.classes.index("cow")]
    assert cow.shape == (1, 3, 12, 12) and (cow.int() - 90).abs().max() <= 2
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_taken_sideways_is_turned(folder: Path, kind: str) -> None:
    """As every viewer does: the file's left half, which is dark, is the top of the picture."""
    pixels = np.full((24, 24), 200, np.uint8)
    pixels[:, :12] = 20
    exif = Image.Exif()
    exif[0x0112] = 6
    file = folder / "train/cow/0.jpg"
    file.parent.mkdir()
    file.write_bytes(encoded(Image.fromarray(pixels).convert("RGB"), kind, exif=exif, quality=100))
    task = load(folder)
    assert isinstance(task.train, Split)
    (cow,) = task.train.images[task.train.labels == task.classes.index("cow")].int()
    assert (cow[:, :5] < 60).all() and (cow[:, 7:] > 160).all()


def test_an_image_of_one_row_does_not_fill_the_memory(folder: Path) -> None:
    """Enlarged whole to 12 rows it would have 1,440 million pixels."""
    file = folder / "train/dog/2.png"
    Image.new("L", (10_000_000, 1), 203).save(file)
    task = load(folder)
    assert isinstance(task.train, Split) and not task.skipped
    assert sorted(task.train.images[:, 0, 0, 0].tolist())[-1] == 203
    ends = np.full((2, 2 * (LONGEST + 50)), 99, np.uint8)
    ends[:, LONGEST - 10 : -LONGEST + 10] = 7
    Image.fromarray(ends).save(file)
    task = load(folder)
    assert isinstance(task.train, Split)
    assert sorted(task.train.images[:, 0, 0, 0].tolist())[0] == 7  # the middle


def test_what_the_machine_does_wrong_is_not_the_images_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link into nothing, a disk that fails: leaving such images out would give another worker other ones."""
    file = folder / "train/dog/2.png"
    file.unlink()
    file.symlink_to(folder / "away.png")
    with pytest.raises(TaskError, match=f"image {file} cannot be read: No such file or directory; mend that and run the same again"):
        load(folder)


def test_a_pipe_does_not_wait_for_ever(folder: Path) -> None:
    file = folder / "train/dog/2.png"
    file.unlink()
    os.mkfifo(file)
    assert load(folder).skipped == (str(file),)


def test_the_limit(folder: Path) -> None:
    """One in a hundred, and one in any case."""
    whole = (folder / "train/dog/0.png").read_bytes()
    for i in range(4, 196):
        (folder / f"train/dog/{i}.png").write_bytes(whole)
    files = [folder / f"train/dog/{i}.png" for i in range(3)]
    for file in files[:2]:
        file.write_bytes(b"")
    assert set(load(folder).skipped) == set(map(str, files[:2]))  # of 200
    files[2].write_bytes(b"")
    with pytest.raises(
        TaskError, match=r"images .*png, .*png, .*png cannot be decoded: 3 of 200, at most 2 may be left out; repair or remove them"
    ):
        load(folder)


def test_broken_ones_of_a_subset_are_replaced(folder: Path) -> None:
    whole = (folder / "train/dog/0.png").read_bytes()
    for i in range(4, 300):
        (folder / f"train/dog/{i}.png").write_bytes(whole)
    task = load_task(str(folder), TaskRequest(12, samples=100))
    assert isinstance(task.train, Split)
    images = Images.of(one_split(folder))
    order = np.random.default_rng((0, 0)).permutation(len(images))
    first = Path(images.names()[order[0]])
    first.write_bytes(b"")
    other = load_task(str(folder), TaskRequest(12, samples=100))
    assert isinstance(other.train, Split)
    assert len(other.train) == 100 and other.skipped == (str(first),)
    assert (other.train.images[:99] == task.train.images[1:]).all() and (other.train.labels[:99] == task.train.labels[1:]).all()


def test_names_that_a_terminal_would_obey(folder: Path) -> None:
    for i in range(2):
        (folder / f"train/dog/\x1b[2J\n{i}.png").write_bytes(b"")
    with pytest.raises(TaskError) as caught:
        load(folder)
    assert str(caught.value).isprintable() and "\\x1b[2J 0.png" in str(caught.value)
