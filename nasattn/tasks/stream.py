"""Images that do not fit into memory: decoded on the way to the network, by timm's loader and its worker processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nasattn.errors import TaskError
from nasattn.tasks.cache import cpus
from nasattn.tasks.images import Images

MOST_WORKERS = 8
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class StreamedSplit:
    """Images and labels of one split, decoded each time they are asked for; otherwise as a `Split`.

    Which images can be decoded is known before (see :func:`nasattn.tasks.cache.checked`), so that every epoch and every worker
    has the same ones. One that breaks after that ends the training: another image in its place would go unnoticed.

    Attributes:
        source: The images on disk.
        resolution: Side of the decoded images in pixels.
        device: Where the batches go.
    """

    source: Images
    resolution: int
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Tensor:
        """int64, ``(N,)``."""
        return torch.from_numpy(self.source.labels).to(self.device)

    @property
    def channels(self) -> int:
        return 3

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The split with its batches in the memory of *device*."""
        return replace(self, device=device)

    def sample(self, count: int) -> Tensor:
        """The first *count* images, uint8, for statistics. Raises TaskError for one that cannot be decoded."""
        size = min(count, len(self))
        images = [batch for batch, _ in self.batches(torch.arange(size), max(1, min(size, 100)))]
        return torch.cat(images) if images else torch.zeros((0, 3, self.resolution, self.resolution), dtype=torch.uint8, device=self.device)

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in *order*, ``(N,)`` int64 on the CPU, *size* at a time; the last batch holds what is left.

        Raises:
            TaskError: An image cannot be decoded; the message names the file.
        """
        from timm.data import create_loader

        loader = create_loader(
            _Ordered(self.source.take(order.cpu().numpy()), self.resolution),
            input_size=(3, self.resolution, self.resolution),
            batch_size=size,
            is_training=False,  # the order is given, and the last batch is kept
            use_prefetcher=False,  # it would normalise
            num_workers=min(MOST_WORKERS, cpus() - 1),
            collate_fn=_collate,
            pin_memory=torch.device(self.device).type == "cuda",
            device=torch.device(self.device),
            persistent_workers=False,
        )
        for batch in loader:
            if isinstance(batch, str):
                raise TaskError(batch)
            images, labels = batch
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


class _Ordered(Dataset[tuple[Any, int]]):
    """What timm's loader reads. An image that cannot be decoded is passed on as the message about it: a worker's exception would come back as its traceback."""

    transform: Any = None  # timm's loader sets one; ours is the one of the resident images

    def __init__(self, images: Images, resolution: int) -> None:
        self.images, self.resolution = images, resolution

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        try:
            return self.images.pixels(row, self.resolution), int(self.images.labels[row])
        except TaskError as error:
            return str(error), -1


def _collate(items: list[tuple[Any, int]]) -> tuple[Tensor, Tensor] | str:
    broken = next((pixels for pixels, _ in items if isinstance(pixels, str)), None)
    if broken is not None:
        return broken
    return torch.from_numpy(np.stack([pixels for pixels, _ in items])), torch.tensor([label for _, label in items])


def memory_limit() -> int:
    """The bytes that a task's decoded images may take: NASATTN_TASK_MEMORY, else a quarter of the machine's memory.

    Raises:
        TaskError: NASATTN_TASK_MEMORY is no size.
    """
    text = os.environ.get("NASATTN_TASK_MEMORY", "").strip()
    if not text:
        return _machine_memory() // 4
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.upper())
    if match is None:
        raise TaskError(f"NASATTN_TASK_MEMORY must be a size such as 4GB or 500MB, got {text!r}; set one or unset it")
    return int(float(match[1]) * UNITS[match[2] or ""])


def _machine_memory() -> int:
    """In bytes: what the machine has, or its container may use."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 16 * 2**30  # Windows does not say; most machines that train have it
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return memory
