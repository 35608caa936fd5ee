"""The contention guard: what it says of told clocks and samples, and that real foreign work is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

import nasattn.latency.contention as contention
from nasattn.latency import Deployment
from nasattn.latency.contention import ContentionGuard

STEADY = [[0.010] * 20, [0.012] * 20]
Verdict = Callable[..., str | None]


@dataclass(frozen=True)
class Told:
    """Clocks that show what a test says; in place of those of the machine."""

    wall: float = 0.0
    own: float = 0.0
    thread: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """``verdict(cores, threads, samples, wall=..., own=..., ...)``: of a measurement during which the clocks advanced so much."""

    def judge(cores: int, threads: int, samples: list[list[float]] = STEADY, **advanced: float) -> str | None:
        start = Told(1000.0, 50.0, 40.0, 9000.0, 3.0)
        end = replace(start, **{name: getattr(start, name) + seconds for name, seconds in advanced.items()})
        shown = iter([start, end])
        monkeypatch.setattr(contention, "_Clocks", lambda: next(shown))
        monkeypatch.setattr(contention, "_cores", lambda: set(range(cores)))
        return ContentionGuard(Deployment(threads=threads)).verdict(samples)

    return judge


ALONE = {"wall": 10.0, "own": 10.0, "thread": 10.0, "busy": 10.0}  # ten seconds of one thread, and nothing else


def test_nothing_else_ran(verdict: Verdict) -> None:
    assert verdict(2, 1, **ALONE) is None
    assert verdict(1, 1, **ALONE) is None
    assert verdict(2, 2, **ALONE | {"own": 20.0, "busy": 20.0}) is None


def test_others_may_use_the_cores_that_the_measurement_does_not_need(verdict: Verdict) -> None:
    assert verdict(2, 1, **ALONE | {"busy": 20.0}) is None  # one of two cores
    assert verdict(8, 1, **ALONE | {"busy": 80.0}) is None  # seven of eight


@pytest.mark.parametrize(
    ("cores", "threads", "busy", "text"),
    [
        (2, 2, 22.0, "other processes used 1.2 of 2 cores, of which the measurement needs 2"),
        (2, 2, 12.0, "other processes used 0.2 of 2 cores, of which the measurement needs 2"),
        (1, 1, 11.0, "other processes used 0.1 of 1 cores, of which the measurement needs 1"),
        (2, 1, 22.0, "other processes used 1.2 of 2 cores, of which the measurement needs 1"),
        (8, 4, 56.0, "other processes used 4.6 of 8 cores, of which the measurement needs 4"),
        (2, 5, 20.0, "other processes used 1.0 of 2 cores, of which the measurement needs 2"),  # it cannot have more than there are
    ],
)
def test_foreign_load_on_the_cores_that_it_needs(verdict: Verdict, cores: int, threads: int, busy: float, text: str) -> None:
    assert verdict(cores, threads, **ALONE | {"busy": busy}) == text


def test_a_little_foreign_load_is_always_there(verdict: Verdict) -> None:
    assert verdict(2, 2, **ALONE | {"own": 20.0, "busy": 20.9}) is None  # within 5 % of the cores
    assert verdict(2, 2, **ALONE | {"own": 20.0, "busy": 21.1}) is not None


def test_time_that_the_machines_host_took(verdict: Verdict) -> None:
    assert verdict(2, 1, **ALONE, stolen=0.4) is None
    assert verdict(2, 1, **ALONE, stolen=1.2) == "the machine's host took 12% of a core"


def test_a_thread_that_waited_for_a_core(verdict: Verdict) -> None:
    assert verdict(2, 1, **ALONE | {"own": 9.6, "thread": 9.6, "busy": 20.0}) is None
    told = verdict(2, 1, **ALONE | {"own": 7.0, "thread": 7.0, "busy": 17.0})
    assert told == "the measurement waited for a core 30% of the time"


def test_several_threads_wait_for_each_other(verdict: Verdict) -> None:
    """So only a measurement of one thread is blamed for waiting."""
    assert verdict(4, 2, **ALONE | {"own": 14.0, "thread": 7.0, "busy": 14.0}) is None


@pytest.mark.parametrize("side", [0, 1])
def test_slow_samples_on_either_side(verdict: Verdict, side: int) -> None:
    """Beyond twice the shortest of its own side a sample is slow; a tenth of them may be."""
    samples = [[0.010] * 20, [0.050] * 20]
    samples[side][3:5] = [0.5, 0.5]
    assert verdict(2, 1, samples, **ALONE) is None
    samples[side][7] = 0.5
    assert verdict(2, 1, samples, **ALONE) == "15% of the samples took more than twice the shortest"


def test_twice_the_shortest_is_not_slow(verdict: Verdict) -> None:
    assert verdict(2, 1, [[1.0] + [2.0] * 9, [1.0] * 10], **ALONE) is None


def test_everything_at_once_is_one_line(verdict: Verdict) -> None:
    told = verdict(2, 1, [[1.0] + [3.0] * 9, [1.0] * 10], wall=10.0, own=5.0, thread=5.0, busy=20.0, stolen=1.0)
    assert told == (
        "other processes used 1.5 of 2 cores, of which the measurement needs 1; the machine's host took 10% of a core; "
        "the measurement waited for a core 50% of the time; 90% of the samples took more than twice the shortest"
    )


def test_a_measurement_of_no_time_is_judged_too(verdict: Verdict) -> None:
    assert verdict(2, 1, [[0.01], [0.01]]) == "the measurement waited for a core 100% of the time"


def test_real_samples_are_judged_without_told_clocks() -> None:
    guard = ContentionGuard(Deployment())
    told = guard.verdict([[1.0] + [3.0] * 9, [1.0] * 10])
    assert told is not None and told.endswith("90% of the samples took more than twice the shortest")


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Another process works without a pause on every core that this one may use."""
    work = "print(flush=True)\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", work], stdout=subprocess.PIPE) for _ in cores()]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the system does not say what its cores do")
def test_real_foreign_work_is_noticed(busy_machine: None) -> None:
    guard = ContentionGuard(Deployment(threads=len(cores())))
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        pass
    told = guard.verdict(STEADY)
    assert told is not None
    assert f"of {len(cores())} cores, of which the measurement needs {len(cores())}" in told


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the system does not say what its cores do")
def test_own_work_is_not_foreign() -> None:
    """A process of its own works half a second: its clocks advance together."""
    before = contention._Clocks()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    after = contention._Clocks()
    assert after.thread - before.thread == pytest.approx(0.3, abs=0.1)
    assert after.own - before.own >= 0.3
    assert after.busy - before.busy >= 0.2  # ticks of a hundredth of a second
    assert after.wall - before.wall >= 0.3 and after.stolen >= before.stolen
