"""A task: images and labels that a proxy learns, resident in memory or, where they do not fit, streamed from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from nasattn.errors import TaskError
from nasattn.tasks.fingerprint import fingerprint_of
from nasattn.tasks.images import Images
from nasattn.tasks.stream import StreamedSplit


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8, ``(N, channels, R, R)``.
        labels: int64, ``(N,)``.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise TaskError(
                f"a split needs uint8 images (N, C, R, R) and N labels, got {self.images.dtype} {tuple(self.images.shape)} and {len(self.labels)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    def to(self, device: torch.device | str) -> Split:
        """The split with its images and labels in the memory of *device*."""
        return Split(self.images.to(device), self.labels.to(device))

    def sample(self, count: int) -> Tensor:
        """The first *count* images, uint8, for statistics."""
        return self.images[:count]

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in *order*, ``(N,)`` int64 on the CPU, *size* at a time; the last batch holds what is left."""
        for index in order.to(self.labels.device).split(size):
            yield self.images[index], self.labels[index]


@dataclass(frozen=True)
class Task:
    """What a proxy learns and is scored on.

    Attributes:
        name: As given by the user: ``cued_digits``, ``pathfinder/9``, ``torch/cifar100``, or a folder.
        classes: The classes' names, in label order.
        train: What the proxy trains on.
        val: What it is scored on: the validation images, or the test images of a request with `held_out`.
        skipped: Names of images that cannot be decoded and are left out of both.
        sources: Of a task that reads its images, all that it may draw from, by the name of their split.
        version: Of a task that generates its images, raised when the same request shall give others.
        counts: Of a task that reads its images, how many ``train``, ``val`` and ``test`` hold, whatever the request takes of them.
        rule: How a folder is cut into these, in a few words.
        notes: A line for whatever else is left out of a folder.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | StreamedSplit
    val: Split | StreamedSplit
    skipped: tuple[str, ...] = ()
    sources: Mapping[str, Images] = field(default_factory=dict)
    version: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    rule: str = ""
    notes: tuple[str, ...] = ()

    @property
    def in_chans(self) -> int:
        return self.train.channels

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What its images are (see :func:`nasattn.tasks.fingerprint.fingerprint_of`). Raises TaskError where one has vanished."""
        found = fingerprint_of(self.sources, self.version)
        return {**found, "split": self.rule} if self.rule else found


@dataclass(frozen=True)
class TaskRequest:
    """What is asked of a task.

    Attributes:
        resolution: Side of the images in pixels.
        samples: Training images; None takes all there are.
        val_samples: Validation images; None takes all there are.
        seed: Decides generated images and subsets. The same request gives the same images.
        held_out: Score on the test images, which no search sees, in place of the validation images.
    """

    resolution: int = 32
    samples: int | None = None
    val_samples: int | None = None
    seed: int = 0
    held_out: bool = False


def split_points(count: int, val_share: float) -> tuple[int, int]:
    """Where *count* shuffled items are cut into training, validation and held-out ones; the last two halve *val_share*."""
    first = int(count * (1 - val_share))
    return first, first + (count - first + 1) // 2


@dataclass(frozen=True)
class Registered:
    """An embedded task.

    Attributes:
        load: Its loader.
        takes_parameter: Whether users may write ``NAME/PARAMETER``.
    """

    load: Callable[..., Task]
    takes_parameter: bool = False


_TASKS: dict[str, Registered] = {}
_L = TypeVar("_L", bound=Callable[..., Task])


def register_task(name: str, takes_parameter: bool = False) -> Callable[[_L], _L]:
    """Decorator: makes a function ``(TaskRequest) -> Task`` known as the task *name*.

    Args:
        name: What users write; without a slash.
        takes_parameter: For a function ``(TaskRequest, str | None) -> Task``: users may write ``NAME/PARAMETER``. The function gets
            what stands behind the slash, or None without one, and raises TaskError when that is not allowed.

    Raises:
        TaskError: The name is taken or has a slash.
    """
    if "/" in name:
        raise TaskError(f"task {name!r} cannot be registered: a name has no slash, what stands behind one is a parameter")

    def register(load: _L) -> _L:
        if name in _TASKS:
            raise TaskError(f"task {name!r} is registered already: choose another name")
        _TASKS[name] = Registered(load, takes_parameter)
        return load

    return register


def registered_tasks() -> dict[str, Registered]:
    """The embedded tasks by name."""
    return dict(_TASKS)
