"""Scales of accuracy, and how much of the front's hypervolume a point is expected to add when its cost is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nasattn.front import non_dominated

Floats = npt.NDArray[np.float64]
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(10)
NODES, MASSES = np.asarray(_NODES), np.asarray(_MASSES / _MASSES.sum())


@dataclass(frozen=True)
class Scale:
    """Accuracy as the model sees it: the logarithm of how far it is from the best seen, standardised.

    Accuracies saturate: many points are nearly as good as the best, some are far worse (a network that did not learn). On this
    scale differences among the good are large and the bad are near each other.

    Attributes:
        best: The greatest accuracy seen.
        unit: Distance from it at which the scale turns from linear to logarithmic.
        mean: Of the values before they are standardised.
        sd: Of the same.
    """

    best: float
    unit: float
    mean: float
    sd: float

    @classmethod
    def of(cls, accuracy: Floats) -> Scale:
        """The scale for *accuracy* ``(n,)``."""
        best = float(accuracy.max())
        unit = max(best - float(np.median(accuracy)), 1e-6 * max(abs(best), 1.0))
        raw = -np.log1p((best - accuracy) / unit)
        return cls(best, unit, float(raw.mean()), float(raw.std()) or 1.0)

    def forward(self, accuracy: Floats) -> Floats:
        """To the model's scale."""
        return (-np.log1p(np.maximum((self.best - accuracy) / self.unit, 0)) - self.mean) / self.sd

    def back(self, values: Floats) -> Floats:
        """To accuracies; none is above the best by more than the unit."""
        return self.best - self.unit * np.expm1(np.minimum(-(values * self.sd + self.mean), 50.0))


def _reached(mean: Floats, sd: Floats, scale: Scale) -> Floats:
    """Accuracies at the quadrature's nodes, ``(m, q)``, of points whose values on *scale* are normal."""
    return scale.back(mean[:, None] + sd[:, None] * NODES)


def expected_improvement(mean: Floats, sd: Floats, scale: Scale, best: float) -> Floats:
    """Expected amount by which points exceed the accuracy *best*: ``(m,)``."""
    return np.asarray(np.maximum(_reached(mean, sd, scale) - best, 0) @ MASSES)


def expected_hypervolume(
    mean: Floats, sd: Floats, cost: Floats, scale: Scale, accuracy: Floats, costs: Floats, reference: tuple[float, float]
) -> Floats:
    """Expected gain in hypervolume of points of known cost (arXiv 2006.05078, with one uncertain objective exact to quadrature).

    Args:
        mean: Of the points' values on *scale*, ``(m,)``.
        sd: Their standard deviations, ``(m,)``.
        cost: Their costs, ``(m,)``.
        scale: Of the values.
        accuracy: Of the points known, ``(n,)``.
        costs: Of the same.
        reference: Accuracy and cost up to which hypervolume is counted.

    Returns:
        ``(m,)``.
    """
    low, high = reference
    on_front = non_dominated(accuracy, costs) & (accuracy > low) & (costs < high)
    order = np.argsort(costs[on_front], kind="stable")
    steps, levels = costs[on_front][order], np.concatenate([[low], accuracy[on_front][order]])
    starts, ends = np.concatenate([[-np.inf], steps]), np.concatenate([steps, [high]])
    widths = np.maximum(ends - np.maximum(starts, cost[:, None]), 0)  # (m, s)
    reached = _reached(mean, sd, scale)
    gain = np.zeros(len(mean))
    for width, level in zip(widths.T, levels, strict=True):
        some = width > 0
        gain[some] += width[some] * (np.maximum(reached[some] - level, 0) @ MASSES)
    return gain
