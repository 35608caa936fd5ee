"""Images of a timm or torchvision dataset: which of them are meant, their labels, and how one becomes pixels."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from nasattn.errors import TaskError

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

LONGEST = 64  # times the shorter side; of a longer image only the middle is looked at
MOST_PIXELS = 89_478_485  # of one image, a quarter of a gigabyte as RGB: where Pillow begins to speak of a decompression bomb
# what a file may hold, whatever its name says; not among them are those for which Pillow starts another program (EPS: Ghostscript)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "SGI", "PCX", "DDS", "QOI", "DIB")


class BrokenImage(TaskError):
    """The content of an image file cannot be decoded; whoever reads the file again finds the same."""


@dataclass(frozen=True)
class Images:
    """Some images of a dataset, in an order, not decoded yet.

    Attributes:
        dataset: A timm `ImageDataset` or a torchvision dataset.
        indices: Which of its images, ``(N,)``.
        labels: ``(N,)``.
    """

    dataset: Any
    indices: Ints
    labels: Ints

    @classmethod
    def of(cls, dataset: Any) -> Images:
        """All images of *dataset*. Raises TaskError where a label is no number."""
        return cls(dataset, np.arange(len(dataset)), _labels(dataset))

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: npt.NDArray[Any] | slice) -> Images:
        """The images of those *rows*: numbers, a mask or a slice."""
        return Images(self.dataset, self.indices[rows], self.labels[rows])

    def part(self, share: float) -> tuple[Images, Images]:
        """Cut in two: what stays, and of each class a *share*, at least one image; a class with one image stays.

        Which images these are depends on nothing but the dataset: it is the same for every study.
        """
        order = np.random.default_rng(0).permutation(len(self))
        taken = np.zeros(len(self), np.bool_)
        for label in np.unique(self.labels):
            rows = order[self.labels[order] == label]
            taken[rows[: max(1, int(len(rows) * share)) if len(rows) > 1 else 0]] = True
        return self.take(~taken), self.take(taken)

    def pixels(self, row: int, resolution: int) -> Pixels:
        """Image *row*, ``(3, R, R)``: the shorter side resized to *resolution*, the centre cut out.

        Raises:
            BrokenImage: It cannot be decoded; the message names the file.
            TaskError: The file cannot be read.
        """
        index = int(self.indices[row])
        return self._guarded(
            index, lambda: np.ascontiguousarray(np.asarray(_fit(_read(self.dataset, index), resolution)).transpose(2, 0, 1))
        )

    def check(self, row: int) -> None:
        """Decode image *row* as far as it takes to know that it can be. Raises as `pixels` does."""
        index = int(self.indices[row])
        self._guarded(index, lambda: _read(self.dataset, index, coarse=True))

    def _guarded(self, index: int, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, MemoryError) as error:
            if isinstance(error, MemoryError) or error.errno is not None:  # the machine's fault; Pillow's own errors have no number
                cause = getattr(error, "strerror", None) or type(error).__name__
                raise TaskError(f"image {self._name(index)} cannot be read: {cause}; mend that and run the same again") from None
            raise self._broken(index, error) from None
        except Exception as error:  # decoders raise whatever broken bytes lead them to
            raise self._broken(index, error) from None

    def _broken(self, index: int, error: Exception) -> BrokenImage:
        return BrokenImage(f"image {self._name(index)} cannot be decoded ({type(error).__name__}); repair or remove it")

    def names(self) -> tuple[str, ...]:
        """The files' names, or the images' numbers where they have none."""
        return tuple(self._name(int(index)) for index in self.indices)

    def files(self) -> list[str] | None:
        """The files that decide the pixels; None where they are not known."""
        reader = getattr(self.dataset, "reader", None)
        if reader is None:
            return None
        if hasattr(reader, "samples"):
            return [reader.samples[i][0] for i in self.indices]
        return [file["filename"] for file in reader.dataset.cache_files] or None

    def paths(self) -> tuple[str, list[str]] | None:
        """The folder that they lie in and the file of each image; None where not every image is a file."""
        holder = getattr(self.dataset, "reader", None) or self.dataset  # of timm, or one of torchvision's folders
        if not hasattr(holder, "samples") or not hasattr(holder, "root"):
            return None
        return str(holder.root), [str(holder.samples[i][0]) for i in self.indices]

    def _name(self, index: int) -> str:
        reader = getattr(self.dataset, "reader", None)
        if reader is not None:
            return str(reader.filename(index, absolute=True) or f"number {index}")
        samples = getattr(self.dataset, "samples", None)  # of torchvision's folders
        return str(samples[index][0]) if samples else f"number {index}"


def _labels(dataset: Any) -> Ints:
    """The label of each image, without decoding it where the dataset allows that."""
    reader: Any = getattr(dataset, "reader", None)
    labels: Any = getattr(dataset, "targets", None)
    if hasattr(reader, "samples"):
        labels = [label for _, label in reader.samples]
    elif reader is not None:
        labels = list(reader.iter_targets())
    elif labels is None:
        labels = [dataset[i][1] for i in range(len(dataset))]
    try:
        numbers = np.asarray(labels).astype(np.int64)
    except (TypeError, ValueError):
        raise TaskError(
            "a label of the dataset is no number; classes must be given as numbers (a ClassLabel in Hugging Face's words)"
        ) from None
    return numbers if numbers.ndim == 1 else numbers[:, 0]  # QMNIST has the class first and then where the digit comes from


def _read(dataset: Any, index: int, coarse: bool = False) -> Image.Image:
    """Image *index* as RGB. timm's own ``dataset[index]`` would silently take the next image for a broken one.

    With *coarse* a JPEG is decoded at an eighth of its size; all its bytes are read nevertheless.
    """
    reader: Any = getattr(dataset, "reader", None)
    if reader is None and not hasattr(dataset, "loader"):  # a torchvision dataset that is no folder
        return _rgb(_not_too_large(dataset[index][0]))
    samples = getattr(dataset if reader is None else reader, "samples", None)
    file = _regular_file(samples[index][0]) if samples else reader[index][0]
    with file, Image.open(file, formats=FORMATS) as image:
        _not_too_large(image)
        if coarse:
            image.draft(None, (1, 1))
        return _rgb(image)


def _regular_file(name: str) -> IO[bytes]:
    if not stat.S_ISREG(os.stat(name).st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{name} is no file")
    return open(name, "rb")


def _not_too_large(image: Image.Image) -> Image.Image:
    """Its header says how large it is; nothing of it has been decoded yet."""
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    return image


def _rgb(image: Image.Image) -> Image.Image:
    """*image* as a viewer shows it: upright, without transparency, 8 bits a channel."""
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip them at 255, not scale them
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera noted in its EXIF; where that is broken, as it is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of whatever kind Pillow's reader of broken EXIF makes it; the pixels need it not
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _eight_bits(grey: npt.NDArray[Any]) -> Pixels:
    """Greys of 16 bits, or floats from 0 to 1 (from 0 to 255 where one is above 1), as bytes."""
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey) * (255 if np.nanmax(grey, initial=0) <= 1 else 1)
        return grey.clip(0, 255).round().astype(np.uint8)
    return (grey.astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8)


def _fit(image: Image.Image, resolution: int) -> Image.Image:
    short = min(image.size)
    if max(image.size) > LONGEST * short:  # enlarged whole, an image of one row would fill the memory
        image = _centre(image, *(min(side, LONGEST * short) for side in image.size))
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR) if image.size != (width, height) else image
    return _centre(resized, resolution, resolution)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
