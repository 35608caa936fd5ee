"""What trials that stand at a rung tell the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasattn.search.sampling.history import History
from nasattn.search.sampling.improvement import Scale
from nasattn.search.sampling.model import Posterior, Weights
from nasattn.search.sampling.rungs import Observed, observe

FINAL = np.linspace(0.5, 0.9, 12)


def history(early: np.ndarray, stopped: list[float]) -> History:
    """Completed trials of FINAL accuracies with *early* ones at half of their training, and *stopped* trials that came to these there."""
    points = np.arange(len(FINAL) + len(stopped))[:, None]
    told, waiting = points[: len(FINAL)], points[len(FINAL) :]
    curves = tuple({0.5: a, 1.0: f} for a, f in zip(early, FINAL, strict=True))
    return History(told, -FINAL[:, None], curves, waiting, tuple({0.5: a} for a in stopped), points[:0], frozenset(), len(points))


def told_of(early: np.ndarray, stopped: list[float]) -> Observed:
    return observe(history(early, stopped), FINAL, Scale.of(FINAL), 100)


def drawn(observed: Observed, expected: float) -> float:
    """How far the last observation draws the model from what it *expected* of that point, on its scale."""
    prior = {"a": np.ones((1, 1))}
    posterior = Posterior.of(prior, observed.values[-1:] - expected, observed.extra[-1:], Weights({"a": 1.0}, 0.0))
    return abs(float(posterior.mean(prior)[0]))


def test_a_rung_that_foretells_the_end_counts_as_the_end() -> None:
    scale = Scale.of(FINAL)
    observed = told_of(0.1 + 0.2 * scale.forward(FINAL), [0.1 + 0.2 * float(scale.forward(np.array([0.85]))[0])])
    assert scale.back(observed.values[-1:]) == pytest.approx([0.85], abs=1e-3)
    assert observed.extra[-1] == pytest.approx(1e-3, rel=0.1)


def test_the_less_a_rung_says_the_less_it_counts() -> None:
    """What the model expects of a promising point stays, whatever a rung says that has nothing to do with the end."""
    noise = np.random.default_rng(0).normal(size=len(FINAL))
    noise -= noise.mean()
    final = Scale.of(FINAL).forward(FINAL)
    along = final - final.mean()
    noise -= along * (noise @ along) / (along @ along)
    expected, told = 1.5, []  # on the model's scale, a standard deviation and a half above the mean
    for share in (1.0, 0.5, 0.1, 0.01):
        early = share * along / along.std() + (1 - share) * noise / noise.std()
        told.append(drawn(told_of(early, [float(early.mean())]), expected))
    assert told == sorted(told, reverse=True)
    assert told[0] > 1 and told[-1] < 0.01


def test_a_rung_that_says_the_opposite_is_not_counted() -> None:
    observed = told_of(1 - FINAL, [0.2, 0.4])
    assert observed.told == len(observed.points) == len(FINAL)


def test_a_rung_at_which_all_are_alike_is_no_measure() -> None:
    """As where nothing has learnt yet: what is left between accuracies is rounding, which must not count as a scale for the one that differs."""
    early = np.full(len(FINAL), 0.1)
    early[-1] = np.nextafter(0.1, 1)
    assert drawn(told_of(early, [0.2]), 1.5) < 1e-6


def test_few_completed_trials_say_nothing_of_a_rung() -> None:
    few = history(FINAL, [0.7])
    few = replace(few, told=few.told[:3], values=few.values[:3], curves=few.curves[:3])
    assert len(observe(few, FINAL[:3], Scale.of(FINAL[:3]), 100).points) == 3
