"""The meter under a clock that runs as told: ratios are exact, drift cancels, and it stops when it should."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from nasattn.latency import PairedLatency, measure_pair
from nasattn.latency.meter import median_interval

Cost = Callable[[int], float]


class Machine:
    """A machine on which a run takes the seconds that *costs* say, given how many ran before; it carries its own clock."""

    def __init__(self, baseline: Cost, candidate: Cost) -> None:
        self.now, self.runs = 0.0, 0
        self.baseline, self.candidate = self._run(baseline), self._run(candidate)

    def _run(self, cost: Cost) -> Callable[[], None]:
        def run() -> None:
            self.now += cost(self.runs)
            self.runs += 1

        return run

    def measure(self, **limits: float) -> PairedLatency:
        return measure_pair(self.baseline, self.candidate, clock=lambda: self.now, **limits)


def constant(seconds: float) -> Cost:
    return lambda _: seconds


@pytest.mark.parametrize(("baseline", "candidate"), [(0.010, 0.013), (0.0007, 0.0021), (0.02, 0.004), (3.0, 3.0), (0.00003, 0.05)])
def test_a_steady_machine_gives_the_exact_ratio(baseline: float, candidate: float) -> None:
    pair = Machine(constant(baseline), constant(candidate)).measure()
    assert pair.ratio == pytest.approx(candidate / baseline)
    assert (pair.ratio_low, pair.ratio_high) == pytest.approx((pair.ratio, pair.ratio))
    assert (pair.ms, pair.baseline_ms) == pytest.approx((candidate * 1e3, baseline * 1e3))
    assert (pair.rounds, pair.settled) == (6, True)


def test_linear_drift_cancels() -> None:
    """A machine that grows 1 % slower with every run: the order baseline, candidate, candidate, baseline removes it."""
    pair = Machine(lambda run: 0.1 * (1 + 0.01 * run), lambda run: 0.12 * (1 + 0.01 * run)).measure(warmup_seconds=0)
    assert pair.ratio == pytest.approx(1.2, rel=1e-12)
    assert pair.settled and pair.ratio_low == pytest.approx(pair.ratio_high)
    assert pair.baseline_ms > 100  # the absolute time does not escape the drift


def test_at_least_six_rounds_however_slow() -> None:
    machine = Machine(constant(10.0), constant(20.0))
    assert machine.measure(max_seconds=1, warmup_seconds=1).rounds == 6
    assert machine.runs == 2 + 2 + 6 * 4


@pytest.mark.parametrize(("noise", "seconds"), [(0.15, 2.0), (1.0, 6.0)], ids=["noisy", "very noisy"])
def test_a_noisy_machine_is_given_up_at_the_time_limit(noise: float, seconds: float) -> None:
    """And one so noisy that it must be doing something else at three times the limit."""
    rng = random.Random(0)
    machine = Machine(constant(0.01), lambda _: 0.01 * math.exp(rng.gauss(0, noise)))
    pair = machine.measure(max_seconds=2.0, warmup_seconds=0)
    assert not pair.settled
    assert pair.rounds > 6
    assert seconds < machine.now < seconds + 0.5
    assert pair.ratio_low < pair.ratio < pair.ratio_high


def test_it_goes_on_until_the_interval_is_narrow() -> None:
    rng = random.Random(0)
    pair = Machine(constant(0.01), lambda _: 0.012 * math.exp(rng.gauss(0, 0.05))).measure(target=0.02, max_seconds=60)
    assert pair.settled and pair.rounds > 6
    assert math.log(pair.ratio_high / pair.ratio_low) / 2 <= 0.02
    assert pair.ratio_low < 1.2 < pair.ratio_high


def test_a_wider_target_takes_fewer_rounds() -> None:
    def rounds(target: float) -> int:
        rng = random.Random(1)
        return Machine(constant(0.01), lambda _: 0.012 * math.exp(rng.gauss(0, 0.05))).measure(target=target, max_seconds=600).rounds

    assert rounds(0.08) <= rounds(0.03) < rounds(0.01)


def test_one_slow_round_does_not_move_the_ratio() -> None:
    pair = Machine(constant(0.01), lambda run: 0.5 if run == 60 else 0.011).measure(warmup_seconds=0.2)
    assert pair.ratio == pytest.approx(1.1)


@pytest.mark.parametrize("n", range(6, 41))
def test_the_interval_covers_the_median_with_95_percent(n: int) -> None:
    """Between the k-th smallest and the k-th largest of n values the median lies unless fewer than k fall on one side."""
    low, high = median_interval(np.arange(n, dtype=np.float64))
    rank = int(low)
    assert high == n - 1 - rank
    assert 1 - 2 * binom.cdf(rank, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank + 1, n, 0.5) < 0.95  # the next narrower pair would not


@pytest.mark.parametrize("spikes", [0.0, 0.05], ids=["steady", "with slow spells"])
@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_the_interval_holds_the_truth_as_often_as_it_says(noise: float, spikes: float) -> None:
    """Looking at the interval again and again until it is narrow would spoil it, if it were looked at after every round."""

    def covers(seed: int) -> bool:
        rng = random.Random(seed)

        def cost(seconds: float) -> Cost:
            return lambda _: seconds * math.exp(rng.gauss(0, noise) + (rng.expovariate(3) if rng.random() < spikes else 0))

        pair = Machine(cost(0.05), cost(0.055)).measure(warmup_seconds=0)
        return pair.ratio_low <= 1.1 <= pair.ratio_high

    assert sum(map(covers, range(200))) >= 185
