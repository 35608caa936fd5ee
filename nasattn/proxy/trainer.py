"""Training one proxy, on a task that is resident on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nasattn.proxy.augment import draw_epoch, stream
from nasattn.proxy.network import ProxyJob, build_proxy, freeze_batch_norms
from nasattn.proxy.plain_start import start_from_plain
from nasattn.proxy.precision import autocast
from nasattn.proxy.steps import TrainingStep, prepared
from nasattn.tasks import Split, StreamedSplit, Task

if TYPE_CHECKING:
    from nasattn.proxy.checkpoint import Checkpoints

VAL_BATCH = {"cpu": 50, "cuda": 500}  # images; on a CPU what stays in its caches is twice as fast
GLANCE = 1000  # validation images at the end of an epoch that is no rung, where nothing is decided
TURN_STEPS = {"cpu": 1, "cuda": 20}  # after which the device is free for a latency measurement


@dataclass(frozen=True)
class TrainingReport:
    """What a training has come to at a rung or at the end of an epoch.

    Attributes:
        epoch: Passes over the training images so far; not whole at a rung inside an epoch.
        loss: Mean training loss since the report before.
        accuracy: On the validation images, 0..1; where there is no rung, on about a thousand of them, evenly spread. NaN when the
            loss is not finite.
        seconds: Since the training began, without waiting for others.
        rung: Number of the rung, from 1; None at the end of an epoch that is no rung.
        notes: What the device made necessary, such as a batch in parts; often empty.
        held_out: At the end of a job that is `tested`, the accuracy on the test images, 0..1.
    """

    epoch: float
    loss: float
    accuracy: float
    seconds: float
    rung: int | None = None
    notes: tuple[str, ...] = ()
    held_out: float | None = None


class ProxyTraining:
    """One proxy in training, from report to report.

    The network runs in channels_last and, with a recipe that says so, in bfloat16 (:mod:`nasattn.proxy.precision`). The same
    job on the same machine with the same number of threads gives the same accuracy, also when it was interrupted at a report and resumed from its
    :meth:`state`. Data order, augmentation and the start of shared layers depend on the job's seed alone, so that
    candidates of one seed differ by their placement only.

    Args:
        job: What to train.
        task: The data, at the fidelity's resolution.
        turn: Entered around every step; lets a latency measurement on the same device have it alone.
        test: The test images, for a job that is `tested`.
        checkpoints: Where the plain network that a recipe starts from may lie, and is left for others; None for nowhere.
    """

    def __init__(
        self,
        job: ProxyJob,
        task: Task,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        test: Split | StreamedSplit | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.job, self.turn, self.checkpoints = job, turn, checkpoints
        self.task = task
        self.device = torch.device(job.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        self.model = build_proxy(job, len(task.classes), task.in_chans).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.val = task.train.to(self.device), task.val.to(self.device)
        self.test = test.to(self.device) if test is not None else None
        self.scale = channel_scale(self.train.sample(2000))
        self.batch = min(job.recipe.batch_size, len(self.train))
        self.steps_per_epoch = len(self.train) // self.batch
        self.steps = self.steps_per_epoch * job.fidelity.epochs
        self.marks = job.fidelity.marks(self.steps)
        self.thaw = round(self.steps * job.recipe.frozen_bn) if job.recipe.pretrained else 0
        self.step_once = TrainingStep(self.model, job.recipe, self.steps, self.scale)
        self.done_steps = 0
        self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether every epoch of the fidelity is trained."""
        return self.done_steps >= self.steps

    def step(self) -> TrainingReport:
        """Train to the next mark and validate."""
        if self.done_steps == 0 and self.job.recipe.plain_epochs:
            begin = partial(ProxyTraining, turn=self.turn)
            self.seconds += start_from_plain(self.model, self.job, self.task, begin, self.checkpoints)
        mark = next(m for m in self.marks if m > self.done_steps)
        loss = self.advance(mark)
        rungs = self.job.fidelity.rung_steps(self.steps)
        rung = rungs.index(mark) + 1 if mark in rungs else None
        with self.turn(), self._clock():
            accuracy = self._accuracy(self.val, None if rung else GLANCE) if math.isfinite(loss) else math.nan
            held_out = self._accuracy(self.test) if self.done and self.test is not None and math.isfinite(accuracy) else None
        return TrainingReport(mark / self.steps_per_epoch, loss, accuracy, self.seconds, rung, self.step_once.notes, held_out)

    def advance(self, mark: int) -> float:
        """Train until *mark* of all steps are done, without validation; returns the mean loss of those done now."""
        torch.manual_seed(stream(self.job.seed, self.done_steps, 1))  # for networks that draw, such as by dropout
        self._train_mode()
        total = torch.zeros((), device=self.device)
        begun = ends = self.done_steps
        batches: Iterator[tuple[Tensor, Tensor, Tensor]] = iter(())
        while self.done_steps < mark:
            if self.done_steps >= ends:
                batches, ends = self._epoch(self.done_steps // self.steps_per_epoch)
            with self.turn(), self._clock():
                for _ in range(min(TURN_STEPS[self.device.type], mark - self.done_steps, ends - self.done_steps)):
                    if self.done_steps == self.thaw:
                        self._train_mode()
                        self.step_once.forget_graph()
                    total += self.step_once(self.done_steps, *next(batches))
                    self.done_steps += 1
        return float(total) / (mark - begun)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from the last report: tensors and plain values."""
        own = {"done_steps": self.done_steps, "seconds": self.seconds}
        return own | {"model": self.model.state_dict(), "step": self.step_once.state()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from where a training of the same job gave its :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.step_once.resume(state["step"])
        self.done_steps, self.seconds = state["done_steps"], state["seconds"]

    def _epoch(self, epoch: int) -> tuple[Iterator[tuple[Tensor, Tensor, Tensor]], int]:
        """The batches of epoch number *epoch*, from 0, that are still to come, and the step at which it ends."""
        order, draws = draw_epoch(len(self.train), self.job.recipe, self.job.seed, self.job.recipe.plain_epochs + epoch)
        first = (self.done_steps - epoch * self.steps_per_epoch) * self.batch
        last = self.steps_per_epoch * self.batch
        places = draws[first:last].to(self.device).split(self.batch)
        batches = (
            (images, labels, d) for (images, labels), d in zip(self.train.batches(order[first:last], self.batch), places, strict=True)
        )
        return batches, (epoch + 1) * self.steps_per_epoch

    def _train_mode(self) -> None:
        """Training mode, in which the BatchNorms of pretrained layers keep their statistics until the recipe lets them go."""
        self.model.train()
        if self.done_steps < self.thaw:
            freeze_batch_norms(self.model)

    @torch.no_grad()
    def _accuracy(self, split: Split | StreamedSplit, most: int | None = None) -> float:
        """On all images of *split*, or on every so many that no more than *most* are looked at."""
        self.model.eval()
        right = torch.zeros((), device=self.device)
        chosen = torch.arange(0, len(split), math.ceil(len(split) / (most or len(split))))
        for images, labels in split.batches(chosen, VAL_BATCH[self.device.type]):
            with autocast(self.device, self.job.recipe.precision):
                logits = self.model(prepared(images, self.scale))
            right += (logits.argmax(1) == labels).sum() + 0 * logits.sum()  # NaN where a logit is not finite
        return float(right) / len(chosen)

    def _clock(self) -> AbstractContextManager[None]:
        return _Clock(self)


class _Clock(AbstractContextManager[None]):
    """Adds the seconds inside to a training's own; on CUDA until the device is done."""

    def __init__(self, training: ProxyTraining) -> None:
        self.training = training

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self.training.device.type == "cuda":
            torch.cuda.synchronize(self.training.device)
        self.training.seconds += time.perf_counter() - self.started


def channel_scale(images: Tensor) -> tuple[Tensor, Tensor]:
    """``(factor, shift)``, each ``(C, 1, 1)``: pixel * factor + shift has mean 0 and standard deviation 1 in each channel."""
    pixels = images.float()
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp_min(1.0)
    return (1 / std)[:, None, None], (-mean / std)[:, None, None]
