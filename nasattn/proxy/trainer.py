"""Training one proxy: a reduced host with a placement, on a task that is resident on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.hosts import get_host
from nasattn.proxy.fidelity import Fidelity, Recipe
from nasattn.tasks import Task

VAL_BATCH = 500


@dataclass(frozen=True)
class ProxyJob:
    """What is trained.

    Attributes:
        host: Name of a host.
        placement: At full width; the proxy carries it scaled (see :meth:`Host.proxy_placement`).
        fidelity: How far the host is reduced.
        recipe: How it is trained.
        seed: Governs initialisation and data order.
        device: ``cpu`` or ``cuda``.
    """

    host: str
    placement: str
    fidelity: Fidelity
    recipe: Recipe
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave.

    Attributes:
        epoch: Counted from 1.
        loss: Mean training loss of the epoch.
        accuracy: On the validation images, 0..1. NaN when the loss is not finite.
        seconds: Since the training began, without waiting for others.
    """

    epoch: int
    loss: float
    accuracy: float
    seconds: float


def build_proxy(job: ProxyJob, num_classes: int, in_chans: int = 3) -> nn.Module:
    """The proxy network of *job*: ``(B, in_chans, R, R) -> (B, num_classes)``, initialised from the job's seed.

    Raises:
        TokenError: The placement does not fit the host or its proxy.
    """
    host, fidelity = get_host(job.host), job.fidelity
    host.placement(job.placement)  # reads the host's structure now, so that nothing draws random numbers in between
    torch.manual_seed(job.seed)
    return host.build_proxy(
        job.placement,
        width=fidelity.width,
        blocks=fidelity.blocks,
        stem_stride=fidelity.stem_stride,
        num_classes=num_classes,
        in_chans=in_chans,
    )


class ProxyTraining:
    """One proxy in training, an epoch at a time.

    The network runs in channels_last, in float32 on CPU and in bfloat16 autocast on CUDA. The same job on the same machine with
    the same number of threads gives the same accuracy.

    Args:
        job: What to train.
        task: The data, at the fidelity's resolution.
        turn: Entered around every step; lets a latency measurement on the same device have it alone.
    """

    def __init__(self, job: ProxyJob, task: Task, turn: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.job, self.turn = job, turn
        self.device = torch.device(job.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        self.model = build_proxy(job, len(task.classes), task.in_chans).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train_images, self.train_labels = task.train.images.to(self.device), task.train.labels.to(self.device)
        self.val_images, self.val_labels = task.val.images.to(self.device), task.val.labels.to(self.device)
        self.mean, self.std = _channel_statistics(self.train_images)
        self.batch = min(job.recipe.batch_size, len(self.train_labels))
        self.steps = len(self.train_labels) // self.batch
        recipe = job.recipe
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        total = self.steps * job.fidelity.epochs
        warmup = recipe.warmup * 1.001 if recipe.warmup * total == 1 else recipe.warmup  # OneCycleLR divides by zero at exactly one step
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, recipe.lr, total_steps=total, pct_start=warmup)
        self.order = torch.Generator().manual_seed(job.seed)
        self.epoch = 0
        self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether every epoch of the fidelity is trained."""
        return self.epoch >= self.job.fidelity.epochs

    def step(self) -> EpochReport:
        """Train one epoch and validate."""
        self.model.train()
        order = torch.randperm(len(self.train_labels), generator=self.order).to(self.device)
        total = torch.zeros((), device=self.device)
        for step in range(self.steps):
            with self.turn():
                started = time.perf_counter()
                total += self._train_step(order[step * self.batch : (step + 1) * self.batch])
                self.seconds += time.perf_counter() - started
        loss = float(total) / self.steps
        with self.turn():
            started = time.perf_counter()
            accuracy = self._validate() if math.isfinite(loss) else math.nan
            self.seconds += time.perf_counter() - started
        self.epoch += 1
        return EpochReport(self.epoch, loss, accuracy, self.seconds)

    def _train_step(self, index: Tensor) -> Tensor:
        images = self._prepare(self.train_images[index])
        if self.job.recipe.flip:
            mirrored = torch.rand(len(index), generator=self.order) < 0.5
            images = torch.where(mirrored.to(self.device)[:, None, None, None], images.flip(3), images)
        with self._autocast():
            loss = F.cross_entropy(self.model(images), self.train_labels[index], label_smoothing=self.job.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.eval()
        right = torch.zeros((), device=self.device)
        for images, labels in zip(self.val_images.split(VAL_BATCH), self.val_labels.split(VAL_BATCH), strict=True):
            with self._autocast():
                logits = self.model(self._prepare(images))
            right += (logits.argmax(1) == labels).sum() + 0 * logits.sum()  # NaN where a logit is not finite
        return float(right) / len(self.val_labels)

    def _prepare(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the first images, ``(C, 1, 1)``."""
    sample = images[:2000].float()
    return sample.mean((0, 2, 3))[:, None, None], sample.std((0, 2, 3)).clamp_min(1.0)[:, None, None]
