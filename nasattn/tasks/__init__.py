"""Tasks: the images and labels that proxies learn."""

from __future__ import annotations

from pathlib import Path

from nasattn.errors import TaskError, did_you_mean
from nasattn.tasks import cued_digits, digits  # noqa: F401  (they register themselves)
from nasattn.tasks.dataset import folder_task, torchvision_task
from nasattn.tasks.task import Split, Task, TaskRequest, register_task, registered_tasks

__all__ = ["Split", "Task", "TaskRequest", "list_tasks", "load_task", "register_task"]


def list_tasks() -> list[str]:
    """The names of the embedded tasks."""
    return list(registered_tasks())


def load_task(name: str, request: TaskRequest | None = None) -> Task:
    """Load a task into memory.

    Args:
        name: An embedded task, a torchvision dataset as ``torch/cifar100``, or a folder with train/ and val/.
        request: Resolution, numbers of images, seed.

    Raises:
        TaskError: No such task, or its images cannot be read.
    """
    request = request or TaskRequest()
    if name in registered_tasks():
        return registered_tasks()[name](request)
    if name.startswith("torch/"):
        return torchvision_task(name, request)
    if name and Path(name).is_dir():
        return folder_task(name, request)
    raise TaskError(
        f"unknown task {name!r}: {did_you_mean(name, list_tasks())}allowed: {', '.join(list_tasks())}, torch/NAME, or a folder with train/ and val/"
    )
