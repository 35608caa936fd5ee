"""Meters of a host: whole placements, or one stage at a time, in one runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from nasattn.attention import Attention, Placement
from nasattn.errors import NasattnError
from nasattn.latency.contention import ContentionGuard
from nasattn.latency.deployment import Deployment
from nasattn.latency.meter import PairedLatency, Samples, measure_pair
from nasattn.latency.runtime import Forward, RuntimeFailure, get_runtime

if TYPE_CHECKING:
    from nasattn.hosts import Host

DEVICE_RUNS = 20  # timed by CUDA events
HARMLESS = 0.01  # log ratio that equal models may show though something else used the device


class HostMeter:
    """Measures placements, and stages, of one host against their plain form.

    Models are built and prepared (which for some runtimes takes many seconds) while the device is free for others; only
    the timing itself has it alone.

    Args:
        host: The host.
        deployment: How its models are run.
        alone: Gives a context in which nothing else of ours runs on the device (see :meth:`DeviceLease.alone`).
        calibration_seconds: How long the plain host is measured against its clone at most.

    Raises:
        RuntimeFailure: From every measurement: the runtime cannot execute one of the two; there is no latency then.
    """

    def __init__(
        self,
        host: Host,
        deployment: Deployment,
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
        calibration_seconds: float = 5.0,
    ) -> None:
        self.host, self.alone, self.calibration_seconds = host, alone, calibration_seconds
        self.deployment = deployment.at(host.resolution)
        self.runtime = get_runtime(deployment.runtime, deployment.device)
        self.images = self.deployment.images()
        self._plain_stages: dict[int, Forward] = {}
        self._uses, self._most_uses = 0, 1  # of a calibration that was disturbed

    def measure(self, placement: Placement, max_seconds: float = 10.0, target: float = 0.01) -> PairedLatency:
        """Measure a whole placement, for *max_seconds* at most (see :func:`measure_pair`). The plain host has ratio 1 by definition."""
        if placement == self.host.plain():
            if "calibration" in vars(self):
                pair = self._measure(self._plain, self._plain, max_seconds, target)
            else:  # the plain host is measured just now
                pair = replace(self.calibration, calibration=math.log(self.calibration.ratio))
            return replace(pair, ratio=1.0, ratio_low=1.0, ratio_high=1.0, settled=True)
        return self._measure(self._plain, self._prepare(self.host.build(placement), self.images), max_seconds, target)

    def measure_stage(self, stage: int, attention: Attention, max_seconds: float = 1.5, target: float = 0.01) -> PairedLatency:
        """Measure stage number *stage*, from 1, with *attention* against the plain stage; for ``none`` the plain stage against the host."""
        if attention.form == "none":
            return self._measure(self._plain, self._plain_stage(stage), max_seconds, target, patience=1.0)
        return self._measure(self._plain_stage(stage), self._prepare_stage(stage, attention), max_seconds, target, patience=1.0)

    @cached_property
    def calibration(self) -> PairedLatency:
        """The plain host against a clone of itself: how far from 1 this run of the meter puts equal things.

        Where they were put apart because something else used the device, it is taken anew after 1, 2, 4 and so on measurements.
        """
        clone = self._prepare(self.host.build(self.host.plain()), self.images)
        return self._time(self._plain, clone, self.calibration_seconds, target=0.005)

    def _measure(self, baseline: Forward, candidate: Forward, max_seconds: float, target: float, patience: float = 3.0) -> PairedLatency:
        """Time two prepared models; the interval is never narrower than what equal models showed, and as disturbed as that was."""
        disturbed = self._renew_disturbed()
        calibration = math.log(self.calibration.ratio)
        pair = self._time(baseline, candidate, max_seconds, target, patience)
        return replace(
            pair,
            ratio_low=min(pair.ratio_low, pair.ratio * math.exp(-abs(calibration))),
            ratio_high=max(pair.ratio_high, pair.ratio * math.exp(abs(calibration))),
            calibration=calibration,
            contention=pair.contention or disturbed,
        )

    def _renew_disturbed(self) -> str | None:
        """Forget a disturbed calibration, which leaves every interval wide, once it was used often enough. Returns what disturbs the one there is now."""
        if not self._disturbed:
            return None
        if self._uses == self._most_uses:
            del self.calibration
            self._uses, self._most_uses = 0, 2 * self._most_uses
        self._uses += 1
        return self._disturbed

    @property
    def _disturbed(self) -> str | None:
        """What put equal models apart, in one line; None where nothing did."""
        harmless = abs(math.log(self.calibration.ratio)) <= HARMLESS
        return None if harmless or not self.calibration.contention else f"while equal models were compared {self.calibration.contention}"

    def _time(self, baseline: Forward, candidate: Forward, max_seconds: float, target: float, patience: float = 3.0) -> PairedLatency:
        with self.alone(), self.deployment.applied():
            guard, samples = ContentionGuard(self.deployment), Samples()
            warmup = min(0.5, max_seconds / 8)
            try:
                pair = measure_pair(
                    baseline,
                    candidate,
                    target=target,
                    max_seconds=max_seconds,
                    warmup_seconds=warmup,
                    patience=patience,
                    samples=samples,
                )
            except (RuntimeError, MemoryError) as error:  # it ran once; now there is no memory left, for instance
                cause = str(error).strip().partition("\n")[0] or "no message"
                raise RuntimeFailure(
                    f"runtime {self.runtime.name!r} failed during the measurement: {type(error).__name__}: {cause}"
                ) from error
            contention = guard.verdict([samples.baseline, samples.candidate])
            on_device = [device_ms(f) for f in (candidate, baseline)] if self.deployment.device == "cuda" else [None, None]
        return replace(pair, contention=contention, device_ms=on_device[0], baseline_device_ms=on_device[1])

    @cached_property
    def _plain(self) -> Forward:
        return self._prepare(self.host.build(self.host.plain()), self.images)

    def _plain_stage(self, stage: int) -> Forward:
        if stage not in self._plain_stages:
            self._plain_stages[stage] = self._prepare_stage(stage, Attention.parse("none"))
        return self._plain_stages[stage]

    def _prepare_stage(self, stage: int, attention: Attention) -> Forward:
        return self._prepare(self.host.stage_of(self._native, stage, attention), self._stage_inputs[stage - 1])

    @cached_property
    def _native(self) -> nn.Module:
        return self.host.build(self.host.native)

    @cached_property
    def _stage_inputs(self) -> list[Tensor]:
        """What the first block of each stage of the plain host is given."""
        layout = torch.channels_last if self.deployment.channels_last else torch.contiguous_format
        model = self.host.build(self.host.plain()).to(self.images.device, self.images.dtype).to(memory_format=layout).eval()
        return stage_inputs(model, self.host.stage_blocks(model), self.images, self.host.name)

    def _prepare(self, model: nn.Module, images: Tensor) -> Forward:
        with self.deployment.applied():
            return self.runtime.prepare(model, images, channels_last=self.deployment.channels_last)


def stage_inputs(model: nn.Module, stages: Sequence[Sequence[nn.Module]], images: Tensor, name: str) -> list[Tensor]:
    """The input of each stage's first block when *model* runs on *images*.

    Raises:
        NasattnError: The blocks of a stage do not simply follow one another, so that the stage cannot be run by itself.
    """
    calls: dict[nn.Module, tuple[tuple[object, ...], dict[str, object], object]] = {}
    hooks = [
        block.register_forward_hook(
            lambda module, args, kwargs, output: calls.__setitem__(module, (args, kwargs, output)), with_kwargs=True
        )
        for blocks in stages
        for block in blocks
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    for number, blocks in enumerate(stages, start=1):
        for before, block in zip([None, *blocks], blocks, strict=False):
            args, kwargs, _ = calls.get(block, ((), {}, None))
            follows = before is None or (before in calls and args and args[0] is calls[before][2])
            if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or not follows:
                raise NasattnError(f"stage {number} of {name} cannot be run by itself: its blocks do not take each other's output alone")
    inputs = [calls[blocks[0]][0][0] for blocks in stages]
    return [x.clone() for x in inputs if isinstance(x, Tensor)]


def device_ms(run: Forward) -> float:
    """Median time of one *run* on the current GPU by its own clock, in milliseconds."""
    times = []
    for _ in range(DEVICE_RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(np.median(times))
