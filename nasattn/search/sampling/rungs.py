"""What the model is told: the accuracies of completed trials, and what stopped ones show of them at the rung they reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nasattn.search.sampling.domain import Ints
from nasattn.search.sampling.history import Floats, History
from nasattn.search.sampling.improvement import Scale

PAIRS = 4  # completed trials that must have passed a rung before it predicts anything
EARLY_NOISE = 1e-6  # variance that accuracies at a rung have at least; without it a rung at which all are alike would say anything


@dataclass(frozen=True)
class Observed:
    """Observations on the model's scale.

    Attributes:
        points: ``(n, d)``; those of completed trials first.
        values: ``(n,)``.
        extra: Their variances beside the noise of an observation, ``(n,)``.
        told: How many are of completed trials.
        kept: Which completed trials those are, ``(told,)``.
    """

    points: Ints
    values: Floats
    extra: Floats
    told: int
    kept: npt.NDArray[np.int64]


def observe(history: History, accuracy: Floats, scale: Scale, most: int) -> Observed:
    """The observations of *history*.

    Args:
        history: With at least one completed trial.
        accuracy: Of its completed trials, ``(n,)``.
        scale: Of the model.
        most: Observations that are kept: the most accurate half, and the latest.
    """
    kept = np.arange(len(accuracy))
    if len(kept) > most:
        best = np.argsort(-accuracy, kind="stable")[: most // 2]
        late = np.setdiff1d(kept, best)[-(most - most // 2) :]
        kept = np.sort(np.concatenate([best, late]))
    values = scale.forward(accuracy)
    rows, expected, variances = [], [], []
    for share in {max(curve) for curve in history.stopped_curves}:
        passed = [(curve[share], v) for curve, v in zip(history.curves, values, strict=True) if share in curve]
        if len(passed) < PAIRS:
            continue
        line = _inverse_line(*np.array(passed).T)
        if line is None:
            continue
        slope, constant, variance = line
        for point, curve in zip(history.stopped, history.stopped_curves, strict=True):
            if max(curve) == share:
                rows.append(point)
                expected.append(constant + slope * curve[share])
                variances.append(variance)
    room = max(most - len(kept), most // 4)
    rows, expected, variances = rows[-room:], expected[-room:], variances[-room:]
    points = np.vstack([history.told[kept], np.array(rows, dtype=np.int64).reshape(-1, history.told.shape[1])])
    extra = np.concatenate([np.zeros(len(kept)), variances])
    return Observed(points, np.concatenate([values[kept], expected]), extra, len(kept), kept)


def _inverse_line(early: Floats, final: Floats) -> tuple[float, float, float] | None:
    """What *early* values, ``(n,)`` each, show of the *final* ones: classical calibration, by the line of *early* against *final*.

    The line of *final* against *early* would give what is to be expected of a final value, which is no observation: the less an
    early value says, the nearer that is to the mean of all, and every promising point would be drawn to it.

    Returns:
        Slope and constant that lead an early value back to a final one, and the variance of that; None where early values do not
        rise with final ones.
    """
    spread = final - final.mean()
    rise = float(spread @ (early - early.mean())) / (float(spread @ spread) + 1e-9)
    if rise <= 0:
        return None
    noise = early - early.mean() - rise * spread
    variance = float(noise @ noise) / max(len(final) - 2, 1) + EARLY_NOISE
    return 1 / rise, float(final.mean() - early.mean() / rise), variance / rise**2 + 1e-3
