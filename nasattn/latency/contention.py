"""The contention guard: what else used the device while it was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from nasattn.latency.deployment import Deployment
from nasattn.latency.key import read_gpu

WAITED = 0.05  # share of a measurement's time for which its thread may wait for a core
SLOW, SLOW_SHARE = 2.0, 0.1  # a sample beyond twice the shortest is slow; so many of them may be
IDLE_GPU = 10  # percent of utilisation that a GPU may show before a measurement begins
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# of nvidia-smi's clocks_event_reasons.active: software power cap, hardware slowdown, software and hardware thermal slowdown, power brake
THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


class ContentionGuard:
    """Watches the machine during a measurement, from construction to :meth:`verdict`.

    Args:
        deployment: What is measured.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.gpu = read_gpu("utilization.gpu") if deployment.device == "cuda" else {}
        self.started = _Clocks()

    def verdict(self, samples: Sequence[Sequence[float]]) -> str | None:
        """What disturbed the measurement, in one line; None when nothing did.

        Args:
            samples: The durations of the blocks of each side.
        """
        now, cores = _Clocks(), len(_cores())
        wall = max(now.wall - self.started.wall, 1e-9)
        foreign = ((now.busy - self.started.busy) - (now.own - self.started.own)) / wall
        stolen = (now.stolen - self.started.stolen) / wall
        threads = min(self.deployment.threads, cores)
        waited = 1 - (now.thread - self.started.thread) / wall
        slow = max(sum(t > SLOW * min(side) for t in side) / len(side) for side in samples)
        found = []
        if foreign > cores - threads + WAITED * cores:
            found.append(f"other processes used {foreign:.1f} of {cores} cores, of which the measurement needs {threads}")
        if stolen > WAITED:
            found.append(f"the machine's host took {stolen:.0%} of a core")
        if self.deployment.device == "cpu" and self.deployment.threads == 1 and waited > WAITED:
            found.append(f"the measurement waited for a core {waited:.0%} of the time")
        if slow > SLOW_SHARE:
            found.append(f"{slow:.0%} of the samples took more than twice the shortest")
        return "; ".join([*found, *self._gpu_problems()]) or None

    def _gpu_problems(self) -> list[str]:
        if not self.gpu:
            return []
        found = []
        if self.gpu["utilization.gpu"].isdigit() and int(self.gpu["utilization.gpu"]) > IDLE_GPU:
            found.append(f"the GPU was {self.gpu['utilization.gpu']} % busy before")
        reasons = read_gpu("clocks_event_reasons.active") or read_gpu("clocks_throttle_reasons.active")
        active = next(iter(reasons.values()), "")
        if active.startswith("0x") and int(active, 16) & THROTTLED:
            found.append(f"the GPU slowed its clocks (reasons {active})")
        return found


class _Clocks:
    """Seconds used so far: by this machine's cores, by this process and thread, and taken by the machine's host."""

    def __init__(self) -> None:
        self.wall, self.own, self.thread = time.perf_counter(), time.process_time(), time.thread_time()
        self.busy, self.stolen = _machine_times()


def _machine_times() -> tuple[float, float]:
    """``(busy, stolen)`` core-seconds of the cores that this process may use; zeros where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return time.process_time(), 0.0
    names = {f"cpu{n}" for n in _cores()}
    lines = [line.split() for line in stat.read_text().splitlines()]
    rows = [[int(ticks) for ticks in line[1:]] for line in lines if line and line[0] in names]
    busy = sum(user + nice + system + irq + softirq for user, nice, system, _, _, irq, softirq, *_ in rows)
    stolen = sum(row[7] for row in rows if len(row) > 7)
    return busy / TICKS, stolen / TICKS


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
