"""The meter: paired blocks baseline, candidate, candidate, baseline, which cancel linear drift of the machine's speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nasattn.latency.runtime import get_runtime

BLOCK_SECONDS = 0.005  # a block is repeated forwards until it is at least this long, well above the clock's noise
FEWEST_ROUNDS = 6  # below, no pair of order statistics covers the median with 95 %


@dataclass(frozen=True)
class PairedLatency:
    """A candidate's latency against its baseline's.

    Attributes:
        ms: Median of the candidate, milliseconds a batch.
        baseline_ms: Median of the baseline.
        ratio: exp of the median log ratio of the rounds.
        ratio_low: Lower end of the ratio's 95 % interval (order statistics of the median, distribution-free).
        ratio_high: Upper end.
        rounds: Rounds of four blocks.
        settled: The interval's half-width reached the target before the time was over.
    """

    ms: float
    baseline_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    settled: bool


def measure_pair(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    *,
    target: float = 0.02,
    max_seconds: float = 4.0,
    warmup_seconds: float = 0.2,
    clock: Callable[[], float] = time.perf_counter,
) -> PairedLatency:
    """Time two callables against each other.

    Args:
        baseline: Runs once and returns when the work is done (on CUDA: synchronises).
        candidate: Likewise.
        target: Half-width of the log ratio's interval at which to stop.
        max_seconds: Stop after this time, but not before 6 rounds, and only after three times as long while the
            half-width is above five times the target: the machine is doing something else.
        warmup_seconds: How long each runs before it is timed.
        clock: Seconds, monotonic.
    """
    repeats = [max(1, math.ceil(BLOCK_SECONDS / _warm_up(f, warmup_seconds, clock))) for f in (baseline, candidate)]

    def block(which: int) -> float:
        run = (baseline, candidate)[which]
        started = clock()
        for _ in range(repeats[which]):
            run()
        return (clock() - started) / repeats[which]

    rounds: list[tuple[float, float]] = []
    started = clock()
    while True:
        b1, c1, c2, b2 = block(0), block(1), block(1), block(0)
        rounds.append(((b1 + b2) / 2, (c1 + c2) / 2))
        if len(rounds) < FEWEST_ROUNDS:
            continue
        logs = np.sort([math.log(c / b) for b, c in rounds])
        low, high = median_interval(logs)
        half_width = (high - low) / 2
        patience = max_seconds if half_width <= 5 * target else 3 * max_seconds
        if half_width <= target or clock() - started >= patience:
            break
    return PairedLatency(
        ms=float(np.median([c for _, c in rounds])) * 1e3,
        baseline_ms=float(np.median([b for b, _ in rounds])) * 1e3,
        ratio=math.exp(float(np.median(logs))),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        rounds=len(rounds),
        settled=half_width <= target,
    )


def median_interval(ordered: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """The narrowest symmetric pair of order statistics that covers the median with at least 95 %.

    Args:
        ordered: At least 6 values in ascending order.
    """
    n = len(ordered)
    rank, below = 0, 0.5**n
    while 2 * (below + math.comb(n, rank + 1) * 0.5**n) <= 0.05:
        rank += 1
        below += math.comb(n, rank) * 0.5**n
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def _warm_up(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Run for *seconds*, twice at least; returns the shortest time of one run."""
    shortest, started, runs = math.inf, clock(), 0
    while runs < 2 or clock() - started < seconds:
        before = clock()
        run()
        shortest = min(shortest, clock() - before)
        runs += 1
    return max(shortest, 1e-9)


class HostMeter:
    """Measures placements of one host against its plain form, both in the same runtime.

    Args:
        build: Gives the model of a placement: ``build("none,sge_g32,none,none") -> nn.Module``.
        plain: The baseline's placement.
        device: ``cpu`` or ``cuda``.
        batch: Images at once.
        resolution: Side of the images in pixels.
        runtime: What executes the models, such as ``eager`` or ``onnxruntime`` (see :func:`get_runtime`).

    Raises:
        UsageError: Unknown runtime, or one that the device lacks.
        RuntimeFailure: From :meth:`measure`: the runtime cannot execute the placement; it has no latency there.
    """

    def __init__(
        self, build: Callable[[str], nn.Module], plain: str, device: str, batch: int, resolution: int, runtime: str = "eager"
    ) -> None:
        self.build, self.plain, self.device = build, plain, device
        self.runtime = get_runtime(runtime, device)
        self.images = torch.randn(batch, 3, resolution, resolution, device=device)
        self._baseline: Callable[[], object] | None = None

    def measure(self, placement: str, max_seconds: float = 4.0) -> PairedLatency:
        """Measure one placement, for *max_seconds* at most (see :func:`measure_pair`). The baseline itself has ratio 1 by definition."""
        if self._baseline is None:
            self._baseline = self._forward(self.plain)
        if placement == self.plain:
            pair = measure_pair(self._baseline, self._baseline, max_seconds=max_seconds)
            return PairedLatency(pair.baseline_ms, pair.baseline_ms, 1.0, 1.0, 1.0, pair.rounds, True)
        return measure_pair(self._baseline, self._forward(placement), max_seconds=max_seconds)

    def _forward(self, placement: str) -> Callable[[], object]:
        return self.runtime.prepare(self.build(placement), self.images)
