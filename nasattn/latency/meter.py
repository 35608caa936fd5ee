"""The meter: paired blocks baseline, candidate, candidate, baseline, which cancel linear drift of the machine's speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

BLOCK_SECONDS = 0.005  # a block is repeated forwards until it is at least this long, well above the clock's noise
FEWEST_ROUNDS = 6  # below, no pair of order statistics covers the median with 95 %
LOOKS = 1.2  # the interval is looked at when the rounds have grown by this factor: looking at each would stop on a lucky one
SETTLED = 0.98  # warm-up ends when the median of the last runs is at least this share of the median of those before
WINDOW = 3  # runs in that median


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
        ms_p90: 90th percentile of the candidate's blocks, milliseconds a batch.
        baseline_ms_p90: Of the baseline's.
        device_ms: On CUDA: median time that the candidate's work takes on the GPU, by its own clock.
        baseline_device_ms: Of the baseline's.
        calibration: Log ratio of the baseline against its clone in the same run of the meter; the interval is at least that wide.
        contention: What else used the device meanwhile, or put equal models apart before, in one line; None when nothing did.
    """

    ms: float
    baseline_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    settled: bool
    ms_p90: float | None = None
    baseline_ms_p90: float | None = None
    device_ms: float | None = None
    baseline_device_ms: float | None = None
    calibration: float | None = None
    contention: str | None = None


@dataclass
class Samples:
    """The durations of the blocks of a measurement, in seconds a run, in the order of the rounds."""

    baseline: list[float] = field(default_factory=list)
    candidate: list[float] = field(default_factory=list)


def measure_pair(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    *,
    target: float = 0.01,
    max_seconds: float = 10.0,
    warmup_seconds: float = 0.5,
    patience: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    samples: Samples | None = None,
) -> PairedLatency:
    """Time two callables against each other.

    Args:
        baseline: Runs once and returns when the work is done (on CUDA: synchronises).
        candidate: Likewise.
        target: Half-width of the log ratio's interval at which to stop.
        max_seconds: Stop after this time, but not before 6 rounds.
        patience: Go on for so many times *max_seconds* while the half-width is above five times the target: the machine is
            doing something else.
        warmup_seconds: How long each runs at most before it is timed; it ends earlier when the runs get no faster.
        clock: Seconds, monotonic.
        samples: Receives every block's duration.
    """
    samples = Samples() if samples is None else samples
    repeats = [max(1, math.ceil(BLOCK_SECONDS / _warm_up(f, warmup_seconds, clock))) for f in (baseline, candidate)]

    def block(which: int) -> float:
        run = (baseline, candidate)[which]
        started = clock()
        for _ in range(repeats[which]):
            run()
        return (clock() - started) / repeats[which]

    logs: list[float] = []
    look, started = FEWEST_ROUNDS, clock()
    while True:
        b1, c1, c2, b2 = block(0), block(1), block(1), block(0)
        samples.baseline += [b1, b2]
        samples.candidate += [c1, c2]
        logs.append(math.log((c1 + c2) / (b1 + b2)))
        elapsed = clock() - started
        if len(logs) < FEWEST_ROUNDS or (len(logs) < look and elapsed < max_seconds):
            continue
        look = max(look, math.ceil(LOOKS * len(logs)))
        low, high = median_interval(np.sort(logs))
        half_width = (high - low) / 2
        if half_width <= target or elapsed >= (max_seconds if half_width <= 5 * target else patience * max_seconds):
            break
    (ms, ms_p90), (baseline_ms, baseline_ms_p90) = (np.percentile(s, [50, 90]) * 1e3 for s in (samples.candidate, samples.baseline))
    return PairedLatency(
        ms=float(ms),
        baseline_ms=float(baseline_ms),
        ratio=math.exp(float(np.median(logs))),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        rounds=len(logs),
        settled=half_width <= target,
        ms_p90=float(ms_p90),
        baseline_ms_p90=float(baseline_ms_p90),
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
    """Run until the moving median of the durations settles, for *seconds* at most but twice at least; returns the shortest."""
    times: list[float] = []
    started = clock()
    while len(times) < 2 or clock() - started < seconds:
        before = clock()
        run()
        times.append(clock() - before)
        long_enough = sum(times) >= min(seconds, 10 * BLOCK_SECONDS)
        if long_enough and len(times) >= 2 * WINDOW and _median(times[-WINDOW:]) >= SETTLED * _median(times[-2 * WINDOW : -WINDOW]):
            break
    return max(min(times), 1e-9)


def _median(values: list[float]) -> float:
    return float(np.median(values))
