"""Images of a timm or torchvision dataset: which of them are meant, their labels, and how one becomes pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from nasattn.errors import TaskError

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


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

    def take(self, rows: npt.NDArray[Any]) -> Images:
        """The images of those *rows*, numbers or a mask."""
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
            TaskError: It cannot be decoded; the message names the file.
        """
        index = int(self.indices[row])
        try:
            image = _read(self.dataset, index)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise TaskError(f"image {self._name(index)} cannot be decoded ({type(error).__name__}); repair or remove it") from None
        return np.ascontiguousarray(np.asarray(_fit(image, resolution)).transpose(2, 0, 1))

    def files(self) -> list[str] | None:
        """The files that decide the pixels; None where they are not known."""
        reader = getattr(self.dataset, "reader", None)
        if reader is None:
            return None
        if hasattr(reader, "samples"):
            return [reader.samples[i][0] for i in self.indices]
        return [file["filename"] for file in reader.dataset.cache_files] or None

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


def _read(dataset: Any, index: int) -> Image.Image:
    """Image *index* as RGB. timm's own ``dataset[index]`` would silently take the next image for a broken one."""
    reader = getattr(dataset, "reader", None)
    if reader is None:
        return _rgb(dataset[index][0])
    file, *_ = reader[index]
    with file, Image.open(file) as image:
        return _rgb(image)


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
