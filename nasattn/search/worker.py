"""What runs on a Ray worker: one proxy at a time in an actor that stays alive between trials."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Protocol, TypedDict

from nasattn.latency import DeviceLease, physical_device
from nasattn.proxy import CheckpointedTraining, Checkpoints, ProxyJob, ProxyTraining, TrainingReport
from nasattn.tasks import Task, TaskRequest, load_task


class Training(Protocol):
    """One trial in training."""

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained."""

    def step(self) -> TrainingReport:
        """Train to the next report."""


Start = Callable[[ProxyJob, str, str], Training]


class Assignment(TypedDict):
    """What a worker is given to train: the job, the task's name, and the identity by which the training finds its checkpoint."""

    job: ProxyJob
    task: str
    identity: str


def start_proxy(job: ProxyJob, task: str, identity: str) -> Training:
    """Train *job* on the task called *task*, from its checkpoint if there is one, giving way to latency measurements on this machine."""
    request = TaskRequest(job.fidelity.resolution, job.fidelity.samples, job.fidelity.val_samples, job.seed, job.held_out)
    test = load_task(task, replace(request, samples=1, held_out=True)).val if job.tested else None
    checkpoints = Checkpoints()
    training = ProxyTraining(job, _load_task(task, request), _lease(job.device).turn, test, checkpoints)
    return CheckpointedTraining(training, identity, checkpoints)


@lru_cache(maxsize=1)
def _load_task(name: str, request: TaskRequest) -> Task:
    """Data stay in the worker's memory from trial to trial."""
    return load_task(name, request)


@lru_cache(maxsize=2)
def _lease(device: str) -> DeviceLease:
    return DeviceLease(physical_device(device))


class ProxyWorker:
    """An actor that trains what it is assigned, from report to report.

    Whatever goes wrong inside a trial is its result, ``error``, so that the worker lives on; only a worker that dies is an
    error to Ray.

    Args:
        start: Begins a training.
    """

    def __init__(self, start: Start = start_proxy) -> None:
        self.start = start
        self.training: Training | None = None

    def ready(self) -> None:
        """Answers as soon as the worker is up."""

    def step(self, assignment: Assignment | None = None) -> dict[str, Any]:
        """Train to the next report, of *assignment* from now on if one is given. What was in training before is dropped then."""
        result: dict[str, Any] = {"worker": f"{socket.gethostname()}:{os.getpid()}", "finished": False, "done": False}
        try:
            if assignment is not None:
                self.training = None  # its memory goes before the next one's comes
                self.training = self.start(assignment["job"], assignment["task"], assignment["identity"])
            assert self.training is not None
            result |= asdict(self.training.step())
            result["finished"] = result["done"] = self.training.done
        except Exception as error:  # a trial must never take the worker down
            result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(), "done": True}
        if result["done"]:
            self.training = None
        return result
