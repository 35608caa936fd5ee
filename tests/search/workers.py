"""What the workers of the driver's tests do in place of training: quick, and faulty on demand."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from nasattn.proxy import ProxyJob, TrainingReport
from nasattn.search.worker import start_proxy


class Scripted:
    """A trial whose first token decides its fate: eca raises, se gives NaN, gc kills its process, others are fine."""

    def __init__(self, job: ProxyJob) -> None:
        self.job, self.epoch = job, 0
        self.fate = job.placement.split(",")[0]

    @property
    def done(self) -> bool:
        return self.epoch >= self.job.fidelity.epochs

    def step(self) -> TrainingReport:
        self.epoch += 1
        if self.fate == "eca":
            raise RuntimeError("the attention fell over")
        if self.fate == "gc":
            os.kill(os.getpid(), signal.SIGKILL)
        accuracy = math.nan if self.fate == "se" else 0.5 + len(self.job.placement) / 1000
        return TrainingReport(self.epoch, 1.0, accuracy, 0.1)


def start_scripted(job: ProxyJob, task: str, identity: str) -> Scripted:
    return Scripted(job)


class Slow(Scripted):
    """A trial of some seconds."""

    def step(self) -> TrainingReport:
        time.sleep(1.0)
        self.epoch += 1
        return TrainingReport(self.epoch, 1.0, 0.5, float(self.epoch))


def start_slow(job: ProxyJob, task: str, identity: str) -> Slow:
    return Slow(job)


class Truthful(Scripted):
    """A trial whose accuracy belongs to its placement alone: the truth is known."""

    def step(self) -> TrainingReport:
        self.epoch = self.job.fidelity.epochs
        number = sum((i + 1) * ord(c) for i, c in enumerate(self.job.placement)) * 2654435761 % 1000
        return TrainingReport(self.epoch, 1.0, 0.2 + number / 2000, 0.1)


def start_truthful(job: ProxyJob, task: str, identity: str) -> Truthful:
    return Truthful(job)


class TruthfulByRungs(Truthful):
    """A truthful trial that reports at a rung after each epoch, where it is a little below what it comes to."""

    def step(self) -> TrainingReport:
        epoch = self.epoch + 1
        report = super().step()
        self.epoch = epoch
        below = 0.01 * (self.job.fidelity.epochs - epoch)
        return replace(report, epoch=epoch, accuracy=report.accuracy - below, rung=epoch)


def start_by_rungs(job: ProxyJob, task: str, identity: str) -> TruthfulByRungs:
    return TruthfulByRungs(job)


class KilledOnce:
    """A real training whose process is killed after its first report, the first time that its placement is trained."""

    def __init__(self, job: ProxyJob, task: str, identity: str, folder: str) -> None:
        self.training = start_proxy(job, task, identity)
        self.mark = Path(folder) / identity

    @property
    def done(self) -> bool:
        return self.training.done

    def step(self) -> TrainingReport:
        if self.mark.exists() and self.mark.read_text() == "":
            self.mark.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        self.mark.touch()
        return self.training.step()


class Hanging(Scripted):
    """A trial whose first token decides its fate: eca never reports, others are fine."""

    def step(self) -> TrainingReport:
        if self.fate == "eca":
            time.sleep(600)
        self.epoch += 1
        return TrainingReport(self.epoch, 1.0, 0.5, 0.1)


def start_hanging(job: ProxyJob, task: str, identity: str) -> Hanging:
    return Hanging(job)


class Failing(Scripted):
    """A trial that fails unless it is the plain host."""

    def step(self) -> TrainingReport:
        if self.job.placement != "none,none,none,none":
            raise RuntimeError("out of luck")
        return super().step()


def start_failing(job: ProxyJob, task: str, identity: str) -> Failing:
    return Failing(job)


class Logged(Truthful):
    """A truthful trial of several reports that writes down on which node it begins and is done."""

    def __init__(self, job: ProxyJob, identity: str, log: str, pause: float) -> None:
        super().__init__(job)
        self.identity, self.log, self.pause = identity, log, pause
        self._write("begun")

    def step(self) -> TrainingReport:
        time.sleep(self.pause)
        epoch = self.epoch + 1
        report = super().step()
        self.epoch = epoch
        if self.done:
            self._write("done")
        return replace(report, epoch=epoch)

    def _write(self, what: str) -> None:
        import ray

        at_start = Path("/proc/self/environ").read_text().split("\0")
        checkpoints = next((entry.partition("=")[2] for entry in at_start if entry.startswith("NASATTN_CHECKPOINTS=")), "")
        with open(self.log, "a") as file:
            file.write(f"{what} {self.identity} {ray.get_runtime_context().get_node_id()} {checkpoints}\n")


def start_logged(job: ProxyJob, task: str, identity: str, log: str, pause: float) -> Logged:
    return Logged(job, identity, log, pause)
