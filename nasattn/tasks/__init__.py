"""Tasks: the images and labels that proxies learn."""

from __future__ import annotations

import os

from nasattn.errors import TaskError, did_you_mean
from nasattn.tasks import cued_digits, digits, pathfinder  # noqa: F401  (they register themselves)
from nasattn.tasks.dataset import folder_task, hfds_task, torchvision_task
from nasattn.tasks.stream import StreamedSplit
from nasattn.tasks.task import Split, Task, TaskRequest, register_task, registered_tasks

__all__ = ["Split", "StreamedSplit", "Task", "TaskRequest", "list_tasks", "load_task", "register_task"]


def list_tasks() -> list[str]:
    """The names of the embedded tasks."""
    return list(registered_tasks())


def load_task(name: str, request: TaskRequest | None = None) -> Task:
    """Load a task: into memory, or where it does not fit (NASATTN_TASK_MEMORY, a quarter of the machine's) to be streamed from disk.

    Args:
        name: An embedded task, perhaps with a parameter as ``pathfinder/9``; a torchvision dataset as ``torch/cifar100``; a Hugging Face
            dataset as ``hfds/OWNER/NAME``; or a folder of class folders, perhaps below train/, val/ and test/.
        request: Resolution, numbers of images, seed, and whether to score on the held-out images.

    Raises:
        TaskError: No such task, or its images cannot be read.
    """
    request = request or TaskRequest()
    head, slash, parameter = name.partition("/")
    known = registered_tasks().get(head)
    if known and not slash:
        return known.load(request)
    if known and known.takes_parameter:
        return known.load(request, parameter)
    if name.startswith("torch/"):
        return torchvision_task(name, request)
    if name.startswith("hfds/"):
        return hfds_task(name, request)
    if name and os.path.isdir(name):
        return folder_task(name, request)
    if known:
        raise TaskError(f"task {head} takes no parameter, got {name!r}; write {head}")
    raise TaskError(
        f"unknown task {name!r}: {did_you_mean(name, list_tasks())}allowed: {', '.join(list_tasks())}, torch/NAME, hfds/NAME, or a folder of class folders"
    )
