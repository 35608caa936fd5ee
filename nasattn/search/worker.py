"""What runs on a Ray worker: one proxy at a time in an actor that stays alive between trials."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Protocol

from ray import tune

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


def start_proxy(job: ProxyJob, task: str, identity: str) -> Training:
    """Train *job* on the task called *task*, from its checkpoint if there is one, giving way to latency measurements on this machine."""
    request = TaskRequest(job.fidelity.resolution, job.fidelity.samples, job.fidelity.val_samples, job.seed, job.held_out)
    test = load_task(task, replace(request, samples=1, held_out=True)).val if job.tested else None
    training = ProxyTraining(job, _load_task(task, request), _lease(job.device).turn, test)
    return CheckpointedTraining(training, identity, Checkpoints())


@lru_cache(maxsize=1)
def _load_task(name: str, request: TaskRequest) -> Task:
    """Data stay in the worker's memory from trial to trial."""
    return load_task(name, request)


@lru_cache(maxsize=2)
def _lease(device: str) -> DeviceLease:
    return DeviceLease(physical_device(device))


class ProxyTrainable(tune.Trainable):  # type: ignore[misc]
    """Ray Tune's view of a trial. One `step` goes to the next report.

    Whatever goes wrong inside a trial is reported as its result, ``error``, so that the worker lives on; only a worker
    that dies is an error to Ray.
    """

    def setup(self, config: dict[str, Any], start: Start = start_proxy) -> None:
        self.start = start
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial: called by Ray instead of starting another actor."""
        self.job: ProxyJob = new_config["job"]
        self.task: str = new_config["task"]
        self.identity: str = new_config["identity"]
        self.training: Training | None = None
        return True

    def step(self) -> dict[str, Any]:
        result: dict[str, Any] = {"worker": f"{socket.gethostname()}:{os.getpid()}", "finished": False}
        try:
            if self.training is None:
                self.training = self.start(self.job, self.task, self.identity)
            result |= asdict(self.training.step())
            result["finished"] = result["done"] = self.training.done
        except Exception as error:  # a trial must never take the worker down
            result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(), "done": True}
        if result["done"]:
            self.training = None
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept by Ray: a training finds its own checkpoint (see :class:`CheckpointedTraining`)."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See save_checkpoint."""
